"""When schedules are due; pure, with the time as an argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from croniter.croniter import CroniterBadDateError, CroniterError

from multiprompt.errors import ConfigError, nearest
from multiprompt.records import Schedule

WATCHES = ("data", "score", "base", "age")
# Seconds between two looks of a watch.
LOOK_SECONDS = 60.0
_LEAST_SECONDS = 1.0
_DAY = timedelta(days=1)
# The number of values of each of six fields.
_VALUES = (60, 60, 24, 31, 12, 7)

_Walk = Callable[[str, ZoneInfo, datetime], Iterator[datetime]]


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
    if schedule.cron is None and schedule.timezone != "UTC":
        raise ConfigError(f"the time zone {schedule.timezone} is for cron, and this schedule has none: leave it out.")
    _zone(schedule.timezone)
    wrong = _fault(schedule)
    if wrong:
        when = schedule.when if schedule.cron is None else f"{schedule.cron!r} in time zone {schedule.timezone}"
        raise ConfigError(f"{when} is no schedule: {wrong}")


def _fault(schedule: Schedule) -> str:
    """The reason why a schedule has no next time; empty where it has one."""
    try:
        wrong = "" if schedule.cron is None else _unreadable(schedule.cron)
        found = None if wrong else next(ticks(schedule, schedule.created_at), None)
    except (CroniterError, ValueError) as error:
        return " ".join(str(error).split())
    return wrong or ("" if found else "it has no next time")


def _unreadable(cron: str) -> str:
    """The part of an expression that cron does not know, or reads as other times than it says."""
    fields = cron.split()
    if len(fields) not in (5, 6) and not cron.strip().startswith("@"):
        return f"it has {len(fields)} fields; give five, or six with seconds first"
    for field, values in zip(fields, _VALUES[-len(fields) :], strict=False):
        if re.search(r"(?i)(^|,)[rh](\W|$)", field):
            return f"{field!r} stands for a time by chance; name one"
        steps = [int(step) for step in re.findall(r"/(\d+)", field)]
        if max(steps, default=0) > values:
            return f"the step of {field!r} is greater than its {values} values; use every, or a smaller step"
    days = (fields[-3], fields[-1]) if len(fields) in (5, 6) else ()
    if any(day.startswith("*/") for day in days) and not {"*", "?"} & set(days):
        return f"either or both of the days {fields[-3]!r} and {fields[-1]!r} may be meant; write * for one of them"
    return ""


def _zone(name: str) -> ZoneInfo:
    """Raises ConfigError for a time zone that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ConfigError(f"no time zone {name!r}; {nearest(name, available_timezones())}") from None


def ticks(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """The times after `after` at which a schedule is looked at, in UTC, up to the last one there is.

    Cron fields are wall-clock times of its zone. Where hours are named, a time that a change of clocks skips comes as
    much later, and one that comes twice is taken once. Where the hour is each one, or each nth (`*/2`), ticks follow
    elapsed time: none is further from the last than it is on other days.
    """
    if schedule.cron is None:
        step = timedelta(seconds=LOOK_SECONDS if schedule.watch is not None else schedule.every_seconds or 0.0)
        start = schedule.next_at or schedule.created_at
        yield from _intervals(start, step, after)
    else:
        walk = _elapsing if _is_interval(schedule.cron) else _named
        yield from _rising(walk, schedule.cron, _zone(schedule.timezone), after)


def coming(schedule: Schedule, now: datetime) -> Iterator[datetime]:
    """The times at which a worker will look at a schedule: now where a time has passed, then at its ticks."""
    if is_due(schedule, now):
        yield now
    yield from ticks(schedule, now)


def _intervals(start: datetime, step: timedelta, after: datetime) -> Iterator[datetime]:
    number = (after - start) // step
    while True:
        number += 1
        try:
            tick = start + number * step
        except OverflowError:
            return
        yield tick


def _rising(walk: _Walk, cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The ticks of a walk that are later than the one before, until there is none."""
    last = after
    try:
        for tick in walk(cron, zone, after):
            if tick > last:
                last = tick
                yield tick
    except (CroniterBadDateError, OverflowError):
        return


def _is_interval(cron: str) -> bool:
    """Whether the hours are all, or each nth of the whole day, however that is written."""
    read = croniter(cron, second_at_beginning=True)
    hours = read.expanded[1]
    if hours == ["*"]:
        return True
    apart = [later - earlier for earlier, later in pairwise([*hours, int(hours[0]) + 24])]
    return "/" in read.expressions[1] and len(hours) > 1 and max(apart) <= apart[0]


def _named(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The instants of the wall-clock times of cron, from a little before `after`."""
    skipped = _offset(after, zone) - _offset(after - _DAY, zone)
    wall = (after.astimezone(zone) - max(skipped, timedelta())).replace(tzinfo=None)
    while True:
        wall = _next(cron, wall)
        yield wall.replace(tzinfo=zone).astimezone(UTC)


def _elapsing(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """The instants at which the wall clock shows a time of cron, and those at which it would, had it not been changed
    since the last one."""
    tick = _last(cron, zone, after)
    while True:
        offset = _offset(tick, zone)
        unchanged = _next_by(cron, offset, tick)
        if _offset(unchanged, zone) == offset:
            tick = unchanged
        else:
            shown = _next_shown(cron, zone, tick)
            tick = min(shown, unchanged) if unchanged - tick <= _DAY else shown
        yield tick


def _last(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """The tick from which the next one is counted; after a change of clocks it is the tick before."""
    offset = _offset(after, zone)
    if offset == _offset(after - _DAY, zone):
        return after
    try:
        wall: datetime = croniter(cron, _by(offset, after), second_at_beginning=True).get_prev(datetime)
    except CroniterError:
        return after
    return (wall - offset).replace(tzinfo=UTC)


def _next_shown(cron: str, zone: ZoneInfo, after: datetime) -> datetime:
    """The first instant after a change of clocks at which the wall clock shows a time of cron."""
    found = after
    while True:
        offset = _offset(_next_by(cron, _offset(found, zone), found), zone)
        candidate = _next_by(cron, offset, found)
        if _offset(candidate, zone) == offset:
            return candidate
        found = candidate


def _next_by(cron: str, offset: timedelta, after: datetime) -> datetime:
    return (_next(cron, _by(offset, after)) - offset).replace(tzinfo=UTC)


def _next(cron: str, wall: datetime) -> datetime:
    found: datetime = croniter(cron, wall, second_at_beginning=True).get_next(datetime)
    return found


def _by(offset: timedelta, at: datetime) -> datetime:
    """The wall clock at an instant, by an offset from UTC."""
    return at.astimezone(UTC).replace(tzinfo=None) + offset


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def moved(schedule: Schedule, now: datetime) -> Schedule:
    """The schedule after it was looked at: all ticks up to `now` are behind it, and the last one leaves none."""
    return replace(schedule, next_at=next(ticks(schedule, now), None))


def is_due(schedule: Schedule, now: datetime) -> bool:
    return schedule.active and schedule.next_at is not None and schedule.next_at <= now
