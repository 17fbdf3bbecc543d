"""What schedules watch: the data of a task, its score, the base model, and the age of what is published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import NotFoundError
from multiprompt.records import Schedule
from multiprompt.tasks.hub import hub_revision
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.task import Task


@dataclass(frozen=True)
class Observation:
    """What a schedule saw: whether that submits its job, and what it compares with the next time."""

    fires: bool
    seen: str


def observe(catalog: Catalog, schedule: Schedule, now: datetime) -> Observation:
    """Look at what a schedule watches. One that watches nothing fires whenever it is looked at.

    Raises UnavailableError when a hub that is watched cannot be reached.
    """
    if schedule.watch is None:
        return Observation(True, "")
    return _WATCHES[schedule.watch](catalog, schedule, now)


def _data(catalog: Catalog, schedule: Schedule, _: datetime) -> Observation:
    """The files that a task's splits are read from, or the hub revision; files at an URL never fire."""
    record = catalog.task(str(schedule.task))
    try:
        seen = source_digest(Task.from_source(record.source, Path(record.folder), where=record.name)) or schedule.seen
    except NotFoundError:
        seen = "missing"
    return Observation(schedule.seen not in ("", seen), seen)


def _score(catalog: Catalog, schedule: Schedule, _: datetime) -> Observation:
    """A regression of the task, or of any without one, that did not stand at the last look.

    A check that reports a standing regression again does not fire, nor does one that no longer finds it.
    """
    standing = sorted(catalog.regressions(schedule.task))
    seen = json.dumps(standing)
    # Before regressions were named here, the number of a check stood here.
    known = json.loads(schedule.seen) if schedule.seen.startswith("[") else standing
    return Observation(not set(standing) <= set(known), seen)


def _base(catalog: Catalog, schedule: Schedule, _: datetime) -> Observation:
    """The files of the base model, or its hub revision."""
    reference, _dtype, bound = catalog.base_model()
    source = bound.source if bound is not None else reference
    seen = "" if source is None else _base_fingerprint(source)
    return Observation(schedule.seen not in ("", seen), seen)


def _age(catalog: Catalog, schedule: Schedule, now: datetime) -> Observation:
    """A published version that is older than `every_seconds`; asked for once in such a time, whatever came of it."""
    published_at = catalog.task(str(schedule.task)).published_at
    assert schedule.every_seconds is not None, "a schedule on age has one"
    times = [at for at in (published_at, schedule.last_at) if at is not None]
    old = published_at is not None and (now - max(times)).total_seconds() >= schedule.every_seconds
    return Observation(old, "")


_WATCHES: Mapping[str, Callable[[Catalog, Schedule, datetime], Observation]] = {
    "data": _data,
    "score": _score,
    "base": _base,
    "age": _age,
}


def files_stamp(folder: Path) -> str:
    """A digest of the names, sizes and times of a folder's files, which a file that is written or replaced changes.

    Nothing is read, so it is quick to take of gigabytes. Empty where the folder cannot be looked into.
    """
    lines = []
    try:
        for file in sorted(file for file in folder.iterdir() if file.is_file()):
            found = file.stat()
            lines.append(f"{file.name} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n")
    except OSError:
        return ""
    return "stat:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _base_fingerprint(source: str) -> str:
    folder = Path(source)
    if folder.is_dir():
        return files_stamp(folder)
    return hub_revision("model", source.partition("@")[0]) if "/" in source else source
