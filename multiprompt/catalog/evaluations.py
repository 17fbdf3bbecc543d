"""Evaluations: scores, the key of all that moves them, and what each row got."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import read_artifact
from multiprompt.catalog.query.joins import baseline_id
from multiprompt.catalog.query.language import parse
from multiprompt.catalog.query.listings import EVALUATIONS
from multiprompt.catalog.query.values import MAX_INTEGER
from multiprompt.catalog.snapshots import store_snapshots
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.catalog.tasks import task_id
from multiprompt.errors import IntegrityError, NotFoundError
from multiprompt.records import Canary, Evaluation, EvaluationRecord, Listing, VersionRecord
from multiprompt.tasks.data import Split


class Evaluations(Noun):
    def find(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[EvaluationRecord]:
        """A page of evaluations, without what each row got. Raises QueryError."""
        parsed = parse(query, EVALUATIONS, limit)
        listing = (
            select(s.evaluations, s.tasks.c.name, s.prompt_versions.c.number, s.data_snapshots.c.fingerprint)
            .join(s.tasks, s.evaluations.c.task_id == s.tasks.c.id)
            .join(s.data_snapshots, s.evaluations.c.snapshot_id == s.data_snapshots.c.id)
            .outerjoin(s.prompt_versions, s.evaluations.c.version_id == s.prompt_versions.c.id)
        )
        with self._store.read() as connection:
            return parsed.page(connection, listing, s.evaluations.c.id, _record, after)

    def get(self, evaluation_id: int) -> Evaluation:
        """An evaluation with what each row got. Raises NotFoundError."""
        query = evaluation_query().where(s.evaluations.c.id == evaluation_id)
        is_known = isinstance(evaluation_id, int) and abs(evaluation_id) < MAX_INTEGER
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none() if is_known else None
            if row is None:
                raise NotFoundError(f"no evaluation {str(evaluation_id)[:100]}; `ws.evaluations()` lists them.")
            return read_evaluation(row)

    def with_key(self, key: Mapping[str, str], task: str | None = None) -> Evaluation | None:
        """The newest evaluation, of a task or of any, with the same key."""
        with self._store.read() as connection:
            return evaluation_with_key(connection, key_digest(key), task)

    def rows(self, version: VersionRecord, evaluation_id: int | None = None) -> Split:
        """The rows that a version's baseline, or another evaluation of it, was taken on."""
        baseline = select(baseline_id()).where(s.prompt_versions.c.id == version.id).scalar_subquery()
        query = (
            select(s.data_snapshots)
            .join(s.evaluations, s.evaluations.c.snapshot_id == s.data_snapshots.c.id)
            .where(s.evaluations.c.id == (baseline if evaluation_id is None else evaluation_id))
        )
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None or row.sha256 is None:
                raise NotFoundError(f"{version.label} has no stored evaluation rows.")
            packed = read_artifact(connection, row.sha256, f"{version.label}, split {row.split}")
        split = Split.unpack(row.split, packed)
        if split.fingerprint != row.fingerprint:
            raise IntegrityError(
                f"{version.label}: the stored rows of split {row.split} do not have their fingerprint."
            )
        return split

    def save(self, version: VersionRecord, split: Split, evaluation: Evaluation) -> None:
        """Store a score of a version on any rows, which ends the job that writes here."""
        with self._store.write() as (connection, stamp):
            save_evaluation(connection, version, split, evaluation, stamp)
            ended = f"{version.label}: {evaluation.metric} {evaluation.score:.4f}"
            self._store.end_job(connection, True, ended, stamp)


def key_digest(parts: Any) -> str:
    """The digest of the parts of a key, by which evaluations are found."""
    return "sha256:" + hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def evaluation_query() -> Select[Any]:
    """The SELECT of all evaluations, for `read_evaluation`."""
    return (
        select(s.evaluations, s.evaluation_results.c.results, s.tasks.c.name, s.prompt_versions.c.number)
        .join(s.tasks, s.evaluations.c.task_id == s.tasks.c.id)
        .join(s.evaluation_results, s.evaluation_results.c.evaluation_id == s.evaluations.c.id)
        .outerjoin(s.prompt_versions, s.evaluations.c.version_id == s.prompt_versions.c.id)
    )


