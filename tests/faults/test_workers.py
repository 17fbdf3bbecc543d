"""Real workers, and what befalls them: SIGKILL, SIGTERM, a cancelled job, a locked or restarted database."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

import multiprompt as mp
from multiprompt.catalog import database
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import UnavailableError
from multiprompt.jobs import runner
from tests.catalog.databases import crash, new_database, new_server
from tests.conftest import MakeTask, write_tiny_model
from tests.jobs.conftest import Jobs, _fill

ENDLESS = {"num_virtual_tokens": 4, "training": {"steps": 100_000, "batch_size": 4, "validate_every": 20}}
PATIENT = {"patience": 1_000_000}


class Worker:
    """A `multiprompt worker` process."""

    def __init__(self, catalog: Path | str, *options: str) -> None:
        command = [sys.executable, "-m", "multiprompt", "worker", "--catalog", str(catalog), "--lease", "2", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @property
    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def stop(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[1]


def until(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def endless(workspace: mp.Workspace, make_task: MakeTask) -> mp.Workspace:
    """A catalog with a task whose training does not end by itself."""
    workspace.base_model()
    training = ENDLESS["training"] | PATIENT  # type: ignore[operator]
    workspace.add_task(make_task("colour", multiprompt=ENDLESS | {"training": training}))
    return mp.open(workspace.catalog.path, actor="tester")


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.process.kill()
        worker.process.communicate()


def test_killed_cancelled_and_stopped(endless: mp.Workspace, workers: list[Worker], make_task: MakeTask) -> None:
    path = endless.catalog.path
    job = endless.submit("colour")

    def step() -> int:
        progress = endless.jobs.get(job.id).progress
        return progress.done if progress is not None and progress.step == "training" else 0

    workers.append(Worker(path, "--name", "first"))
    until(lambda: step() > 20)
    (child,) = workers[0].children
    os.kill(workers[0].process.pid, signal.SIGKILL)
    until(lambda: is_gone(child), 10)

    workers.append(Worker(path, "--name", "second"))
    until(lambda: "goes on from step" in "".join(line.message for line in endless.jobs.logs(job.id)))
    progress = endless.jobs.get(job.id).progress
    assert progress is not None
    assert (progress.worker, progress.attempt) == ("second", 2)

    said = workers[1].stop(signal.SIGTERM) if endless.jobs.get(job.id).state == "running" else ""
    assert "worker second: " in said
    assert endless.jobs.get(job.id).state == "queued"
    assert endless.catalog.ledger.workers() == []

    workers.append(Worker(path, "--name", "third", "--log", "json"))
    until(lambda: step() > 0 and endless.jobs.get(job.id).state == "running")
    cancelled_at = time.monotonic()
    endless.jobs.cancel(job.id)
    endless.add_task(make_task("shape"))
    quick = endless.submit("shape")
    assert quick.wait(60).state == "done"
    assert time.monotonic() - cancelled_at < 30
    assert [version.label for version in endless.versions()] == ["shape@1"]
    assert endless.jobs.get(job.id).state == "cancelled"
    said = workers[2].stop(signal.SIGTERM)
    assert '"level": "info"' in said
    assert workers[2].process.returncode == 0


def causes(workspace: mp.Workspace) -> list[tuple[str, str]]:
    """What the newest check found, and what it named as the cause."""
    with sqlite3.connect(workspace.catalog.path) as raw:
        newest = "SELECT max(id) FROM checks"
        found = raw.execute(f"SELECT verdict, cause FROM check_results WHERE check_id = ({newest})").fetchall()
    raw.close()
    return found


def test_a_kept_child_sees_that_the_base_model_changed_as_a_check_by_hand_does(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, workers: list[Worker]
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    workspace = mp.open(tmp_path / "catalog.db", str(model), dtype="float32", actor="tester")
    workspace.learn(workspace.add_task(make_task("colour")).name)
    workers.append(Worker(workspace.catalog.path))
    assert workspace.submit().wait(60).outcome == "1 checked: 1 identical"
    (child,) = workers[0].children
    before = workspace.predict([("colour", "sky")])
    shutil.copy(write_tiny_model(tmp_path / "other", seed=7) / "model.safetensors", model / "model.safetensors")
    in_a_job = workspace.submit().wait(60)
    found = causes(workspace)
    assert found != []
    assert {cause for _, cause in found} == {"base"}
    by_hand = workspace.check()
    assert (in_a_job.outcome, causes(workspace)) == (by_hand.summary, found)
    refused = workspace.submit("colour").wait(60)
    assert refused.state == "failed"
    assert refused.outcome.startswith("BaseMismatchError: ")
    assert workers[0].children == [child]
    assert workspace.predict([("colour", "sky")]) == before


def test_retraining_on_unchanged_data_again_and_again_publishes_no_copies(
    workspace: mp.Workspace, make_task: MakeTask, workers: list[Worker]
) -> None:
    still = {"num_virtual_tokens": 4, "training": {"steps": 4, "learning_rate": 0.0}}
    workspace.learn(workspace.add_task(make_task("colour", multiprompt=still)).name)
    workers.append(Worker(workspace.catalog.path))
    for _ in range(2):
        found = workspace.submit("colour").wait(60)
        assert (found.kind, found.state) == ("retrain", "done")
        assert found.outcome == "nothing new to learn: the training gave the bytes of colour@1"
    assert [version.label for version in workspace.versions()] == ["colour@1"]
    assert workspace.verify() == []


def test_a_rejected_candidate_fails_its_job_and_listing_and_log_have_the_reason(
    workspace: mp.Workspace, make_task: MakeTask, workers: list[Worker]
) -> None:
    quick = {"num_virtual_tokens": 4, "training": {"steps": 40, "learning_rate": 0.1, "validate_every": 20}}
    path = make_task("colour", multiprompt=quick)

    def write(split: str, label: str) -> None:
        rows = [json.dumps({"text": f"sky {number}", "label": label}) + "\n" for number in range(12)]
        (path.parent / f"{split}.jsonl").write_text("".join(rows))

    for split in ("train", "validation", "test"):
        write(split, "red")
    assert workspace.learn(workspace.add_task(path).name).soft == 1.0
    for split in ("train", "validation"):
        write(split, "green")
    job = workspace.submit("colour", "learn")
    workers.append(Worker(workspace.catalog.path, "--until-idle"))
    found = job.wait(60)
    reason = workspace.version("colour@2").reason
    assert (found.state, found.outcome) == ("failed", f"colour@2 rejected: {reason}")
    assert workspace.jobs.logs(job.id)[-1].message == found.outcome


def test_a_worker_that_slept_past_its_lease_ends_and_its_job_is_done_once(
    workspace: mp.Workspace, make_task: MakeTask, workers: list[Worker]
) -> None:
    settings = {"num_virtual_tokens": 4, "training": {"steps": 400, "batch_size": 4, "validate_every": 20} | PATIENT}
    workspace.base_model()
    workspace.add_task(make_task("colour", multiprompt=settings))
    job = workspace.submit("colour")
    workers.append(Worker(workspace.catalog.path, "--name", "sleeper"))
    until(lambda: (found := workspace.jobs.get(job.id).progress) is not None and found.step == "training")
    workers[0].process.send_signal(signal.SIGSTOP)
    workers.append(Worker(workspace.catalog.path, "--name", "other", "--until-idle"))
    assert workspace.jobs.wait(job.id, 90).state == "done"
    workers[0].process.send_signal(signal.SIGCONT)
    said = workers[0].process.communicate(timeout=30)[1]
    assert "gave no sign of life for so long" in said
    assert workers[0].process.returncode == 2
    assert [version.label for version in workspace.versions()] == ["colour@1"]


def test_a_database_that_is_locked_for_long_delays_a_job_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(runner, "FIRST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(runner, "_TICK_SECONDS", 0.05)
    catalog = Catalog.open(str(tmp_path / "catalog.db"), create=True)
    _fill(catalog)
    jobs = Jobs(catalog)
    jobs.queue.submit("learn", "sst2", 100)
    tries = 0

    def work(kind: str, task: str | None) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            threading.Thread(target=hold).start()
            assert held.wait(10)
        return "done"

    held = threading.Event()

    def hold() -> None:
        with sqlite3.connect(catalog.path, isolation_level=None) as raw:
            raw.execute("BEGIN IMMEDIATE")
            held.set()
            time.sleep(1.5)
            raw.execute("ROLLBACK")
        raw.close()

    jobs.work(work)
    assert [job.state for job in jobs.queue()] == ["done"]
    assert tries > 1


def test_a_server_that_ends_every_connection_delays_a_job_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "FIRST_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(runner, "_TICK_SECONDS", 0.05)
    url = new_database()
    catalog = Catalog.open(url, create=True)
    _fill(catalog)
    jobs = Jobs(catalog)
    for task in ("sst2", "trec"):
        jobs.queue.submit("learn", task, 100)
    tries = 0

    def work(kind: str, task: str | None) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        return "done"

    jobs.work(work)
    assert [job.state for job in jobs.queue()] == ["done", "done"]
    catalog.close()


def test_a_server_that_crashes_while_a_task_trains_delays_its_job(
    tiny_model: Path, make_task: MakeTask, workers: list[Worker]
) -> None:
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = new_server(folder)
        url = server.get_uri()
        workspace = mp.open(url, str(tiny_model), dtype="float32", actor="tester")
        workspace.base_model()
        settings = {
            "num_virtual_tokens": 4,
            "training": {"steps": 400, "batch_size": 4, "validate_every": 20} | PATIENT,
        }
        workspace.add_task(make_task("colour", multiprompt=settings))
        job = workspace.submit("colour")
        workers.append(Worker(url, "--name", "first", "--until-idle"))
        until(lambda: (found := workspace.jobs.get(job.id).progress) is not None and found.step == "training")
        crash(server)
        with pytest.raises(UnavailableError):
            workspace.jobs.get(job.id)
        time.sleep(3)
        server.ensure_postgres_running()
        said = workers[0].process.communicate(timeout=90)[1]
        assert "going on once it can be reached" in said
        assert workspace.jobs.get(job.id).state == "done"
        assert [(version.label, version.state) for version in workspace.versions()] == [("colour@1", "published")]
        assert workspace.verify() == []
        workspace.catalog.close()
        server.cleanup()


def test_a_clock_that_jumps_takes_no_job_from_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_TICK_SECONDS", 0.05)
    catalog = Catalog.open(str(tmp_path / "catalog.db"), create=True)
    _fill(catalog)
    jobs = Jobs(catalog)
    jobs.queue.submit("learn", "sst2", 100)
    tries = 0

    def work(kind: str, task: str | None) -> str:
        nonlocal tries
        tries += 1
        for days in (-400, 800):
            jobs.clock.move(days=days)
            time.sleep(0.5)
        return "done"

    jobs.work(work, lease=1.0)
    assert ([job.outcome for job in jobs.queue()], tries) == (["done"], 1)
