"""A digest that moves when a task's data files do."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiprompt.errors import NotFoundError
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping


def a_task(folder: Path, pattern: str) -> Task:
    files = {"train": pattern, "validation": pattern, "test": pattern}
    return Task.from_mapping(task_mapping() | {"dataset_kwargs": {"data_files": files}}, folder)


@pytest.mark.parametrize("pattern", ["a/b/test.jsonl", "a/*/test.jsonl", "a/**/test.jsonl", "**/*.jsonl", "a/b/te??.*"])
def test_what_a_pattern_finds_moves_the_digest(tmp_path: Path, pattern: str) -> None:
    file = tmp_path / "a" / "b" / "test.jsonl"
    file.parent.mkdir(parents=True)
    digests = []
    for content in ("one", "two", "one"):
        file.write_text(content)
        digests.append(source_digest(a_task(tmp_path, pattern)))
    assert digests[0] == digests[2] != digests[1]


def test_an_absolute_path_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.jsonl"
    file.write_text("one")
    before = source_digest(a_task(tmp_path / "tasks", str(file)))
    file.write_text("two")
    assert source_digest(a_task(tmp_path / "tasks", str(file))) != before


def test_files_that_would_have_to_be_fetched_have_none(tmp_path: Path) -> None:
    assert source_digest(a_task(tmp_path, "https://example.org/test.jsonl")) is None


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere.jsonl does not exist"):
        source_digest(a_task(tmp_path, "nowhere.jsonl"))
