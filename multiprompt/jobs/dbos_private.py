"""The names of DBOS that it does not promise to keep. They are used here alone, and a test holds each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from dbos import DBOS, Serializer
from dbos._context import get_local_dbos_context
from dbos._serialization import DefaultSerializer
from dbos._sys_db import WorkflowStatusInternal

from multiprompt.errors import JobError

Status = WorkflowStatusInternal


def forbid_pickles(serializer: type[Serializer]) -> None:
    """Let DBOS unpickle nothing in this process from now on, and write with this serializer instead.

    DBOS reads a row that is marked as pickled with its own serializer, whichever one it was given.
    """

    def refuse(*_: Any) -> NoReturn:
        raise JobError("a row of the jobs is marked as pickled; a pickle can run code, so it was not read.")

    DefaultSerializer.serialize = serializer.serialize  # type: ignore[method-assign]
    DefaultSerializer.deserialize = refuse  # type: ignore[assignment, method-assign]


def declare_queue(dbos: DBOS, name: str, slots: int, poll_seconds: float) -> None:
    """A queue of this process. One that is declared in the database has the slots of the process that did so last."""
    dbos._registry._register_internal_queue(name, worker_concurrency=slots, polling_interval_sec=poll_seconds)


def poll_only(dbos: DBOS, scopes: Callable[[str], list[str | None]]) -> None:
    """Let DBOS ask the database for work in these scopes of a queue, and for nothing else.

    It would ask for queues, schedules, delays and deadlines of its own several times a second; no job has any.
    """
    database = dbos._sys_db
    database.list_queues = lambda **_: []  # type: ignore[method-assign]
    database.list_schedules = lambda **_: []  # type: ignore[method-assign]
    database.transition_delayed_workflows = lambda: None  # type: ignore[method-assign]
    database.cancel_timed_out_workflows = lambda limit: []  # type: ignore[method-assign]
    database.dequeue_scopes = scopes  # type: ignore[assignment, method-assign]


def read_only(dbos: DBOS, is_job: Callable[[Status], bool]) -> None:
    """Let DBOS read, of the rows that it claimed, those alone for which `is_job` holds."""
    database = dbos._sys_db
    read = database.get_workflow_statuses

    def jobs(job_ids: list[str]) -> list[Status]:
        return [status for status in read(job_ids) if is_job(status)]

    database.get_workflow_statuses = jobs  # type: ignore[assignment, method-assign]


def fail(dbos: DBOS, job_id: str, error: str) -> bool:
    """End a job with an error, as its serializer wrote it. Says whether it had not ended before."""
    return dbos._sys_db.update_workflow_outcome(job_id, "ERROR", error=error)


def recover(workers: Sequence[str]) -> None:
    """Run again, in this process, what these workers had begun."""
    DBOS._recover_pending_workflows(list(workers))


def current_job() -> tuple[str, str]:
    """The id of the job that this thread runs, and the name under which it was claimed."""
    context: Any = get_local_dbos_context()
    return str(DBOS.workflow_id), str(context.owner_xid)
