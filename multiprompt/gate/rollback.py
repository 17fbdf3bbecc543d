"""Rolling back: a regressed task gets an earlier version back, where its policy says so and one is better."""

from __future__ import annotations

from multiprompt.errors import SupersededError, UnavailableError
from multiprompt.gate.check import Checking
from multiprompt.gate.verdict import forgetting
from multiprompt.records import CheckReport, CheckResult, Evaluation, Rollback, VersionRecord
from multiprompt.tasks.data import Split
from multiprompt.tasks.task import Task

# The number of earlier versions that are measured, the one that was retired last first.
TRIED = 5


def plan_rollbacks(checking: Checking, report: CheckReport) -> tuple[list[Rollback], list[str]]:
    """The rollbacks that a check asks for, and a line for each regressed version that stays. Nothing is moved."""
    regressed = [result for result in report.results if (result.verdict, result.policy) == ("regressed", "rollback")]
    versions = checking.context.catalog.versions.with_labels([result.version for result in regressed])
    by_label = {version.label: version for version in versions}
    planned = [_plan(checking, by_label[result.version], result) for result in regressed]
    return [one for one in planned if isinstance(one, Rollback)], [one for one in planned if isinstance(one, str)]


def _plan(checking: Checking, version: VersionRecord, result: CheckResult) -> Rollback | str:
    """The newest earlier version that is better now, or why there is none. The five retired last are tried."""
    versions = checking.context.catalog.versions.of(version.task)
    retired = [found for found in versions if found.state == "retired"]
    if not retired:
        return f"{version.label} has no earlier version to go back to"
    retired.sort(key=lambda v: (v.retired_at or v.created_at, v.number), reverse=True)
    try:
        task, rows, now = checking.score_whole(version)
    except (SupersededError, UnavailableError):
        raise
    except Exception as error:  # a broken base model raises errors of many libraries; the check itself stands
        return f"{version.label} stays: {error}"
    told = []
    for earlier in retired[:TRIED]:
        score = _score_now(checking, earlier, task, rows)
        if isinstance(score, Evaluation) and forgetting(score, now) > 0:
            return Rollback(version, earlier, score.score, f"{version.label} regressed: {result.cause}")
        told.append(score if isinstance(score, str) else f"{earlier.label} has {score.score:.4f} now")
    return f"{version.label} stays: {', '.join(told)}"


def _score_now(checking: Checking, earlier: VersionRecord, task: Task, rows: Split) -> Evaluation | str:
    """An earlier version's score, or why it is none to go back to."""
    if checking.context.catalog.versions.is_below_floor(earlier):
        return f"{earlier.label} did not learn"
    try:
        return checking.score_as_served(earlier, task, rows)
    except (SupersededError, UnavailableError):
        raise
    except Exception as error:  # as above
        return f"{earlier.label} cannot be measured: {error}"
