"""When schedules are due; pure, with the time as an argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from croniter.croniter import CroniterError

from multiprompt.errors import ConfigError
from multiprompt.records import Schedule

WATCHES = ("data", "score", "base", "age")
# How often a watch looks.
LOOK_SECONDS = 60.0
_LEAST_SECONDS = 1.0


def check_schedule(schedule: Schedule) -> None:
    """Raises ConfigError for one that could never be due, or that is two in one."""
    interval = schedule.every_seconds if schedule.watch is None else None
    if sum(part is not None for part in (schedule.cron, interval, schedule.watch)) != 1:
        raise ConfigError("a schedule has one of cron, every and on (data, score, base or age).")
    if schedule.watch is not None and schedule.watch not in WATCHES:
        raise ConfigError(f"a schedule cannot be on {schedule.watch!r}; it can on: {', '.join(WATCHES)}.")
    if schedule.watch is not None and (schedule.watch == "age") != (schedule.every_seconds is not None):
        raise ConfigError("a schedule on age, and no other one on a change, takes every: the age in question.")
    if schedule.watch in ("data", "age") and schedule.task is None:
        raise ConfigError(f"a schedule on {schedule.watch} takes a task.")
    if schedule.every_seconds is not None and not _LEAST_SECONDS <= schedule.every_seconds < 1e9:
        raise ConfigError(f"every is {schedule.every_seconds} seconds; it must be from {_LEAST_SECONDS} to 1e9.")
    try:
        ZoneInfo(schedule.timezone)
        if schedule.cron is not None:
            next(ticks(schedule, schedule.created_at))
    except (CroniterError, ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"{schedule.cron!r} in time zone {schedule.timezone} is no schedule: {' '.join(str(error).split())}"
        ) from None


def ticks(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """The times after `after` at which a schedule is looked at, in UTC, without end.

    Cron fields are wall-clock times of its zone. A time that a change of clocks skips comes as much later, and one that
    comes twice is taken once, but where the hour is `*`: then every hour that passes has its ticks.
    """
    if schedule.cron is None:
        step = timedelta(seconds=LOOK_SECONDS if schedule.watch is not None else schedule.every_seconds or 0.0)
        start = schedule.next_at or schedule.created_at
        missed = max(0, (after - start) // step + 1)
        while True:
            yield start + missed * step
            missed += 1
    yield from _cron_ticks(schedule.cron, ZoneInfo(schedule.timezone), after)


def _cron_ticks(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    fields = cron.split()
    every_hour = len(fields) >= 5 and fields[-4] == "*"
    last = after
    # The wall clock as it would run without changes; where every hour counts, by the offset that holds now.
    walk = after.astimezone(zone)
    while True:
        wall = croniter(cron, walk.replace(tzinfo=None), second_at_beginning=True).get_next(datetime)
        tick = (wall - (walk.utcoffset() or timedelta())).replace(tzinfo=UTC) if every_hour else _utc(wall, zone)
        walk = tick.astimezone(zone) if every_hour else wall.replace(tzinfo=zone)
        if tick > last:
            last = tick
            yield tick


def _utc(wall: datetime, zone: ZoneInfo) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)


def moved(schedule: Schedule, now: datetime) -> Schedule:
    """The schedule after it was looked at: all ticks up to `now` are behind it, however many they were."""
    return replace(schedule, next_at=next(ticks(schedule, now)))


def is_due(schedule: Schedule, now: datetime) -> bool:
    return schedule.active and schedule.next_at is not None and schedule.next_at <= now
