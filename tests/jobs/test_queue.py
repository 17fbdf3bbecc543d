"""Jobs are done once, in order, by whoever lives; they can be cancelled, retried and parked, and hold plain data."""

from __future__ import annotations

import base64
import os
import pickle
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from multiprompt.catalog.database import reading, writing
from multiprompt.catalog.jobs import Ledger
from multiprompt.context import Context
from multiprompt.errors import (
    ConfigError,
    JobTimeoutError,
    NotFoundError,
    QueryError,
    SchemaError,
    StateError,
    SupersededError,
    UnavailableError,
)
from multiprompt.jobs import runner
from multiprompt.jobs.dbos_tables import attached
from multiprompt.jobs.kinds import LOADING
from multiprompt.records import Claim, Job, JobState, Outcome
from multiprompt.workspace import Workspace
from tests.catalog.databases import by
from tests.catalog.samples import learn
from tests.jobs.conftest import START, TASKS, Jobs


def submit(jobs: Jobs, task: str | None, kind: str = "learn", priority: int = 100) -> Job:
    jobs.clock.move(seconds=1)
    return jobs.queue.submit(kind, task, priority)


def done(kind: str, task: str | None) -> str:
    return f"{kind} of {task} done"


def fails(error: Exception) -> Callable[[str, str | None], str]:
    def work(kind: str, task: str | None) -> str:
        if task == "bad":
            raise error
        return done(kind, task)

    return work


def test_a_catalog_without_jobs_lists_none_and_makes_nothing(jobs: Jobs) -> None:
    assert jobs.queue() == []
    assert jobs.schedules() == []
    assert not jobs.queue._exists


def test_a_worker_does_every_job_and_keeps_what_came_of_it(jobs: Jobs) -> None:
    for task in ("sst2", "bad", "trec"):
        assert submit(jobs, task).state == "queued"
    submit(jobs, None, "check")
    jobs.work(fails(ValueError("no such\ndata")))
    assert [(job.kind, job.task, job.state, job.outcome) for job in jobs.queue()] == [
        ("learn", "sst2", "done", "learn of sst2 done"),
        ("learn", "bad", "failed", "ValueError: no such data"),
        ("learn", "trec", "done", "learn of trec done"),
        ("check", "", "done", "check of None done"),
    ]


def test_sql_reads_jobs_as_the_listing_shows_them(jobs: Jobs) -> None:
    for task in ("sst2", "bad"):
        submit(jobs, task)
    submit(jobs, None, "check")
    jobs.work(fails(ValueError("no such data")))
    submit(jobs, "it's", priority=7)
    aside = attached(jobs.catalog.path) if jobs.catalog.is_file else None
    found = jobs.catalog.sql("SELECT * FROM v_jobs ORDER BY id", 100, aside)
    assert found.columns == ("id", "kind", "task", "state", "priority", "created_at", "updated_at", "outcome")
    listed = [astuple(job)[:8] for job in jobs.queue()]
    assert [(*row[:5], row[7]) for row in found.rows] == [(*row[:5], row[7]) for row in listed]
    assert [str(row[5])[:19] for row in found.rows] == [f"{row[5]:%Y-%m-%d %H:%M:%S}" for row in listed]


@pytest.mark.parametrize("states", [("queued",), ("running",), ("queued", "running")])
def test_a_look_for_work_goes_through_no_job_that_has_ended(jobs: Jobs, states: tuple[JobState, ...]) -> None:
    submit(jobs, "sst2")
    if not jobs.catalog.is_file:
        pytest.skip("of so few rows PostgreSQL reads all, whatever the index")
    with reading(jobs.queue.engine) as connection:
        look = jobs.queue.table.live(*states).limit(1).compile(connection, compile_kwargs={"literal_binds": True})
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {look}").all())
    assert "SEARCH workflow_status USING INDEX idx_workflow_status_in_flight" in plan
    assert "SCAN" not in plan


