"""Sequential sampling: the rows of a prompt that a check has run, and the verdict that they allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiprompt.config import RegressionConfig
from multiprompt.engine.answering import Answer
from multiprompt.engine.evaluation import Subject, references, scored
from multiprompt.engine.prefix import Prefix
from multiprompt.gate.statistics import settled
from multiprompt.gate.verdict import compare
from multiprompt.records import Baseline, CheckResult, Evaluation, VersionRecord
from multiprompt.tasks.canaries import order
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Example
from multiprompt.tasks.metric import per_example_scores
from multiprompt.tasks.task import Task

# Sequential sampling. A check runs the rows of a prompt in an order that is fixed by their content. It decides after
# 64 rows, after 128, and so on. It stops when the verdict is certain: a part of the rows then excludes a drop beyond
# `max_drop`, or proves one. Each look has its share of `alpha`, and each task of the check has its share of the false
# alarms, so that many looks and many tasks do not raise the error rate.

# Rows before the first decision; each later one has twice as many.
FIRST_LOOK = 64


@dataclass(frozen=True, eq=False)
class Comparison:
    """A published version, what it is to be measured on, and the key that this has."""

    version: VersionRecord
    baseline: Baseline
    task: Task
    data: str
    key: Mapping[str, str]
    tolerated: RegressionConfig
    policy: str

    @property
    def label(self) -> str:
        return self.version.label

    @property
    def is_reusable(self) -> bool:
        return self.key == self.baseline.key


class Sampling:
    """The rows of a prompt that were run, in an order that leaves what is to come a fair sample."""

    def __init__(
        self, case: Comparison, baseline: Evaluation, split: Split, rows: list[Example], prefix: Prefix, *, whole: bool
    ) -> None:
        self.case = case
        self.split = split
        self.rows = rows
        self.prefix = prefix
        self.answers: dict[int, Answer] = {}
        self.error: Exception | None = None
        self._baseline = baseline
        self._order = order(case.data, len(rows))
        self._seconds = 0.0
        metric = case.task.metrics[0]
        pairs = metric.per_example and baseline.rows == len(rows)
        self._whole = whole or not pairs or case.key["metric"] != baseline.key.get("metric")
        self._looks = sum(1 for _ in _looks(len(rows)))

    def next_rows(self) -> list[Example]:
        return [self.rows[row] for row in self._next()]

    @property
    def outputs(self) -> dict[int, Any]:
        """The prediction of each row that was run, by its number."""
        return {row: found.output for row, found in self.answers.items()}

    def take(self, answers: list[Answer] | Exception, seconds: float) -> None:
        if isinstance(answers, Exception):
            self.error = answers
            return
        self._seconds += seconds * len(answers)
        self.answers.update(zip(self._next(), answers, strict=True))

    def is_settled(self, tests: int) -> bool:
        """Whether the rows so far leave no doubt, of the chance that this one of so many tests may err with."""
        seen, rows = len(self.answers), len(self.rows)
        if self.error is not None or seen == rows:
            return True
        if self._whole:
            return False
        seen_rows, task = self._seen(), self.case.task
        baseline = self._seen_baseline()
        before = self._hits(baseline.predictions, baseline.references)
        after = self._hits(
            [self.answers[row].output for row in seen_rows], references(task, [self.rows[row] for row in seen_rows])
        )
        lost = sum(was > now for was, now in zip(before, after, strict=True))
        gained = sum(was < now for was, now in zip(before, after, strict=True))
        if not task.metrics[0].higher_is_better:
            lost, gained = gained, lost
        alpha = self.case.tolerated.alpha / self._looks
        return settled(lost, gained, seen, rows, self.case.tolerated.max_drop, alpha, alpha / tests) is not None

    def evaluation(self, hub_metrics: bool) -> Evaluation:
        """The score on the rows that were run."""
        seen = self._seen()
        case = self.case
        subject = Subject(None, case.version.digest, case.version.num_virtual_tokens)
        return scored(
            case.task,
            [self.rows[row] for row in seen],
            [self.answers[row] for row in seen],
            case.key,
            subject,
            hub_metrics=hub_metrics,
            seconds=self._seconds,
        )

    def result(self, evaluation: Evaluation) -> CheckResult:
        """The comparison with the baseline; of some rows, the score of all is what these make likely."""
        case, seen = self.case, self._seen()
        result = compare(case.label, self._seen_baseline(), evaluation, case.task.metrics[0], case.tolerated)
        result = replace(result, policy=case.policy)
        if len(seen) == len(self.rows) or result.evidence is None:
            return result
        flips = tuple(replace(flip, row=seen[flip.row]) for flip in result.evidence.flips)
        return replace(
            result,
            baseline=self._baseline.score,
            score=self._baseline.score + (evaluation.score - result.baseline),
            verdict="unchanged" if result.verdict == "identical" else result.verdict,
            evidence=replace(result.evidence, total=len(self.rows), flips=flips),
        )

    def moved(self) -> list[int]:
        """The rows that are answered in another way than at the baseline."""
        if self._baseline.rows != len(self.rows):
            return self._seen()
        return [row for row in self._seen() if self.answers[row].output != self._baseline.predictions[row]]

    def _next(self) -> list[int]:
        seen = len(self.answers)
        end = len(self.rows) if self._whole else next(look for look in _looks(len(self.rows)) if look > seen)
        return self._order[seen:end]

    def _seen(self) -> list[int]:
        return sorted(self.answers)

    def _seen_baseline(self) -> Evaluation:
        if len(self.answers) == len(self.rows):
            return self._baseline
        seen = self._seen()
        baseline = replace(
            self._baseline,
            predictions=tuple(self._baseline.predictions[row] for row in seen),
            references=tuple(self._baseline.references[row] for row in seen),
        )
        hits = self._hits(baseline.predictions, baseline.references)
        return replace(baseline, score=sum(hits) / len(seen))

    def _hits(self, predictions: Sequence[Any], right: Sequence[Any]) -> list[float]:
        return per_example_scores(self.case.task.metrics[0], predictions, right) or []


def _looks(rows: int) -> Iterable[int]:
    """After how many rows a decision is tried; the last time after all."""
    seen = FIRST_LOOK
    while seen < rows:
        yield seen
        seen *= 2
    yield rows
