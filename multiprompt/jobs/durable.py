"""Durable jobs on DBOS, which only this package knows: a queue, and workers that outlive crashes and each other.

On SQLite, jobs live in a file of their own beside the catalog, since DBOS and the catalog deadlock in one; on
PostgreSQL they live in the catalog's database. What the steps of a job came to lies in the catalog (`catalog.ledger`).
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from dbos import DBOS, DBOSClient
from sqlalchemy import Engine, func, inspect

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.database import (
    database_engine,
    make_like,
    making,
    reading,
    watching_engine,
    write_ahead,
    writing,
)
from multiprompt.catalog.query import Query, parse
from multiprompt.config import LEASE_SECONDS
from multiprompt.errors import (
    ConfigError,
    JobTimeoutError,
    MultipromptError,
    NotFoundError,
    StateError,
    nearest,
)
from multiprompt.jobs import ticks, watches
from multiprompt.jobs.kinds import check_kind, live_key
from multiprompt.jobs.naming import named
from multiprompt.jobs.plain import PlainData
from multiprompt.jobs.shift import Do, Shift
from multiprompt.jobs.table import APPLICATION, QUEUE, VERSION, VIEW, WORKFLOW, JobTable, job, jobs_file
from multiprompt.records import Claim, Job, Listing, Outcome, Schedule, WorkerRecord

_worker_log = logging.getLogger("multiprompt.worker")
# Without handlers of its own, Python prints its warnings on standard error.
_log = logging.getLogger("multiprompt.jobs")
_SCHEMA = "dbos"
_WAIT_SECONDS = 0.2
# So many ids are named that begin as was asked.
_NAMED = 3
# Of so many jobs the one is named that an unknown id is most like.
_NEWEST = 100
# A change whose learning broke off submits another one after so long.
_AGAIN = timedelta(days=1)


class JobStore:
    """The jobs and schedules of one catalog."""

    def __init__(self, catalog: Catalog, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._catalog = catalog
        self._ledger = catalog.ledger
        self._clock = clock
        self._table = JobTable(None if catalog.is_file else _SCHEMA)
        self._looked_at: datetime | None = None

    # Jobs

    def submit(self, kind: str, task: str | None, priority: int, identity: str | None = None) -> Job:
        """Queue a job. While one that does the same waits or runs, that one is given back."""
        check_kind(kind, task)
        if not 1 <= priority < 2**31:
            raise ConfigError(f"priority is {priority}; it must be from 1, which is first, to 2147483647.")
        handle: Any = self._client.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": identity or f"{self._clock():%Y%m%d-%H%M%S%f}-{secrets.token_hex(3)}",
                "app_version": VERSION,
                "deduplication_id": live_key(kind, task),
                "duplication_policy": "return-existing",
                "priority": priority,
            },
            kind,
            task,
        )
        found = self.job(handle.workflow_id)
        if found.kind != kind:
            _log.warning(
                "no job to %s %s was submitted: %s is %s, to %s it", kind, task, found.id, found.state, found.kind
            )
        return self._hurried(found, priority)

    def _hurried(self, found: Job, priority: int) -> Job:
        """A job, which does not wait behind others of a higher number than the one that was asked for."""
        if found.state != "queued" or found.priority <= priority:
            return found
        with writing(self._engine) as connection:
            connection.execute(self._table.hurry(found.id, priority))
        return self.job(found.id)

    def job(self, identity: str) -> Job:
        """A job by its id, or by a beginning that no other id has. Raises NotFoundError."""
        key = self._table.key
        holdable = "\0" not in identity and identity == identity.encode(errors="replace").decode()
        found = self._page(Query("jobs", key == identity)) if holdable else Listing[Job]()
        if not found and holdable and identity:
            begins = func.substr(key, 1, len(identity)) == identity
            found = self._page(Query("jobs", begins, limit=_NAMED))
        if not found:
            newest = [job.id for job in self.jobs("order by id desc", limit=_NEWEST)]
            raise NotFoundError(f"no job {identity!r}; {nearest(identity, newest)}")
        if len(found) > 1:
            some = ", ".join(job.id for job in found) + (", …" if found.after else "")
            raise NotFoundError(f"{identity!r} begins the ids of several jobs ({some}): give more of one.")
        return found[0]

    def jobs(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Job]:
        """The jobs that a query finds, oldest first unless it says otherwise. Raises QueryError."""
        return self._page(parse(query, self._table.fields, limit), after)

    def _page(self, query: Query, after: str | None = None) -> Listing[Job]:
        if not self._exists:
            return Listing()
        with reading(self._engine) as connection:
            page = query.page(connection, self._table.jobs(), self._table.key, job, after)
        running = [found.id for found in page if found.state == "running"]
        progress = self._ledger.progress(running) if running else {}
        found = (replace(job, progress=progress[job.id]) if job.id in progress else job for job in page)
        wait = self.wait
        return Listing((job.waiting(wait) for job in found), page.after)

    def wait(self, identity: str, timeout: float | None = None) -> Job:
        """A job once it has ended; that no worker is there to do it is logged once. Raises JobTimeoutError."""
        if timeout is not None and math.isnan(timeout):
            raise ConfigError("the timeout is no number: give seconds, or None to wait without end.")
        deadline = None if timeout is None else time.monotonic() + timeout
        told = False
        while not (found := self.job(identity)).ended:
            identity = found.id
            if not told and not self._worker_lives():
                _log.warning(
                    "job %s is %s, but no worker is running: start `multiprompt worker`", identity, found.state
                )
                told = True
            if deadline is not None and time.monotonic() > deadline:
                raise JobTimeoutError(f"job {identity} is {found.state} after {timeout:g} s; is a worker running?")
            time.sleep(_WAIT_SECONDS)
        return found

    def _worker_lives(self) -> bool:
        oldest = self._clock() - timedelta(seconds=LEASE_SECONDS)
        return any(worker.beat_at >= oldest for worker in self._ledger.workers())

    def cancel(self, identity: str) -> Job:
        """Stop a job: from now on nothing is written for it. Raises StateError when it has ended."""
        found = self.job(identity)
        identity = found.id
        ended = Outcome(found.state == "done", found.outcome) if found.ended else None
        ended = ended or self._ledger.revoke(identity, "cancelled", self._clock(), forget=True)
        if ended is not None:
            raise StateError(f"job {identity} has ended: {ended.text or found.state}.")
        self._client.cancel_workflow(identity)
        return self.job(identity)

    def live(self) -> dict[str, str]:
        """The jobs that wait or run, with the task of each."""
        return {job.id: job.task for job in self.jobs("state in ('queued', 'running')")}

    def retry(self, identity: str) -> Job:
        """Queue a job that came to nothing as a new one; a training that failed goes on from its last checkpoint."""
        found = self.job(identity)
        if not found.ended or found.state == "done":
            raise StateError(
                f"job {found.id} is {found.state}; only one that failed, was parked or cancelled is retried."
            )
        return self.submit(found.kind, found.task or None, found.priority)

    # Schedules

    def schedule(
        self,
        kind: str,
        task: str | None,
        cron: str | None,
        every: timedelta | None,
        on: str | None,
        timezone: str,
        priority: int,
        name: str | None = None,
    ) -> Schedule:
        """Add a schedule, or replace one, and log which; one of the same trigger goes on where the old one was.

        With a name, that is the one of this name; else the one of the same kind, task and trigger that was given none.
        Raises ConfigError, also for a name that a schedule of another kind or task has.
        """
        check_kind(kind, task)
        now = self._clock()
        seconds = None if every is None else every.total_seconds()
        new = Schedule("", kind, task, cron, seconds, on, timezone, priority, True, "", None, None, None, now)
        old, new = named(new, name, self._ledger.schedules())
        ticks.check_schedule(new)
        same = old is not None and _trigger(old) == _trigger(new)
        new = _going_on(new, old, now) if old is not None and same else self._begun(new, now)
        self._ledger.save_schedule(new, old)
        if old is not None and not same:
            _log.warning("replaced %s (%s); so that both stay, give one of them a name", old.name, old.when)
        return new

    def _begun(self, new: Schedule, now: datetime) -> Schedule:
        """A new schedule after its first look at what it watches."""
        if new.watch is not None:
            new = replace(new, seen=watches.look(self._catalog, new, now).seen)
            watches.require_watchable(new)
        return ticks.moved(new, now)

    def schedules(self) -> list[Schedule]:
        return self._ledger.schedules()

    def pause(self, name: str) -> Schedule:
        return self._change(name, lambda schedule: replace(schedule, active=False))

    def resume(self, name: str) -> Schedule:
        """Wake a schedule. Ticks that it missed are not made up for; a change is seen at its next look."""
        return self._change(name, lambda schedule: ticks.moved(replace(schedule, active=True), self._clock()))

    def trigger(self, name: str) -> Job:
        """Submit a schedule's job now, beside its ticks."""
        schedule = self._ledger.schedule(name)
        job = self.submit(schedule.kind, schedule.task, schedule.priority)
        self._change(name, lambda found: replace(found, last_at=self._clock(), last_job=job.id))
        return job

    def remove(self, name: str) -> None:
        self._ledger.remove_schedule(name)

    def dispatch(self) -> list[Job]:
        """Submit what is due, once however many ticks were missed; any number of workers may do so at a time.

        A schedule that cannot look at what it watches looks again at its next tick. So does one whose job had begun
        before it looked: that job may know nothing of what changed.
        """
        now, submitted = self._clock(), []
        rewound = self._looked_at is None or now < self._looked_at
        self._looked_at = now
        for schedule in self._ledger.schedules():
            if not ticks.is_due(schedule, now) and not rewound:
                continue
            try:
                after = ticks.moved(schedule, now)
            except ConfigError as error:
                _worker_log.warning("schedule %s: %s", schedule.name, error)
                continue
            if ticks.is_due(schedule, now):
                submitted += self._look(schedule, after, now)
            elif after.next_at and schedule.next_at and after.next_at < schedule.next_at:
                _worker_log.warning(
                    "schedule %s: the clock was put back; it is due at %s", schedule.name, after.next_at
                )
                self._ledger.move_schedule(schedule, after)
        return submitted

    def _look(self, schedule: Schedule, after: Schedule, now: datetime) -> list[Job]:
        """Look at what a schedule watches, submit its job where that is due, and move it on."""
        try:
            sight = watches.look(self._catalog, schedule, now, again=self._failed(schedule, now))
        except (MultipromptError, OSError) as error:
            _worker_log.warning("schedule %s: %s", schedule.name, error)
            sight = watches.Sight(False, schedule.seen)
        submitted = []
        if sight.fires:
            job = self.submit(schedule.kind, schedule.task, schedule.priority, _tick_id(schedule))
            submitted.append(job)
            after = replace(after, last_at=now, last_job=job.id)
            if job.id != _tick_id(schedule) and self._ledger.progress([job.id]):
                sight = watches.Sight(True, schedule.seen)
        self._ledger.move_schedule(schedule, replace(after, seen=sight.seen))
        return submitted

    def _failed(self, schedule: Schedule, now: datetime) -> bool:
        """Whether a schedule's last learning broke off a day ago or longer, with no version published since."""
        if schedule.last_job is None or schedule.last_at is None or schedule.kind not in ("learn", "retrain"):
            return False
        if schedule.watch is None or now - schedule.last_at < _AGAIN:
            return False
        published_at = self._catalog.task(str(schedule.task)).published_at
        if published_at is not None and published_at > schedule.last_at:
            return False
        # A copied catalog holds the schedules without the jobs.
        states = [job.state for job in self._page(Query("jobs", self._table.key == schedule.last_job))]
        return states in (["failed"], ["parked"]) and not self._catalog.has_version_of(schedule.last_job)

    def _change(self, name: str, change: Callable[[Schedule], Schedule]) -> Schedule:
        while True:
            schedule = self._ledger.schedule(name)
            changed = change(schedule)
            if self._ledger.move_schedule(schedule, changed):
                return changed

    # Working

    def work(
        self,
        worker: WorkerRecord,
        do: Do,
        stop: threading.Event,
        *,
        until_idle: bool = False,
        lease: float = LEASE_SECONDS,
        grace: float = 0.0,
    ) -> None:
        """Do jobs, in as many threads as the worker has slots, until `stop` is set, or until none waits.

        What runs then has `grace` seconds to end, and is handed back to the others. Jobs of workers that did not give a
        sign of life for `lease` seconds are taken over. Raises StateError when the others did so with this one.
        """
        jobs, catalog = watching_engine(self._engine), watching_engine(self._catalog.engine)
        # On PostgreSQL these are the engines that others use as well.
        store = JobStore(Catalog(catalog), self._clock) if self._catalog.is_file else self
        try:
            shift = Shift(
                worker,
                jobs.execution_options(immediate=self._catalog.is_file),
                self._table,
                store._ledger,
                do,
                self._clock,
                stop,
                lease,
            )
            shift.work(store.dispatch, until_idle=until_idle, grace=grace)
        finally:
            if self._catalog.is_file:
                jobs.dispose()
                catalog.dispose()

    def is_mine(self, claim: Claim) -> bool:
        """Whether a job was neither cancelled nor taken over since it was claimed."""
        with reading(self._engine) as connection:
            return self._table.has(connection, claim)

    def advance(self, claim: Claim, what: str, done: int, total: int) -> None:
        """Say how far a job is. Raises SupersededError."""
        self._ledger.advance(claim, what, done, total, self._clock())

    def got_on(self, identity: str) -> None:
        """A job got on, so what broke off before does not count towards parking it."""
        with writing(self._engine) as connection:
            connection.execute(self._table.got_on(identity))

    @property
    def _exists(self) -> bool:
        """Whether there ever was a job; a look does not make the tables."""
        if self._catalog.is_file:
            return jobs_file(self._catalog.path).exists()
        with reading(self._catalog.engine) as connection:
            return inspect(connection).has_table("workflow_status", schema=_SCHEMA)

    @cached_property
    def _engine(self) -> Engine:
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
        return DBOSClient(system_database_engine=self._engine, serializer=PlainData(), application_name=APPLICATION)


def _trigger(schedule: Schedule) -> tuple[object, ...]:
    return schedule.kind, schedule.task, schedule.cron, schedule.every_seconds, schedule.watch, schedule.timezone


def _going_on(new: Schedule, old: Schedule, now: datetime) -> Schedule:
    """A schedule that replaces one of the same trigger: it has seen what that one saw, and is due when that one was."""
    kept = replace(new, seen=old.seen, next_at=old.next_at, last_at=old.last_at, last_job=old.last_job)
    return kept if old.active else ticks.moved(kept, now)


def _tick_id(schedule: Schedule) -> str:
    """The same for all who submit a schedule's job for one tick."""
    assert schedule.next_at is not None, "what is due has a time"
    return f"{schedule.next_at:%Y%m%d-%H%M%S%f}-{hashlib.sha256(schedule.name.encode()).hexdigest()[:12]}"