def test_jobs_are_queried_and_paged_like_every_listing(jobs: Jobs) -> None:
    for task in ("sst2", "bad", "it's"):
        submit(jobs, task)
    jobs.work(fails(ValueError("no such data")))
    submit(jobs, "trec", priority=7)

    def tasks(query: str) -> list[str]:
        return [job.task for job in jobs.queue(query)]

    assert tasks("state = 'failed'") == ["bad"]
    assert tasks("state in ('done', 'queued') and kind = 'learn'") == ["sst2", "it's", "trec"]
    assert tasks("outcome like '%no such%'") == ["bad"]
    assert tasks("priority < 10") == ["trec"]
    assert tasks("created_at > '2001-01-01' and not updated_at > '2999-01-01' limit 2") == ["sst2", "bad"]
    assert tasks("created_at < '2001-01-01'") == []
    assert tasks("order by task desc") == ["trec", "sst2", "it's", "bad"]
    seen, after = [], None
    for _ in range(2):
        page = jobs.queue("order by id desc", limit=2, after=after)
        seen, after = [*seen, *(job.task for job in page)], page.after
    assert (seen, after) == (["trec", "it's", "bad", "sst2"], None)
    with pytest.raises(QueryError, match="unknown field 'stat'; did you mean 'state'"):
        jobs.queue("stat = 'failed'")


def test_a_task_has_one_live_job_and_when_it_is_done_may_have_another(jobs: Jobs) -> None:
    first = submit(jobs, "sst2")
    assert submit(jobs, "sst2").id == first.id
    assert submit(jobs, "sst2", "retrain").id == first.id
    assert submit(jobs, "sst2", "evaluate").id != first.id
    jobs.work(done)
    assert submit(jobs, "sst2").id != first.id


