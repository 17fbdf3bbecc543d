"""Intervals of paired differences."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom

from multiprompt.gate.statistics import adjusted, detectable_loss, mcnemar, paired_interval, rows_needed, settled


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
    for seed in range(100):
        before = [float(rng.random() < 0.6) for _ in range(200)]
        after = [float(rng.random() < 0.7) for _ in range(200)]
        interval = paired_interval(before, after, seed=seed)
        held += interval.low <= 0.1 <= interval.high
    assert 89 <= held <= 99


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 0.0])])
def test_scores_of_other_rows_are_no_pair(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="paired scores of"):
        paired_interval(before, after)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 7), (1, 0), (3, 1), (12, 5), (5, 12), (200, 170)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained, alternative="greater").pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected)


def test_adjusted_p_values_by_hand() -> None:
    """Benjamini & Hochberg: p times tests by rank, and no more than what a larger p comes to."""
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted([]) == []


@given(st.integers(0, 40), st.sampled_from([0.05, 0.01, 1e-4]))
@settings(deadline=None, database=None)
def test_the_least_detectable_loss_is_just_significant(gained: int, alpha: float) -> None:
    net = detectable_loss(gained, alpha)
    assert mcnemar(gained + net, gained) <= alpha < mcnemar(gained + net - 1, gained)


def test_four_times_the_precision_takes_four_times_the_rows() -> None:
    assert rows_needed(0.02, 0.01, 100, 0.02) == pytest.approx(4 * (rows_needed(0.04, 0.01, 100, 0.02) or 0), abs=4)
    assert rows_needed(0.0, 0.01, 100, 0.02) is None
    assert rows_needed(0.01, 0.0, 100, 0.02) is None


@pytest.mark.parametrize("rows", [200, 500, 4000])
@pytest.mark.parametrize("seen", [64, 96])
def test_that_few_were_lost_is_as_unlikely_as_urns_say(rows: int, seen: int) -> None:
    """`settled` accepts as soon as the hypergeometric chance of so few losses falls to what it may miss."""
    for lost in range(4):
        chance = float(hypergeom.cdf(lost, rows, int(0.05 * rows) + 1, seen))
        assert settled(lost, 0, seen, rows, 0.05, chance * 1.001, 1e-6) == "kept"
        assert settled(lost, 0, seen, rows, 0.05, chance * 0.999, 1e-6) is None


def test_a_collapse_is_settled_and_a_small_drop_is_not() -> None:
    assert settled(60, 0, 64, 500, 0.01, 0.001, 1e-4) == "dropped"
    assert settled(6, 0, 64, 500, 0.01, 0.001, 1e-4) is None
    assert settled(0, 0, 10, 10, 1.0, 0.001, 1e-4) == "kept"
