"""The regression gate: what drops, by how much, how sure that is, and why."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.config import RegressionConfig
from multiprompt.gate.verdict import compare, failure, forgetting, is_standing, judge
from multiprompt.records import CheckReport, CheckResult, Evaluation, Evidence
from multiprompt.tasks.metric import MetricConfig, score

ACC = MetricConfig("acc")
KEY = {"prompt": "p", "weights": "w", "data": "d"}


def taken(
    hits: Sequence[bool], metric: MetricConfig = ACC, key: dict[str, str] | None = None, higher: bool = True
) -> Evaluation:
    """An evaluation of rows whose right class is 1, of which some were predicted so."""
    predictions, references = tuple(map(int, hits)), (1,) * len(hits)
    found = score(metric, predictions, references)
    return Evaluation("colour", "soft", metric.name, found, higher, {}, key or KEY, predictions, references, 0, 1.0)


def held(
    before: Sequence[bool], after: Sequence[bool], max_drop: float = 0.01, alpha: float = 0.01, **options: Any
) -> CheckResult:
    metric = options.pop("metric", ACC)
    return compare(
        "colour@1", taken(before, metric), taken(after, metric, **options), metric, RegressionConfig(max_drop, alpha)
    )


def evidence(result: CheckResult) -> Evidence:
    assert result.evidence is not None
    return result.evidence


def split(right: int, wrong: int) -> list[bool]:
    return [True] * right + [False] * wrong


def test_the_same_rows_and_score_are_identical() -> None:
    result = held(split(75, 25), split(75, 25), 0.0)
    assert (result.verdict, result.drop, result.cause, result.changes) == ("identical", 0.0, "", ())
    assert (evidence(result).lost, evidence(result).gained, evidence(result).p_value) == (0, 0, 1.0)


def test_other_predictions_with_the_same_score_are_unchanged() -> None:
    result = held([True, False] * 50, [False, True] * 50, 0.0)
    assert (result.verdict, result.cause, result.drop) == ("unchanged", "noise", 0.0)
    assert (evidence(result).lost, evidence(result).gained) == (50, 50)


def test_other_references_are_not_identical() -> None:
    baseline = taken(split(6, 4))
    current = replace(baseline, references=(1,) * 5 + (0,) * 5, score=0.9)
    assert compare("a@1", baseline, current, ACC, RegressionConfig()).verdict != "identical"


@pytest.mark.parametrize(
    ("lost", "gained", "max_drop", "expected"),
    [
        (30, 0, 0.01, "regressed"),
        (30, 0, 0.30, "unchanged"),
        (30, 0, 0.10, "regressed"),
        (4, 2, 0.01, "inconclusive"),
        (4, 3, 0.01, "unchanged"),
        (6, 0, 0.0, "inconclusive"),
        (7, 0, 0.0, "regressed"),
        (0, 20, 0.0, "improved"),
        (0, 1, 0.0, "unchanged"),
        (50, 50, 0.0, "unchanged"),
    ],
)
def test_a_drop_must_exceed_what_is_tolerated_and_what_chance_explains(
    lost: int, gained: int, max_drop: float, expected: str
) -> None:
    """Of 100 rows; 7 of 7 heads is the first run of coins below one in a hundred."""
    kept = split(100 - lost - gained, 0)
    before, after = kept + split(lost, gained), kept + [not hit for hit in split(lost, gained)]
    assert held(before, after, max_drop).verdict == expected


@pytest.mark.parametrize("rows", [1, 3])
def test_a_few_rows_show_no_improvement(rows: int) -> None:
    assert held(split(0, rows), split(rows, 0)).verdict == "unchanged"
    less = compare("a@1", taken(split(10, 30)), taken(split(rows, 0)), ACC, RegressionConfig())
    assert less.verdict == "unchanged"


def test_a_drop_of_exactly_the_tolerated_one_passes_in_spite_of_rounding() -> None:
    assert held(split(30, 70), split(10, 90), 0.2).verdict == "unchanged"


def test_the_result_holds_both_scores_the_drop_and_what_it_rests_on() -> None:
    result = held(split(75, 25), split(50, 50))
    assert (result.baseline, result.score, result.drop, result.max_drop) == (0.75, 0.5, 0.25, 0.01)
    said = evidence(result)
    assert (said.rows, said.total, said.lost, said.gained) == (100, 100, 25, 0)
    assert said.p_value == pytest.approx(0.5**25)
    assert said.interval is not None
    assert 0.1 < said.interval.low < 0.25 < said.interval.high < 0.4
    assert [(flip.row, flip.before, flip.after, flip.better) for flip in said.flips[:2]] == [
        (50, 1, 0, False),
        (51, 1, 0, False),
    ]
    assert len(said.flips) == 20


def test_the_least_drop_that_the_rows_could_show_is_told() -> None:
    """Seven rows lost and none gained are the fewest that are significant at one in a hundred."""
    assert evidence(held(split(75, 25), split(75, 25))).detectable == 0.07
    noisy = evidence(held([True, False] * 50, [False, True] * 50))
    assert noisy.detectable is not None
    assert noisy.detectable > 0.2


def test_what_is_open_says_how_many_rows_would_settle_it() -> None:
    before, after = split(100, 0) + split(4, 1), split(100, 0) + split(0, 5)
    (result,) = judge([held(before, after)])
    assert result.verdict == "inconclusive"
    needed = evidence(result).rows_needed
    assert needed is not None
    more = needed // len(before) + 1
    assert held(before * more, after * more).verdict == "regressed"


def test_for_a_loss_a_rise_is_forgetting() -> None:
    """A metric by which the lower share of hits is the better one."""
    metric = MetricConfig("acc", higher_is_better=False)
    few, many = taken(split(10, 90), metric, higher=False), taken(split(60, 40), metric, higher=False)
    assert (forgetting(few, many), forgetting(many, few)) == (0.5, -0.5)
    worse = compare("a@1", few, many, metric, RegressionConfig(0.1))
    assert (worse.verdict, evidence(worse).lost, evidence(worse).gained) == ("regressed", 50, 0)
    assert compare("a@1", many, few, metric, RegressionConfig(0.1)).verdict == "improved"


@pytest.mark.parametrize("name", ["macro_f1", "mcc"])
def test_scores_that_are_no_mean_over_rows_are_resampled(name: str) -> None:
    metric = MetricConfig.from_mapping({"metric": name}, "multiple_choice")
    rng = random.Random(0)
    right = tuple(rng.randrange(3) for _ in range(300))

    def of(accuracy: float, seed: int) -> Evaluation:
        rng = random.Random(seed)
        predictions = tuple(label if rng.random() < accuracy else (label + 1) % 3 for label in right)
        found = score(metric, predictions, right)
        return Evaluation("a", "soft", name, found, True, {}, KEY, predictions, right, 0, 1.0)

    worse = compare("a@1", of(0.9, 1), of(0.7, 2), metric, RegressionConfig())
    assert (worse.verdict, evidence(worse).lost) == ("regressed", None)
    interval = evidence(worse).interval
    assert interval is not None
    assert interval.low < (worse.drop or 0) < interval.high
    assert compare("a@1", of(0.9, 1), of(0.9, 2), metric, RegressionConfig()).verdict in ("unchanged", "inconclusive")


def test_a_few_moved_rows_are_never_sure_of_a_drop_of_a_resampled_score() -> None:
    metric = MetricConfig.from_mapping({"metric": "macro_f1"}, "multiple_choice")
    before, after = taken(split(3, 0), metric), taken(split(0, 3), metric)
    result = compare("a@1", before, after, metric, RegressionConfig())
    assert (result.verdict, evidence(result).p_value) == ("inconclusive", 0.125)


def test_other_rows_than_the_baselines_are_compared_as_two_samples() -> None:
    result = held(split(180, 20), split(200, 100))
    assert (result.verdict, evidence(result).lost, evidence(result).rows) == ("regressed", None, 300)
    assert held(split(90, 10), split(172, 28)).verdict == "inconclusive"


def test_where_the_metric_itself_changed_no_chance_is_in_play() -> None:
    before = taken(split(75, 25), key=KEY | {"metric": "acc=1"})
    after = replace(before, score=0.70, key=KEY | {"metric": "acc=2"})
    result = compare("colour@1", before, after, ACC, RegressionConfig())
    assert (result.verdict, result.cause, evidence(result).p_value) == ("regressed", "metric", None)


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
    result = held(split(75, 25), split(50, 50), key=key)
    assert result.cause == cause
    assert {change.name: (change.before, change.after) for change in result.changes} == {
        part: (KEY.get(part), key.get(part)) for part in {*KEY, *key} if KEY.get(part) != key.get(part)
    }


def test_a_moved_influence_is_named_even_where_every_prediction_stayed() -> None:
    result = held(split(75, 25), split(75, 25), 0.0, key={**KEY, "libraries": "new"})
    assert (result.verdict, result.cause) == ("identical", "libraries")


def test_what_could_not_be_measured_has_failed_whatever_the_policy() -> None:
    result = failure("colour@1", "acc", 0.75, 0.01, "another base model")
    assert result == CheckResult("colour@1", "acc", 0.75, None, None, 0.01, "failed", "another base model")
    for policy in ("block", "warn", "rollback"):
        assert not CheckReport((replace(result, policy=policy),), 0.0).passed


def test_a_regression_blocks_unless_it_is_only_to_be_told() -> None:
    fine, worse = held(split(9, 1), split(9, 1)), held(split(90, 10), split(40, 60))
    assert CheckReport((), 0.0).passed
    assert CheckReport((fine,), 0.0).passed
    assert not CheckReport((fine, worse), 0.0).passed
    assert not CheckReport((fine, replace(worse, policy="rollback")), 0.0).passed
    assert CheckReport((fine, replace(worse, policy="warn")), 0.0).passed


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_never_a_pass(value: float) -> None:
    current = replace(taken(split(50, 50)), score=value)
    result = compare("colour@1", taken(split(75, 25)), current, ACC, RegressionConfig(0.5))
    assert not CheckReport((result,), 0.0).passed


def test_many_tasks_at_a_time_take_more_to_raise_an_alarm() -> None:
    """Eight lost rows of eight (1 in 256) are a finding alone, but not one among fifty that moved by chance."""
    kept = split(92, 0)
    suspect = held(kept + split(8, 0), kept + split(0, 8))
    assert judge([suspect])[0].verdict == "regressed"
    others = [replace(held([True, False] * 50, [False, True] * 50), version=f"t{n}@1") for n in range(49)]
    together = judge([suspect, *others])
    assert together[0].verdict == "inconclusive"
    assert evidence(together[0]).adjusted == pytest.approx(50 * 0.5**8)
    assert (evidence(together[0]).detectable or 0) > (evidence(suspect).detectable or 0)


def test_tasks_of_which_nothing_was_run_take_no_power_from_the_others() -> None:
    kept = split(92, 0)
    suspect = held(kept + split(8, 0), kept + split(0, 8))
    reused = [CheckResult(f"t{n}@1", "acc", 0.9, 0.9, 0.0, 0.01, "identical", "", reused=True) for n in range(1000)]
    results = judge([*reused, suspect])
    assert results[-1].verdict == "regressed"
    assert results[:-1] == reused


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.floats(0.0, 0.5))
@settings(deadline=None, database=None, max_examples=60)
def test_the_verdict_follows_the_drop_and_the_evidence(rows: list[tuple[bool, bool]], max_drop: float) -> None:
    before, after = (list(side) for side in zip(*rows, strict=True))
    result = held(before, after, max_drop)
    lost = (sum(before) - sum(after)) / len(rows)
    assert result.drop == pytest.approx(lost)
    if abs(lost - max_drop) < 1e-9:
        return
    if lost > max_drop:
        assert result.verdict == ("regressed" if (evidence(result).p_value or 0) <= 0.01 else "inconclusive")
    else:
        assert result.verdict in ("identical", "unchanged", "improved")


def test_a_verdict_does_not_depend_on_who_else_was_answered_as_before() -> None:
    """Tasks of which nothing moved are no tests, run anew or not: the first check and the second say the same."""
    kept = split(490, 0)
    suspect = held(kept + split(10, 0), kept + split(0, 10))
    same = [replace(held(kept, kept), version=f"t{n}@1") for n in range(99)]
    (fresh, *_), (again, *_) = judge([suspect, *same]), judge([suspect, *(replace(r, reused=True) for r in same)])
    assert (fresh.verdict, evidence(fresh).adjusted) == (again.verdict, evidence(again).adjusted)
    assert fresh.verdict == "regressed"


def test_a_metric_of_the_hub_that_scores_the_same_answers_lower_has_dropped() -> None:
    hub = MetricConfig("squad", from_hub=True)
    before = replace(taken(split(75, 25)), score=0.9)
    result = compare("a@1", before, replace(before, score=0.3), hub, RegressionConfig())
    assert (result.verdict, evidence(result).p_value) == ("regressed", None)


def test_rows_that_flipped_are_lost_or_gained_by_the_sign_of_the_metric() -> None:
    metric = MetricConfig("acc", higher_is_better=False)
    few, many = taken(split(10, 90), metric, higher=False), taken(split(60, 40), metric, higher=False)
    assert not any(flip.better for flip in evidence(compare("a@1", few, many, metric, RegressionConfig())).flips)
    assert all(flip.better for flip in evidence(compare("a@1", many, few, metric, RegressionConfig())).flips)


def test_long_answers_are_cut_where_they_are_told() -> None:
    exact = MetricConfig.from_mapping({"metric": "exact_match"}, "generate_until")
    answers = ("x" * 100_000,)
    before = Evaluation("a", "soft", "exact_match", 1.0, True, {}, KEY, answers, answers, 0, 1.0)
    result = compare("a@1", before, replace(before, predictions=("y",), score=0.0), exact, RegressionConfig())
    (flip,) = evidence(result).flips
    assert (len(flip.before), len(flip.reference), flip.after) == (500, 500, "y")


@pytest.mark.parametrize(
    ("before", "stands"),
    [
        ({}, True),
        ({"cause": "data, library"}, True),
        ({"cause": "data"}, False),
        ({"drop": 0.1}, False),
        ({"baseline": 0.8}, False),
        ({"verdict": "failed"}, False),
    ],
)
def test_a_regression_stands_where_the_check_before_explains_all_of_it(before: dict[str, Any], stands: bool) -> None:
    now = CheckResult("sst2@1", "acc", 0.9, 0.6, 0.3, 0.01, "regressed", "library")
    assert is_standing(now, replace(now, **before)) is stands
    assert not is_standing(now, None)
