"""The floor: the scores that a first version must beat, beyond chance, before it may be published."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiprompt.config import RegressionConfig
from multiprompt.errors import counted
from multiprompt.gate.statistics import detectable_loss, resampled_interval, rows_needed, wilson
from multiprompt.gate.verdict import ROUNDING, compare, forgetting
from multiprompt.records import Evaluation, Interval
from multiprompt.tasks.metric import MetricConfig, per_example_scores, row_statistics, score

# The number of answers that are tried to find the best single one.
_TRIED = 8


@dataclass(frozen=True)
class Yardstick:
    """A score that a version is compared with: the hard prompt's, or the majority answer's on the same rows.

    `p_value` is of the version being no better, None where the rows allow no test. `shortfall` says why the version did
    not beat it; empty where it did. `is_above` says that the version scores worse.
    """

    name: str
    score: float
    p_value: float | None
    shortfall: str
    is_above: bool = False


def majority(soft: Evaluation, metric: MetricConfig, *, hub_metrics: bool = False) -> Evaluation:
    """The one answer that scores best on the rows of an evaluation when it is given to every row; by accuracy, the most
    frequent right answer. Tried are frequent right answers, and the version's own most frequent answer. Raises
    MetricError.
    """
    tried = [*most_frequent(soft.references), *most_frequent(soft.predictions)[:1]]
    if metric.from_hub:  # which may take long
        tried = tried[:1]
    if metric.per_example:  # the hits are quicker to count than the score is to take
        tried = [max(tried, key=lambda answer: _hits(soft, metric, answer))]
    sides = [_constant(soft, metric, answer, hub_metrics) for answer in tried]
    return max(sides, key=lambda side: side.score if metric.higher_is_better else -side.score)


def _hits(soft: Evaluation, metric: MetricConfig, answer: Any) -> float:
    """The number of rows that one answer is right on, negative where the metric counts the wrong ones."""
    hits = per_example_scores(metric, (answer,) * soft.rows, soft.references) or ()
    return sum(hits) if metric.higher_is_better else -sum(hits)


def most_frequent(answers: Sequence[Any]) -> list[Any]:
    """The most frequent answers, at most eight, the first of these first where several are as frequent. Each of several
    right answers of a row counts."""
    each = [one for answer in answers for one in (answer if isinstance(answer, list | tuple) else [answer])]
    keys = [json.dumps(answer, sort_keys=True, default=str) for answer in each]
    return [each[keys.index(key)] for key, _ in Counter(keys).most_common(_TRIED)]


def _constant(soft: Evaluation, metric: MetricConfig, answer: Any, hub_metrics: bool) -> Evaluation:
    answers = (answer,) * soft.rows
    found = score(metric, answers, soft.references, hub_metrics=hub_metrics)
    return replace(soft, score=found, metrics={metric.name: found}, predictions=answers)


def yardstick(
    name: str, other: Evaluation, soft: Evaluation, metric: MetricConfig, tolerated: RegressionConfig
) -> Yardstick:
    """Hold a version against another score of the same rows, by a one-sided paired test at the task's `alpha`.

    The test is McNemar's exact one for scores of 0 and 1 a row, else a paired bootstrap. A metric of the hub says
    nothing of rows, so there the scores decide.
    """
    evidence = compare(name, soft, other, metric, tolerated).evidence
    p_value = None if evidence is None else evidence.p_value
    gain = forgetting(soft, other)
    beaten = gain > ROUNDING and (p_value is None or p_value <= tolerated.alpha)
    if beaten:
        return Yardstick(name, other.score, p_value, "")
    error = 0.0 if evidence is None else evidence.error or 0.0
    chance = "" if p_value is None else f" (p {p_value:.2g})"
    told = f"the {name} has {other.score:.4f} on the same {counted(soft.rows, 'row')}{chance}"
    remedy = _remedy(other, metric, tolerated.alpha, gain, error, p_value)
    return Yardstick(name, other.score, p_value, told + remedy, gain < -ROUNDING)


def interval(evaluation: Evaluation, metric: MetricConfig) -> Interval | None:
    """A 95 % interval of a score: Wilson's for 0 or 1 a row, else a bootstrap over rows; None for a hub's metric."""
    hits = per_example_scores(metric, evaluation.predictions, evaluation.references)
    if hits is not None:
        return wilson(sum(hits), len(hits))
    statistics = row_statistics(metric, evaluation.predictions, evaluation.references)
    return None if statistics is None else resampled_interval(statistics.values, statistics.of_sums)


def _remedy(
    other: Evaluation, metric: MetricConfig, alpha: float, gain: float, error: float, p_value: float | None
) -> str:
    """The number of rows that would show an improvement, where these are too few; empty where there is none."""
    if p_value is None:
        return ""
    hits = per_example_scores(metric, other.predictions, other.references)
    wins = other.rows if hits is None else sum(hit != float(metric.higher_is_better) for hit in hits)
    least = detectable_loss(0, alpha)
    if wins < least:
        if wins == 0:
            return "; no prompt can be better on these rows"
        enough = math.ceil(least * other.rows / wins)
        few = f"{counted(other.rows, 'row')} {'is' if other.rows == 1 else 'are'} too few"
        return f"; {few} to show that a prompt is better, about {enough} would do"
    needed = rows_needed(gain, error, other.rows, alpha)
    return "" if needed is None else f"; about {needed} rows would settle it"
