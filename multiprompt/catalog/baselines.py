"""What versions are held against, and what came of it: every SELECT of a check."""

from __future__ import annotations

import json
import zlib
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.query.joins import is_held_against
from multiprompt.errors import IntegrityError
from multiprompt.records import Baseline, Canary


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
