"""Statistics of paired scores: the same rows scored before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy
from numpy.typing import NDArray

from multiprompt.records import Interval

Floats = NDArray[numpy.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95
POWER = 0.8
_CELLS_A_STEP = 4_000_000


def mcnemar(lost: int, gained: int) -> float:
    """The exact one-sided p-value of McNemar's test (McNemar 1947): rows that changed are coins, `lost` too many heads.

    `lost` counts the rows that were right and are wrong now, `gained` those that went the other way.
    """
    from scipy.special import betainc

    return 1.0 if lost == 0 else float(betainc(lost, gained + 1, 0.5))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg 1995: calling each that is at most q a finding, a share of q of the findings is false."""
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values, method="bh")] if p_values else []


def detectable_loss(gained: int, alpha: float) -> int:
    """The least net number of rows that McNemar's test calls lost at `alpha` where `gained` rows go the other way."""
    lost = gained + 1
    while mcnemar(lost, gained) > alpha:
        lost += 1
    return lost - gained


def rows_needed(drop: float, error: float, rows: int, alpha: float) -> int | None:
    """The number of rows that would show a drop at `alpha` with a power of 0.8, from its standard error on `rows` rows.

    The normal approximation of Connor 1987 for paired samples. None where there is no drop to show.
    """
    from scipy.stats import norm

    if drop <= 0 or error <= 0:
        return None
    sure, powerful = float(norm.isf(alpha)), float(norm.ppf(POWER))
    return math.ceil(rows * ((sure + powerful) * error / drop) ** 2)


def settled(
    lost: int, gained: int, seen: int, rows: int, max_drop: float, miss: float, alarm: float
) -> Literal["kept", "dropped"] | None:
    """The certain part of the drop over all `rows`, from `seen` rows drawn from them.

    kept: were more than `max_drop` of the rows lost, so few of them among these would be less likely than `miss`
    (hypergeometric). dropped: up to a chance of `alarm` the drop exceeds `max_drop` (Serfling 1974, corollary 1.1), and
    McNemar's test finds one.
    """
    from scipy.stats import hypergeom

    too_many = math.floor(max_drop * rows + 1e-9) + 1
    if too_many > rows or hypergeom.cdf(lost, rows, too_many, seen) <= miss:
        return "kept"
    chance = math.sqrt(2 * (1 - (seen - 1) / rows) * math.log(1 / alarm) / seen)
    if (lost - gained) / seen - chance > max_drop and mcnemar(lost, gained) <= alarm:
        return "dropped"
    return None


@dataclass(frozen=True)
class Resampled:
    """A drop over bootstrap resamples of the rows: its interval, its standard error, and a one-sided p-value."""

    interval: Interval
    error: float
    p_value: float


def bootstrap(
    before: Floats,
    after: Floats,
    drop: Callable[[Floats, Floats, int, int], Floats],
    *,
    moved: int,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Resampled:
    """Resample rows (Efron & Tibshirani 1993), the same ones on both sides where there are as many on both.

    `before` and `after` hold statistics of rows (rows x k), of which `moved` differ; `drop` maps sums of resamples
    (resamples x k, on both sides) and the numbers of rows to drops. Beyond its resolution of 1/2000 the p-value is that
    of the normal tail, and it is never below what flipping the sign of each row that moved could reach.
    """
    from scipy.stats import norm

    rng = numpy.random.default_rng(seed)
    paired = len(before) == len(after)
    step = max(1, _CELLS_A_STEP // max(len(before), len(after)))
    drops = numpy.concatenate(
        [_drops(rng, before, after, drop, min(step, RESAMPLES - start), paired) for start in range(0, RESAMPLES, step)]
    )
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(drops, [tail, 1 - tail])
    error = float(drops.std())
    p_value = float(1 + numpy.count_nonzero(drops <= 0)) / (RESAMPLES + 1)
    if p_value <= 1 / RESAMPLES:
        p_value = min(p_value, float(norm.sf(drops.mean() / error)) if error else 0.0)
    return Resampled(Interval(float(low), float(high), confidence), error, max(p_value, 0.5**moved))


def wilson(hits: float, rows: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a share of rows (Wilson 1927); it stays within 0 and 1, and is wide for few rows."""
    from scipy.stats import norm

    z = float(norm.isf((1 - confidence) / 2))
    share, widened = hits / rows, 1 + z * z / rows
    middle = (share + z * z / (2 * rows)) / widened
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows)) / widened
    low = middle - half if hits else 0.0
    high = middle + half if hits < rows else 1.0
    return Interval(low, high, confidence)


def resampled_interval(
    values: Floats, of_sums: Callable[[Floats, int], Floats], *, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """A percentile bootstrap interval of a score (Efron & Tibshirani 1993, ch. 13).

    `values` are statistics of rows (rows x k); `of_sums` maps their sums over resamples to scores.
    """
    rng = numpy.random.default_rng(seed)
    rows, tail = len(values), (1 - confidence) / 2
    step = max(1, _CELLS_A_STEP // rows)
    scores = numpy.concatenate(
        [
            of_sums(_weights(rng, rows, min(step, RESAMPLES - start)) @ values, rows)
            for start in range(0, RESAMPLES, step)
        ]
    )
    low, high = numpy.quantile(scores, [tail, 1 - tail])
    return Interval(float(low), float(high), confidence)


def paired_interval(
    before: Sequence[float], after: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """A percentile bootstrap interval of the mean of `after - before` over rows (Efron & Tibshirani 1993, ch. 13).

    Raises ValueError when the two are not scores of the same number of rows, at least one.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"paired scores of {len(before)} and {len(after)} rows")
    columns = [numpy.asarray(side, dtype=float)[:, None] for side in (before, after)]
    rise = lambda old, new, rows, _: (new - old)[:, 0] / rows  # noqa: E731
    return bootstrap(columns[0], columns[1], rise, moved=len(before), confidence=confidence, seed=seed).interval


def _drops(
    rng: numpy.random.Generator,
    before: Floats,
    after: Floats,
    drop: Callable[[Floats, Floats, int, int], Floats],
    resamples: int,
    paired: bool,
) -> Floats:
    old = _weights(rng, len(before), resamples)
    new = old if paired else _weights(rng, len(after), resamples)
    return drop(old @ before, new @ after, len(before), len(after))


def _weights(rng: numpy.random.Generator, rows: int, resamples: int) -> Floats:
    """The count of each row in each resample (resamples x rows)."""
    return rng.multinomial(rows, numpy.full(rows, 1 / rows), size=resamples).astype(float)
