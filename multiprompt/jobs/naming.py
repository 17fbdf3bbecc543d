"""The names of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from multiprompt.errors import ConfigError
from multiprompt.records import Schedule

MAX_NAME = 300


def named(new: Schedule, name: str | None, known: Sequence[Schedule]) -> tuple[Schedule | None, Schedule]:
    """The schedule of `known` that a new one replaces, and the new one under its name.

    Raises ConfigError for a name that cannot be one, or that a schedule for something else has.
    """
    if name is not None and (not name.strip() or len(name) > MAX_NAME or not name.isprintable()):
        raise ConfigError(f"a schedule cannot be called {name[:40]!r}: give 1 to {MAX_NAME} letters on one line.")
    called = {schedule.name: schedule for schedule in known}
    if name is not None:
        old = called.get(name)
        same = old is None or (old.kind, old.task) == (new.kind, new.task)
    else:
        found = (called[plain] for plain in (_default(new), _former(new)) if plain in called)
        old = next((schedule for schedule in found if _purpose(schedule) == _purpose(new)), None)
        name = _default(new)
        same = old is not None or name not in called
    if not same:
        other = called[name]
        raise ConfigError(f"the schedule {name!r} is for {other.kind} {other.task or 'of all'}: give another name.")
    return old, replace(new, name=name)


def _purpose(schedule: Schedule) -> tuple[str, str | None, str | None]:
    return schedule.kind, schedule.task, schedule.watch


def _default(schedule: Schedule) -> str:
    """Kind, task and watch between colons, and those of the task's name written as %3A."""
    task = None if schedule.task is None else schedule.task.replace("%", "%25").replace(":", "%3A")
    return ":".join(part for part in (schedule.kind, task, schedule.watch) if part is not None)


def _former(schedule: Schedule) -> str:
    """The name in catalogs of releases that wrote the colons of a task as they are."""
    return ":".join(part for part in (schedule.kind, schedule.task, schedule.watch) if part)
