"""Checks: what each one found, and the rollbacks that came of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, func, or_, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.database import MAX_NAMES, batched
from multiprompt.catalog.labels import parse_label
from multiprompt.catalog.pointers import move
from multiprompt.catalog.query.joins import is_serving
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.catalog.tasks import task_id
from multiprompt.catalog.versions import version
from multiprompt.errors import StateError
from multiprompt.records import CheckReport, CheckResult, Rollback

# The verdicts of a version that is worse, or that could not be measured.
_FOUND_WORSE = ("regressed", "failed")


class Checks(Noun):
    def save(self, check: CheckReport, rollbacks: Collection[Rollback] = ()) -> list[str]:
        """Store a check, roll back as it asks and end its job, in one transaction. Gives a line for each rollback."""
        with self._store.write() as (connection, stamp):
            told = [_roll_back(connection, rollback, stamp) for rollback in rollbacks]
            insert_check(connection, check, None, stamp, self._store.job)
            self._store.end_job(connection, check.passed, check.summary, stamp)
            return told

    def regressions(self, task: str | None) -> set[str]:
        """The published versions, of a task or of any, that a check found worse and none found well since.

        A full check judges every version; a later check of a candidate adds to that. Each version is named by its
        label and the key of the score that was too low, so that another drop has another name.
        """
        newest = select(func.max(s.checks.c.id)).where(s.checks.c.version_id.is_(None)).scalar_subquery()
        results, versions = s.check_results.c, s.prompt_versions.c
        query = (
            select(versions.id, s.tasks.c.name, versions.number, results.score, results.verdict, results.cause)
            .select_from(s.check_results)
            .join(s.prompt_versions, versions.id == results.version_id)
            .join(s.tasks, s.tasks.c.id == versions.task_id)
            .where(is_serving(), results.verdict.in_(_FOUND_WORSE))
            .where(results.check_id >= func.coalesce(newest, 0))
        )
        with self._store.read() as connection:
            if task is not None:
                query = query.where(s.tasks.c.id == task_id(connection, task))
            rows = connection.execute(query).all()
            return {f"{row.name}@{row.number} {_compared_under(connection, row)}" for row in rows}

    def found_worse(self, label: str) -> CheckResult | None:
        """The bad result of a version in the newest check of others; None if that check found nothing."""
        with self._store.read() as connection:
            record = version(connection, *parse_label(label))
            results, admitted = s.check_results.c, s.prompt_versions
            others = or_(s.checks.c.version_id.is_(None), admitted.c.task_id != task_id(connection, record.task))
            newest = (
                select(s.checks.c.id)
                .outerjoin(admitted, admitted.c.id == s.checks.c.version_id)
                .where(others)
                .order_by(s.checks.c.id.desc())
                .limit(1)
                .scalar_subquery()
            )
            found = select(s.check_results).where(results.check_id == newest, results.version_id == record.id)
            row = connection.execute(found.where(results.verdict.in_(_FOUND_WORSE))).first()
            if row is None:
                return None
            drop = None if row.score is None else abs(row.baseline - row.score)
            metric = record.metric or ""
            return CheckResult(label, metric, row.baseline, row.score, drop, row.max_drop, row.verdict, row.cause)


def insert_check(
    connection: Connection, check: CheckReport, version_id: int | None, stamp: Stamp, job: str | None = None
) -> None:
    """Store a check, or that of a candidate `version_id`, without the versions that kept their baseline's score."""
    check_id = insert(
        connection,
        s.checks,
        version_id=version_id,
        passed=int(check.passed),
        seconds=check.seconds,
        job=job,
        evaluated=check.evaluated,
        canaries=check.canaries,
        reused=check.reused,
        created_at=stamp.at,
    )
    told = [result for result in check.results if not (result.reused and result.verdict == "identical")]
    if not told:
        return
    checked = _version_ids(connection, [result.version for result in told])
    connection.execute(
        s.check_results.insert(),
        [
            {
                "check_id": check_id,
                "version_id": checked[result.version],
                "baseline": result.baseline,
                "score": result.score,
                "max_drop": result.max_drop,
                "verdict": result.verdict,
                "cause": result.cause,
                "evidence": None if result.evidence is None else asdict(result.evidence),
            }
            for result in told
        ],
    )


def _roll_back(connection: Connection, rollback: Rollback, stamp: Stamp) -> str:
    """Move a regressed task back, unless it is guarded or moved meanwhile. Gives a line on what was done."""
    version, earlier = rollback.version, rollback.earlier
    try:
        move(connection, version.task, earlier.number, "rolled-back", rollback.reason, False, stamp, version.number)
    except StateError as error:
        return f"{version.label} stays: {error}"
    return f"{version.task} went back to {earlier.label}, which has {rollback.score:.4f} now"


def _compared_under(connection: Connection, found: Any) -> str:
    """The key of the comparison that gave a check's result; its verdict if no such comparison is kept."""
    kept = (
        select(s.comparisons.c.key, s.comparisons.c.result)
        .join(s.evaluations, s.evaluations.c.id == s.comparisons.c.baseline_id)
        .where(s.evaluations.c.version_id == found.id)
        .order_by(s.comparisons.c.created_at.desc())
    )
    same = ("verdict", "score", "cause")
    wanted = tuple(getattr(found, name) for name in same)
    keys = (row.key for row in connection.execute(kept) if tuple(row.result[name] for name in same) == wanted)
    return str(next(keys, found.verdict))


def _version_ids(connection: Connection, labels: Collection[str]) -> dict[str, int]:
    versions = s.prompt_versions.c
    names = sorted({label.rpartition("@")[0] for label in labels})
    query = select(s.tasks.c.name, versions.number, versions.id).join(s.tasks, versions.task_id == s.tasks.c.id)
    found = {
        f"{row.name}@{row.number}": int(row.id)
        for some in batched(names, MAX_NAMES)
        for row in connection.execute(query.where(s.tasks.c.name.in_(some)))
    }
    return {label: found[label] for label in labels}
