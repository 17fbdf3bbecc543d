"""The queue of jobs on both databases, with what does the work of a job made up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.database import writing
from multiprompt.errors import SupersededError
from multiprompt.jobs import runner
from multiprompt.jobs.queue import JobQueue
from multiprompt.jobs.runner import Do, run_jobs
from multiprompt.jobs.schedules import Schedules
from multiprompt.records import Claim, Outcome, WorkerRecord
from tests.catalog.databases import DATABASES, KINDS, by
from tests.catalog.samples import a_task

TASKS = ("sst2", "trec", "bad", "it's")
START = datetime(2026, 1, 1, tzinfo=UTC)

Work = Callable[[str, str | None], str]


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Jobs:
    """A queue, and workers for it that run in this process."""

    catalog: Catalog
    clock: Clock = field(default_factory=Clock)
    # Set when an attempt at a job came too late to write its outcome.
    superseded: threading.Event = field(default_factory=threading.Event)

    @property
    def queue(self) -> JobQueue:
        return JobQueue(self.catalog.signed_by("tester", self.clock))

    @property
    def schedules(self) -> Schedules:
        return Schedules(self.queue)

    def lose(self, claim: Claim) -> None:
        """Leave a job as a worker that dies at this moment does."""
        workflows = self.queue.table._workflows
        with writing(self.queue.engine) as connection:
            connection.execute(
                workflows.update()
                .where(workflows.c.workflow_uuid == claim.job)
                .values(executor_id="a worker that died", owner_xid="a worker that died")
            )

    def finish(self, claim: Claim, kind: str, task: str | None, work: Work = lambda kind, task: "done") -> None:
        outcome = Outcome(True, work(kind, task))
        try:
            self.catalog.ledger.finish(claim, outcome, self.clock())
        except SupersededError:
            self.superseded.set()
            raise

    def work(
        self,
        work: Work,
        *,
        stop: threading.Event | None = None,
        until_idle: bool = True,
        slots: int = 1,
        lease: float = 15.0,
    ) -> None:
        def do(claim: Claim, kind: str, task: str | None) -> None:
            self.finish(claim, kind, task, work)

        self.do(do, stop=stop, until_idle=until_idle, slots=slots, lease=lease)

    def do(
        self,
        do: Do,
        *,
        stop: threading.Event | None = None,
        until_idle: bool = True,
        slots: int = 1,
        lease: float = 15.0,
    ) -> None:
        record = WorkerRecord(uuid4().hex, "w", "here", 1, slots, 0, self.clock(), self.clock())
        run_jobs(self.queue, record, do, stop or threading.Event(), until_idle=until_idle, lease=lease)


def _fill(catalog: Catalog) -> None:
    for name in TASKS:
        by(catalog, "tester", START).tasks.add(a_task(name))


@pytest.fixture(params=KINDS)
def jobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setattr(runner, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(runner, "_LOOK_SECONDS", 0.05)
    DATABASES.kind = request.param
    catalog = DATABASES.filled("jobs", _fill, tmp_path)
    DATABASES.kind = "sqlite"
    yield Jobs(catalog)
    catalog.close()
