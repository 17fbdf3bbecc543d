"""The task that a published version is served with, and its differences from the newest task file."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from multiprompt.errors import MultipromptError
from multiprompt.records import Baseline, VersionRecord
from multiprompt.tasks.file_change import changed_keys
from multiprompt.tasks.task import Task


def served_task(version: VersionRecord, baseline: Baseline) -> Task:
    """The task that a version answers with: that of its own task file, on its data as it is now.

    The newest task file says where the data lies, unless it names other data.
    """
    now = read_task(*baseline.now, version.task)
    if baseline.task_file == now.source:
        return now
    own = read_task(baseline.task_file, baseline.folder, version.task)
    return replace(own, folder=now.folder) if own.data == now.data else own


def drift(version: VersionRecord, served: Task, now: Task) -> str:
    """A note on the keys in which the newest task file differs from the served one."""
    return (
        f"{version.label} is served with the task file that it was made with; the newest one differs in "
        f"{', '.join(changed_keys(served.mapping, now.mapping))}: run `ws.learn({version.task!r})` to serve it"
    )


@lru_cache(maxsize=10_000)
def read_task(source: str, folder: str, where: str) -> Task:
    """A task file that the catalog holds; the newest ones stay parsed."""
    return Task.from_source(source, Path(folder), where=where)


def tolerated_drop(version: VersionRecord, baseline: Baseline) -> float:
    """The drop that a version's newest task file tolerates; none where that file cannot be read."""
    try:
        return read_task(*baseline.now, version.task).config.regression.max_drop
    except MultipromptError:
        return 0.0
