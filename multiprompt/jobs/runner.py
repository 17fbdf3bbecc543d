"""The runner: takes jobs from the queue and runs them with DBOS, from when a worker joins until it leaves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Protocol

from dbos import DBOS, DBOSConfig
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.database import reading, watching_engine, writing
from multiprompt.catalog.jobs import Ledger
from multiprompt.catalog.store import Database, Store
from multiprompt.config import LEASE_SECONDS
from multiprompt.errors import JobError, StateError, SupersededError, UnavailableError
from multiprompt.jobs import dbos_private
from multiprompt.jobs.dbos_tables import APPLICATION, QUEUE, VERSION, WORKFLOW, JobTable
from multiprompt.jobs.kinds import LOADING, check_kind
from multiprompt.jobs.queue import JobQueue
from multiprompt.jobs.schedules import Schedules
from multiprompt.jobs.serializer import PlainData, unreadable
from multiprompt.records import Claim, JobState, Outcome, WorkerRecord

# An idle worker looks for work this often, and for a while after it had some at each of DBOS's polls.
_LOOK_SECONDS, _HURRY_SECONDS, _POLL_SECONDS = 1.0, 1.0, 0.07
_TICK_SECONDS = 2.0
# After so many attempts in a row whose worker died while the job was at one step or checkpoint, it is parked.
ATTEMPTS = 5
# Of a job that fails for what may pass: 1 s, 2 s, 4 s … are waited between.
TRIES, FIRST_WAIT_SECONDS = 8, 1.0

_log = logging.getLogger("multiprompt.worker")


class Do(Protocol):
    """Does what is left of a job, under a claim; the outcome lies in the catalog then.

    Raises UnavailableError for what may pass.
    """

    def __call__(self, claim: Claim, kind: str, task: str | None) -> None: ...


def run_jobs(
    queue: JobQueue,
    worker: WorkerRecord,
    do: Do,
    stop: threading.Event,
    *,
    until_idle: bool = False,
    lease: float = LEASE_SECONDS,
    grace: float = 0.0,
) -> None:
    """Do jobs, in as many threads as the worker has slots, until `stop` is set, or until none waits.

    Running jobs then have `grace` seconds to end, and go back to the queue. Jobs of workers that gave no sign of life
    for `lease` seconds are taken over. Raises StateError when the others did so with this one.
    """
    catalog = queue.catalog
    jobs, watching = watching_engine(queue.engine), watching_engine(catalog.engine)
    # On PostgreSQL these are the engines that others use as well.
    watched = JobQueue(Catalog(Store(Database(watching), clock=catalog.now))) if catalog.is_file else queue
    try:
        runner = Runner(
            worker,
            jobs.execution_options(immediate=catalog.is_file),
            queue.table,
            watched.catalog.ledger,
            do,
            catalog.now,
            stop,
            lease,
        )
        runner.work(Schedules(watched).dispatch, until_idle=until_idle, grace=grace)
    finally:
        if catalog.is_file:
            jobs.dispose()
            watching.dispose()


# Takeover of jobs. Each worker raises a counter in the catalog, its beat, five times a lease. Each worker also reads
# the counters of the others. A counter that stands still for a lease, by the reader's own clock, is that of a dead
# worker; clocks of two machines are never compared. The reader runs the dead worker's jobs again and deletes its
# entry. A worker that was only slow finds its entry gone, and ends. Its claim on a job is older than the new one, so
# that the catalog refuses what it still writes.


class Runner:
    """A worker at work. `jobs` and `ledger` are over connections that stay open."""

    def __init__(
        self,
        worker: WorkerRecord,
        jobs: Engine,
        table: JobTable,
        ledger: Ledger,
        do: Do,
        clock: Callable[[], datetime],
        stop: threading.Event,
        lease: float,
    ) -> None:
        self._worker = worker
        self._jobs = jobs
        self._table = table
        self._ledger = ledger
        self._do = do
        self._clock = clock
        self._stop = stop
        self._lease = lease
        self._watch = _Watch(lease)
        self._over, self._given_up = threading.Event(), threading.Event()
        self._failure: Exception | None = None
        self._looked = self._had_work = time.monotonic()

    def work(self, dispatch: Callable[[], object], *, until_idle: bool, grace: float) -> None:
        """Do jobs until `stop` is set, or until none waits; what runs then has `grace` seconds to end.

        Raises StateError when others took this worker for dead, or will as it can give no sign of life.
        """
        self._ledger.join(self._worker)
        heart = threading.Thread(target=self._beat, daemon=True)
        try:
            with self._launched(grace):
                heart.start()
                while not self._stop.wait(_TICK_SECONDS) and not self._given_up.is_set():
                    try:
                        dispatch()
                        if until_idle and not self._has_any("queued", "running"):
                            break
                    except (UnavailableError, SQLAlchemyError) as error:
                        _log.warning("%s; going on once it can be reached", error)
        finally:
            self._over.set()
            self._part()
        if self._failure is not None:
            raise StateError(
                f"worker {self._worker.name} can give no sign of life "
                f"({type(self._failure).__name__}: {self._failure}), so it ends, and others do its jobs."
            )
        if self._given_up.is_set():
            raise StateError(
                f"worker {self._worker.name} gave no sign of life for so long that others took its jobs over: "
                "start it anew."
            )

    def _beat(self) -> None:
        """Give a sign of life, and look for those who give none."""
        while not self._over.wait(self._lease / 5):
            try:
                if not self._ledger.beat(self._worker.id, self._clock()):
                    self._given_up.set()
                self._take_over()
            except (UnavailableError, SQLAlchemyError) as error:
                _log.warning("%s; worker %s gives no sign of life", error, self._worker.name)
            except Exception as error:  # without a sign of life it must not go on, whatever the cause
                self._failure = error
                self._given_up.set()
                return

    def _take_over(self) -> None:
        beats = {found.id: found.beats for found in self._ledger.workers()}
        with reading(self._jobs) as connection:
            busy = {row.executor_id for row in connection.execute(self._table.live("running"))}
        others = {*beats, *busy} - {self._worker.id}
        for dead in self._watch.silent({worker_id: beats.get(worker_id) for worker_id in others}):
            dbos_private.recover([dead])
            self._ledger.leave(dead)
            self._had_work = time.monotonic()
            _log.warning("worker %s took over the jobs of %s, which gave no sign of life", self._worker.name, dead)

    def _part(self) -> None:
        try:
            self._hand_back()
            self._ledger.leave(self._worker.id)
        except UnavailableError as error:
            _log.warning("%s; others take the jobs of %s over", error, self._worker.name)

    def _hand_back(self, *jobs: str) -> None:
        with writing(self._jobs) as connection:
            connection.execute(self._table.hand_back(self._worker.id, *jobs))

    def _has_any(self, *states: JobState) -> bool:
        with reading(self._jobs) as connection:
            return connection.execute(self._table.live(*states).limit(1)).first() is not None

    @contextmanager
    def _launched(self, grace: float) -> Iterator[None]:
        """DBOS in this process, which can hold one."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_engine": self._jobs,
            "serializer": PlainData(),
            "application_version": VERSION,
            "executor_id": self._worker.id,
            "run_migrations": False,
            "log_level": "CRITICAL",
            "use_listen_notify": False,
        }
        dbos_private.forbid_pickles(PlainData)
        dbos = DBOS(config=config)
        dbos_private.declare_queue(dbos, QUEUE, self._worker.slots, _POLL_SECONDS)
        try:

            @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=ATTEMPTS - 1)
            def run(kind: str, task: str | None) -> str:
                try:
                    return self._run(kind, task)
                finally:
                    self._had_work = time.monotonic()

            DBOS.launch()
            dbos_private.poll_only(dbos, self._scopes)
            dbos_private.read_only(dbos, partial(self._is_job, dbos))
            yield
        finally:
            DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=int(grace))

    def _is_job(self, dbos: DBOS, status: dbos_private.Status) -> bool:
        """Whether a row holds a job; one that does not has failed from now on, with the reason."""
        wrong = unreadable(status["serialization"], status["inputs"])
        if status["name"] != WORKFLOW:
            wrong = f"its row names the workflow {status['name']}, which is no job"
        if not wrong:
            return True
        said = PlainData().serialize(JobError(f"{wrong}: multiprompt did not write it, and nothing of it was run."))
        if dbos_private.fail(dbos, status["workflow_uuid"], said):
            _log.error("%s: %s", status["workflow_uuid"], wrong)
        return False

    def _scopes(self, queue_name: str) -> list[str | None]:
        """The scopes in which DBOS looks for work now: none, or all of the queue."""
        now = time.monotonic()
        hurried, due = now - self._had_work < _HURRY_SECONDS, now - self._looked >= _LOOK_SECONDS
        if queue_name != QUEUE or not (hurried or due):
            return []
        self._looked = now
        return [None] if self._has_any("queued") else []

    def _run(self, kind: str, task: str | None) -> str:
        """Do a job; try again after an error that may pass. Raises JobError where the job fails."""
        job_id, owner = dbos_private.current_job()
        self._forgive(job_id)
        for again in range(TRIES):
            try:
                outcome = self._attempt(job_id, owner, kind, task)
                break
            except UnavailableError as error:
                _log.warning("%s: %s", job_id, error)
                if again == TRIES - 1:
                    self._give_up(job_id, error)
                    raise
                if self._stop.wait(FIRST_WAIT_SECONDS * 2**again):
                    self._hand_back(job_id)
                    raise
        if not outcome.good:
            raise JobError(outcome.text)
        return outcome.text

    def _give_up(self, job_id: str, error: UnavailableError) -> None:
        try:
            self._ledger.revoke(job_id, f"UnavailableError: {error}", self._clock())
        except UnavailableError as again:
            _log.warning("%s: %s", job_id, again)

    def _forgive(self, job_id: str) -> None:
        """An attempt whose worker died before the job began says nothing of the job."""
        before = self._ledger.progress([job_id]).get(job_id)
        if before is not None and before.step in ("", LOADING):
            with writing(self._jobs) as connection:
                connection.execute(self._table.forgive(job_id))

    def _attempt(self, job_id: str, owner: str, kind: str, task: str | None) -> Outcome:
        """Claim a job, do what is left of it, and give its outcome. Raises SupersededError when it is another's."""
        claim, attempt = self._ledger.claim(job_id, owner, self._worker.name, self._clock())
        if not self._has(claim):
            raise SupersededError(f"job {job_id} is another worker's, or was cancelled.")
        outcome = self._ledger.outcome(job_id)
        if outcome is None:
            _log.info("%s: %s %s, attempt %d", job_id, kind, task or "of all", attempt)
            try:
                check_kind(kind, task)
                self._do(claim, kind, task)
            except (SupersededError, UnavailableError):
                raise
            except Exception as error:
                text = " ".join(str(error).split())
                text = text if isinstance(error, JobError) else f"{type(error).__name__}: {text}"
                self._ledger.finish(claim, Outcome(False, text), self._clock())
            outcome = self._ledger.outcome(job_id)
            assert outcome is not None, "a job that was done has an outcome"
            _log.log(logging.INFO if outcome.good else logging.ERROR, "%s: %s", job_id, outcome.text)
        return outcome

    def _has(self, claim: Claim) -> bool:
        with reading(self._jobs) as connection:
            return self._table.has(connection, claim)


class _Watch:
    """Finds the workers whose beats stand still for a lease, by this process's own clock."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._seen: dict[str, tuple[int | None, float]] = {}

    def silent(self, beats: dict[str, int | None]) -> list[str]:
        now = time.monotonic()
        self._seen = {
            worker_id: self._seen[worker_id] if self._seen.get(worker_id, (-1, 0))[0] == count else (count, now)
            for worker_id, count in beats.items()
        }
        return [worker_id for worker_id, (_, since) in self._seen.items() if now - since >= self._lease]
