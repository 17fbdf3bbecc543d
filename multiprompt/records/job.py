"""Jobs, who does them, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

# The outcome of a training that gave the bytes of an existing version begins so.
NOTHING_NEW = "nothing new to learn"

JobState = Literal["queued", "running", "done", "failed", "parked", "cancelled"]


@dataclass(frozen=True)
class JobProgress:
    """The progress of a job: `done` of `total` rows or steps of the work in `step`, with the worker and the attempt."""

    worker: str
    attempt: int
    step: str
    done: int
    total: int
    updated_at: datetime


@dataclass(frozen=True)
class Job:
    """One piece of scheduled work; `outcome` is what came of it, or why it failed. `task` is empty for a check.

    Of two that wait, the one of the lower `priority` runs first. `progress` is None before a worker takes it.
    """

    id: str
    kind: str
    task: str
    state: JobState
    priority: int
    created_at: datetime
    updated_at: datetime
    outcome: str
    progress: JobProgress | None = None

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until it has ended, and give it as it is then. Raises JobTimeoutError after `timeout` seconds."""
        look: Callable[[str, float | None], Job] = self.__dict__["_wait"]
        return look(self.id, timeout)

    def waiting(self, wait: Callable[[str, float | None], Job]) -> Job:
        """The same job, with what `wait` goes through."""
        object.__setattr__(self, "_wait", wait)
        return self


@dataclass(frozen=True)
class Outcome:
    """The end of a job: whether it reached its goal, and its message."""

    good: bool
    text: str


@dataclass(frozen=True)
class JobLog:
    """A line of a job's log."""

    at: datetime
    level: str
    worker: str
    message: str


@dataclass(frozen=True)
class Claim:
    """The right to write for a job; a newer claim on it ends this one."""

    job: str
    owner: str


@dataclass(frozen=True)
class WorkerRecord:
    """A process that does jobs; `beats` grows while it lives."""

    id: str
    name: str
    host: str
    pid: int
    slots: int
    beats: int
    started_at: datetime
    beat_at: datetime


@dataclass(frozen=True)
class Schedule:
    """When jobs of a kind are submitted: at the ticks of `cron` in a time zone, every so often, or by a `watch`.

    A watch looks at "data", "score", "base" or "age" (older than `every_seconds`) and keeps what it saw in `seen`.
    `next_at` is when it is looked at next.
    """

    name: str
    kind: str
    task: str | None
    cron: str | None
    every_seconds: float | None
    watch: str | None
    timezone: str
    priority: int
    active: bool
    seen: str
    next_at: datetime | None
    last_at: datetime | None
    last_job: str | None
    created_at: datetime

    @property
    def when(self) -> str:
        """Its trigger in words, such as "0 3 * * * UTC" or "every 6:00:00"."""
        if self.cron is not None:
            return f"{self.cron} {self.timezone}"
        every = "" if self.every_seconds is None else f"{timedelta(seconds=self.every_seconds)}"
        return f"every {every}" if self.watch is None else f"on {self.watch} {every}".rstrip()


@dataclass(frozen=True)
class PlannedJob:
    """A job that a schedule will submit, and what such a job took when it ran last."""

    at: datetime
    schedule: str
    kind: str
    task: str | None
    seconds: float | None
