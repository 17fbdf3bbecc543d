"""Baselines: the evaluation that a version is compared with, and the results of comparisons."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.evaluations import evaluation_query, key_digest, read_evaluation, save_evaluation
from multiprompt.catalog.events import BLESSED, append_event
from multiprompt.catalog.query.joins import baseline_id, is_held_against, is_serving
from multiprompt.catalog.settings import epoch
from multiprompt.catalog.store import Noun, insert
from multiprompt.catalog.tasks import task_file_id, task_id
from multiprompt.catalog.versions import published_versions
from multiprompt.errors import IntegrityError, NotFoundError
from multiprompt.records import Baseline, Canary, CheckResult, Evaluation, VersionRecord
from multiprompt.tasks.canaries import canaries

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split
    from multiprompt.tasks.task import Task


class Baselines(Noun):
    def of(self, version: VersionRecord) -> Baseline:
        """The baseline of a version, without what each row got."""
        with self._store.read() as connection:
            return _baselines(connection, s.prompt_versions.c.id == version.id)[version.id]

    def evaluation_of(self, version: VersionRecord) -> Evaluation:
        """The evaluation that is the baseline of a version, with what each row got. Raises NotFoundError."""
        of = select(baseline_id()).where(s.prompt_versions.c.id == version.id)
        query = evaluation_query().where(s.evaluations.c.id == of.scalar_subquery())
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFoundError(f"{version.label} has no baseline evaluation.")
            return read_evaluation(row)

    def published(self) -> tuple[int, list[tuple[VersionRecord, Baseline]]]:
        """The epoch, and the published versions in it with their baselines; one consistent view."""
        with self._store.read() as connection:
            held = _baselines(connection, is_serving())
            return epoch(connection), [(version, held[version.id]) for version in published_versions(connection)]

    def canaries(self, evaluation_id: int) -> tuple[Canary, ...] | None:
        """The rows of a baseline that a check looks at first; None for one of an older release."""
        query = select(s.evaluation_results.c.canaries).where(s.evaluation_results.c.evaluation_id == evaluation_id)
        with self._store.read() as connection:
            packed = connection.execute(query).scalar()
            if packed is None:
                return None
            try:
                return tuple(Canary(**told) for told in json.loads(zlib.decompress(packed)))
            except (zlib.error, ValueError, TypeError) as error:
                raise IntegrityError(
                    f"the stored canaries of evaluation {evaluation_id} cannot be read: {error}"
                ) from None

    def comparison(self, baseline_id: int, key: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The CheckResult, as JSON, of comparing a baseline with a score of this key; None without one."""
        c = s.comparisons.c
        query = select(c.result).where(c.baseline_id == baseline_id, c.key == key_digest(key))
        with self._store.read() as connection:
            found: Mapping[str, Any] | None = connection.execute(query).scalar()
            return found

    def save_comparison(
        self,
        version: VersionRecord,
        baseline_id: int,
        key: Mapping[str, str],
        result: CheckResult,
        split: Split | None,
        evaluation: Evaluation | None,
    ) -> None:
        """Keep the result of a comparison, and the evaluation with its rows if it is new."""
        digest = key_digest(key)
        with self._store.write() as (connection, stamp):
            evaluation_id = None
            if evaluation is not None and split is not None:
                evaluation_id = save_evaluation(connection, version, split, evaluation, stamp)
            known = s.comparisons.c.baseline_id == baseline_id, s.comparisons.c.key == digest
            connection.execute(s.comparisons.delete().where(*known))
            connection.execute(
                s.comparisons.insert().values(
                    baseline_id=baseline_id,
                    key=digest,
                    evaluation_id=evaluation_id,
                    result=asdict(result),
                    created_at=stamp.at,
                )
            )

    def bless(self, version: VersionRecord, task: Task, split: Split, evaluation: Evaluation, reason: str) -> None:
        """Make another evaluation the baseline of a version, of the task as its file is now; as an event.

        The evaluation is stored unless the same one is.
        """
        with self._store.write() as (connection, stamp):
            blessed_id = task_id(connection, version.task)
            evaluation_id = _stored(connection, version, evaluation)
            if evaluation_id is None:
                watched = canaries(split, evaluation.predictions)
                evaluation_id = save_evaluation(connection, version, split, evaluation, stamp, watched)
            insert(
                connection,
                s.baselines,
                version_id=version.id,
                evaluation_id=evaluation_id,
                task_file_id=task_file_id(connection, blessed_id, task, stamp),
                created_at=stamp.at,
            )
            append_event(connection, BLESSED, blessed_id, version.number, version.number, reason, stamp)


def _baselines(connection: Connection, which: ColumnElement[bool]) -> dict[int, Baseline]:
    """The baselines of versions, by the ids of these."""
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


def _stored(connection: Connection, version: VersionRecord, evaluation: Evaluation) -> int | None:
    """The id of the version's newest evaluation with this key, if it has the same answers and scores."""
    known = s.evaluations.c.version_id == version.id, s.evaluations.c.key == key_digest(evaluation.key)
    query = evaluation_query().where(*known).order_by(s.evaluations.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    found = read_evaluation(row)
    same = ("predictions", "references", "metrics")
    return int(row.id) if all(getattr(found, name) == getattr(evaluation, name) for name in same) else None
