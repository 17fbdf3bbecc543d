"""Durable jobs on DBOS, which only this package knows: a queue, and workers that outlive crashes and each other.

On SQLite, jobs live in a file of their own beside the catalog, since DBOS and the catalog deadlock in one; on
PostgreSQL they live in the catalog's database. The catalog holds the results of a job's steps (`catalog.ledger`).
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from dbos import DBOS, DBOSClient
from sqlalchemy import Engine, func, inspect

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.database import database_engine, make_like, making, reading, write_ahead, writing
from multiprompt.catalog.query.language import parse
from multiprompt.catalog.query.page import Query
from multiprompt.config import LEASE_SECONDS
from multiprompt.errors import (
    ConfigError,
    JobTimeoutError,
    NotFoundError,
    QueryError,
    StateError,
    nearest,
)
from multiprompt.jobs.dbos_tables import APPLICATION, QUEUE, VERSION, VIEW, WORKFLOW, JobTable, job, jobs_file
from multiprompt.jobs.kinds import check_kind, live_key
from multiprompt.jobs.serializer import PlainData
from multiprompt.records import Claim, Job, JobLog, Listing, Outcome

# Without handlers of its own, Python prints its warnings on standard error.
_log = logging.getLogger("multiprompt.jobs")
_SCHEMA = "dbos"
_WAIT_SECONDS = 0.2
# The number of ids in the message about a prefix that several jobs share.
_NAMED = 3
# Of so many jobs the one is named that an unknown id is most like.
_NEWEST = 100


class JobQueue:
    """The jobs of one catalog. Call it with a query to list them."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._ledger = catalog.ledger
        self._clock = catalog.now
        self._table = JobTable(None if catalog.is_file else _SCHEMA)

    # Jobs

    def submit(self, kind: str, task: str | None, priority: int, job_id: str | None = None) -> Job:
        """Queue a job. While one that does the same waits or runs, that one is given back."""
        check_kind(kind, task)
        if not 1 <= priority < 2**31:
            raise ConfigError(f"priority is {priority}; it must be from 1, which is first, to 2147483647.")
        asked = job_id or f"{self._clock():%Y%m%d-%H%M%S%f}-{secrets.token_hex(3)}"
        handle: Any = self._client.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": asked,
                "app_version": VERSION,
                "deduplication_id": live_key(kind, task),
                "duplication_policy": "return-existing",
                "priority": priority,
            },
            kind,
            task,
        )
        found = self.get(handle.workflow_id)
        if found.kind != kind:
            _log.warning(
                "no job to %s %s was submitted: %s is %s, to %s it", kind, task, found.id, found.state, found.kind
            )
        elif found.state == "running" and found.id != asked:
            _log.warning("no new job was submitted: %s has begun, and may know nothing of what changed since", found.id)
        return self._hurried(found, priority)

    def _hurried(self, found: Job, priority: int) -> Job:
        """A job, which does not wait behind others of a higher number than the one that was asked for."""
        if found.state != "queued" or found.priority <= priority:
            return found
        with writing(self.engine) as connection:
            connection.execute(self._table.hurry(found.id, priority))
        return self.get(found.id)

    def get(self, job_id: str) -> Job:
        """A job by its id, or by a beginning that no other id has. Raises NotFoundError."""
        key = self._table.key
        holdable = "\0" not in job_id and job_id == job_id.encode(errors="replace").decode()
        found = self._page(Query("jobs", key == job_id)) if holdable else Listing[Job]()
        if not found and holdable and job_id:
            begins = func.substr(key, 1, len(job_id)) == job_id
            found = self._page(Query("jobs", begins, limit=_NAMED))
        if not found:
            newest = [job.id for job in self("order by id desc", limit=_NEWEST)]
            raise NotFoundError(f"no job {job_id!r}; {nearest(job_id, newest)}")
        if len(found) > 1:
            some = ", ".join(job.id for job in found) + (", …" if found.after else "")
            raise NotFoundError(f"{job_id!r} begins the ids of several jobs ({some}): give more of one.")
        return found[0]

    def __call__(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Job]:
        """The jobs that a query finds, oldest first unless it says otherwise. Raises QueryError."""
        return self._page(parse(query, self._table.fields, limit), after)

    def _page(self, query: Query, after: str | None = None) -> Listing[Job]:
        if not self._exists:
            if after is not None:
                raise QueryError(f"{after[:40]!r} is no place in a listing: there are no jobs yet.")
            return Listing()
        with reading(self.engine) as connection:
            page = query.page(connection, self._table.jobs(), self._table.key, job, after)
        running = [found.id for found in page if found.state == "running"]
        progress = self._ledger.progress(running) if running else {}
        found = (replace(job, progress=progress[job.id]) if job.id in progress else job for job in page)
        wait = self.wait
        return Listing((job.waiting(wait) for job in found), page.after)

    def wait(self, job_id: str, timeout: float | None = None) -> Job:
        """A job once it has ended; that no worker is there to do it is logged once. Raises JobTimeoutError."""
        if timeout is not None and math.isnan(timeout):
            raise ConfigError("the timeout is no number: give seconds, or None to wait without end.")
        deadline = None if timeout is None else time.monotonic() + timeout
        told = False
        while not (found := self.get(job_id)).ended:
            job_id = found.id
            if not told and not self._worker_lives():
                _log.warning("job %s is %s, but no worker is running: start `multiprompt worker`", job_id, found.state)
                told = True
            if deadline is not None and time.monotonic() > deadline:
                raise JobTimeoutError(f"job {job_id} is {found.state} after {timeout:g} s; is a worker running?")
            time.sleep(_WAIT_SECONDS)
        return found

    def _worker_lives(self) -> bool:
        oldest = self._clock() - timedelta(seconds=LEASE_SECONDS)
        return any(worker.beat_at >= oldest for worker in self._ledger.workers())

    def cancel(self, job_id: str) -> Job:
        """Stop a job: from now on nothing is written for it. Raises StateError when it has ended."""
        found = self.get(job_id)
        job_id = found.id
        ended = Outcome(found.state == "done", found.outcome) if found.ended else None
        ended = ended or self._ledger.revoke(job_id, "cancelled", self._clock(), forget=True)
        if ended is not None:
            raise StateError(f"job {job_id} has ended: {ended.text or found.state}.")
        self._client.cancel_workflow(job_id)
        return self.get(job_id)

    def live(self) -> dict[str, str]:
        """The jobs that wait or run, with the task of each."""
        return {job.id: job.task for job in self("state in ('queued', 'running')")}

    def logs(self, job_id: str) -> Listing[JobLog]:
        """The workers' log lines of a job, oldest first."""
        return Listing(self._ledger.logs(self.get(job_id).id))

    def retry(self, job_id: str) -> Job:
        """Queue a failed, parked or cancelled job again; its training continues from the last checkpoint."""
        found = self.get(job_id)
        if not found.ended or found.state == "done":
            raise StateError(
                f"job {found.id} is {found.state}; only one that failed, was parked or cancelled is retried."
            )
        return self.submit(found.kind, found.task or None, found.priority)

    # Working

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @property
    def table(self) -> JobTable:
        return self._table

    def find(self, job_id: str) -> Job | None:
        """A job by its whole id, None where this catalog has no such job."""
        return next(iter(self._page(Query("jobs", self._table.key == job_id))), None)

    def has_begun(self, job_id: str) -> bool:
        """Whether a worker has taken a job."""
        return bool(self._ledger.progress([job_id]))

    def is_mine(self, claim: Claim) -> bool:
        """Whether a job was neither cancelled nor taken over since it was claimed."""
        with reading(self.engine) as connection:
            return self._table.has(connection, claim)

    def advance(self, claim: Claim, what: str, done: int, total: int) -> None:
        """Say how far a job is. Raises SupersededError."""
        self._ledger.advance(claim, what, done, total, self._clock())

    def got_on(self, job_id: str) -> None:
        """A job got on, so what broke off before does not count towards parking it."""
        with writing(self.engine) as connection:
            connection.execute(self._table.got_on(job_id))

    @property
    def _exists(self) -> bool:
        """Whether there ever was a job; a look does not make the tables."""
        if self._catalog.is_file:
            return jobs_file(self._catalog.path).exists()
        with reading(self._catalog.engine) as connection:
            return inspect(connection).has_table("workflow_status", schema=_SCHEMA)

    @cached_property
    def engine(self) -> Engine:
        if not self._catalog.is_file:
            DBOS.migrate(self._catalog.engine.url.render_as_string(hide_password=False), schema=_SCHEMA)
            self._make_view()
            return self._catalog.engine
        path = jobs_file(self._catalog.path)
        with making(path):
            if not path.exists():
                make_like(path, self._catalog.path)
                write_ahead(path)
            DBOS.migrate(f"sqlite:///{path}")
        return database_engine(str(path)).execution_options(immediate=True)

    def _make_view(self) -> None:
        with writing(self._catalog.engine) as connection:
            if VIEW not in inspect(connection).get_view_names():
                connection.exec_driver_sql(f"CREATE VIEW {VIEW} AS {self._table.view(connection.dialect)}")

    @cached_property
    def _client(self) -> DBOSClient:
        return DBOSClient(system_database_engine=self.engine, serializer=PlainData(), application_name=APPLICATION)
