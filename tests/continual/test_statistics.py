"""Intervals of paired differences."""

from __future__ import annotations

import random

import pytest

from multiprompt.continual.statistics import paired_interval


def test_no_difference_has_an_interval_of_nothing() -> None:
    interval = paired_interval([0.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    assert (interval.low, interval.high, interval.confidence) == (0, 0, 0.95)


def test_an_interval_is_the_same_at_each_call() -> None:
    before, after = [0.0, 1.0, 0.0, 1.0] * 10, [1.0, 1.0, 0.0, 0.0] * 10
    assert paired_interval(before, after) == paired_interval(before, after)


def test_more_confidence_is_a_wider_interval() -> None:
    before, after = [0.0] * 50 + [1.0] * 50, [0.0, 1.0] * 50
    narrow, wide = (paired_interval(before, after, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low <= 0 <= narrow.high < wide.high


def test_nineteen_of_twenty_intervals_hold_the_true_difference() -> None:
    rng = random.Random(0)
    held = 0
    for seed in range(200):
        before = [float(rng.random() < 0.6) for _ in range(300)]
        after = [float(rng.random() < 0.7) for _ in range(300)]
        interval = paired_interval(before, after, seed=seed)
        held += interval.low <= 0.1 <= interval.high
    assert 180 <= held <= 199


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 0.0])])
def test_scores_of_other_rows_are_no_pair(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="paired scores of"):
        paired_interval(before, after)
