"""Each private name of DBOS does what the runner needs of it; a release that changes one fails here."""

from __future__ import annotations

import base64
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dbos as dbos_package
import pytest
from dbos import DBOS, DBOSClient
from dbos._serialization import deserialize_value
from sqlalchemy import Engine, event, text

import multiprompt.jobs
from multiprompt.catalog.database import database_engine
from multiprompt.errors import JobError
from multiprompt.jobs import dbos_private
from multiprompt.jobs.serializer import PlainData

Workflow = Callable[[str], str]
QUEUE, NAME, WORKFLOW, VERSION = "jobs", "tests", "tests.job", "1"
EVERYWHERE: Callable[[str], list[str | None]] = lambda queue: [None]  # noqa: E731


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    path = tmp_path / "dbos.db"
    DBOS.migrate(f"sqlite:///{path}")
    engine = database_engine(str(path)).execution_options(immediate=True)
    yield engine
    engine.dispose()


@contextmanager
def launched(engine: Engine, run: Workflow, slots: int = 1, worker: str = "w") -> Iterator[DBOS]:
    """DBOS as the runner launches it, with one workflow."""
    dbos = DBOS(
        config={
            "name": NAME,
            "system_database_engine": engine,
            "serializer": PlainData(),
            "application_version": VERSION,
            "executor_id": worker,
            "run_migrations": False,
            "log_level": "CRITICAL",
            "use_listen_notify": False,
        }
    )
    dbos_private.declare_queue(dbos, QUEUE, slots, 0.02)
    try:
        DBOS.workflow(name=WORKFLOW)(run)
        DBOS.launch()
        yield dbos
    finally:
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=5)


def submit(engine: Engine, argument: str) -> str:
    client = DBOSClient(system_database_engine=engine, serializer=PlainData(), application_name=NAME)
    options: Any = {"queue_name": QUEUE, "workflow_name": WORKFLOW, "app_version": VERSION}
    return str(client.enqueue(options, argument).workflow_id)


def begin(engine: Engine, worker: str) -> None:
    """Let a worker have begun every job."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE workflow_status SET status = 'PENDING', executor_id = :w"), {"w": worker})


def outcome(job_id: str) -> Any:
    return DBOS.retrieve_workflow(job_id).get_result()


def value(engine: Engine, column: str, job_id: str) -> Any:
    query = text(f"SELECT {column} FROM workflow_status WHERE workflow_uuid = :job_id")
    with engine.connect() as connection:
        return connection.execute(query, {"job_id": job_id}).scalar_one()


def test_no_other_module_uses_a_private_name_of_dbos() -> None:
    folder = Path(str(multiprompt.jobs.__file__)).parent
    private = r"\bdbos\._|DBOS\._|\._(sys_db|registry)\b"
    users = {file.name for file in folder.glob("*.py") if re.search(private, file.read_text(encoding="utf-8"))}
    assert users == {"dbos_private.py"}


def test_a_queue_runs_as_many_jobs_at_once_as_it_has_slots(engine: Engine) -> None:
    both = threading.Barrier(2)
    running: list[int] = []

    def run(argument: str) -> str:
        running.append(1)
        both.wait(30)
        most = len(running)
        both.wait(30)
        running.pop()
        return str(most)

    jobs = [submit(engine, str(number)) for number in range(4)]
    with launched(engine, run, slots=2):
        assert [outcome(job_id) for job_id in jobs] == ["2"] * 4


def test_nothing_is_asked_of_the_database_where_there_is_no_scope(engine: Engine) -> None:
    asked: list[str] = []
    polled = threading.Semaphore(0)

    def scopes(queue: str) -> list[str | None]:
        polled.release()
        return []

    with launched(engine, lambda argument: argument) as dbos:
        dbos_private.poll_only(dbos, scopes)
        for _ in range(3):
            assert polled.acquire(timeout=30)
        event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
        for _ in range(5):
            assert polled.acquire(timeout=30)
        assert asked == []
        dbos_private.poll_only(dbos, EVERYWHERE)
        assert outcome(submit(engine, "asked for")) == "asked for"


def test_a_row_that_is_no_job_is_not_read(engine: Engine) -> None:
    done: list[str] = []

    def run(argument: str) -> str:
        done.append(argument)
        return argument

    with launched(engine, run, slots=2) as dbos:
        dbos_private.read_only(dbos, lambda status: "refused" not in str(status["inputs"]))
        submit(engine, "refused")
        assert outcome(submit(engine, "taken")) == "taken"
    assert done == ["taken"]


def test_a_job_is_ended_once_with_the_error_that_was_given(engine: Engine) -> None:
    job_id = submit(engine, "bad")
    begin(engine, "another worker")
    with launched(engine, lambda argument: argument) as dbos:
        error = PlainData().serialize(JobError("the row holds no job"))
        assert dbos_private.fail(dbos, job_id, error)
        assert not dbos_private.fail(dbos, job_id, error)
        with pytest.raises(JobError, match="the row holds no job"):
            outcome(job_id)


def test_what_a_dead_worker_had_begun_is_run_again(engine: Engine) -> None:
    job_id = submit(engine, "again")
    begin(engine, "dead")
    with launched(engine, lambda argument: argument, worker="alive"):
        assert value(engine, "status", job_id) == "PENDING"
        dbos_private.recover(["dead"])
        assert outcome(job_id) == "again"


def test_a_running_job_knows_its_id_and_its_claim(engine: Engine) -> None:
    def run(job: str) -> str:
        job_id, owner = dbos_private.current_job()
        return f"{job_id} {owner == value(engine, 'owner_xid', job_id)}"

    job_id = submit(engine, "mine")
    with launched(engine, run):
        assert outcome(job_id) == f"{job_id} True"


class _Executes:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_an_outcome_that_is_pickled_is_not_read(tmp_path: Path) -> None:
    mark = tmp_path / "EXECUTED"
    pickled = base64.b64encode(pickle.dumps(_Executes(mark))).decode()
    dbos_private.forbid_pickles(PlainData)
    with pytest.raises(JobError, match="marked as pickled"):
        deserialize_value(pickled, "py_pickle", PlainData())
    assert not mark.exists()


def test_dbos_unpickles_in_one_place_alone() -> None:
    sources = {file.name: file.read_text() for file in Path(str(dbos_package.__file__)).parent.rglob("*.py")}
    found = {name: source.count("pickle.load") for name, source in sources.items() if "pickle.load" in source}
    assert found == {"_serialization.py": 1}
