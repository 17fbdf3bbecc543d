"""Admission: a prompt that was learned or imported is measured, gated, and published or rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from multiprompt.catalog.artifacts import digest
from multiprompt.catalog.candidates import Candidate, Decision
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.lineage import Parent
from multiprompt.errors import ConflictError, DataError, IntegrityError, MetricError, TemplateError
from multiprompt.gate.check import Checking
from multiprompt.gate.floor import Yardstick, interval, majority, yardstick
from multiprompt.gate.scores import Scores
from multiprompt.gate.verdict import ROUNDING, forgetting, is_standing
from multiprompt.records import Adapter, CheckReport, CheckResult, Evaluation, VersionRecord, measured
from multiprompt.records.job import NOTHING_NEW
from multiprompt.tasks.example import UNCOUNTED, examples

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split
    from multiprompt.tasks.task import Task

# The reason of a trial begins so.
TRIAL = "trial with "


@dataclass(frozen=True)
class Admission:
    """A version with the check and the comparisons that decided on it.

    It is not new where its bytes are there by now: another learning was quicker, or an export is imported.
    """

    version: VersionRecord
    check: CheckReport
    reason: str
    yardsticks: Mapping[str, Yardstick]
    is_new: bool = True
    is_guarded: bool = False


def admit(scores: Scores, checking: Checking, candidate: Candidate, trial: str = "") -> Admission:
    """Publish, hold or reject a candidate in one transaction; check again the versions that others published meanwhile.

    A `trial`, which names its settings, stays a candidate where it would be published.
    """
    others = yardsticks(scores, candidate)
    known: dict[str, CheckResult] = {}
    check = CheckReport((), 0.0)
    while True:
        epoch, found = checking.check_others(candidate.task.name, known)
        check = _sum(check, _with_standing(scores.catalog, found))
        same = find_existing(scores.catalog, candidate.task, candidate.adapter, candidate.data, is_trial=bool(trial))
        if same is not None:
            reason = end_known(scores.catalog, same, imported=candidate.run is None)
            return Admission(same, check, reason, others, is_new=False)
        decision, reason = _decide(scores, candidate, check, others)
        if trial:
            decision, reason = "keep" if decision == "publish" else decision, f"{TRIAL}{trial}: {reason}"
        undone = _was_rolled_back(scores.catalog, candidate)
        if decision == "publish" and undone:
            decision, reason = "keep", undone
        try:
            version = scores.catalog.candidates.admit(candidate, check, decision=decision, reason=reason, epoch=epoch)
        except ConflictError:
            continue
        is_guarded = decision == "publish" and version.state == "candidate"
        return Admission(version, check, reason, others, is_guarded=is_guarded)


def _was_rolled_back(catalog: Catalog, candidate: Candidate) -> str:
    """Why a candidate may not undo a rollback that was made while it was trained; empty where there was none."""
    for parent in candidate.parents:
        if parent.relation == "retrained-from" and parent.version is not None:
            number = catalog.pointers.rolled_back(parent.version)
            if number is not None:
                return f"{parent.label} was rolled back to {candidate.task.name}@{number} while this one was trained"
    return ""


def find_existing(
    catalog: Catalog, task: Task, adapter: Adapter, test: Split, *, is_trial: bool = False
) -> VersionRecord | None:
    """The version of a task that has these bytes and is served by this task file, the published one first.

    A rejected version does not count: what kept it out may have passed. Nor does one that did not learn where other
    test rows or another floor may show that it did, nor the candidate of a trial where a learning is to publish.
    """
    found = [
        version
        for version in catalog.versions.of(task.name)
        if version.digest == digest(adapter)
        and version.state != "rejected"
        and (is_trial or not _is_kept_trial(version))
        and (catalog.versions.adapter(version).encoder is None) == (adapter.encoder is None)
        and catalog.versions.task(version).fingerprint == task.fingerprint
        and not (catalog.versions.is_below_floor(version) and _is_judged_otherwise(catalog, version, task, test))
    ]
    return max(found, key=lambda version: (version.state == "published", version.number), default=None)


def _is_kept_trial(version: VersionRecord) -> bool:
    """Whether a version is a candidate because its settings were tried only."""
    return version.state == "candidate" and version.reason.startswith(TRIAL)


def _is_judged_otherwise(catalog: Catalog, version: VersionRecord, task: Task, test: Split) -> bool:
    """Whether a version's floor is another one by now, or is asked on other rows."""
    judged = (catalog.baselines.of(version).data, catalog.versions.task(version).config.regression)
    return judged != (test.fingerprint, task.config.regression)


def end_known(catalog: Catalog, known: VersionRecord, *, imported: bool = False) -> str:
    """End a training, or an import, that gave the bytes of a known version. Gives the outcome."""
    outcome = nothing_new(known, "the adapter has" if imported else "the training gave")
    if not imported:
        catalog.checkpoints.end_training(known, outcome)
    return outcome


def nothing_new(version: VersionRecord, came: str = "the training gave") -> str:
    """The outcome of a training or an import that gave the bytes of an existing version."""
    said = f"{NOTHING_NEW}: {came} the bytes of {version.label}"
    if version.state == "retired":
        return f"{said}, which is retired; `ws.rollback({version.task!r}, to={version.number})` publishes it"
    if version.state == "candidate":
        return f"{said}, a candidate; `ws.publish({version.label!r}, force=True, reason='…')` publishes it"
    return said


