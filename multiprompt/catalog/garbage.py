"""Garbage: stored bytes that nothing refers to, put into the trash first and deleted when they lay there for long."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select

from multiprompt.catalog import schema as s
from multiprompt.records import Garbage

# Gives the jobs that wait or run, with the task of each.
LiveJobs = Callable[[], Mapping[str, str]]


def look(connection: Connection, at: datetime, keep: timedelta, live: Mapping[str, str]) -> Garbage:
    """The unused files, and those that `collect` would delete at a time."""
    unused = select(s.artifacts.c.sha256, func.length(s.artifacts.c.data).label("bytes")).where(_unused())
    sizes = {row.sha256: row.bytes for row in connection.execute(unused)}
    ripe = connection.scalars(_ripe(at, keep)).all()
    checkpoints = select(s.checkpoints.c.task_id, func.length(s.checkpoints.c.data)).where(_stale(at, keep, live))
    stale = connection.execute(checkpoints).all()
    return Garbage(
        unused=len(sizes),
        unused_bytes=sum(sizes.values()),
        deleted=len(ripe) + len(stale),
        deleted_bytes=sum(sizes[sha256] for sha256 in ripe) + sum(size for _, size in stale),
    )


def quiet_jobs(connection: Connection, before: datetime) -> set[str]:
    """The jobs that were claimed or logged, the last claim or first line before a time."""
    claimed = select(s.job_claims.c.job).where(s.job_claims.c.updated_at <= before)
    logged = select(s.job_logs.c.job).where(s.job_logs.c.at <= before).distinct()
    return {*connection.scalars(claimed), *connection.scalars(logged)}


def collect(
    connection: Connection, at: datetime, keep: timedelta, quiet: Collection[str], live: Mapping[str, str]
) -> Garbage:
    """Delete what has lain in the trash for `keep`, take out of it what is used again, and put in what is not.

    Old checkpoints, and what workers noted of `quiet` jobs, go as well, but for those of `live` jobs.
    """
    found = look(connection, at, keep, live)
    for sha256 in connection.scalars(_ripe(at, keep)).all():
        connection.execute(s.trash.delete().where(s.trash.c.sha256 == sha256))
        connection.execute(s.artifacts.delete().where(s.artifacts.c.sha256 == sha256))
    unused = select(s.artifacts.c.sha256).where(_unused())
    connection.execute(s.trash.delete().where(s.trash.c.sha256.not_in(unused)))
    known = select(s.trash.c.sha256)
    for sha256 in connection.scalars(unused.where(s.artifacts.c.sha256.not_in(known))).all():
        connection.execute(s.trash.insert().values(sha256=sha256, since=at))
    connection.execute(s.checkpoints.delete().where(_stale(at, keep, live)))
    for job in set(quiet) - set(live):
        _forget_job(connection, job, at - keep)
    return found


def _forget_job(connection: Connection, job: str, before: datetime) -> None:
    """Delete what workers noted of a job."""
    claims, logs = s.job_claims.c, s.job_logs.c
    connection.execute(s.job_claims.delete().where(claims.job == job, claims.updated_at <= before))
    claimed = exists().where(claims.job == job)
    connection.execute(s.job_results.delete().where(s.job_results.c.job == job, ~claimed))
    connection.execute(s.job_logs.delete().where(logs.job == job, logs.at <= before))


def _unused() -> ColumnElement[bool]:
    """The condition that no version, whatever its state, and no data refers to an artifact."""
    versions, artifact = s.prompt_versions.c, s.artifacts.c.sha256
    used = or_(
        versions.config_sha256 == artifact, versions.weights_sha256 == artifact, versions.encoder_sha256 == artifact
    )
    return ~or_(select(1).where(used).exists(), select(1).where(s.data_snapshots.c.sha256 == artifact).exists())


def _ripe(at: datetime, keep: timedelta) -> Select[tuple[str]]:
    """The condition that an artifact is unused and has been in the trash for so long."""
    unused = select(s.artifacts.c.sha256).where(_unused())
    return select(s.trash.c.sha256).where(s.trash.c.sha256.in_(unused), s.trash.c.since <= at - keep)


def _stale(at: datetime, keep: timedelta, live: Mapping[str, str]) -> ColumnElement[bool]:
    """The condition that a training made no progress for so long, and that its task has no live job."""
    of_live = select(s.tasks.c.id).where(s.tasks.c.name.in_(set(live.values())))
    return and_(s.checkpoints.c.created_at <= at - keep, s.checkpoints.c.task_id.not_in(of_live))
