"""Triggers of schedules: a task's data, its score, the base model, and the age of the published version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConfigError, NotFoundError
from multiprompt.records import Schedule
from multiprompt.tasks.hub import hub_revision
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.task import Task


@dataclass(frozen=True)
class Observation:
    """One look of a schedule: whether it submits the job, and the state that the next look compares with.

    It `lasts` while a job that failed is worth another try.
    """

    fires: bool
    seen: str
    lasts: bool = False


def observe(catalog: Catalog, schedule: Schedule, now: datetime, *, again: bool = False) -> Observation:
    """Look at what a schedule watches. One that watches nothing fires whenever it is looked at.

    `again` is for one whose last job failed: it fires while its cause lasts. Raises UnavailableError when a hub that is
    watched cannot be reached, and NotFoundError when files that were seen before are away.
    """
    if schedule.watch is None:
        return Observation(True, "")
    found = _WATCHES[schedule.watch](catalog, schedule, now)
    return replace(found, fires=found.fires or (again and found.lasts))


def require_watchable(schedule: Schedule) -> None:
    """Raises ConfigError for a new schedule whose task has its data where no change is seen."""
    if schedule.watch == "data" and not schedule.seen:
        raise ConfigError(
            f"the data of {schedule.task} is fetched from an URL, which is not watched: use cron or every."
        )


def _data(catalog: Catalog, schedule: Schedule, _: datetime) -> Observation:
    """The files that a task's splits are read from, or the hub revision."""
    record = catalog.tasks.get(str(schedule.task))
    try:
        seen = source_digest(Task.from_source(record.source, Path(record.folder), where=record.name)) or schedule.seen
    except NotFoundError:
        if schedule.seen:
            raise
        seen = "missing"
    return Observation(schedule.seen not in ("", seen), seen, lasts=True)


def _score(catalog: Catalog, schedule: Schedule, _: datetime) -> Observation:
    """A regression of the task, or of any without one, that did not stand at the last look.

    A check that reports a standing regression again does not fire, nor does one that no longer finds it.
    """
    standing = sorted(catalog.checks.regressions(schedule.task))
    seen = json.dumps(standing)
    # Before regressions were named here, the number of a check stood here.
    known = json.loads(schedule.seen) if schedule.seen.startswith("[") else standing
    return Observation(not set(standing) <= set(known), seen, lasts=bool(standing))


def _base(catalog: Catalog, schedule: Schedule, _: datetime) -> Observation:
    """The files of the base model, or its hub revision; nothing before the catalog is bound to one."""
    bound = catalog.base_models.get()[2]
    seen = "" if bound is None else _base_fingerprint(bound.source)
    return Observation(schedule.seen not in ("", seen), seen, lasts=True)


def _age(catalog: Catalog, schedule: Schedule, now: datetime) -> Observation:
    """A published version that is older than `every_seconds`; asked for once in such a time, whatever came of it."""
    published_at = catalog.tasks.get(str(schedule.task)).published_at
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
    if not folder.is_absolute():
        return hub_revision("model", source.partition("@")[0])
    stamp = files_stamp(folder)
    if not stamp:
        raise NotFoundError(f"the folder {source} of the base model is away; its change is seen once it is back.")
    return stamp
