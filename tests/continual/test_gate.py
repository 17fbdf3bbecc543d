"""The regression gate: what drops, by how much, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multiprompt.continual.gate import compare, failure, forgetting
from multiprompt.records import CheckReport, CheckResult, Evaluation

BASELINE = Evaluation(
    task="colour",
    kind="soft",
    metric="acc",
    score=0.75,
    higher_is_better=True,
    metrics={"acc": 0.75},
    key={"prompt": "p", "weights": "w", "data": "d"},
    predictions=(0, 1, 1, 0),
    references=(0, 1, 1, 1),
    truncated=0,
    seconds=1.0,
)


def measured(score: float, **values: Any) -> Evaluation:
    """The baseline's evaluation taken again, with another score and so other predictions."""
    return replace(BASELINE, score=score, **{"predictions": (1, 1, 1, 1), **values})


def verdict(score: float, max_drop: float = 0.01, **values: Any) -> str:
    return compare("colour@1", BASELINE, measured(score, **values), max_drop).verdict


def test_the_same_rows_and_score_are_identical() -> None:
    result = compare("colour@1", BASELINE, replace(BASELINE, seconds=9.0), 0.0)
    assert result == CheckResult("colour@1", "acc", 0.75, 0.75, 0.0, 0.0, "identical", "")


def test_other_predictions_with_the_same_score_are_unchanged() -> None:
    result = compare("colour@1", BASELINE, measured(0.75, predictions=(0, 1, 0, 1)), 0.0)
    assert (result.verdict, result.cause, result.drop) == ("unchanged", "noise", 0.0)


def test_other_references_are_not_identical() -> None:
    assert verdict(0.75, predictions=BASELINE.predictions, references=(1, 1, 1, 0)) == "unchanged"


@pytest.mark.parametrize(
    ("score", "max_drop", "expected"),
    [
        (0.70, 0.01, "regressed"),
        (0.70, 0.10, "unchanged"),
        (0.74, 0.01, "unchanged"),
        (0.7399, 0.01, "regressed"),
        (0.75 - 1e-9, 0.0, "regressed"),
        (0.76, 0.0, "improved"),
    ],
)
def test_only_a_drop_beyond_the_tolerated_one_is_a_regression(score: float, max_drop: float, expected: str) -> None:
    assert verdict(score, max_drop) == expected


def test_a_drop_of_exactly_the_tolerated_one_passes_in_spite_of_rounding() -> None:
    baseline = replace(BASELINE, score=0.3)
    assert compare("colour@1", baseline, measured(0.1), 0.2).verdict == "unchanged"


def test_the_result_holds_both_scores_and_the_drop() -> None:
    result = compare("colour@1", BASELINE, measured(0.5), 0.01)
    assert (result.baseline, result.score, result.drop, result.max_drop) == (0.75, 0.5, 0.25, 0.01)


def test_for_a_loss_a_rise_is_forgetting() -> None:
    loss = replace(BASELINE, higher_is_better=False, score=1.0)
    worse, better = replace(loss, score=1.5, predictions=()), replace(loss, score=0.5, predictions=())
    assert (forgetting(loss, worse), forgetting(loss, better)) == (0.5, -0.5)
    assert compare("colour@1", loss, worse, 0.1).verdict == "regressed"
    assert compare("colour@1", loss, better, 0.1).verdict == "improved"


@pytest.mark.parametrize(
    ("key", "cause"),
    [
        ({"prompt": "p", "weights": "other", "data": "d"}, "weights"),
        ({"prompt": "q", "weights": "w", "data": "e"}, "data, prompt"),
        ({"prompt": "p", "weights": "w"}, "data"),
        ({"prompt": "p", "weights": "w", "data": "d", "dtype": "bfloat16"}, "dtype"),
        ({"prompt": "p", "weights": "w", "data": "d"}, "noise"),
    ],
)
def test_the_cause_is_what_differs_from_the_baseline(key: dict[str, str], cause: str) -> None:
    assert compare("colour@1", BASELINE, measured(0.5, key=key), 0.01).cause == cause


def test_a_moved_influence_is_named_even_where_every_prediction_stayed() -> None:
    result = compare("colour@1", BASELINE, replace(BASELINE, key={**BASELINE.key, "libraries": "new"}), 0.0)
    assert (result.verdict, result.cause) == ("identical", "libraries")


def test_what_could_not_be_measured_has_failed() -> None:
    result = failure("colour@1", "acc", 0.75, 0.01, "another base model")
    assert result == CheckResult("colour@1", "acc", 0.75, None, None, 0.01, "failed", "another base model")
    assert not CheckReport((result,), 0.0).passed


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_never_a_pass(score: float) -> None:
    result = compare("colour@1", BASELINE, measured(score), 0.5)
    assert not CheckReport((result,), 0.0).passed


def test_one_failing_task_fails_the_whole_check() -> None:
    fine, worse = compare("a@1", BASELINE, BASELINE, 0.0), compare("b@1", BASELINE, measured(0.1), 0.0)
    assert CheckReport((), 0.0).passed
    assert CheckReport((fine,), 0.0).passed
    assert not CheckReport((fine, worse), 0.0).passed


SCORES = st.floats(0.0, 100.0)


@given(SCORES, SCORES, st.floats(0.0, 10.0), st.booleans())
@settings(deadline=None, database=None)
def test_the_verdict_follows_the_drop(before: float, after: float, max_drop: float, higher: bool) -> None:
    lost = before - after if higher else after - before
    assume(abs(lost - max_drop) > 1e-9 and (lost == 0 or abs(lost) > 1e-9))
    baseline = replace(BASELINE, score=before, higher_is_better=higher)
    result = compare("a@1", baseline, replace(baseline, score=after, predictions=()), max_drop)
    assert result.drop == lost
    if lost > max_drop:
        assert result.verdict == "regressed"
    else:
        assert result.verdict == ("improved" if lost < 0 else "unchanged")


@given(SCORES, SCORES, st.booleans())
@settings(deadline=None, database=None)
def test_what_one_side_forgot_the_other_gained(before: float, after: float, higher: bool) -> None:
    one = replace(BASELINE, score=before, higher_is_better=higher)
    other = replace(one, score=after)
    assert forgetting(one, other) == -forgetting(other, one)
    assert forgetting(one, one) == 0.0
    assert forgetting(one, other) == -forgetting(replace(one, higher_is_better=not higher), other)


@given(SCORES, SCORES, st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.booleans())
@settings(deadline=None, database=None)
def test_tolerating_more_never_turns_a_pass_into_a_regression(
    before: float, after: float, less: float, more: float, higher: bool
) -> None:
    assume(less <= more)
    baseline = replace(BASELINE, score=before, higher_is_better=higher)
    current = replace(baseline, score=after, predictions=())
    if compare("a@1", baseline, current, less).verdict != "regressed":
        assert compare("a@1", baseline, current, more).verdict != "regressed"
