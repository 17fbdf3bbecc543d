"""The regression gate: did an older task lose more than it tolerates, how sure is that, and what changed?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy

from multiprompt.config import RegressionConfig
from multiprompt.gate.statistics import (
    CONFIDENCE,
    Floats,
    Resampled,
    adjusted,
    bootstrap,
    detectable_loss,
    mcnemar,
    rows_needed,
)
from multiprompt.records import Change, CheckResult, Evaluation, Evidence, Flip, Interval, Verdict
from multiprompt.tasks.metric import MetricConfig, per_example_scores, row_statistics

# A difference below this is rounding, not a drop.
ROUNDING = 1e-12
MAX_FLIPS, MAX_FLIP_CHARACTERS = 20, 500


def compare(
    version: str, baseline: Evaluation, current: Evaluation, metric: MetricConfig, tolerated: RegressionConfig
) -> CheckResult:
    """One version's current score against the one that it was published with, as if it were the only one compared.

    identical: every row has the prediction it had. regressed: the score dropped by more than `max_drop` and no chance
    explains that at `alpha`; inconclusive: by as much, but chance could. improved: it rose, beyond chance. failed: a
    score is no finite number. Where the metric itself changed, or is one of the hub, drops are taken as they are.
    """
    changes = _changes(baseline.key, current.key)
    result = CheckResult(
        version=version,
        metric=baseline.metric,
        baseline=baseline.score,
        score=current.score,
        drop=forgetting(baseline, current),
        max_drop=tolerated.max_drop,
        verdict="identical",
        cause=_cause(changes, baseline.predictions == current.predictions),
        alpha=tolerated.alpha,
        changes=changes,
        evidence=_evidence(baseline, current, metric, tolerated.alpha),
    )
    if _same_rows(baseline, current) and abs(forgetting(baseline, current)) <= ROUNDING:
        return result
    return replace(result, verdict=_verdict(result))


def judge(results: Sequence[CheckResult]) -> list[CheckResult]:
    """The verdicts of tasks that were compared at the same time.

    Their p-values are adjusted for their number (Benjamini & Hochberg 1995); so is the least drop that each could show.
    Where every row is answered as it was there is nothing to test.
    """
    tested = [result for result in results if _p_value(result) is not None and result.verdict != "identical"]
    alone = {
        result.version: q for result, q in zip(tested, adjusted([_p_value(r) or 0.0 for r in tested]), strict=True)
    }
    return [_judged(r, alone[r.version], len(tested)) if r.version in alone else r for r in results]


def failure(version: str, metric: str, baseline: float, max_drop: float, reason: str) -> CheckResult:
    """A version that could not be measured; never a pass."""
    return CheckResult(version, metric, baseline, None, None, max_drop, "failed", reason)


def is_standing(result: CheckResult, before: CheckResult | None) -> bool:
    """Whether what the check `before` found wrong explains a result that blocks.

    It does where the baseline is the same, every cause of now was one then, and no more is lost than is tolerated
    beyond what was lost then.
    """
    if before is None or (before.verdict, before.baseline) != (result.verdict, result.baseline):
        return False
    if not set(result.cause.split(", ")) <= set(before.cause.split(", ")):
        return False
    return result.drop is None or result.drop <= (before.drop or 0.0) + result.max_drop + ROUNDING


def forgetting(baseline: Evaluation, current: Evaluation) -> float:
    """The part of the baseline that was lost; negative means that it improved.

    The sign follows the metric: for a loss, a rise is forgetting (Chaudhry et al. 2018, eq. 3).
    """
    lost = baseline.score - current.score
    return lost if baseline.higher_is_better else -lost


def _judged(result: CheckResult, q: float, tests: int) -> CheckResult:
    evidence = result.evidence
    assert evidence is not None, "what has a p-value has evidence"
    alpha = result.alpha / tests
    judged = replace(
        result, evidence=replace(evidence, adjusted=q, detectable=_detectable(evidence, alpha), rows_needed=None)
    )
    judged = replace(judged, verdict=_verdict(judged))
    if judged.verdict != "inconclusive":
        return judged
    needed = rows_needed(result.drop or 0.0, evidence.error or 0.0, evidence.rows, alpha)
    return replace(judged, evidence=replace(judged.evidence or evidence, rows_needed=needed))


def _verdict(result: CheckResult) -> Verdict:
    drop, evidence = result.drop, result.evidence
    if drop is None or not math.isfinite(drop):
        return "failed"
    sure = evidence is None or evidence.adjusted is None or evidence.adjusted <= result.alpha
    if drop > result.max_drop + ROUNDING:
        return "regressed" if sure else "inconclusive"
    return "improved" if drop < -ROUNDING and _is_sure_gain(evidence, result.alpha) else "unchanged"


def _is_sure_gain(evidence: Evidence | None, alpha: float) -> bool:
    """Whether chance does not explain a gain: so few rows that moved may all have gained by it."""
    if evidence is None or evidence.interval is None:
        return True
    return evidence.interval.high < 0 and 0.5 ** (evidence.moved or 0) <= alpha


def _evidence(baseline: Evaluation, current: Evaluation, metric: MetricConfig, alpha: float) -> Evidence:
    """The evidence of the rows; their number alone where the metric changed or has no score a row."""
    rows, moved_rows = current.rows, _moved(baseline, current)
    bare = Evidence(rows, rows, moved=moved_rows)
    if metric.from_hub or baseline.key.get("metric") != current.key.get("metric"):
        return bare
    if _same_rows(baseline, current):
        if abs(forgetting(baseline, current)) > ROUNDING:
            return bare
        nothing = Resampled(Interval(0.0, 0.0, CONFIDENCE), 0.0, 1.0)
        flipped = 0 if metric.per_example else None
        return _with_interval(replace(bare, lost=flipped, gained=flipped, p_value=1.0), nothing, alpha)
    before, after = (row_statistics(metric, side.predictions, side.references) for side in (baseline, current))
    if before is None or after is None:
        return bare
    sign = 1 if baseline.higher_is_better else -1

    def drop(old: Floats, new: Floats, old_rows: int, new_rows: int) -> Floats:
        return sign * (before.of_sums(old, old_rows) - after.of_sums(new, new_rows))

    resampled = bootstrap(before.values, after.values, drop, moved=moved_rows)
    evidence = replace(bare, p_value=resampled.p_value, flips=_flips(baseline, current, metric))
    if metric.per_example and baseline.rows == current.rows:
        moved = sign * (after.values - before.values)[:, 0]
        lost, gained = int(numpy.count_nonzero(moved < 0)), int(numpy.count_nonzero(moved > 0))
        evidence = replace(evidence, lost=lost, gained=gained, p_value=mcnemar(lost, gained))
    return _with_interval(evidence, resampled, alpha)


def _with_interval(evidence: Evidence, resampled: Resampled, alpha: float) -> Evidence:
    whole = replace(evidence, adjusted=evidence.p_value, interval=resampled.interval, error=resampled.error)
    return replace(whole, detectable=_detectable(whole, alpha))


def _detectable(evidence: Evidence, alpha: float) -> float | None:
    """The least drop that would be significant at `alpha`, were all else as it is."""
    from scipy.stats import norm

    if evidence.gained is not None:
        return detectable_loss(evidence.gained, alpha) / evidence.rows
    return None if evidence.error is None else float(norm.isf(alpha)) * evidence.error


def _same_rows(baseline: Evaluation, current: Evaluation) -> bool:
    return (baseline.predictions, baseline.references) == (current.predictions, current.references)


def _moved(baseline: Evaluation, current: Evaluation) -> int:
    """The number of rows with another answer, or another right answer."""
    if baseline.rows != current.rows:
        return min(baseline.rows, current.rows)
    before = zip(baseline.predictions, baseline.references, strict=True)
    after = zip(current.predictions, current.references, strict=True)
    return sum(was != now for was, now in zip(before, after, strict=True))


def _flips(baseline: Evaluation, current: Evaluation, metric: MetricConfig) -> tuple[Flip, ...]:
    """The first rows that are answered rightly on one side only."""
    if baseline.rows != current.rows:
        return ()
    before, after = (_hits(side, metric) for side in (baseline, current))
    moved = (row for row in range(current.rows) if before[row] != after[row])
    return tuple(
        Flip(
            row,
            cut(current.references[row]),
            cut(baseline.predictions[row]),
            cut(current.predictions[row]),
            (after[row] > before[row]) == current.higher_is_better,
        )
        for row, _ in zip(moved, range(MAX_FLIPS), strict=False)
    )


def _hits(side: Evaluation, metric: MetricConfig) -> Sequence[float]:
    """The score of each row where it has one of its own, else whether it is answered with the very right answer."""
    own = per_example_scores(metric, side.predictions, side.references)
    if own is not None:
        return own
    return [float(found == right) for found, right in zip(side.predictions, side.references, strict=True)]


def cut(value: Any) -> Any:
    """A text of a flip, cut where it is long; any other value as it is."""
    return (
        f"{value[: MAX_FLIP_CHARACTERS - 1]}…" if isinstance(value, str) and len(value) > MAX_FLIP_CHARACTERS else value
    )


def _p_value(result: CheckResult) -> float | None:
    return None if result.evidence is None else result.evidence.p_value


def _changes(baseline: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[Change, ...]:
    parts = sorted({*baseline, *current})
    return tuple(
        Change(part, baseline.get(part), current.get(part)) for part in parts if baseline.get(part) != current.get(part)
    )


def _cause(changes: Sequence[Change], same_predictions: bool) -> str:
    """The parts of the score's key that are not the baseline's; `noise` when predictions moved and no part did."""
    if changes:
        return ", ".join(change.name for change in changes)
    return "" if same_predictions else "noise"
