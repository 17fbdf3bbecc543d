"""Prompt versions: records, numbers and errors."""

from __future__ import annotations

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import NotFoundError
from tests.catalog.samples import AT, BASE, ROWS, a_candidate, a_task, learn


def test_a_published_version_has_all_that_it_was_admitted_with(catalog: Catalog) -> None:
    version = learn(catalog, score=0.75)
    assert (version.label, version.state, version.method, version.reason) == (
        "colour@1",
        "published",
        "prompt-tuning",
        "better",
    )
    assert (version.base_model, version.num_virtual_tokens, version.metric, version.score) == (BASE, 4, "acc", 0.75)
    assert (version.created_at, version.published_at, version.retired_at) == (AT, AT, None)
    adapter = a_candidate(a_task()).adapter
    assert catalog.versions.adapter(version) == adapter
    assert catalog.evaluations.rows(version) == ROWS
    task = catalog.tasks.get("colour")
    assert (task.published, task.published_at, task.score) == (1, AT, 0.75)


def test_numbers_count_a_task_s_versions_from_one(catalog: Catalog) -> None:
    labels = [
        learn(catalog, name, publish=publish).label for name, publish in zip("abaab", (1, 1, 0, 1, 0), strict=True)
    ]
    assert labels == ["a@1", "b@1", "a@2", "a@3", "b@2"]
    with pytest.raises(
        NotFoundError, match=r"task 'a' has no version 4; its versions: 1 \(retired\), 2 \(rejected\), 3"
    ):
        catalog.versions.get("a", 4)
    for huge in (2**31, 10**30, -(10**30)):
        with pytest.raises(NotFoundError, match=f"has no version {huge};"):
            catalog.pointers.roll_back("a", huge, "")


def test_a_task_without_a_published_version_says_what_to_run(catalog: Catalog) -> None:
    learn(catalog, publish=False)
    with pytest.raises(NotFoundError, match=r"no published version \(versions: 1 \(rejected\)\); run `ws.learn"):
        catalog.versions.get("colour")
