"""Retreat: a task that regressed gets its previous version back, where its policy says so and that one is better."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from multiprompt.catalog.catalog import Catalog
from multiprompt.checking import Checking
from multiprompt.continual.gate import forgetting
from multiprompt.errors import SupersededError, UnavailableError
from multiprompt.records import CheckReport, CheckResult, VersionRecord


def roll_back_regressed(
    checking: Checking, catalog: Catalog, report: CheckReport, actor: str, clock: Callable[[], datetime]
) -> list[str]:
    """Roll back what regressed under the policy rollback. Tells what came of each."""
    regressed = [result for result in report.results if (result.verdict, result.policy) == ("regressed", "rollback")]
    versions = catalog.versions_labelled([result.version for result in regressed])
    by_label = {version.label: version for version in versions}
    return [_retreat(checking, catalog, by_label[r.version], r, actor, clock) for r in regressed]


def _retreat(
    checking: Checking,
    catalog: Catalog,
    version: VersionRecord,
    result: CheckResult,
    actor: str,
    clock: Callable[[], datetime],
) -> str:
    retired = [earlier for earlier in catalog.versions_of(version.task) if earlier.state == "retired"]
    if not retired:
        return f"{version.label} has no earlier version to go back to"
    earlier = max(retired, key=lambda v: (v.retired_at or v.created_at, v.number))
    try:
        task, rows, now = checking.whole(version)
        was = checking.as_served(earlier, task, rows)
        if forgetting(was, now) <= 0:
            return f"{version.label} stays: {earlier.label} has {was.score:.4f} now"
        reason = f"{version.label} regressed: {result.cause}"
        catalog.roll_back(version.task, earlier.number, reason, actor, clock(), replaces=version.number)
    except (SupersededError, UnavailableError):
        raise
    except Exception as error:  # a broken base model raises errors of many libraries; the check itself stands
        return f"{version.label} stays: {error}"
    return f"{version.task} went back to {earlier.label}, which has {was.score:.4f} now"
