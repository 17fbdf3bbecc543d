"""Runs: the training of a version, and the seconds that jobs took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.query.joins import is_held_against
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.catalog.tasks import task_id
from multiprompt.records import Run, VersionRecord

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split


class Runs(Noun):
    def of(self, version: VersionRecord) -> Run | None:
        """The training of a version, None for an imported one."""
        training, validation = (s.data_snapshots.alias(name) for name in ("training", "validation"))
        query = (
            select(s.runs, training.c.fingerprint.label("trained"), validation.c.fingerprint.label("validated"))
            .join(s.prompt_versions, s.prompt_versions.c.run_id == s.runs.c.id)
            .join(training, s.runs.c.training_snapshot_id == training.c.id)
            .join(validation, s.runs.c.validation_snapshot_id == validation.c.id)
            .where(s.prompt_versions.c.id == version.id)
        )
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                return None
            return Run(
                settings=row.settings,
                environment=row.environment,
                training_data=row.trained,
                validation_data=row.validated,
                losses=tuple(row.losses),
                validations=tuple((step, exact, loss) for step, exact, loss in row.validations),
                best_step=row.best_step,
                truncated=row.truncated,
                seconds=row.seconds,
            )

    def has_version_of(self, job: str) -> bool:
        """Whether a job stored a version, whatever its state."""
        query = select(s.runs.c.id).where(s.runs.c.job == job).limit(1)
        with self._store.read() as connection:
            return connection.execute(query).first() is not None

    def job_seconds(self, kind: str, task: str | None) -> float | None:
        """The seconds that the newest job of a kind took, as the sum of its measured parts; None without one."""
        with self._store.read() as connection:
            query = _check_seconds() if task is None else _task_seconds(kind, task_id(connection, task))
            found: float | None = connection.execute(query).scalar()
            return found


def insert_run(
    connection: Connection,
    task_id: int,
    run: Run,
    training_data: tuple[Split, Split],
    snapshots: Mapping[str, int],
    job: str | None,
    stamp: Stamp,
) -> int:
    """Store the training of a version on stored snapshots, given as ids by fingerprint. Gives its id."""
    training, validation = training_data
    return insert(
        connection,
        s.runs,
        task_id=task_id,
        training_snapshot_id=snapshots[training.fingerprint],
        validation_snapshot_id=snapshots[validation.fingerprint],
        settings=run.settings,
        environment=run.environment,
        losses=list(run.losses),
        validations=[list(validation) for validation in run.validations],
        best_step=run.best_step,
        truncated=run.truncated,
        seconds=run.seconds,
        job=job,
        created_at=stamp.at,
    )


def _check_seconds() -> Select[Any]:
    """The seconds of the newest check of all tasks."""
    of_all = s.checks.c.version_id.is_(None)
    return select(s.checks.c.seconds).where(of_all).order_by(s.checks.c.id.desc()).limit(1)


def _task_seconds(kind: str, task_id: int) -> Select[Any]:
    """The seconds of training, evaluations and check of a task's newest version."""
    versions, runs, scores, checks = s.prompt_versions, s.runs, s.evaluations, s.checks
    learned = kind != "evaluate"
    return (
        select(
            scores.c.seconds * (2 if learned else 1)
            + (func.coalesce(runs.c.seconds, 0.0) + func.coalesce(checks.c.seconds, 0.0) if learned else 0.0)
        )
        .select_from(versions)
        .join(scores, is_held_against(scores))
        .outerjoin(runs, runs.c.id == versions.c.run_id)
        .outerjoin(checks, checks.c.version_id == versions.c.id)
        .where(versions.c.task_id == task_id)
        .order_by(versions.c.id.desc())
        .limit(1)
    )
