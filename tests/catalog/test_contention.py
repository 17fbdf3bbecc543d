"""Several processes move pointers at once; the same for a minute is `python -m benchmarks.contention`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contention import contend
from tests.catalog.databases import DATABASES, new_database


def test_processes_that_publish_and_roll_back_at_once_lose_nothing(tmp_path: Path) -> None:
    url = str(tmp_path / "catalog.db") if DATABASES.kind == "sqlite" else new_database()
    outcome = contend(url, seconds=1.5, processes=4)
    assert outcome.problems == ()
    assert outcome.published > 0
    assert outcome.rolled_back > 0
