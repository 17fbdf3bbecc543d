"""Schedules: jobs that are submitted again and again, by time or on a change."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from multiprompt.config import MAX_DAYS
from multiprompt.errors import ConfigError, MultipromptError
from multiprompt.jobs.kinds import check_kind
from multiprompt.jobs.naming import named
from multiprompt.jobs.plan import plan
from multiprompt.jobs.queue import JobQueue
from multiprompt.jobs.ticks import check_schedule, is_due, moved
from multiprompt.jobs.triggers import Observation, observe, require_watchable
from multiprompt.records import Job, Listing, PlannedJob, Schedule
from multiprompt.records.job import NOTHING_NEW

_worker_log = logging.getLogger("multiprompt.worker")
# Without handlers of its own, Python prints its warnings on standard error.
_log = logging.getLogger("multiprompt.jobs")
# A change whose learning broke off submits another job after this time.
_AGAIN = timedelta(days=1)


class Schedules:
    """The schedules of one catalog. Call it to list them."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._catalog = queue.catalog
        self._ledger = queue.catalog.ledger
        self._clock = queue.catalog.now
        self._looked_at: datetime | None = None

    def __call__(self) -> Listing[Schedule]:
        return Listing(self._ledger.schedules())

    def add(
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
        """Add a schedule, or replace one, and log which; one of the same trigger continues from the old one.

        With a name, that is the one of this name; else the one of the same kind, task and trigger that was given none.
        Raises ConfigError, also for a name that a schedule of another kind or task has.
        """
        check_kind(kind, task)
        now = self._clock()
        seconds = None if every is None else every.total_seconds()
        new = Schedule("", kind, task, cron, seconds, on, timezone, priority, True, "", None, None, None, now)
        old, new = named(new, name, self._ledger.schedules())
        check_schedule(new)
        same = old is not None and _trigger(old) == _trigger(new)
        new = _continue(new, old, now) if old is not None and same else self._begin(new, now)
        self._ledger.save_schedule(new, old)
        if old is not None and not same:
            _log.warning("replaced %s (%s); so that both stay, give one of them a name", old.name, old.when)
        return new

    def _begin(self, new: Schedule, now: datetime) -> Schedule:
        """A new schedule after its first observation."""
        if new.watch is not None:
            new = replace(new, seen=observe(self._catalog, new, now).seen)
            require_watchable(new)
        return moved(new, now)

    def pause(self, name: str) -> Schedule:
        return self._change(name, lambda schedule: replace(schedule, active=False))

    def resume(self, name: str) -> Schedule:
        """Wake a schedule. Ticks that it missed are not made up for; a change is seen at its next observation."""
        return self._change(name, lambda schedule: moved(replace(schedule, active=True), self._clock()))

    def trigger(self, name: str) -> Job:
        """Submit a schedule's job now, beside its ticks."""
        schedule = self._ledger.schedule(name)
        job = self._queue.submit(schedule.kind, schedule.task, schedule.priority)
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
        put_back = self._looked_at is None or now < self._looked_at
        self._looked_at = now
        for schedule in self._ledger.schedules():
            if not is_due(schedule, now) and not put_back:
                continue
            try:
                after = moved(schedule, now)
            except ConfigError as error:
                _worker_log.warning("schedule %s: %s", schedule.name, error)
                continue
            if is_due(schedule, now):
                submitted += self._look(schedule, after, now)
            elif after.next_at and schedule.next_at and after.next_at < schedule.next_at:
                _worker_log.warning(
                    "schedule %s: the clock was put back; it is due at %s", schedule.name, after.next_at
                )
                self._ledger.move_schedule(schedule, after)
        return submitted

    def _look(self, schedule: Schedule, after: Schedule, now: datetime) -> list[Job]:
        """Observe, submit the schedule's job where that is due, and move the schedule on."""
        try:
            found = observe(self._catalog, schedule, now, again=self._has_failed(schedule, now))
        except (MultipromptError, OSError) as error:
            _worker_log.warning("schedule %s: %s", schedule.name, error)
            found = Observation(False, schedule.seen)
        submitted = []
        if found.fires:
            job = self._submit(schedule)
            submitted.append(job)
            after = replace(after, last_at=now, last_job=job.id)
            if job.id != _tick_id(schedule) and self._queue.has_begun(job.id):
                found = Observation(True, schedule.seen)
        self._ledger.move_schedule(schedule, replace(after, seen=found.seen))
        return submitted

    def _submit(self, schedule: Schedule) -> Job:
        """Submit a tick's job, once; again where a backup was restored, whose catalog knows nothing of how it ended."""
        job = self._queue.submit(schedule.kind, schedule.task, schedule.priority, _tick_id(schedule))
        if job.ended and self._ledger.outcome(job.id) is None:
            job = self._queue.submit(schedule.kind, schedule.task, schedule.priority)
        return job

    def _has_failed(self, schedule: Schedule, now: datetime) -> bool:
        """Whether a schedule's last learning broke off a day ago or longer, with no version published since.

        One that gave known bytes did not break off: the next would give the same."""
        if schedule.last_job is None or schedule.last_at is None or schedule.kind not in ("learn", "retrain"):
            return False
        if schedule.watch is None or now - schedule.last_at < _AGAIN:
            return False
        published_at = self._catalog.tasks.get(str(schedule.task)).published_at
        if published_at is not None and published_at > schedule.last_at:
            return False
        # A copied catalog holds the schedules without the jobs.
        job = self._queue.find(schedule.last_job)
        if job is None or job.state not in ("failed", "parked") or job.outcome.startswith(NOTHING_NEW):
            return False
        return not self._catalog.runs.has_version_of(job.id)

    def _change(self, name: str, change: Callable[[Schedule], Schedule]) -> Schedule:
        while True:
            schedule = self._ledger.schedule(name)
            changed = change(schedule)
            if self._ledger.move_schedule(schedule, changed):
                return changed

    def plan(self, days: float = 7) -> list[PlannedJob]:
        """The jobs that will be submitted in so many days, and the seconds that such jobs took when they ran last.

        Raises ConfigError for days that are none.
        """
        if not 0 <= days <= MAX_DAYS:
            raise ConfigError(f"days is {days}; it must be from 0 to {MAX_DAYS}.")
        now = self._clock()
        return plan(self._catalog, self(), now, now + timedelta(days=days))


def _trigger(schedule: Schedule) -> tuple[object, ...]:
    return schedule.kind, schedule.task, schedule.cron, schedule.every_seconds, schedule.watch, schedule.timezone


def _continue(new: Schedule, old: Schedule, now: datetime) -> Schedule:
    """A schedule that replaces one of the same trigger, with what that one has seen and its next tick."""
    kept = replace(new, seen=old.seen, next_at=old.next_at, last_at=old.last_at, last_job=old.last_job)
    return kept if old.active else moved(kept, now)


def _tick_id(schedule: Schedule) -> str:
    """The same for all who submit a schedule's job for one tick."""
    assert schedule.next_at is not None, "what is due has a time"
    return f"{schedule.next_at:%Y%m%d-%H%M%S%f}-{hashlib.sha256(schedule.name.encode()).hexdigest()[:12]}"
