"""The floor: a first version must beat its instruction and the most frequent answer, beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from multiprompt.config import RegressionConfig
from multiprompt.errors import ConfigError
from multiprompt.gate.floor import Yardstick, interval, majority, most_frequent, yardstick
from multiprompt.gate.statistics import wilson
from multiprompt.records import Evaluation
from multiprompt.tasks.metric import MetricConfig, score

ACC = MetricConfig("acc")


def taken(predictions: Sequence[Any], references: Sequence[Any], metric: MetricConfig = ACC) -> Evaluation:
    found = score(metric, predictions, references)
    higher = metric.higher_is_better
    return Evaluation(
        "colour", "soft", metric.name, found, higher, {}, {"p": "1"}, tuple(predictions), tuple(references), 0, 1.0
    )


def held(soft: int, hard: int, rows: int, alpha: float = 0.02, metric: MetricConfig = ACC) -> Yardstick:
    """The first so many rows are right on each side."""
    sides = [taken([1] * right + [0] * (rows - right), [1] * rows, metric) for right in (soft, hard)]
    return yardstick("hard prompt", sides[1], sides[0], metric, RegressionConfig(alpha=alpha))


@pytest.mark.parametrize(
    ("soft", "hard", "rows", "beaten"),
    [(10, 15, 40, False), (20, 20, 40, False), (25, 20, 40, False), (26, 20, 40, True), (40, 0, 40, True)],
)
def test_a_score_is_beaten_by_more_than_chance_explains(soft: int, hard: int, rows: int, beaten: bool) -> None:
    """Six rows gained and none lost are the fewest that are significant at 0.02."""
    assert (held(soft, hard, rows).shortfall == "") is beaten


def test_what_was_not_beaten_is_told_with_both_scores_rows_and_chance() -> None:
    found = held(10, 15, 40)
    assert found.p_value == 1.0
    assert found.shortfall == "the hard prompt has 0.3750 on the same 40 rows (p 1)"
    assert "about 105 rows would settle it" in held(25, 22, 40).shortfall


def test_too_few_rows_to_show_an_improvement_say_how_many_would_do() -> None:
    assert held(3, 0, 3).shortfall.endswith("3 rows are too few to show that a prompt is better, about 6 would do")
    assert held(40, 38, 40).shortfall.endswith(
        "40 rows are too few to show that a prompt is better, about 120 would do"
    )
    assert held(40, 40, 40).shortfall.endswith("no prompt can be better on these rows")


def test_for_a_loss_the_lower_score_is_the_better_one() -> None:
    loss = MetricConfig("acc", higher_is_better=False)
    assert held(10, 30, 40, metric=loss).shortfall == ""
    assert held(30, 10, 40, metric=loss).shortfall != ""


def test_metrics_over_all_rows_are_tested_by_resampling_them() -> None:
    metric = MetricConfig("macro_f1")
    right = [0, 1] * 50
    good, poor = taken(right, right, metric), taken([0] * 100, right, metric)
    assert yardstick("hard prompt", poor, good, metric, RegressionConfig()).shortfall == ""
    assert "hard prompt has 1.0000" in yardstick("hard prompt", good, poor, metric, RegressionConfig()).shortfall


@pytest.mark.parametrize(
    ("references", "answer"), [([0, 2, 2, 1], 2), (["b", "a"], "b"), ([["x", "y"], ["z", "y"], ["z", "y"]], "y")]
)
def test_the_majority_answer_is_the_most_frequent_right_one(references: list[Any], answer: Any) -> None:
    assert most_frequent(references)[0] == answer


@pytest.mark.parametrize(
    ("metric", "references", "answer"),
    [
        (MetricConfig("f1"), [1] * 30 + [0] * 70, 1),
        (MetricConfig("chrf"), ["x y z", "the cat sat", "the cat ran", "the dog sat", "x y z"] * 10, "the cat sat"),
        (MetricConfig("ter", higher_is_better=False), ["x y z", "the cat sat", "the cat ran"] * 10, "the cat sat"),
    ],
)
def test_one_answer_to_every_row_is_never_better_than_the_majority_answer(
    metric: MetricConfig, references: list[Any], answer: Any
) -> None:
    """The most frequent class is 0, by which F1 is 0: to answer 1 always would look learned."""
    soft = taken([answer] * len(references), references, metric)
    other = majority(soft, metric)
    assert other.score == soft.score
    assert yardstick("majority answer", other, soft, metric, RegressionConfig()).shortfall


def test_a_single_answer_that_no_row_has_is_no_better_either() -> None:
    references = [f"the {animal} sat on the mat" for animal in ("cat", "dog", "hen")] * 10
    metric = MetricConfig("rouge_l")
    soft = taken(["the sat on the mat"] * 30, references, metric)
    assert majority(soft, metric).score == soft.score


def test_the_majority_answer_is_scored_on_the_same_rows() -> None:
    soft = taken([1, 1, 0, 0], [0, 0, 0, 1])
    found = majority(soft, ACC)
    assert (found.predictions, found.references, found.score) == ((0,) * 4, soft.references, 0.75)


def test_an_interval_of_a_share_is_wilsons() -> None:
    """Values of Newcombe 1998, table I."""
    assert (wilson(81, 263).low, wilson(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert (wilson(0, 20).low, wilson(0, 20).high) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert (wilson(3, 3).low, wilson(3, 3).high) == (pytest.approx(0.4385, abs=1e-4), 1.0)
    shown = interval(taken([1] * 9 + [0], [1] * 10), ACC)
    assert shown is not None
    assert (shown.low, shown.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_an_interval_of_another_metric_is_resampled_and_a_metric_of_the_hub_has_none() -> None:
    metric = MetricConfig("macro_f1")
    shown = interval(taken([0, 1, 1, 0] * 25, [0, 1, 0, 1] * 25, metric), metric)
    assert shown is not None
    assert 0.35 < shown.low < 0.5 < shown.high < 0.65
    assert interval(taken([1], [1]), MetricConfig("acc", from_hub=True)) is None


def test_an_unknown_floor_is_refused() -> None:
    with pytest.raises(ConfigError, match="floor is 'soft', but it must be one of: hard, majority, none"):
        RegressionConfig(floor="soft")


def test_of_a_metric_of_the_hub_the_scores_alone_decide() -> None:
    good, poor, hub = taken([1, 1, 1], [1, 1, 1]), taken([1, 1, 0], [1, 1, 1]), MetricConfig("acc", from_hub=True)
    assert yardstick("hard prompt", poor, good, hub, RegressionConfig()) == Yardstick("hard prompt", 2 / 3, None, "")
    assert yardstick("hard prompt", good, good, hub, RegressionConfig()).shortfall == (
        "the hard prompt has 1.0000 on the same 3 rows"
    )
