"""Admission: a prompt that was learned or imported is measured, gated, and published or rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.writing import Candidate, Decision, Parent, digest
from multiprompt.errors import ConflictError, DataError, IntegrityError, MetricError, TemplateError
from multiprompt.gate.check import Checking
from multiprompt.gate.floor import Yardstick, interval, majority, yardstick
from multiprompt.gate.scores import Scores
from multiprompt.gate.verdict import ROUNDING, forgetting, is_standing
from multiprompt.records import CheckReport, CheckResult, Evaluation, VersionRecord, measured

if TYPE_CHECKING:
    from multiprompt.tasks.split import Split
    from multiprompt.tasks.task import Task


def admit(scores: Scores, checking: Checking, candidate: Candidate) -> tuple[VersionRecord, CheckReport, str]:
    """Publish, hold or reject a candidate in one transaction; gate again what others published meanwhile.

    Gives the version, what was checked, and the reason.
    """
    known: dict[str, CheckResult] = {}
    check = CheckReport((), 0.0)
    while True:
        epoch, found = checking.check_others(candidate.task.name, known)
        check = _sum(check, _with_standing(scores.catalog, found))
        decision, reason = _decide(scores, candidate, check)
        try:
            version = scores.catalog.admit(candidate, check, decision=decision, reason=reason, epoch=epoch)
        except ConflictError:
            continue
        return version, check, reason


def find_existing(catalog: Catalog, task: Task, digest: str, test: Split) -> VersionRecord | None:
    """The version of a task that has these bytes and is served by this task file, the published one first.

    A rejected version does not count: what kept it out may have passed. Nor does one that did not learn, as other test
    rows show it.
    """
    found = [
        version
        for version in catalog.versions_of(task.name)
        if version.digest == digest
        and version.state != "rejected"
        and catalog.task_file(version).fingerprint == task.fingerprint
        and not (catalog.is_below_floor(version) and catalog.baseline_of(version).data != test.fingerprint)
    ]
    return max(found, key=lambda version: (version.state == "published", version.number), default=None)


def require_untouched(catalog: Catalog, before: Mapping[str, str]) -> None:
    """Raises IntegrityError unless every version of `before` still has its digest, recomputed from its stored bytes."""
    versions = catalog.versions_labelled(before)
    if {version.label: digest(catalog.adapter(version)) for version in versions} != dict(before):
        raise IntegrityError(
            "a version that was published before the training has other bytes now; nothing was published. "
            "Run `multiprompt verify`."
        )


def yardsticks(scores: Scores, candidate: Candidate) -> tuple[Yardstick, ...]:
    """A candidate held against the hard prompt, and against the majority answer where the metric can score that."""
    metric, tolerated = candidate.task.metrics[0], candidate.task.config.regression
    others = {"hard prompt": candidate.hard}
    with suppress(MetricError):
        others["majority answer"] = majority(candidate.soft, metric, hub_metrics=scores.context.hub_metrics)
    return tuple(yardstick(name, other, candidate.soft, metric, tolerated) for name, other in others.items())


def _decide(scores: Scores, candidate: Candidate, check: CheckReport) -> tuple[Decision, str]:
    """Publish, unless an older task got worse, a version that served is better, or a first version learned nothing.

    A regression that the check before found too is told only: it is not this candidate's.
    """
    for result in check.results:
        if result.blocks and not result.standing:
            return "reject", f"{result.version} {result.verdict}: {result.cause or 'unknown cause'}"
    rivals = _rivals(scores.catalog, candidate)
    worse = _worse_than(scores, candidate, rivals)
    if worse:
        return "reject", worse
    soft = candidate.soft
    missed = [] if rivals else _missed(scores, candidate)
    if missed:
        return "hold", f"did not learn: {soft.metric} {soft.score:.4f}, {', and '.join(missed)}"
    told = [f"{r.version} {r.verdict}{' before' * r.standing}: {r.cause}" for r in check.results if _is_told(r)]
    score = measured(soft.metric, soft.score, interval(soft, candidate.task.metrics[0]), soft.rows)
    return "publish", "; ".join([score, *told])


def _worse_than(scores: Scores, candidate: Candidate, rivals: Sequence[VersionRecord]) -> str:
    """Why a candidate is worse than a version that served, on the same rows; empty where it is not.

    The candidate bears the burden of proof: a drop beyond what the task tolerates keeps it out, chance or not.
    """
    soft, task = candidate.soft, candidate.task
    for rival in rivals:
        was = _as_served(scores, rival, candidate)
        if not forgetting(was, soft) <= task.config.regression.max_drop + ROUNDING:
            return f"{rival.label} is better: {soft.metric} {was.score:.4f}, the candidate has {soft.score:.4f}"
    return ""


def _as_served(scores: Scores, rival: VersionRecord, candidate: Candidate) -> Evaluation:
    """A rival's score on a candidate's rows, with the task file that the rival answers with.

    Where that file reads other right answers from these rows, or none, the rival is asked as the candidate is.
    """
    task, own = candidate.task, scores.catalog.task_file(rival)
    if own.is_multiple_choice == task.is_multiple_choice:
        with suppress(DataError, TemplateError, MetricError):
            served = scores.score_version(rival, replace(own, metrics=task.metrics), candidate.data)
            if served.references == candidate.soft.references:
                return served
    return scores.score_version(rival, task, candidate.data)


def _missed(scores: Scores, candidate: Candidate) -> list[str]:
    """The scores of the task's floor that a candidate did not beat."""
    floors = {"hard": ("hard prompt", "majority answer"), "majority": ("majority answer",), "none": ()}
    asked = floors[candidate.task.config.regression.floor]
    held = [found for found in yardsticks(scores, candidate) if found.name in asked]
    if asked and not held:
        return [f"{candidate.soft.metric} cannot score the {' or the '.join(asked)}"]
    return [found.shortfall for found in held if found.shortfall]


