"""When schedules are due: right over changes of clocks, whatever was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.errors import ConfigError
from multiprompt.jobs.ticks import check_schedule, is_due, moved, ticks
from multiprompt.records import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)


def a_schedule(at: datetime = SPRING, **values: Any) -> Schedule:
    plain = {
        "name": "retrain:a", "kind": "retrain", "task": "a", "cron": None, "every_seconds": None, "watch": None,
        "timezone": "UTC", "priority": 100, "active": True, "seen": "", "next_at": None, "last_at": None,
        "last_job": None, "created_at": at,
    }  # fmt: skip
    return Schedule(**plain | values)


def local(cron: str, start: datetime, count: int) -> list[str]:
    schedule = a_schedule(start, cron=cron, timezone="Europe/Berlin")
    return [f"{tick.astimezone(BERLIN):%d %H:%M %z}" for tick in islice(ticks(schedule, start), count)]


def test_a_daily_tick_keeps_its_wall_clock_time_over_a_change_of_clocks() -> None:
    assert local("0 3 * * *", SPRING, 2) == ["29 03:00 +0200", "30 03:00 +0200"]
    assert local("0 3 * * *", AUTUMN, 2) == ["25 03:00 +0100", "26 03:00 +0100"]


def test_a_time_that_is_skipped_comes_later_and_one_that_comes_twice_once() -> None:
    assert local("30 2 * * *", SPRING, 2) == ["29 03:30 +0200", "30 02:30 +0200"]
    assert local("30 2 * * *", AUTUMN, 2) == ["25 02:30 +0200", "26 02:30 +0100"]


@pytest.mark.parametrize("start", [SPRING, AUTUMN])
def test_an_hourly_tick_comes_every_hour_that_passes(start: datetime) -> None:
    schedule = a_schedule(start, cron="15 * * * *", timezone="Europe/Berlin")
    found = list(takewhile(lambda tick: tick < start + timedelta(days=1), ticks(schedule, start)))
    assert [tick - found[0] for tick in found] == [timedelta(hours=hours) for hours in range(24)]


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu")
HOURLY = (
    "0 * * * *",
    "@hourly",
    "0 */1 * * *",
    "0 0-23 * * *",
    "0 0-11,12-23 * * *",
    "0 0 * * * *",
    "0 0 0-23/1 * * *",
)
# Around the changes of clocks of 2026 in those zones.
CHANGES = st.sampled_from(
    [
        datetime(2026, *day, tzinfo=UTC)
        for day in ((2, 15), (3, 8), (3, 22), (3, 29), (4, 4), (10, 3), (10, 25), (11, 1))
    ]
)
MINUTES = st.integers(-36 * 60, 36 * 60).map(lambda minutes: timedelta(minutes=minutes))


def some(cron: str, zone: str, after: datetime, hours: int = 60) -> list[datetime]:
    schedule = a_schedule(after, cron=cron, timezone=zone)
    return list(takewhile(lambda tick: tick < after + timedelta(hours=hours), ticks(schedule, after)))


def gaps(found: list[datetime]) -> set[timedelta]:
    return {later - earlier for earlier, later in pairwise(found)}


@given(st.sampled_from(ZONES), CHANGES, MINUTES)
@settings(deadline=None)
def test_each_hour_has_its_tick_however_that_is_written(zone: str, change: datetime, minutes: timedelta) -> None:
    first, *others = (some(cron, zone, change + minutes) for cron in HOURLY)
    assert all(other == first for other in others)
    assert max(gaps(first)) == timedelta(hours=1)
    assert zone == "Australia/Lord_Howe" or gaps(first) == {timedelta(hours=1)}


@given(st.sampled_from(ZONES), CHANGES, MINUTES, st.sampled_from((2, 3, 4, 6, 8, 12)))
@settings(deadline=None)
def test_no_more_than_n_hours_pass_between_ticks_of_each_nth_hour(
    zone: str, change: datetime, minutes: timedelta, n: int
) -> None:
    start = change + minutes
    found = some(f"0 */{n} * * *", zone, start)
    assert max(gaps(found)) == timedelta(hours=n)
    shown = {start.replace(second=0) + timedelta(minutes=number) for number in range(1, 59 * 60)}
    local = {at: at.astimezone(ZoneInfo(zone)) for at in shown}
    assert {at for at, wall in local.items() if wall.minute == 0 and wall.hour % n == 0} <= set(found)


@given(st.sampled_from(ZONES), CHANGES, MINUTES, st.sampled_from(("30 2 * * *", "0 0 * * *", "15 1 * * *", "@daily")))
@settings(deadline=None)
def test_a_named_hour_comes_once_a_day(zone: str, change: datetime, minutes: timedelta, cron: str) -> None:
    days = [tick.astimezone(ZoneInfo(zone)).date() for tick in some(cron, zone, change + minutes, hours=24 * 6)]
    assert days == [days[0] + timedelta(days=number) for number in range(len(days))]


@given(
    st.sampled_from(ZONES),
    CHANGES,
    MINUTES,
    MINUTES,
    st.sampled_from(
        (*HOURLY, "30 2 * * *", "*/20 * * * *", "0 */2 * * *", "0 */4 * * *", "15 1,2,3 * * *", "0 * 1 1 *")
    ),
)
@settings(deadline=None)
def test_ticks_are_the_same_from_wherever_they_are_counted(
    zone: str, change: datetime, early: timedelta, later: timedelta, cron: str
) -> None:
    start, middle = sorted((change + early, change + later))
    end = start + timedelta(hours=60)
    known = [tick for tick in some(cron, zone, start) if tick > middle]
    assert known == [tick for tick in some(cron, zone, middle) if tick < end]


@pytest.mark.parametrize(
    ("cron", "hours"),
    [("0 8-18/2 * * *", "08 10 12 14 16 18"), ("0 5/20 * * *", "05"), ("0 0-8/4 * * *", "00 04 08")],
)
@pytest.mark.parametrize("start", [SPRING, AUTUMN])
def test_a_step_through_a_part_of_the_day_names_its_hours(cron: str, hours: str, start: datetime) -> None:
    found = some(cron, "Europe/Berlin", start - timedelta(hours=15), hours=50)
    days = [[tick for tick in found if tick.astimezone(BERLIN).day == day] for day in (start.day, start.day + 1)]
    assert [[f"{tick.astimezone(BERLIN):%H}" for tick in day] for day in days] == [hours.split()] * 2


def test_after_its_last_time_a_schedule_is_never_due() -> None:
    schedule = moved(a_schedule(cron="0 0 3 1 5 * 2026"), SPRING)
    assert schedule.next_at == datetime(2026, 5, 1, 3, tzinfo=UTC)
    later = moved(schedule, schedule.next_at)
    assert (later.next_at, is_due(later, AUTUMN), list(ticks(later, AUTUMN))) == (None, False, [])


def test_a_clock_that_went_back_leaves_no_interval_waiting_for_longer() -> None:
    far = a_schedule(every_seconds=3600.0, next_at=SPRING + timedelta(days=900))
    assert moved(far, SPRING).next_at == SPRING + timedelta(hours=1)


def test_an_hour_of_one_day_a_year_is_read_by_the_clock_of_that_day() -> None:
    assert local("0 * 1 1 *", AUTUMN - timedelta(days=30), 2) == ["01 00:00 +0100", "01 01:00 +0100"]


def test_a_schedule_that_has_no_next_time_is_refused() -> None:
    end = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
    for values in ({"cron": "0 3 * * *"}, {"every_seconds": 3600.0}):
        with pytest.raises(ConfigError, match="is no schedule"):
            check_schedule(a_schedule(end, **values))


@given(
    st.sampled_from(("* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 * * 0", "0 */5 * * *", "@daily", "59 23 31 * *")),
    st.sampled_from(("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu")),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
def test_ticks_only_ever_go_forward_from_any_moment(cron: str, zone: str, after: datetime) -> None:
    schedule = a_schedule(after, cron=cron, timezone=zone)
    found = list(islice(ticks(schedule, after), 4))
    assert after < found[0]
    assert found == sorted(set(found))


def test_intervals_count_from_the_first_tick_whatever_was_missed() -> None:
    schedule = moved(a_schedule(every_seconds=3600.0), SPRING)
    assert schedule.next_at == SPRING + timedelta(hours=1)
    late = SPRING + timedelta(hours=7, minutes=20)
    assert is_due(schedule, late)
    assert moved(schedule, late).next_at == SPRING + timedelta(hours=8)


def test_what_rests_is_never_due() -> None:
    schedule = moved(a_schedule(cron="* * * * *", active=False), SPRING)
    assert not is_due(schedule, SPRING + timedelta(days=9))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"cron": "often"}, "'often' in time zone UTC is no schedule"),
        ({"cron": "* *"}, "is no schedule"),
        ({"cron": ""}, "is no schedule"),
        ({"cron": "99 * * * *"}, "is no schedule"),
        ({"cron": "0 0 30 2 *"}, "is no schedule"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "no time zone 'Mars/Olympus'; known: Africa/"),
        ({"cron": "0 3 * * *", "timezone": "europe/berlin"}, "no time zone .* did you mean 'Europe/Berlin'"),
        ({"cron": "0 3 * * *", "timezone": "../../etc/passwd"}, "no time zone"),
        ({"every_seconds": 60.0, "timezone": "Europe/Berlin"}, "time zone Europe/Berlin is for cron"),
        ({"cron": "R 3 * * *"}, "'R' stands for a time by chance"),
        ({"cron": "0 3 * * mon,r(0-5)"}, "stands for a time by chance"),
        ({"cron": "H(0-9) 3 * * *"}, "stands for a time by chance"),
        ({"cron": "*/90 * * * *"}, "the step of '.*' is greater than its 60 values"),
        ({"cron": "0 0 */36 * * *"}, "the step of '.*' is greater than its 24 values"),
        ({"cron": "0 0 3 * * * 2027"}, "it has 7 fields"),
        ({"cron": "0 3 */2 * 1"}, "either or both of the days"),
        ({}, "one of cron, every and on"),
        ({"cron": "0 3 * * *", "every_seconds": 60.0}, "one of cron, every and on"),
        ({"every_seconds": 0.1}, "every is 0.1 seconds"),
        ({"watch": "weather"}, "cannot be on 'weather'"),
        ({"watch": "age"}, "takes every"),
        ({"watch": "data", "every_seconds": 60.0}, "no other one on a change"),
        ({"watch": "data", "task": None}, "takes a task"),
    ],
)
def test_what_can_never_be_due_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_schedule(a_schedule(**values))
