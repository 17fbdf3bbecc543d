"""Statistics of paired scores: the same rows scored before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from multiprompt.records import Interval

RESAMPLES = 2000
_CELLS_A_STEP = 4_000_000


def paired_interval(
    before: Sequence[float], after: Sequence[float], *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """A percentile bootstrap interval of the mean of `after - before` over rows (Efron & Tibshirani 1993, ch. 13).

    Raises ValueError when the two are not scores of the same number of rows, at least one.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"paired scores of {len(before)} and {len(after)} rows")
    differences = numpy.asarray(after, dtype=float) - numpy.asarray(before, dtype=float)
    rng = numpy.random.default_rng(seed)
    step = max(1, _CELLS_A_STEP // len(differences))
    means = numpy.concatenate(
        [
            rng.choice(differences, (min(step, RESAMPLES - start), len(differences))).mean(axis=1)
            for start in range(0, RESAMPLES, step)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high), confidence)
