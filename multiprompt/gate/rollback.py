"""Rolling back: a regressed task gets its previous version back, where its policy says so and that one is better."""

from __future__ import annotations

from multiprompt.errors import SupersededError, UnavailableError
from multiprompt.gate.check import Checking
from multiprompt.gate.verdict import forgetting
from multiprompt.records import CheckReport, CheckResult, Rollback, VersionRecord


def plan_rollbacks(checking: Checking, report: CheckReport) -> tuple[list[Rollback], list[str]]:
    """The rollbacks that a check asks for, and a line for each regressed version that stays. Nothing is moved."""
    regressed = [result for result in report.results if (result.verdict, result.policy) == ("regressed", "rollback")]
    versions = checking.context.catalog.versions.with_labels([result.version for result in regressed])
    by_label = {version.label: version for version in versions}
    planned = [_plan(checking, by_label[result.version], result) for result in regressed]
    return [one for one in planned if isinstance(one, Rollback)], [one for one in planned if isinstance(one, str)]


def _plan(checking: Checking, version: VersionRecord, result: CheckResult) -> Rollback | str:
    retired = [found for found in checking.context.catalog.versions.of(version.task) if found.state == "retired"]
    if not retired:
        return f"{version.label} has no earlier version to go back to"
    earlier = max(retired, key=lambda v: (v.retired_at or v.created_at, v.number))
    try:
        task, rows, now = checking.score_whole(version)
        was = checking.score_as_served(earlier, task, rows)
    except (SupersededError, UnavailableError):
        raise
    except Exception as error:  # a broken base model raises errors of many libraries; the check itself stands
        return f"{version.label} stays: {error}"
    if forgetting(was, now) <= 0:
        return f"{version.label} stays: {earlier.label} has {was.score:.4f} now"
    return Rollback(version, earlier, was.score, f"{version.label} regressed: {result.cause}")
