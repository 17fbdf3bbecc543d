"""Rows that the catalog keeps for tasks without data files, on both databases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import DataError, IntegrityError, NotFoundError
from multiprompt.tasks.split import load_data
from multiprompt.tasks.task import Task
from tests.catalog.databases import damage
from tests.catalog.samples import new_catalog
from tests.catalog.test_copying import another_place

ROWS = [{"text": f"message {number}", "kind": "ab"[number % 2]} for number in range(60)]


def a_task() -> Task:
    return Task.from_rows(ROWS, text="text", label="kind")


def kept(catalog: Catalog) -> Task:
    """The task as the catalog gives it, with a reader of its rows."""
    record = catalog.tasks.get("kind")
    return catalog.snapshots.attach(Task.from_source(record.source, Path(record.folder), where="kind"))


def test_all_splits_come_back_as_they_were(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    for _ in range(2):
        catalog.tasks.add(a_task())
    assert load_data(kept(catalog)) == load_data(a_task())
    assert catalog.verify() == []
    assert catalog.collect_garbage(timedelta(0)).unused == 0
    with pytest.raises(NotFoundError, match="the catalog does not hold the rows sha256:00"):
        catalog.snapshots.get("sha256:" + "0" * 64)


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_a_copy_of_the_catalog_has_the_rows(tmp_path: Path, to: str) -> None:
    catalog = new_catalog(tmp_path)
    catalog.tasks.add(a_task())
    assert load_data(kept(catalog.copy_to(another_place(tmp_path, to)))) == load_data(a_task())


def test_damaged_rows_are_found_and_not_read(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    catalog.tasks.add(a_task())
    fingerprint = kept(catalog).data.snapshots["train"]
    damage(catalog, "UPDATE data_snapshots SET split = 'other' WHERE split = 'train'")
    assert [problem.what for problem in catalog.verify()] == ["the stored rows do not have its fingerprint"]
    with pytest.raises(IntegrityError, match="do not have their fingerprint; restore a backup"):
        catalog.snapshots.get(fingerprint)
    damage(catalog, f"UPDATE data_snapshots SET sha256 = NULL WHERE fingerprint = '{fingerprint}'")
    with pytest.raises(DataError, match="split 'train': the catalog does not hold the rows"):
        load_data(kept(catalog))
