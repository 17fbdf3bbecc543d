"""Durable jobs: a queue, cron schedules and a worker that outlives crashes, on DBOS, which only this package knows.

Jobs live in a file of their own beside the catalog, since DBOS and the catalog deadlock in one SQLite file.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from croniter import croniter
from dbos import DBOS, DBOSClient, DBOSConfig, Serializer
from sqlalchemy import Engine

from multiprompt.catalog.database import database_engine, reading
from multiprompt.catalog.query import parse
from multiprompt.errors import ConfigError, JobError, NotFoundError, StateError, nearest
from multiprompt.jobs.table import JOBS, KEY, WORKFLOW, job, jobs, jobs_file
from multiprompt.records import Job, Listing, Schedule

_APPLICATION, _QUEUE = "multiprompt", "jobs"
# Fixed, so that an upgrade of multiprompt does not strand the jobs that wait.
_VERSION = "1"
_TICK = "multiprompt.tick"
_POLL_SECONDS = 0.2
_SHUTDOWN_SECONDS = 30

# Does a job's work, given its kind and task, and says what came of it.
Run = Callable[[str, str], str]


class JobStore:
    """The jobs and schedules of one catalog."""

    def __init__(self, catalog: Path) -> None:
        self._path = jobs_file(catalog)

    def submit(self, kind: str, task: str) -> Job:
        """Queue a job. While one of this kind and task waits or runs, that one is given back."""
        handle: Any = self._client.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": _QUEUE,
                "workflow_id": f"{kind}-{uuid4().hex[:12]}",
                "app_version": _VERSION,
                "deduplication_id": f"{kind}:{task}",
                "duplication_policy": "return-existing",
            },
            kind,
            task,
        )
        return self.job(handle.workflow_id)

    def job(self, identity: str) -> Job:
        found = self.jobs(f"id = '{identity.replace(chr(39), chr(39) * 2)}'")
        if not found:
            raise NotFoundError(f"no job {identity!r}; {nearest(identity, [job.id for job in self.jobs()])}")
        return found[0]

    def jobs(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Job]:
        """The jobs that a query finds, oldest first unless it says otherwise. Raises QueryError."""
        parsed = parse(query, JOBS, limit)
        if not self._path.exists():
            return Listing()
        with reading(database_engine(str(self._path))) as connection:
            return parsed.page(connection, jobs(), KEY, job, after)

    def schedule(self, kind: str, task: str, cron: str, timezone: str | None) -> Schedule:
        """Submit a job at each tick of a cron expression; a schedule of the same kind and task is replaced."""
        name = f"{kind}:{task}"
        try:
            schedule: Any = {
                "schedule_name": name, "workflow_name": _TICK, "schedule": cron, "context": [kind, task],
                "cron_timezone": timezone, "application_name": _APPLICATION,
            }  # fmt: skip
            self._client.apply_schedules([schedule])
        except Exception as error:  # DBOS has one class for every complaint
            raise ConfigError(f"{cron!r} in time zone {timezone or 'UTC'} is no schedule: {error}") from None
        return self._schedule(name)

    def schedules(self) -> list[Schedule]:
        return [_schedule(found) for found in self._client.list_schedules()] if self._path.exists() else []

    def pause(self, name: str) -> Schedule:
        self._schedule(name)
        self._client.pause_schedule(name)
        return self._schedule(name)

    def resume(self, name: str) -> Schedule:
        self._schedule(name)
        self._client.resume_schedule(name)
        return self._schedule(name)

    def remove(self, name: str) -> None:
        self._schedule(name)
        self._client.delete_schedule(name)

    def work(self, run: Run, stop: threading.Event, *, until_idle: bool = False) -> None:
        """Run jobs until `stop` is set, or until none waits. A job that a dead worker left is run again.

        Raises StateError when another worker serves this catalog.
        """
        with self._only_worker(), _launched(self._engine, run):
            while not stop.wait(_POLL_SECONDS):
                if until_idle and not any(job.state in ("queued", "running") for job in self.jobs()):
                    return

    def _schedule(self, name: str) -> Schedule:
        known = {schedule.name: schedule for schedule in self.schedules()}
        if name not in known:
            raise NotFoundError(f"no schedule {name!r}; {nearest(name, known)}")
        return known[name]

    @cached_property
    def _engine(self) -> Engine:
        if not self._path.exists():
            with sqlite3.connect(self._path) as raw:
                raw.execute("PRAGMA journal_mode = WAL")
            raw.close()
        DBOS.migrate(f"sqlite:///{self._path}")
        return database_engine(str(self._path)).execution_options(immediate=True)

    @cached_property
    def _client(self) -> DBOSClient:
        return DBOSClient(system_database_engine=self._engine, serializer=_PlainData(), application_name=_APPLICATION)

    @contextmanager
    def _only_worker(self) -> Iterator[None]:
        """Hold a lock that dies with the process."""
        with self._path.with_name(f"{self._path.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StateError(f"a worker serves {self._path} already; stop that one first.") from None
            yield


class _PlainData(Serializer):
    """JSON instead of DBOS's pickle; an error is kept as its text."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=_encode)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data, object_hook=_decode)


def _encode(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, BaseException):
        return {"$error": f"{type(value).__name__}: {' '.join(str(value).split())}"}
    raise TypeError(f"a job holds plain data only, not a {type(value).__name__}")


def _decode(value: dict[str, Any]) -> Any:
    if set(value) == {"$time"}:
        return datetime.fromisoformat(value["$time"])
    return JobError(value["$error"]) if set(value) == {"$error"} else value


@contextmanager
def _launched(engine: Engine, run: Run) -> Iterator[None]:
    """DBOS in this process, which can hold one; running jobs get some seconds to finish when it ends."""
    config: DBOSConfig = {
        "name": _APPLICATION,
        "system_database_engine": engine,
        "serializer": _PlainData(),
        "application_version": _VERSION,
        "executor_id": "worker",
        "run_migrations": False,
        "log_level": "CRITICAL",
        "scheduler_polling_interval_sec": 1.0,
    }
    DBOS(config=config)
    try:
        attempt = DBOS.step(name="multiprompt.run")(run)

        @DBOS.workflow(name=WORKFLOW)
        def do(kind: str, task: str) -> str:
            return attempt(kind, task)

        @DBOS.workflow(name=_TICK)
        def tick(_: datetime, context: Any) -> None:
            kind, task = context
            DBOS.enqueue_workflow_with_options(
                {
                    "workflow_name": WORKFLOW,
                    "queue_name": _QUEUE,
                    "app_version": _VERSION,
                    "deduplication_id": f"{kind}:{task}",
                    "duplication_policy": "return-existing",
                },
                kind,
                task,
            )

        DBOS.launch()
        DBOS.register_queue(_QUEUE, worker_concurrency=1, polling_interval_sec=_POLL_SECONDS)
        yield
    finally:
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=_SHUTDOWN_SECONDS)


def _schedule(found: Any) -> Schedule:
    kind, task = found["context"]
    active = found["status"] == "ACTIVE"
    return Schedule(
        name=found["schedule_name"], kind=kind, task=task, cron=found["schedule"],
        timezone=found["cron_timezone"] or "UTC", active=active,
    )  # fmt: skip


def next_ticks(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The next times that a schedule fires, in its time zone."""
    from zoneinfo import ZoneInfo

    ticks = croniter(schedule.cron, after.astimezone(ZoneInfo(schedule.timezone)), second_at_beginning=True)
    return [ticks.get_next(datetime) for _ in range(count)]
