"""Measures of continual learning over the accuracy matrix R[i][j]: score on task j after learning task i."""

from __future__ import annotations

from statistics import fmean

from multiprompt.records import Matrix


def average_accuracy(matrix: Matrix) -> float | None:
    """ACC: the mean of the last row (Lopez-Paz & Ranzato 2017, eq. 2)."""
    last = [score for score in matrix.scores[-1] if score is not None] if matrix.scores else []
    return fmean(last) if last else None


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT: the mean of R[T][j] - R[j][j] over the earlier tasks (Lopez-Paz & Ranzato 2017, eq. 3)."""
    moves = [
        last - learned
        for j, last in enumerate(matrix.scores[-1][:-1] if matrix.scores else ())
        if last is not None and (learned := matrix.scores[j][j]) is not None
    ]
    return fmean(moves) if moves else None
