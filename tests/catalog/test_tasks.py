"""Tasks: files, paths and names."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import NotFoundError
from multiprompt.tasks.task import Task
from tests.catalog.databases import by
from tests.catalog.samples import AT, a_task, learn


def test_a_task_comes_back_as_it_was_added(catalog: Catalog) -> None:
    task = a_task(tag=["nlp", "team:a"])
    record = by(catalog, "tester", AT).tasks.add(task)
    assert (record.name, record.tags, record.metric) == ("colour", ("nlp", "team:a"), "acc")
    assert (record.fingerprint, record.source, record.folder) == (task.fingerprint, task.source, str(task.folder))
    assert (record.description, record.created_at) == ("Which colour?", AT)
    assert (record.published, record.published_at, record.score) == (None, None, None)
    assert catalog.tasks.get("colour") == record
    assert catalog.tasks.find() == [record]


def test_adding_the_same_task_again_changes_nothing(catalog: Catalog) -> None:
    first = by(catalog, "tester", AT).tasks.add(a_task())
    assert by(catalog, "tester", AT + timedelta(days=1)).tasks.add(a_task()) == first
    assert [event.kind for event in catalog.events.find()] == ["task-added"]


def test_a_changed_task_file_is_the_task_s_and_versions_keep_theirs(catalog: Catalog) -> None:
    old, new = a_task(), a_task(description="What colour?\n")
    version = learn(catalog, task=old)
    by(catalog, "tester", AT).tasks.add(new)
    assert catalog.tasks.get("colour").fingerprint == new.fingerprint
    assert catalog.versions.task(version).fingerprint == old.fingerprint
    kinds = [event.kind for event in catalog.events.find()]
    assert kinds == ["base-model-bound", "task-added", "published", "task-changed"]


def test_an_unknown_task_gives_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="no task 'colour' in the catalog; there are none yet"):
        catalog.tasks.get("colour")
    by(catalog, "tester", AT).tasks.add(a_task())
    for lookup in (catalog.tasks.get, catalog.versions.get, catalog.versions.of, catalog.lineage.of):
        with pytest.raises(NotFoundError, match="no task 'color' in the catalog; did you mean 'colour'?"):
            lookup("color")


def test_the_path_of_a_task_file_is_kept_and_follows_the_file(catalog: Catalog, tmp_path: Path) -> None:
    assert by(catalog, "tester", AT).tasks.add(a_task()).file == ""
    file = tmp_path / "colour.yaml"
    file.write_text(a_task().source)
    assert by(catalog, "tester", AT).tasks.add(Task.from_file(file)).file == str(file)
    assert catalog.tasks.find()[0].file == str(file)