def read_evaluation(row: Row[Any]) -> Evaluation:
    """An evaluation with what each row got. Raises IntegrityError for results that cannot be read."""
    try:
        results = json.loads(zlib.decompress(row.results))
    except (zlib.error, ValueError) as error:
        raise IntegrityError(f"the stored results of an evaluation of {row.name} cannot be read: {error}") from None
    return Evaluation(
        task=row.name,
        kind=row.kind,
        metric=row.metric,
        score=row.score,
        higher_is_better=bool(row.higher_is_better),
        metrics=row.metrics,
        key=row.key_parts,
        predictions=tuple(results["predictions"]),
        references=tuple(results["references"]),
        truncated=row.truncated,
        seconds=row.seconds,
    )


def evaluation_with_key(connection: Connection, key: str, task: str | None = None) -> Evaluation | None:
    """The newest evaluation, of a task or of any, with this key (a digest)."""
    known = (s.evaluations.c.key == key, *([] if task is None else [s.tasks.c.name == task]))
    query = evaluation_query().where(*known).order_by(s.evaluations.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else read_evaluation(row)


def save_evaluation(
    connection: Connection,
    version: VersionRecord,
    split: Split,
    evaluation: Evaluation,
    stamp: Stamp,
    canaries: Sequence[Canary] = (),
) -> int:
    """Store a score of a version on any rows. Gives its id."""
    snapshots = store_snapshots(connection, split, (), stamp)
    scored_id = task_id(connection, version.task)
    snapshot_id = snapshots[split.fingerprint]
    return insert_evaluation(connection, scored_id, version.id, snapshot_id, evaluation, stamp, canaries)


def insert_evaluation(
    connection: Connection,
    task_id: int,
    version_id: int | None,
    snapshot_id: int,
    evaluation: Evaluation,
    stamp: Stamp,
    canaries: Sequence[Canary] = (),
) -> int:
    """Store a score on stored rows. Gives its id."""
    evaluation_id = insert(
        connection,
        s.evaluations,
        task_id=task_id,
        version_id=version_id,
        snapshot_id=snapshot_id,
        kind=evaluation.kind,
        metric=evaluation.metric,
        score=evaluation.score,
        higher_is_better=int(evaluation.higher_is_better),
        metrics=dict(evaluation.metrics),
        key=key_digest(evaluation.key),
        key_parts=dict(evaluation.key),
        rows=evaluation.rows,
        truncated=evaluation.truncated,
        seconds=evaluation.seconds,
        created_at=stamp.at,
    )
    results = {"predictions": list(evaluation.predictions), "references": list(evaluation.references)}
    stored = {"evaluation_id": evaluation_id, "results": _packed(results), "canaries": None}
    if canaries:
        stored["canaries"] = _packed([asdict(canary) for canary in canaries])
    connection.execute(s.evaluation_results.insert(), stored)
    scores = [
        {"evaluation_id": evaluation_id, "metric": metric, "score": score}
        for metric, score in evaluation.metrics.items()
    ]
    connection.execute(s.evaluation_scores.insert(), scores)
    return evaluation_id


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, ensure_ascii=False, default=str).encode())


def _record(row: Row[Any]) -> EvaluationRecord:
    return EvaluationRecord(
        id=row.id,
        task=row.name,
        version=None if row.number is None else f"{row.name}@{row.number}",
        kind=row.kind,
        metric=row.metric,
        score=row.score,
        metrics=row.metrics,
        rows=row.rows,
        truncated=row.truncated,
        seconds=row.seconds,
        data=row.fingerprint,
        created_at=row.created_at,
    )