def test_first_jobs_that_are_submitted_at_once_are_all_there(jobs: Jobs) -> None:
    together = threading.Barrier(len(TASKS), timeout=20)

    def submit_one(task: str) -> None:
        together.wait()
        jobs.queue.submit("learn", task, 100)

    threads = [threading.Thread(target=submit_one, args=(task,)) for task in TASKS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {job.task for job in jobs.queue()} == set(TASKS)


def test_the_lower_priority_runs_first_and_equal_ones_in_their_order(jobs: Jobs) -> None:
    for task, priority in (("sst2", 100), ("trec", 100), ("bad", 5), ("it's", 50)):
        submit(jobs, task, priority=priority)
    order: list[str | None] = []
    jobs.work(lambda kind, task: order.append(task) or "")
    assert order == ["bad", "it's", "sst2", "trec"]


def test_a_job_that_is_submitted_while_the_same_one_runs_is_told_to_be_none(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    first = jobs.queue.submit("retrain", "sst2", 100)
    assert jobs.queue.submit("retrain", "sst2", 100).id == first.id
    assert caplog.text == "", "it waits, and will see what changed"
    jobs.work(lambda kind, task: jobs.queue.submit("retrain", "sst2", 100).id)
    assert f"no new job was submitted: {first.id} has begun" in caplog.text


def test_a_job_that_is_submitted_again_in_a_hurry_waits_no_longer(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    first = jobs.queue.submit("retrain", "sst2", 100)
    jobs.queue.submit("retrain", "trec", 50)
    assert (again := jobs.queue.submit("learn", "sst2", 1)).id == first.id
    assert (again.priority, jobs.queue.submit("retrain", "sst2", 70).priority) == (1, 1)
    assert f"no job to learn sst2 was submitted: {first.id} is queued, to retrain it" in caplog.text
    done: list[str | None] = []
    jobs.work(lambda kind, task: done.append(task) or "done")  # type: ignore[func-returns-value]
    assert done == ["sst2", "trec"]


def test_slots_are_how_many_run_at_a_time(jobs: Jobs) -> None:
    both = threading.Barrier(2, timeout=20)
    for task in ("sst2", "trec"):
        submit(jobs, task)
    jobs.work(lambda kind, task: str(both.wait() >= 0), slots=2)
    assert {job.state for job in jobs.queue()} == {"done"}


def test_what_may_pass_is_tried_again_and_what_cannot_is_not(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_WAIT_SECONDS", 0.01)
    tries: dict[str | None, int] = {}

    def work(kind: str, task: str | None) -> str:
        tries[task] = tries.get(task, 0) + 1
        if task == "trec" and tries[task] < 3:
            raise UnavailableError("locked")
        if task == "bad":
            raise ValueError("bad data")
        if task == "it's":
            raise UnavailableError("gone for good")
        return "done"

    for task in ("trec", "bad", "it's"):
        submit(jobs, task)
    jobs.work(work)
    assert [(job.task, job.state, job.outcome) for job in jobs.queue()] == [
        ("trec", "done", "done"),
        ("bad", "failed", "ValueError: bad data"),
        ("it's", "failed", "UnavailableError: gone for good"),
    ]
    assert tries == {"trec": 3, "bad": 1, "it's": runner.TRIES}


def test_a_job_that_waits_is_cancelled_and_can_be_retried(jobs: Jobs) -> None:
    job = submit(jobs, "sst2")
    assert jobs.queue.cancel(job.id).state == "cancelled"
    jobs.work(done)
    assert [found.state for found in jobs.queue()] == ["cancelled"]
    with pytest.raises(StateError, match="has ended"):
        jobs.queue.cancel(job.id)
    again = jobs.queue.retry(job.id)
    assert again.id != job.id
    with pytest.raises(StateError, match="is queued"):
        jobs.queue.retry(again.id)
    jobs.work(done)
    assert jobs.queue.get(again.id).state == "done"


def test_a_job_that_runs_is_cancelled_and_writes_nothing_from_then_on(jobs: Jobs) -> None:
    job = submit(jobs, "sst2")
    mine: list[bool] = []

    def do(claim: Claim, kind: str, task: str | None) -> None:
        checkpoint(jobs, "sst2", claim)
        assert jobs.queue.get(job.id).progress is not None
        mine.append(jobs.queue.is_mine(claim))
        jobs.queue.cancel(job.id)
        mine.append(jobs.queue.is_mine(claim))
        jobs.finish(claim, kind, task)

    jobs.do(do)
    assert (mine, jobs.superseded.is_set()) == ([True, False], True)
    assert jobs.queue.get(job.id).state == "cancelled"
    assert jobs.catalog.ledger.outcome(job.id) == Outcome(False, "cancelled")
    assert jobs.catalog.checkpoints.get("sst2", "key") is None


def checkpoint(jobs: Jobs, task: str, claim: Claim | None = None) -> None:
    """Save where a training stands, for a job or by hand."""
    catalog = jobs.catalog if claim is None else jobs.catalog.claimed_by(claim)
    by(catalog, "tester", jobs.clock()).checkpoints.save(task, "key", b"half a training")


@pytest.mark.parametrize(("kind", "task"), [("evaluate", "sst2"), ("check", None), ("retrain", "sst2")])
@pytest.mark.parametrize("runs", [False, True])
def test_a_cancelled_job_forgets_no_checkpoint_of_another_training(
    jobs: Jobs, kind: str, task: str | None, runs: bool
) -> None:
    checkpoint(jobs, "sst2")
    job = submit(jobs, task, kind)

    def do(claim: Claim, kind: str, task: str | None) -> None:
        jobs.queue.cancel(job.id)
        jobs.finish(claim, kind, task)

    if runs:
        jobs.do(do)
    else:
        jobs.queue.cancel(job.id)
    assert jobs.queue.get(job.id).state == "cancelled"
    assert jobs.catalog.checkpoints.get("sst2", "key") == b"half a training"


def test_a_learning_by_hand_leaves_the_checkpoint_of_a_job(jobs: Jobs) -> None:
    learn(jobs.catalog, "sst2")
    by_hand, known = jobs.catalog, jobs.catalog.versions.get("sst2")
    by(by_hand, "me", START).checkpoints.save("sst2", "hand", b"before")
    claim, _ = by_hand.ledger.claim("job", "owner", "w", START)
    by_job = by_hand.claimed_by(claim)
    by(by_job, "worker", START).checkpoints.save("sst2", "job", b"of the job")
    by(by_hand, "me", START).checkpoints.save("sst2", "hand", b"later")
    by(by_hand, "me", START).checkpoints.end_training(known, "nothing new")
    assert by_hand.checkpoints.get("sst2", "job") == b"of the job"
    by(by_job, "worker", START).checkpoints.end_training(known, "nothing new")
    assert by_hand.checkpoints.get("sst2", "job") is None
    by(by_hand, "me", START).checkpoints.save("sst2", "hand", b"after")
    assert by_hand.checkpoints.get("sst2", "hand") == b"after"


def test_a_cancelled_training_leaves_the_checkpoint_of_a_task_that_trains_alike(jobs: Jobs) -> None:
    checkpoint(jobs, "trec")
    job = submit(jobs, "sst2")

    def do(claim: Claim, kind: str, task: str | None) -> None:
        checkpoint(jobs, "sst2", claim)
        jobs.queue.cancel(job.id)
        jobs.finish(claim, kind, task)

    jobs.do(do)
    assert [jobs.catalog.checkpoints.get(task, "key") is None for task in ("sst2", "trec")] == [True, False]


def test_gc_leaves_all_of_a_job_that_runs_or_waits_to_go_on(jobs: Jobs) -> None:
    workspace = Workspace(Context(jobs.catalog.signed_by("tester", jobs.clock)))
    job = submit(jobs, "sst2")
    checkpoint(jobs, "trec")
    stop, attempts = threading.Event(), 0

    def collect() -> None:
        jobs.clock.move(days=400)
        workspace.collect_garbage(days=0, dry_run=True)
        workspace.collect_garbage(days=0)

    def do(claim: Claim, kind: str, task: str | None) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            jobs.catalog.ledger.save_results(claim, "snapshot", {"rows": b"many"})
            checkpoint(jobs, "sst2", claim)
        collect()
        jobs.catalog.ledger.advance(claim, "train", 1, 2, jobs.clock())
        if attempts == 1:
            stop.set()
            raise UnavailableError("the worker is stopping")
        assert jobs.catalog.ledger.results(claim.job, "snapshot") == {"rows": b"many"}
        assert jobs.catalog.checkpoints.get("sst2", "key") == b"half a training"
        jobs.finish(claim, kind, task)

    jobs.do(do, stop=stop, until_idle=False)
    assert jobs.queue.get(job.id).state == "queued"
    collect()
    jobs.do(do)
    assert (jobs.queue.get(job.id).state, attempts) == ("done", 2)
    assert jobs.catalog.checkpoints.get("trec", "key") is None
    collect()
    assert jobs.catalog.ledger.logs(job.id) == []


def test_a_job_whose_workers_die_again_and_again_is_parked_and_the_others_go_on(jobs: Jobs) -> None:
    job = submit(jobs, "bad", priority=1)
    submit(jobs, "sst2")
    for _ in range(runner.ATTEMPTS):
        _take(jobs, "a worker that dies")
    jobs.work(done, lease=0.1)
    assert jobs.queue.get(job.id).state == "parked"
    assert [found.state for found in jobs.queue("task = 'sst2'")] == ["done"]


def test_attempts_that_got_on_do_not_park_a_job(jobs: Jobs) -> None:
    job = submit(jobs, "bad", priority=1)
    for _ in range(2 * runner.ATTEMPTS):
        _take(jobs, "a worker that dies")
        jobs.queue.got_on(job.id)
    jobs.work(done, lease=0.1)
    assert jobs.queue.get(job.id).state == "done"


def test_attempts_that_broke_off_before_the_job_began_do_not_park_it(jobs: Jobs) -> None:
    job = submit(jobs, "bad")
    deaths = 0

    def do(claim: Claim, kind: str, task: str | None) -> None:
        nonlocal deaths
        deaths += 1
        if deaths <= runner.ATTEMPTS + 1:
            jobs.queue.advance(claim, LOADING, 0, 1)
            jobs.lose(claim)
            raise SupersededError("this worker is dead")
        jobs.finish(claim, kind, task)

    jobs.do(do, lease=0.1)
    assert (jobs.queue.get(job.id).state, deaths) == ("done", runner.ATTEMPTS + 2)


def test_attempts_that_broke_off_while_the_job_ran_park_it(jobs: Jobs) -> None:
    job = submit(jobs, "bad")
    deaths = 0

    def do(claim: Claim, kind: str, task: str | None) -> None:
        nonlocal deaths
        deaths += 1
        jobs.queue.advance(claim, "train", 0, 1)
        jobs.lose(claim)
        raise SupersededError("this worker is dead")

    jobs.do(do, lease=0.1)
    assert (jobs.queue.get(job.id).state, deaths) == ("parked", runner.ATTEMPTS)


def test_a_job_whose_worker_died_after_it_ended_is_not_done_again(jobs: Jobs) -> None:
    job = submit(jobs, "sst2")
    done: list[str] = []

    def do(claim: Claim, kind: str, task: str | None) -> None:
        done.append(claim.job)
        jobs.finish(claim, kind, task)
        jobs.lose(claim)
        raise SupersededError("this worker is dead")

    jobs.do(do, lease=0.1)
    assert ([job.id], "done") == (done, jobs.queue.get(job.id).state)


def test_nothing_is_pickled(jobs: Jobs) -> None:
    if not jobs.catalog.is_file:
        pytest.skip("about the file")
    submit(jobs, "bad")
    jobs.work(fails(ValueError("broken")))
    with sqlite3.connect(f"{jobs.catalog.path}.jobs") as raw:
        stored = raw.execute(
            "SELECT inputs, error FROM workflow_input JOIN workflow_output USING (workflow_uuid)"
        ).fetchall()
    raw.close()
    assert stored == [('{"args": ["learn", "bad"], "kwargs": {}}', '{"$error": "ValueError: broken"}')]


class _Executes:
    """What runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def hostile(values: dict[str, str], says: str) -> Any:
    return pytest.param(values, says, id=says)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        hostile({"serialization": "py_pickle", "inputs": "PICKLE"}, "marked as py_pickle"),
        hostile({"serialization": "portable_json"}, "marked as portable_json"),
        hostile({"serialization": "other"}, "marked as other"),
        hostile({"inputs": "PICKLE"}, "does not hold the kind and the task"),
        hostile({"inputs": "[]"}, "does not hold the kind"),
        hostile({"inputs": '{"args": ["learn"]}'}, "not hold the kind"),
        hostile({"inputs": '{"args": ["lern", "bad"], "kwargs": {}}'}, "no kind of job 'lern'; did you mean 'learn'"),
    ],
)
def test_a_row_that_holds_no_job_fails_with_the_reason_and_executes_nothing(
    jobs: Jobs, tmp_path: Path, values: dict[str, str], says: str
) -> None:
    mark = tmp_path / "EXECUTED"
    pickled = base64.b64encode(pickle.dumps({"args": ("learn", _Executes(mark)), "kwargs": {}})).decode()
    job = submit(jobs, "bad")
    submit(jobs, "sst2")
    schema = "" if jobs.catalog.is_file else "dbos."
    with writing(jobs.queue.engine) as connection:
        for name, value in values.items():
            table = schema + ("workflow_input" if name == "inputs" else "workflow_status")
            update = text(f"UPDATE {table} SET {name} = :value WHERE workflow_uuid = :job")
            connection.execute(update, {"value": value.replace("PICKLE", pickled), "job": job.id})
    jobs.work(done)
    assert not mark.exists()
    failed = jobs.queue.get(job.id)
    assert (failed.state, says in failed.outcome) == ("failed", True)
    assert [found.state for found in jobs.queue("task = 'sst2'")] == ["done"]


def test_a_worker_that_can_give_no_sign_of_life_ends(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def beat(*_: Any) -> bool:
        raise SchemaError("the catalog has another schema revision")

    monkeypatch.setattr(Ledger, "beat", beat)
    with pytest.raises(StateError, match="can give no sign of life .SchemaError: the catalog has another"):
        jobs.work(done, until_idle=False, lease=0.1)
    assert jobs.catalog.ledger.workers() == []


def test_a_worker_that_stops_hands_back_what_it_runs(jobs: Jobs) -> None:
    job = submit(jobs, "sst2")
    stop, go_on = threading.Event(), threading.Event()

    def work(kind: str, task: str | None) -> str:
        stop.set()
        go_on.wait(20)
        return "too late"

    jobs.work(work, stop=stop, until_idle=False)
    assert jobs.queue.get(job.id).state == "queued"
    assert jobs.catalog.ledger.workers() == []

    def work_again(kind: str, task: str | None) -> str:
        go_on.set()
        assert jobs.superseded.wait(20), "the first attempt wrote an outcome"
        return done(kind, task)

    jobs.work(work_again)
    assert jobs.queue.get(job.id).outcome == "learn of sst2 done"


def test_gc_forgets_the_logs_of_old_jobs_alone(jobs: Jobs) -> None:
    for task in ("sst2", "trec"):
        job = submit(jobs, task)
        jobs.work(done)
        jobs.clock.move(days=20)
    old, new = jobs.queue()
    by(jobs.catalog, "tester", jobs.clock()).collect_garbage(timedelta(days=30))
    assert jobs.catalog.ledger.logs(old.id) == []
    assert jobs.catalog.ledger.outcome(old.id) is None
    assert jobs.catalog.ledger.logs(job.id) != []
    assert (jobs.queue.get(old.id).state, jobs.catalog.ledger.outcome(new.id)) == (
        "done", Outcome(True, "learn of trec done"),
    )  # fmt: skip


def test_a_job_is_found_by_a_beginning_that_no_other_id_has(jobs: Jobs) -> None:
    first, second = submit(jobs, "sst2"), submit(jobs, "trec")
    shared = first.id[: next(i for i, (a, b) in enumerate(zip(first.id, second.id, strict=True)) if a != b)]
    for job in (first, second):
        assert jobs.queue.get(job.id[: len(shared) + 1]).id == job.id
    with pytest.raises(NotFoundError, match="begins the ids of several jobs .*: give more of one"):
        jobs.queue.get(shared)
    for unknown in ("", "%", "_", "\0", "\ud800", f"{first.id}x", first.id[1:], "nope"):
        with pytest.raises(NotFoundError, match="no job"):
            jobs.queue.get(unknown)
    assert jobs.queue.cancel(first.id[: len(shared) + 1]).state == "cancelled"


def test_waiting_without_a_worker_says_so_once(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    job = submit(jobs, "sst2")
    with pytest.raises(JobTimeoutError):
        job.wait(0.7)
    assert caplog.messages == [f"job {job.id} is queued, but no worker is running: start `multiprompt worker`"]


def test_waiting_for_a_job_ends_with_it_or_after_a_time(jobs: Jobs) -> None:
    job = submit(jobs, "sst2")
    with pytest.raises(JobTimeoutError, match=r"is queued after 0\.1 s; is a worker running"):
        job.wait(0.1)
    jobs.work(done)
    assert job.wait(5).state == "done"


@pytest.mark.parametrize(
    ("kind", "task", "priority", "says"),
    [
        ("lern", "sst2", 100, "no kind of job 'lern'; did you mean 'learn'"),
        ("learn", None, 100, "a job of kind learn takes a task"),
        ("check", "sst2", 100, "a job of kind check takes no task"),
        ("learn", "sst2", 0, "priority is 0"),
    ],
)
def test_a_job_that_cannot_be_is_refused(jobs: Jobs, kind: str, task: str | None, priority: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        jobs.queue.submit(kind, task, priority)
    assert jobs.queue() == []


def test_an_unknown_job_is_an_error(jobs: Jobs) -> None:
    submit(jobs, "sst2")
    with pytest.raises(NotFoundError, match="no job 'learn-0'"):
        jobs.queue.get("learn-0")


def _take(jobs: Jobs, worker: str) -> None:
    """What a worker leaves that takes a job and dies: it is running, and nobody gives a sign of life."""
    queue = jobs.queue
    workflows = queue.table._workflows
    with writing(queue.engine) as connection:
        connection.execute(
            workflows.update()
            .where(workflows.c.status.in_(("ENQUEUED", "PENDING")), workflows.c.priority == 1)
            .values(
                status="PENDING",
                executor_id=worker,
                owner_xid=worker,
                recovery_attempts=workflows.c.recovery_attempts + 1,
            )
        )
