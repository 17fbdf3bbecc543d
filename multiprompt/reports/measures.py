"""Measures of continual learning over the accuracy matrix R[i][j]: score on task j after learning task i.

T tasks are learned in order; b[j] is the score on task j before anything was learned, with its hard prompt. Where a
lower score is the better one, signs are turned, so that positive transfer is a gain and positive forgetting a loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from multiprompt.records import Matrix


@dataclass(frozen=True)
class Measure:
    """A measure of a matrix: its value, None where what it needs was not measured, its formula, and its source."""

    name: str
    value: float | None
    formula: str
    source: str


def measures(matrix: Matrix) -> tuple[Measure, ...]:
    """All of them."""
    lopez, chaudhry = "Lopez-Paz & Ranzato 2017", "Chaudhry et al. 2018"
    return (
        Measure("ACC", average_accuracy(matrix), "mean over j of R[T][j]", f"{lopez}, eq. 2"),
        Measure("BWT", backward_transfer(matrix), "mean over j < T of R[T][j] - R[j][j]", f"{lopez}, eq. 3"),
        Measure("FWT", forward_transfer(matrix), "mean over j > 1 of R[j-1][j] - b[j]", f"{lopez}, eq. 4"),
        Measure(
            "forgetting", forgetting(matrix), "mean over j < T of max over i < T of R[i][j], less R[T][j]",
            f"{chaudhry}, eq. 3 and 4",
        ),
        Measure("just learned", just_learned(matrix), "mean over j of R[j][j]", "Riemer et al. 2019, LA"),
    )  # fmt: skip


def average_accuracy(matrix: Matrix) -> float | None:
    """ACC: the mean of the last row (Lopez-Paz & Ranzato 2017, eq. 2)."""
    return _mean(matrix.scores[-1] if matrix.scores else ())


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT: the mean of R[T][j] - R[j][j] over the earlier tasks (Lopez-Paz & Ranzato 2017, eq. 3)."""
    return _mean(_gain(matrix, j, matrix.scores[j][j], matrix.scores[-1][j]) for j in _earlier(matrix))


def forward_transfer(matrix: Matrix) -> float | None:
    """FWT: the mean of R[j-1][j] - b[j] over the later tasks (Lopez-Paz & Ranzato 2017, eq. 4).

    None where no task was scored before it was learned, as where each has a prompt of its own.
    """
    later = range(1, len(matrix.scores))
    return _mean(_gain(matrix, j, matrix.before[j], matrix.scores[j - 1][j]) for j in later if matrix.before)


def forgetting(matrix: Matrix) -> float | None:
    """F: how far each earlier task fell from its best (Chaudhry et al. 2018, eq. 3 and 4); negative where it rose."""
    falls = []
    for j in _earlier(matrix):
        last = matrix.scores[-1][j]
        gains = [_gain(matrix, j, last, row[j]) for row in matrix.scores[:-1]]
        falls.append(max((gain for gain in gains if gain is not None), default=None))
    return _mean(falls)


def just_learned(matrix: Matrix) -> float | None:
    """The mean of R[j][j], each task's score when it was learned (Riemer et al. 2019, learning accuracy)."""
    return _mean(row[j] for j, row in enumerate(matrix.scores))


def _earlier(matrix: Matrix) -> range:
    return range(len(matrix.scores) - 1)


def _gain(matrix: Matrix, task: int, before: float | None, after: float | None) -> float | None:
    if before is None or after is None:
        return None
    gain = after - before
    return gain if not matrix.higher_is_better or matrix.higher_is_better[task] else -gain


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
