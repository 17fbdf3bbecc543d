"""What versions are held against, and what came of it: every SELECT of a check."""

from __future__ import annotations

import json
import zlib
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, and_, func, select

from multiprompt.catalog import schema as s
from multiprompt.errors import IntegrityError
from multiprompt.records import Baseline, Canary


def baseline_id(versions: FromClause = s.prompt_versions, at: datetime | None = None) -> ColumnElement[int]:
    """The evaluation that a version is held against, now or at a time: the one that it was blessed with last, else the
    one that it was published with."""
    blessed = select(s.baselines.c.evaluation_id).where(s.baselines.c.version_id == versions.c.id)
    if at is not None:
        blessed = blessed.where(s.baselines.c.created_at <= at)
    newest = blessed.order_by(s.baselines.c.id.desc()).limit(1).correlate(versions).scalar_subquery()
    return func.coalesce(newest, versions.c.baseline_id)


def is_held_against(
    evaluations: FromClause, versions: FromClause = s.prompt_versions, at: datetime | None = None
) -> ColumnElement[bool]:
    """Joins versions with their baselines; the first half lets a database begin at either side."""
    return and_(evaluations.c.version_id == versions.c.id, evaluations.c.id == baseline_id(versions, at))


def baselines(connection: Connection, which: ColumnElement[bool]) -> dict[int, Baseline]:
    """What versions are held against, by their ids."""
    now = s.task_files.alias("now")
    query = (
        select(
            s.prompt_versions.c.id.label("version_id"),
            s.evaluations,
            s.data_snapshots.c.fingerprint,
            s.task_files.c.source,
            s.task_files.c.folder,
            now.c.source.label("now_source"),
            now.c.folder.label("now_folder"),
        )
        .join(s.tasks, s.tasks.c.id == s.prompt_versions.c.task_id)
        .join(s.task_files, s.task_files.c.id == s.prompt_versions.c.task_file_id)
        .join(now, now.c.id == s.tasks.c.task_file_id)
        .join(s.evaluations, is_held_against(s.evaluations))
        .join(s.data_snapshots, s.data_snapshots.c.id == s.evaluations.c.snapshot_id)
        .where(which)
    )
    return {
        row.version_id: Baseline(
            evaluation=row.id,
            metric=row.metric,
            score=row.score,
            rows=row.rows,
            data=row.fingerprint,
            key=row.key_parts,
            task_file=row.source,
            folder=row.folder,
            now=(row.now_source, row.now_folder),
        )
        for row in connection.execute(query)
    }


def canaries(connection: Connection, identity: int) -> tuple[Canary, ...] | None:
    """The rows of an evaluation that are looked at first; None for one of before there were such."""
    query = select(s.evaluation_results.c.canaries).where(s.evaluation_results.c.evaluation_id == identity)
    packed = connection.execute(query).scalar()
    if packed is None:
        return None
    try:
        return tuple(Canary(**said) for said in json.loads(zlib.decompress(packed)))
    except (zlib.error, ValueError, TypeError) as error:
        raise IntegrityError(f"the stored canaries of evaluation {identity} cannot be read: {error}") from None


def comparison(connection: Connection, baseline: int, key: str) -> dict[str, Any] | None:
    """What came of comparing a baseline with a score of this key (a digest) when that was done last."""
    c = s.comparisons.c
    found: dict[str, Any] | None = connection.execute(
        select(c.result).where(c.baseline_id == baseline, c.key == key)
    ).scalar()
    return found


def policy(connection: Connection) -> str:
    return str(connection.execute(select(s.settings.c.policy)).scalar_one())


def source_fingerprint(connection: Connection, digest: str) -> str | None:
    """The rows that data files of a digest hold, where they were read before."""
    query = select(s.data_sources.c.fingerprint).where(s.data_sources.c.digest == digest)
    found: str | None = connection.execute(query).scalar()
    return found
