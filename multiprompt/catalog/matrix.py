"""The accuracy matrix, from the history of what was published, checked and blessed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.events import BLESSED, POINTER_MOVES
from multiprompt.catalog.store import Noun
from multiprompt.records import Matrix


class AccuracyMatrix(Noun):
    def get(self) -> Matrix:
        """R[i][j] from history: a row for the first publication of each task, in that order.

        A task that the check of that publication did not run again had the score of its baseline. `before` holds the
        scores of the hard prompts.
        """
        with self._store.read() as connection:
            moves = connection.execute(
                select(s.tasks.c.name, s.events.c.kind, s.events.c.to_version)
                .join(s.tasks, s.events.c.task_id == s.tasks.c.id)
                .where(s.events.c.kind.in_((*POINTER_MOVES, BLESSED)))
                .order_by(s.events.c.id)
            ).all()
            versions, blessed, measured = _admitted(connection), _blessed_scores(connection), _measured(connection)
            hard = _hard_scores(connection)
            baselines = {label: version.score for label, version in versions.items()}
            pointers: dict[str, int] = {}
            rows = []
            for name, kind, number in moves:
                if kind == BLESSED:
                    baselines[name, number] = blessed[versions[name, number].id].pop(0)
                    continue
                is_first = name not in pointers
                pointers[name] = number
                if is_first:
                    learned = versions[name, number].id
                    rows.append(
                        {
                            task: measured.get((learned, versions[task, of].id), baselines[task, of])
                            for task, of in pointers.items()
                        }
                    )
            names = list(rows[-1]) if rows else []
            signs = {name: bool(versions[name, pointers[name]].higher_is_better) for name in names}
            return Matrix(
                tuple(names),
                tuple(tuple(row.get(name) for name in names) for row in rows),
                tuple(hard.get(name) for name in names),
                tuple(signs[name] for name in names),
            )


def _blessed_scores(connection: Connection) -> dict[int, list[float]]:
    """The scores that versions were blessed with, oldest first, by the ids of the versions."""
    query = (
        select(s.baselines.c.version_id, s.evaluations.c.score)
        .join(s.evaluations, s.evaluations.c.id == s.baselines.c.evaluation_id)
        .order_by(s.baselines.c.id)
    )
    scores: dict[int, list[float]] = {}
    for row in connection.execute(query):
        scores.setdefault(row.version_id, []).append(row.score)
    return scores


def _admitted(connection: Connection) -> dict[tuple[str, int], Row[Any]]:
    """The versions with the scores that they were admitted with, by task and number."""
    query: Select[Any] = (
        select(
            s.tasks.c.name,
            s.prompt_versions.c.number,
            s.prompt_versions.c.id,
            s.evaluations.c.score,
            s.evaluations.c.higher_is_better,
        )
        .join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
        .join(s.evaluations, s.evaluations.c.id == s.prompt_versions.c.baseline_id)
    )
    return {(row.name, row.number): row for row in connection.execute(query)}


def _measured(connection: Connection) -> dict[tuple[int, int], float | None]:
    """The scores that were measured when a version was admitted, by the ids of that version and of the measured one."""
    query = select(s.checks.c.version_id, s.check_results.c.version_id.label("of"), s.check_results.c.score).join(
        s.check_results, s.check_results.c.check_id == s.checks.c.id
    )
    return {
        (row.version_id, row.of): row.score
        for row in connection.execute(query.where(s.checks.c.version_id.is_not(None)))
    }


def _hard_scores(connection: Connection) -> dict[str, float]:
    """The first score of each task's hard prompt."""
    first = select(func.min(s.evaluations.c.id)).where(s.evaluations.c.kind == "hard").group_by(s.evaluations.c.task_id)
    query = (
        select(s.tasks.c.name, s.evaluations.c.score)
        .join(s.tasks, s.evaluations.c.task_id == s.tasks.c.id)
        .where(s.evaluations.c.id.in_(first))
    )
    return {row.name: row.score for row in connection.execute(query)}
