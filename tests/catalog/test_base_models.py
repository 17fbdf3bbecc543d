"""Base models: a catalog is bound to one, and each task has one published version on each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import StateError
from tests.catalog.databases import by
from tests.catalog.samples import AT, BASE, learn


def test_a_catalog_is_bound_to_one_base_model(catalog: Catalog) -> None:
    assert catalog.base_models.get() == (None, "auto", None)
    by(catalog, "tester", AT).base_models.bind(BASE)
    by(catalog, "tester", AT).base_models.bind(replace(BASE, name="the same under another name"))
    assert catalog.base_models.get() == ("hub/tiny", "float32", BASE)
    for part in ("weights", "tokenizer", "config", "dtype"):
        with pytest.raises(StateError, match="is bound to tiny .* already"):
            by(catalog, "tester", AT).base_models.bind(replace(BASE, **{part: "other"}))
    assert len(catalog.events.find("kind = 'base-model-bound'")) == 1


def test_a_task_has_one_published_version_on_each_base_model_and_that_of_the_catalog_serves(catalog: Catalog) -> None:
    other = replace(BASE, name="other", weights="sha256:" + "d" * 64)
    learn(catalog)
    learn(catalog, base_model=other)
    learn(catalog, base_model=other)
    states = {version.label: version.state for version in catalog.versions.of("colour")}
    assert states == {"colour@1": "published", "colour@2": "retired", "colour@3": "published"}
    assert [version.label for version in catalog.versions.published()[1]] == ["colour@1"]
    assert [version.label for version, _ in catalog.baselines.published()[1]] == ["colour@1"]
    assert catalog.versions.get("colour").label == "colour@1"
    assert catalog.tasks.get("colour").published == 1
    assert catalog.sql("SELECT name, published FROM v_tasks").rows == (("colour", 1),)


def test_a_renewed_base_model_serves_the_versions_that_were_made_before(catalog: Catalog) -> None:
    learn(catalog)
    renewed = replace(BASE, tokenizer="sha256:" + "c" * 64)
    by(catalog, "tester", AT).base_models.bind(renewed, former=BASE)
    assert catalog.versions.get("colour").label == "colour@1"
    assert catalog.sql("SELECT name, published FROM v_tasks").rows == (("colour", 1),)
    learn(catalog, base_model=renewed)
    assert [(v.label, v.state) for v in catalog.versions.of("colour")] == [
        ("colour@1", "retired"),
        ("colour@2", "published"),
    ]
