"""What schedules watch: the data of a task, its score, the base model, and the age of what is published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import NotFoundError
from multiprompt.records import Schedule
from multiprompt.tasks.source import hub_revision, source_digest
from multiprompt.tasks.task import Task

_MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.tiktoken")


@dataclass(frozen=True)
class Sight:
    """What a schedule saw: whether that submits its job, and what it compares with the next time."""

    fires: bool
    seen: str


def look(catalog: Catalog, schedule: Schedule, now: datetime) -> Sight:
    """Look at what a schedule watches. One that watches nothing fires whenever it is looked at.

    Raises UnavailableError when a hub that is watched cannot be reached.
    """
    if schedule.watch is None:
        return Sight(True, "")
    return _WATCHES[schedule.watch](catalog, schedule, now)


def _data(catalog: Catalog, schedule: Schedule, _: datetime) -> Sight:
    """The files that a task's splits are read from, or the hub revision; files at an URL never fire."""
    record = catalog.task(str(schedule.task))
    try:
        seen = source_digest(Task.from_source(record.source, Path(record.folder), where=record.name)) or schedule.seen
    except NotFoundError:
        seen = "missing"
    return Sight(schedule.seen not in ("", seen), seen)


def _score(catalog: Catalog, schedule: Schedule, _: datetime) -> Sight:
    """A check since the last look that found a published version worse than it may be; of any task without one."""
    seen = catalog.last_regression(schedule.task)
    return Sight(seen > int(schedule.seen or seen), str(seen))


def _base(catalog: Catalog, schedule: Schedule, _: datetime) -> Sight:
    """The files of the base model, or its hub revision."""
    reference, _dtype, bound = catalog.base_model()
    source = bound.source if bound is not None else reference
    seen = "" if source is None else _base_fingerprint(source)
    return Sight(schedule.seen not in ("", seen), seen)


def _age(catalog: Catalog, schedule: Schedule, now: datetime) -> Sight:
    """A published version that is older than `every_seconds`; asked for once in such a time, whatever came of it."""
    published_at = catalog.task(str(schedule.task)).published_at
    assert schedule.every_seconds is not None, "a schedule on age has one"
    times = [at for at in (published_at, schedule.last_at) if at is not None]
    old = published_at is not None and (now - max(times)).total_seconds() >= schedule.every_seconds
    return Sight(old, "")


_WATCHES: Mapping[str, Callable[[Catalog, Schedule, datetime], Sight]] = {
    "data": _data,
    "score": _score,
    "base": _base,
    "age": _age,
}


def _base_fingerprint(source: str) -> str:
    folder = Path(source)
    if folder.is_dir():
        files = sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern))
        # Gigabytes are not read each minute: a file that was written has another time.
        lines = (f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n" for file in files)
        return "stat:" + hashlib.sha256("".join(lines).encode()).hexdigest()
    return hub_revision("model", source.partition("@")[0]) if "/" in source else source