def _rivals(catalog: Catalog, candidate: Candidate) -> list[VersionRecord]:
    """The published version, and the best since the task was blessed or rolled back last.

    Each retraining may lose `max_drop`, so that without the best one ten of them may lose ten times as much.
    """
    published = _published_of(catalog, candidate.task.name)
    served = [
        version
        for version in catalog.served_since_blessed(candidate.task.name)
        if (version.metric, version.base_model.identity) == (candidate.soft.metric, candidate.base_model.identity)
    ]
    sign = 1 if candidate.soft.higher_is_better else -1
    best = max(served, key=lambda version: (sign * (version.score or 0.0), -version.number), default=None)
    return published if best is None or not published or best in published else [*published, best]


def _with_standing(catalog: Catalog, check: CheckReport) -> CheckReport:
    """Mark the regressions that the check before this one found, too."""
    results = tuple(
        replace(result, standing=is_standing(result, catalog.found_worse(result.version))) if result.blocks else result
        for result in check.results
    )
    return replace(check, results=results)


def _is_told(result: CheckResult) -> bool:
    return result.verdict == "regressed" or result.standing


def _sum(before: CheckReport, after: CheckReport) -> CheckReport:
    """The newer report with what both cost."""
    return replace(
        after,
        seconds=before.seconds + after.seconds,
        evaluated=before.evaluated + after.evaluated,
        canaries=before.canaries + after.canaries,
        reused=before.reused + after.reused,
        notes=before.notes + after.notes,
    )


def parents_of(catalog: Catalog, task: str, start: VersionRecord | None) -> tuple[Parent, ...]:
    """The parents of a new version: its task's published version, and the version that its training started from."""
    found = [Parent("retrained-from", version.label, version) for version in _published_of(catalog, task)]
    if start is not None:
        found.append(Parent("initialised-from", start.label, start))
    return tuple(found)


def _published_of(catalog: Catalog, task: str) -> list[VersionRecord]:
    return [version for version in catalog.versions_of(task) if version.state == "published"]
