"""Checks, comparisons and blessings to rows, each within the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.reading import BLESSED, MAX_NAMES, batched, evaluation_query, key_digest, task_id
from multiprompt.catalog.reading import evaluation as read_evaluation
from multiprompt.catalog.writing import Stamp, event, insert, move, save_evaluation, task_file
from multiprompt.errors import StateError
from multiprompt.records import CheckReport, CheckResult, Evaluation, Rollback, VersionRecord
from multiprompt.tasks.canaries import canaries

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split
    from multiprompt.tasks.task import Task


def save_check(
    connection: Connection, check: CheckReport, version_id: int | None, stamp: Stamp, job: str | None = None
) -> None:
    """Store a check, without what had its baseline's score since nothing moved."""
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


def roll_back(connection: Connection, rollback: Rollback, stamp: Stamp) -> str:
    """Move a regressed task back, unless it is guarded or moved meanwhile. Gives a line of what was done."""
    version, earlier = rollback.version, rollback.earlier
    try:
        move(connection, version.task, earlier.number, "rolled-back", rollback.reason, False, stamp, version.number)
    except StateError as error:
        return f"{version.label} stays: {error}"
    return f"{version.task} went back to {earlier.label}, which has {rollback.score:.4f} now"


def save_comparison(
    connection: Connection,
    version: VersionRecord,
    baseline: int,
    key: Mapping[str, str],
    result: CheckResult,
    split: Split | None,
    evaluation: Evaluation | None,
    stamp: Stamp,
) -> None:
    """Keep what came of comparing a baseline with a score of a key, and the evaluation where it is new."""
    evaluation_id = None
    if evaluation is not None and split is not None:
        evaluation_id = save_evaluation(connection, version, split, evaluation, stamp)
    known = s.comparisons.c.baseline_id == baseline, s.comparisons.c.key == key_digest(key)
    connection.execute(s.comparisons.delete().where(*known))
    connection.execute(
        s.comparisons.insert().values(
            baseline_id=baseline,
            key=key_digest(key),
            evaluation_id=evaluation_id,
            result=asdict(result),
            created_at=stamp.at,
        )
    )


def regressions(connection: Connection, task: str | None) -> set[str]:
    """The published versions, of a task or of any, that a check found regressed or failed and none found well since.

    A check of everything says of each version how it stands; those after it, of a candidate, add to that.
    """
    newest = select(func.max(s.checks.c.id)).where(s.checks.c.version_id.is_(None)).scalar_subquery()
    results, versions = s.check_results.c, s.prompt_versions.c
    query = (
        select(versions.id, s.tasks.c.name, versions.number, results.score, results.verdict, results.cause)
        .select_from(s.check_results)
        .join(s.prompt_versions, versions.id == results.version_id)
        .join(s.tasks, s.tasks.c.id == versions.task_id)
        .where(versions.state == "published", results.verdict.in_(("regressed", "failed")))
        .where(results.check_id >= func.coalesce(newest, 0))
    )
    if task is not None:
        query = query.where(s.tasks.c.id == task_id(connection, task))
    return {f"{row.name}@{row.number} {_compared_under(connection, row)}" for row in connection.execute(query).all()}


def _compared_under(connection: Connection, found: Any) -> str:
    """The key of the comparison that gave a check's result; its verdict where no such comparison is kept."""
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


def bless(
    connection: Connection,
    version: VersionRecord,
    task: Task,
    split: Split,
    evaluation: Evaluation,
    reason: str,
    stamp: Stamp,
) -> None:
    """Hold a version against another evaluation, of the task as its file was then, from now on.

    The evaluation is stored unless the same one is.
    """
    identity = task_id(connection, version.task)
    evaluation_id = _stored(connection, version, evaluation)
    if evaluation_id is None:
        watched = canaries(split, evaluation.predictions)
        evaluation_id = save_evaluation(connection, version, split, evaluation, stamp, watched)
    insert(
        connection,
        s.baselines,
        version_id=version.id,
        evaluation_id=evaluation_id,
        task_file_id=task_file(connection, identity, task, stamp),
        created_at=stamp.at,
    )
    event(connection, BLESSED, identity, version.number, version.number, reason, stamp)


def _stored(connection: Connection, version: VersionRecord, evaluation: Evaluation) -> int | None:
    """The newest evaluation of a version with this key, where it has the same answers and scores."""
    known = s.evaluations.c.version_id == version.id, s.evaluations.c.key == key_digest(evaluation.key)
    query = evaluation_query().where(*known).order_by(s.evaluations.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    found = read_evaluation(row)
    same = ("predictions", "references", "metrics")
    return int(row.id) if all(getattr(found, name) == getattr(evaluation, name) for name in same) else None


def set_policy(connection: Connection, policy: str, reason: str, stamp: Stamp) -> None:
    """What a regression does where a task file does not say."""
    if connection.execute(select(s.settings.c.policy)).scalar_one() != policy:
        connection.execute(s.settings.update().values(policy=policy))
        event(connection, f"policy-{policy}", None, None, None, reason, stamp)


def save_source(connection: Connection, digest: str, fingerprint: str) -> None:
    """Keep which rows data files of a digest hold."""
    connection.execute(s.data_sources.delete().where(s.data_sources.c.digest == digest))
    connection.execute(s.data_sources.insert().values(digest=digest, fingerprint=fingerprint))


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
