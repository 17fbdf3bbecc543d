"""Jobs are done once, survive a killed worker, and hold plain data only."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from multiprompt.errors import ConfigError, NotFoundError, QueryError, StateError
from multiprompt.jobs.durable import JobStore, next_ticks
from multiprompt.records import Schedule


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "catalog.db")


def test_a_catalog_without_jobs_lists_none_and_makes_no_file(store: JobStore, tmp_path: Path) -> None:
    assert store.jobs() == []
    assert store.schedules() == []
    assert list(tmp_path.iterdir()) == []


def test_a_worker_does_every_job_and_keeps_what_came_of_it(store: JobStore) -> None:
    def run(kind: str, task: str) -> str:
        if task == "bad":
            raise ValueError("no such\ndata")
        return f"{kind} of {task} done"

    for task in ("sst2", "bad", "trec"):
        assert store.submit("learn", task).state == "queued"
    store.work(run, threading.Event(), until_idle=True)
    assert [(job.task, job.state, job.outcome) for job in store.jobs()] == [
        ("sst2", "done", "learn of sst2 done"),
        ("bad", "failed", "ValueError: no such data"),
        ("trec", "done", "learn of trec done"),
    ]


def test_jobs_are_queried_and_paged_like_every_listing(store: JobStore) -> None:
    def run(kind: str, task: str) -> str:
        if task == "bad":
            raise ValueError("no such data")
        return f"{task} done"

    for task in ("sst2", "bad", "it's"):
        store.submit("learn", task)
    store.work(run, threading.Event(), until_idle=True)
    store.submit("learn", "waiting")

    def tasks(query: str) -> list[str]:
        return [job.task for job in store.jobs(query)]

    assert tasks("state = 'failed'") == ["bad"]
    assert tasks("state in ('done', 'queued') and kind = 'learn'") == ["sst2", "it's", "waiting"]
    assert tasks("outcome like '%no such%'") == ["bad"]
    assert tasks("created_at > '2001-01-01' and not updated_at > '2999-01-01' limit 2") == ["sst2", "bad"]
    assert tasks("created_at < '2001-01-01'") == []
    assert tasks("order by task desc") == ["waiting", "sst2", "it's", "bad"]
    seen, after = [], None
    for _ in range(2):
        page = store.jobs("order by created_at desc", limit=2, after=after)
        seen, after = [*seen, *(job.task for job in page)], page.after
    assert (seen, after) == (["waiting", "it's", "bad", "sst2"], None)
    with pytest.raises(QueryError, match="unknown field 'stat'; did you mean 'state'"):
        store.jobs("stat = 'failed'")


def test_a_waiting_job_is_not_queued_twice_and_a_done_one_may_be(store: JobStore) -> None:
    first = store.submit("learn", "sst2")
    assert store.submit("learn", "sst2").id == first.id
    store.work(lambda kind, task: "", threading.Event(), until_idle=True)
    assert store.submit("learn", "sst2").id != first.id


def test_nothing_is_pickled(store: JobStore, tmp_path: Path) -> None:
    def run(kind: str, task: str) -> str:
        raise ValueError("broken")

    store.submit("learn", "sst2")
    store.work(run, threading.Event(), until_idle=True)
    with sqlite3.connect(tmp_path / "catalog.db.jobs") as raw:
        stored = raw.execute(
            "SELECT inputs, error FROM workflow_input JOIN workflow_output USING (workflow_uuid)"
        ).fetchall()
    raw.close()
    assert stored == [('{"args": ["learn", "sst2"], "kwargs": {}}', '{"$error": "ValueError: broken"}')]


def test_a_second_worker_is_refused(store: JobStore, tmp_path: Path) -> None:
    refused: list[Exception] = []

    def run(kind: str, task: str) -> str:
        with pytest.raises(StateError, match="serves .* already") as caught:
            JobStore(tmp_path / "catalog.db").work(run, threading.Event(), until_idle=True)
        refused.append(caught.value)
        return ""

    store.submit("learn", "sst2")
    store.work(run, threading.Event(), until_idle=True)
    assert len(refused) == 1


_WORKER = """
import sys, threading, time
from pathlib import Path
from multiprompt.jobs.durable import JobStore
def run(kind, task):
    Path(sys.argv[2]).touch()
    time.sleep(600)
    return ""
JobStore(Path(sys.argv[1])).work(run, threading.Event())
"""


def test_a_job_of_a_killed_worker_is_done_by_the_next(store: JobStore, tmp_path: Path) -> None:
    job = store.submit("learn", "sst2")
    started = tmp_path / "started"
    process = subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path / "catalog.db"), str(started)])
    try:
        deadline = time.monotonic() + 120
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert store.job(job.id).state == "running"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    store.work(lambda kind, task: f"{task} after all", threading.Event(), until_idle=True)
    assert [(j.id, j.state, j.outcome) for j in store.jobs()] == [(job.id, "done", "sst2 after all")]


def test_a_schedule_submits_jobs(store: JobStore) -> None:
    store.schedule("learn", "sst2", "* * * * * *", None)
    stop = threading.Event()

    def run(kind: str, task: str) -> str:
        stop.set()
        return ""

    store.work(run, stop)
    assert [(job.kind, job.task) for job in store.jobs()][:1] == [("learn", "sst2")]


def test_schedules_are_replaced_paused_resumed_and_removed(store: JobStore) -> None:
    store.schedule("learn", "sst2", "0 3 * * 0", None)
    store.schedule("learn", "sst2", "0 4 * * 0", "Europe/Berlin")
    (schedule,) = store.schedules()
    assert (schedule.name, schedule.cron, schedule.timezone, schedule.active) == (
        "learn:sst2", "0 4 * * 0", "Europe/Berlin", True,
    )  # fmt: skip
    assert not store.pause("learn:sst2").active
    assert store.resume("learn:sst2").active
    store.remove("learn:sst2")
    assert store.schedules() == []
    with pytest.raises(NotFoundError, match="no schedule 'learn:sst2'"):
        store.pause("learn:sst2")


@pytest.mark.parametrize(("cron", "zone"), [("often", None), ("99 * * * *", None), ("0 3 * * *", "Mars/Olympus")])
def test_a_schedule_that_cannot_be_is_refused(store: JobStore, cron: str, zone: str | None) -> None:
    with pytest.raises(ConfigError, match=f"{cron!r} in time zone {zone or 'UTC'}".replace("*", r"\*")):
        store.schedule("learn", "sst2", cron, zone)
    assert store.schedules() == []


def test_ticks_follow_the_time_zone_over_a_change_of_clocks() -> None:
    schedule = Schedule("learn:a", "learn", "a", "0 3 * * *", "Europe/Berlin", True)
    ticks = next_ticks(schedule, datetime(2026, 3, 28, 0, tzinfo=UTC), 2)
    assert [tick.astimezone(UTC).isoformat() for tick in ticks] == [
        "2026-03-28T02:00:00+00:00",
        "2026-03-29T01:00:00+00:00",
    ]


def test_an_unknown_job_is_an_error(store: JobStore) -> None:
    store.submit("learn", "sst2")
    with pytest.raises(NotFoundError, match="no job 'learn-0'"):
        store.job("learn-0")