def require_untouched(catalog: Catalog, before: Mapping[str, str]) -> None:
    """Raises IntegrityError unless every version of `before` still has its digest."""
    if not is_untouched(catalog, before):
        raise IntegrityError(
            "a version that was published before the training has other bytes now; nothing was published. "
            "Run `ws.verify()`."
        )


def is_untouched(catalog: Catalog, before: Mapping[str, str]) -> bool:
    """Whether every version of `before` still has its digest, recomputed from its stored bytes."""
    versions = catalog.versions.with_labels(before)
    return {version.label: digest(catalog.versions.adapter(version)) for version in versions} == dict(before)


def yardsticks(scores: Scores, candidate: Candidate) -> dict[str, Yardstick]:
    """Comparisons of a candidate with the hard prompt, and with the best single answer where the metric scores it."""
    metric, tolerated = candidate.task.metrics[0], candidate.task.config.regression
    others = {"hard prompt": candidate.hard}
    with suppress(MetricError):
        others["majority answer"] = majority(candidate.soft, metric, hub_metrics=scores.context.hub_metrics)
    return {name: yardstick(name, other, candidate.soft, metric, tolerated) for name, other in others.items()}


def _decide(
    scores: Scores, candidate: Candidate, check: CheckReport, others: Mapping[str, Yardstick]
) -> tuple[Decision, str]:
    """Publish, unless an older task got worse, a version that served is better, or nothing was learned.

    A regression that the previous check found too is reported only: this candidate did not cause it.
    """
    for result in check.results:
        if result.blocks and not result.standing:
            return "reject", f"{result.version} {result.verdict}: {result.cause or 'unknown cause'}"
    rivals = _rivals(scores.catalog, candidate)
    worse = _worse_than(scores, candidate, rivals)
    if worse:
        return "reject", worse
    soft = candidate.soft
    missed = _missed(scores, candidate, rivals, others)
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
    """A rival's score on a candidate's rows, as it is served; as the candidate is asked where it cannot read these."""
    with suppress(DataError, TemplateError):
        return scores.score_as_served(rival, candidate.task, candidate.data)
    return scores.score_version(rival, candidate.task, candidate.data)


def _missed(
    scores: Scores, candidate: Candidate, rivals: Sequence[VersionRecord], others: Mapping[str, Yardstick]
) -> list[str]:
    """The scores of the task's floor that a candidate did not beat.

    A first version must beat them beyond chance; so must the first one with other right answers. A later one must not
    fall below them, unless a version was let in below the floor by force.
    """
    floors = {"hard": ("hard prompt", "majority answer"), "majority": ("majority answer",), "none": ()}
    asked = floors[candidate.task.config.regression.floor]
    if any(scores.catalog.versions.is_below_floor(rival) for rival in rivals):
        return []
    held = [found for name, found in others.items() if name in asked]
    if rivals and all(_has_answers_of(scores.catalog.versions.task(rival), candidate) for rival in rivals):
        return [found.shortfall for found in held if found.is_above]
    if asked and not held:
        return [f"{candidate.soft.metric} cannot score the {' or the '.join(asked)}"]
    return [found.shortfall for found in held if found.shortfall]


def _has_answers_of(own: Task, candidate: Candidate) -> bool:
    """Whether a task file has the right answers of a candidate's, or cannot read its rows."""
    if own.fingerprint == candidate.task.fingerprint:
        return True
    with suppress(DataError, TemplateError):
        return _right(own, candidate.data) == _right(candidate.task, candidate.data)
    return True


def _right(task: Task, split: Split) -> list[Any]:
    """The right answers of rows, as texts."""
    return [row.answer if task.is_multiple_choice else row.target for row in examples(task, split, UNCOUNTED)]


def _rivals(catalog: Catalog, candidate: Candidate) -> list[VersionRecord]:
    """The published version, and the best on each data since the task was blessed or rolled back last.

    Each retraining may lose `max_drop`, so that without the best ones ten of them may lose ten times as much. Scores
    are compared where rows, metric and task file are the same; on other rows another version may be the best.
    """
    published = _published_of(catalog, candidate.task.name)
    if not published:
        return []
    sign = 1 if candidate.soft.higher_is_better else -1
    best: dict[tuple[str, str, str], VersionRecord] = {}
    for version in catalog.versions.served_since_blessed(candidate.task.name):
        held = catalog.baselines.of(version)
        alike = (held.data, held.metric, held.task_file)
        if version.base_model.identity != candidate.base_model.identity:
            continue
        if alike not in best or sign * held.score > sign * (best[alike].score or 0.0):
            best[alike] = version
    return [*published, *(version for version in best.values() if version not in published)]


def _with_standing(catalog: Catalog, check: CheckReport) -> CheckReport:
    """Mark the regressions that the check before this one found, too."""
    results = tuple(
        replace(result, standing=is_standing(result, catalog.checks.found_worse(result.version)))
        if result.blocks
        else result
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


def parents_of(replaced: VersionRecord | None, start: VersionRecord | None) -> tuple[Parent, ...]:
    """The parents of a new version: what was published when its training began, and what that started from."""
    found = [] if replaced is None else [Parent("retrained-from", replaced.label, replaced)]
    if start is not None:
        found.append(Parent("initialised-from", start.label, start))
    return tuple(found)


def _published_of(catalog: Catalog, task: str) -> list[VersionRecord]:
    return [version for version in catalog.versions.of(task) if version.state == "published"]
