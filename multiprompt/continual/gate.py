"""The regression gate: did an older task lose more than it tolerates, and what changed since its baseline?"""

from __future__ import annotations

import math

from multiprompt.records import CheckResult, Evaluation, Verdict

# A difference below this is rounding, not a drop.
_EPSILON = 1e-12


def compare(version: str, baseline: Evaluation, current: Evaluation, max_drop: float) -> CheckResult:
    """One version's current score against the one that it was published with.

    identical: every row has the prediction it had; regressed: the score dropped by more than `max_drop`;
    failed: a score is no finite number.
    """
    drop = forgetting(baseline, current)
    return CheckResult(
        version=version,
        metric=baseline.metric,
        baseline=baseline.score,
        score=current.score,
        drop=drop,
        max_drop=max_drop,
        verdict=_verdict(baseline, current, drop, max_drop),
        cause=_cause(baseline, current),
    )


def failure(version: str, metric: str, baseline: float, max_drop: float, reason: str) -> CheckResult:
    """A version that could not be measured; never a pass."""
    return CheckResult(version, metric, baseline, None, None, max_drop, "failed", reason)


def forgetting(baseline: Evaluation, current: Evaluation) -> float:
    """How much of the baseline was lost; negative means that it improved.

    The sign follows the metric: for a loss, a rise is forgetting (Chaudhry et al. 2018, eq. 3).
    """
    lost = baseline.score - current.score
    return lost if baseline.higher_is_better else -lost


def _verdict(baseline: Evaluation, current: Evaluation, drop: float, max_drop: float) -> Verdict:
    same_rows = (baseline.predictions, baseline.references) == (current.predictions, current.references)
    if same_rows and abs(drop) <= _EPSILON:
        return "identical"
    if not math.isfinite(drop):
        return "failed"
    if drop > max_drop + _EPSILON:
        return "regressed"
    return "improved" if drop < -_EPSILON else "unchanged"


def _cause(baseline: Evaluation, current: Evaluation) -> str:
    """The parts of the score's key that are not the baseline's; `noise` when predictions moved and no part did."""
    parts = sorted({*baseline.key, *current.key})
    changed = [part for part in parts if baseline.key.get(part) != current.key.get(part)]
    if changed:
        return ", ".join(changed)
    return "" if baseline.predictions == current.predictions else "noise"
