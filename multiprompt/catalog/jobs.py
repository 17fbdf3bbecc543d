"""The scheduler's side of the catalog: who works, who has which job, what its steps came to, and the schedules."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from multiprompt.catalog import schema as s
from multiprompt.catalog.database import reading, writing
from multiprompt.errors import NotFoundError, SupersededError, nearest
from multiprompt.records import Claim, JobLog, JobProgress, Outcome, Schedule, WorkerRecord

# The row of `job_results` that says how a job ended, written with whatever ended it.
_END, _GOOD, _BAD = "end", "good", "bad"
# The row of `job_results` that holds the key and the task of the training checkpoint that the job saved.
_CHECKPOINT = "checkpoint"
_LOGS_A_JOB = 1000


class Ledger:
    """The records that the workers of one catalog share; one transaction a method."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # Claims: what writes for a job holds the newest one

    def claim(self, job: str, owner: str, worker: str, at: datetime) -> tuple[Claim, int]:
        """Take a job from whoever had it, who can write nothing for it from now on. Gives the attempt's number."""
        with self._writing() as connection:
            attempt = connection.execute(select(s.job_claims.c.attempt).where(s.job_claims.c.job == job)).scalar() or 0
            connection.execute(delete(s.job_claims).where(s.job_claims.c.job == job))
            connection.execute(
                insert(s.job_claims).values(
                    job=job, owner=owner, worker=worker, attempt=attempt + 1, step="", done=0, total=0, updated_at=at
                )
            )
            _log(connection, job, "info", worker, f"attempt {attempt + 1}", at)
        return Claim(job, owner), attempt + 1

    def revoke(self, job: str, why: str, at: datetime, *, forget: bool = False) -> Outcome | None:
        """Let nobody write for a job any more, and forget what its steps came to. Gives its outcome if it has ended.

        With `forget` the training checkpoint that the job saved goes as well; that of any other training stays.
        """
        with self._writing() as connection:
            ended = outcome_of(connection, job)
            if ended is None:
                if forget:
                    _forget_checkpoint(connection, job)
                end(connection, job, Outcome(False, why), at)
                connection.execute(
                    update(s.job_claims).where(s.job_claims.c.job == job).values(owner="", updated_at=at)
                )
            return ended

    def finish(self, claim: Claim, outcome: Outcome, at: datetime) -> None:
        """End a job with what came of it. Raises SupersededError."""
        with self._writing() as connection:
            require_claim(connection, claim)
            end(connection, claim.job, outcome, at)

    def advance(self, claim: Claim, step: str, done: int, total: int, at: datetime) -> None:
        """Say how far a job is, and log each new step. Raises SupersededError."""
        c = s.job_claims.c
        with self._writing() as connection:
            require_claim(connection, claim)
            before = connection.execute(select(c.step, c.worker).where(c.job == claim.job)).one()
            connection.execute(
                update(s.job_claims).where(c.job == claim.job).values(step=step, done=done, total=total, updated_at=at)
            )
            if before.step != step:
                _log(connection, claim.job, "info", before.worker, step, at)

    def progress(self, jobs: list[str]) -> dict[str, JobProgress]:
        c = s.job_claims.c
        with self._reading() as connection:
            rows = connection.execute(select(s.job_claims).where(c.job.in_(jobs)))
            return {
                row.job: JobProgress(row.worker, row.attempt, row.step, row.done, row.total, row.updated_at)
                for row in rows
            }

    # Results of steps

    def results(self, job: str, step: str) -> dict[str, bytes]:
        c = s.job_results.c
        with self._reading() as connection:
            rows = connection.execute(select(c.name, c.data).where(c.job == job, c.step == step))
            return {row.name: row.data for row in rows}

    def save_results(self, claim: Claim, step: str, results: Mapping[str, bytes]) -> None:
        """Keep what a step came to, beside what it kept before. Raises SupersededError."""
        c = s.job_results.c
        with self._writing() as connection:
            require_claim(connection, claim)
            connection.execute(
                delete(s.job_results).where(c.job == claim.job, c.step == step, c.name.in_(list(results)))
            )
            rows = [{"job": claim.job, "step": step, "name": name, "data": data} for name, data in results.items()]
            connection.execute(insert(s.job_results), rows)

    def outcome(self, job: str) -> Outcome | None:
        """The outcome of a job, None before its end."""
        with self._reading() as connection:
            return outcome_of(connection, job)

    # Logs

    def log(self, claim: Claim, message: str, at: datetime) -> None:
        """Note something of a job. Raises SupersededError."""
        c = s.job_claims.c
        with self._writing() as connection:
            require_claim(connection, claim)
            worker = connection.execute(select(c.worker).where(c.job == claim.job)).scalar_one()
            _log(connection, claim.job, "info", worker, message, at)

    def logs(self, job: str) -> list[JobLog]:
        """The newest lines of a job, oldest first."""
        c = s.job_logs.c
        with self._reading() as connection:
            rows = connection.execute(select(s.job_logs).where(c.job == job).order_by(c.id.desc()).limit(_LOGS_A_JOB))
            return [JobLog(row.at, row.level, row.worker, row.message) for row in rows][::-1]

    # Workers

    def join(self, worker: WorkerRecord) -> None:
        with self._writing() as connection:
            connection.execute(insert(s.workers).values(**asdict(worker)))

    def beat(self, worker: str, at: datetime) -> bool:
        """Say that a worker lives; False when the others have given it up for dead."""
        with self._writing() as connection:
            c = s.workers.c
            changed = connection.execute(update(s.workers).where(c.id == worker).values(beats=c.beats + 1, beat_at=at))
            return bool(changed.rowcount)

    def leave(self, worker: str) -> None:
        with self._writing() as connection:
            connection.execute(delete(s.workers).where(s.workers.c.id == worker))

    def workers(self) -> list[WorkerRecord]:
        with self._reading() as connection:
            rows = connection.execute(select(s.workers).order_by(s.workers.c.started_at, s.workers.c.id))
            return [WorkerRecord(**row._mapping) for row in rows]

    # Schedules

    def save_schedule(self, schedule: Schedule, old: Schedule | None = None) -> None:
        """Add a schedule, or replace the one of that name, and `old`."""
        names = [schedule.name, *([] if old is None else [old.name])]
        with self._writing() as connection:
            connection.execute(delete(s.schedules).where(s.schedules.c.name.in_(names)))
            connection.execute(insert(s.schedules).values(**asdict(schedule)))

    def schedules(self) -> list[Schedule]:
        with self._reading() as connection:
            return [_schedule(row) for row in connection.execute(select(s.schedules).order_by(s.schedules.c.name))]

    def schedule(self, name: str) -> Schedule:
        known = {schedule.name: schedule for schedule in self.schedules()}
        if name not in known:
            raise NotFoundError(f"no schedule {name!r}; {nearest(name, known)}")
        return known[name]

    def move_schedule(self, old: Schedule, new: Schedule) -> bool:
        """Compare and set: False when the schedule is no longer as it was."""
        c = s.schedules.c
        with self._writing() as connection:
            found = connection.execute(select(s.schedules).where(c.name == old.name)).one_or_none()
            if found is None or _schedule(found) != old:
                return False
            connection.execute(update(s.schedules).where(c.name == old.name).values(**asdict(new)))
            return True

    def remove_schedule(self, name: str) -> None:
        self.schedule(name)
        with self._writing() as connection:
            connection.execute(delete(s.schedules).where(s.schedules.c.name == name))

    def _reading(self) -> AbstractContextManager[Connection]:
        return reading(self._engine)

    def _writing(self) -> AbstractContextManager[Connection]:
        return writing(self._engine)


