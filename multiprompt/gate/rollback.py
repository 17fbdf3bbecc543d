"""Rolling back: a regressed task gets its previous version back, where its policy says so and that one is better."""

from __future__ import annotations

from multiprompt.errors import SupersededError, UnavailableError
from multiprompt.gate.check import Checking
from multiprompt.gate.verdict import forgetting
from multiprompt.records import CheckReport, CheckResult, VersionRecord


def roll_back_regressed(checking: Checking, report: CheckReport) -> list[str]:
    """Roll back each task that regressed under the policy rollback. Gives a line for each."""
    regressed = [result for result in report.results if (result.verdict, result.policy) == ("regressed", "rollback")]
    versions = checking.context.catalog.versions_labelled([result.version for result in regressed])
    by_label = {version.label: version for version in versions}
    return [_roll_back(checking, by_label[result.version], result) for result in regressed]


def _roll_back(checking: Checking, version: VersionRecord, result: CheckResult) -> str:
    catalog = checking.context.catalog
    retired = [earlier for earlier in catalog.versions_of(version.task) if earlier.state == "retired"]
    if not retired:
        return f"{version.label} has no earlier version to go back to"
    earlier = max(retired, key=lambda v: (v.retired_at or v.created_at, v.number))
    try:
        task, rows, now = checking.score_whole(version)
        was = checking.score_as_served(earlier, task, rows)
        if forgetting(was, now) <= 0:
            return f"{version.label} stays: {earlier.label} has {was.score:.4f} now"
        reason = f"{version.label} regressed: {result.cause}"
        catalog.roll_back(version.task, earlier.number, reason, replaces=version.number)
    except (SupersededError, UnavailableError):
        raise
    except Exception as error:  # a broken base model raises errors of many libraries; the check itself stands
        return f"{version.label} stays: {error}"
    return f"{version.task} went back to {earlier.label}, which has {was.score:.4f} now"