def require_claim(connection: Connection, claim: Claim) -> None:
    """Raises SupersededError unless the claim is the newest on its job."""
    c = s.job_claims.c
    owner = connection.execute(select(c.owner).where(c.job == claim.job)).scalar()
    if owner != claim.owner:
        by = "taken over by another worker" if owner else "cancelled"
        raise SupersededError(f"job {claim.job} was {by}; nothing was written.")


def note_checkpoint(connection: Connection, claim: Claim, task: str, key: str) -> None:
    """Note that the checkpoint of a task with this key is the job's."""
    c = s.job_results.c
    connection.execute(delete(s.job_results).where(c.job == claim.job, c.step == _CHECKPOINT))
    noted = {"job": claim.job, "step": _CHECKPOINT, "name": key, "data": task.encode()}
    connection.execute(insert(s.job_results).values(noted))


def is_held(connection: Connection, task: str, but: str | None) -> bool:
    """Whether a task's checkpoint is one that a job saved which has not ended, another one than `but`."""
    c = s.job_results.c
    noted = select(c.job).where(c.step == _CHECKPOINT, c.data == task.encode(), c.job != (but or ""))
    of_task = select(s.tasks.c.id).where(s.tasks.c.name == task)
    kept = noted.join(s.checkpoints, s.checkpoints.c.key == c.name).where(s.checkpoints.c.task_id.in_(of_task))
    return connection.execute(kept.limit(1)).first() is not None


def _forget_checkpoint(connection: Connection, job: str) -> None:
    c = s.job_results.c
    noted = connection.execute(select(c.name, c.data).where(c.job == job, c.step == _CHECKPOINT)).one_or_none()
    if noted is not None:
        of_task = select(s.tasks.c.id).where(s.tasks.c.name == bytes(noted.data).decode())
        its_own = s.checkpoints.c.key == noted.name, s.checkpoints.c.task_id.in_(of_task)
        connection.execute(delete(s.checkpoints).where(*its_own))


def end(connection: Connection, job: str, outcome: Outcome, at: datetime) -> None:
    """Log how a job ended, and keep it in place of what its steps came to."""
    worker = connection.execute(select(s.job_claims.c.worker).where(s.job_claims.c.job == job)).scalar()
    _log(connection, job, "info" if outcome.good else "error", worker or "", outcome.text, at)
    connection.execute(delete(s.job_results).where(s.job_results.c.job == job))
    name = _GOOD if outcome.good else _BAD
    connection.execute(insert(s.job_results).values(job=job, step=_END, name=name, data=outcome.text.encode()))


def outcome_of(connection: Connection, job: str) -> Outcome | None:
    c = s.job_results.c
    found = connection.execute(select(c.name, c.data).where(c.job == job, c.step == _END)).one_or_none()
    return None if found is None else Outcome(found.name == _GOOD, bytes(found.data).decode())


def _log(connection: Connection, job: str, level: str, worker: str, message: str, at: datetime) -> None:
    connection.execute(insert(s.job_logs).values(job=job, at=at, level=level, worker=worker, message=message))


def _schedule(row: Row[Any]) -> Schedule:
    return Schedule(**{**row._mapping, "active": bool(row.active)})
