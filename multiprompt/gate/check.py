"""Checking: published prompts against their baselines, at the cost of a few rows where nothing has moved."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from multiprompt.catalog.database import batched
from multiprompt.context import Context
from multiprompt.engine.answering import Answer, Question, answer, budget, compile_task
from multiprompt.engine.base import BaseModel
from multiprompt.engine.evaluation import Subject, evaluate_as_served, evaluation_key
from multiprompt.engine.prefix import Prefix
from multiprompt.errors import (
    DataError,
    MetricError,
    NotFoundError,
    SupersededError,
    UnavailableError,
)
from multiprompt.gate.current_data import current_fingerprint
from multiprompt.gate.results import answers_as_before, identical, is_open, read_result
from multiprompt.gate.sampling import Comparison, Sampling
from multiprompt.gate.served import drift, read_task, served_task, tolerated_drop
from multiprompt.gate.verdict import compare, cut, failure, judge
from multiprompt.records import (
    Baseline,
    CheckReport,
    CheckResult,
    Evaluation,
    VersionRecord,
)
from multiprompt.serving.prompts import load_prompt
from multiprompt.tasks.canaries import canaries
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Query, answer_text, examples, row_text
from multiprompt.tasks.metric import score
from multiprompt.tasks.split import load_test_split
from multiprompt.tasks.task import Task

# A version and its baseline.
Held = tuple[VersionRecord, Baseline]
Item = TypeVar("Item", Held, Comparison, Sampling)
Made = TypeVar("Made")

# The number of prompts in memory at a time, and the number whose canaries run when another task is added.
GROUP = 32
SAMPLE = 32
REPEATED_ROWS = 8
UNEXPLAINED = "unexplained: under the same key it answered otherwise, and a second run answers the same"


class Checking:
    """Checks of one catalog's published prompts on a base model, which need not be the one they were learned on.

    A prompt is measured with the task file that it is served with. A `trial` stores nothing.
    """

    def __init__(self, context: Context, base: BaseModel | None = None, *, trial: bool = False) -> None:
        self.context = context
        self.base = base or context.base_model()
        self.trial = trial

    def check_published(self, *, full: bool = False) -> CheckReport:
        """Every published prompt, with the task file that it is served with, on its data as it is now.

        Where the score's key is the baseline's, a few canaries must answer as they did; then the baseline's score
        stands. Else, where a canary moved, and with `full` everywhere, rows are run until the verdict is certain.
        """
        _, held = self.context.catalog.baselines.published()
        return _Check(self, as_now=True).report(held, full=full, sample=None)

    def check_others(self, task: str, known: dict[str, CheckResult]) -> tuple[int, CheckReport]:
        """The versions of other tasks that are not in `known`, as they were published; canaries of a sample of them.

        Adding a task changes no other task's file or data. Gives the catalog's epoch that this holds for.
        """
        epoch, held = self.context.catalog.baselines.published()
        others = [(version, baseline) for version, baseline in held if version.task != task]
        new = [(version, baseline) for version, baseline in others if version.label not in known]
        sample = random.Random(f"{epoch} {task}")
        report = _Check(self, as_now=False).report(new, full=False, sample=sample)
        known.update((result.version, result) for result in report.results)
        return epoch, replace(report, results=tuple(judge([known[version.label] for version, _ in others])))

    def score_as_served(self, version: VersionRecord, task: Task, rows: Split) -> Evaluation:
        """A version's answers, asked with its own task file, by the metric and right answers of another task file."""
        catalog = self.context.catalog
        prompt = load_prompt(catalog, self.base, version, foreign=True)
        subject, own = Subject.soft(prompt, version.digest), catalog.versions.task(version)
        return evaluate_as_served(self.base, own, subject, task, rows, hub_metrics=self.context.hub_metrics)

    def score_whole(self, version: VersionRecord) -> tuple[Task, Split, Evaluation]:
        """A version's score on all rows of its data as it is now. Raises DataError where that is away."""
        check = _Check(self, as_now=True)
        case = check.case((version, self.context.catalog.baselines.of(version)))
        if check.away:
            raise DataError(check.away[0])
        sampling = check.sampling(case, whole=True)
        check.run_rows([sampling])
        if sampling.error is not None:
            raise sampling.error
        return case.task, sampling.split, sampling.evaluation(self.context.hub_metrics)


class _Check:
    """One check: what it has looked at so far, and what that cost."""

    def __init__(self, checking: Checking, *, as_now: bool) -> None:
        self.context = checking.context
        self.catalog = checking.context.catalog
        self.base = checking.base
        # Prompts whose data is away, and those whose task has another file by now.
        self.away: list[str] = []
        self.drifted: list[str] = []
        self._trial = checking.trial
        self._as_now = as_now
        self._policy = self.catalog.settings.policy()
        self._cost: Counter[str] = Counter()
        self._repeated = self._different = 0
        self._results: dict[str, CheckResult] = {}
        # Another answer under the same key is a fault: none of its scores is kept to be used again.
        self._moved: set[str] = set()
        self._total = 0

    def report(self, held: Sequence[Held], *, full: bool, sample: random.Random | None) -> CheckReport:
        """Reuse what stands, as canaries show, run what is open, and judge all of it together."""
        started = time.perf_counter()
        self._total = len(held)
        cases = self._each(held, self.case)
        standing = {} if full else self._standing(cases)
        quiet = [case for case in cases if case.label in standing and answers_as_before(standing[case.label])]
        self._look_at_canaries(quiet if sample is None else sample.sample(quiet, min(SAMPLE, len(quiet))))
        unsettled = [case for case in cases if case.label not in standing or case.label in self._moved]
        for case in cases:
            if case.label in standing and case.label not in self._moved and case.label not in self._results:
                self._reuse(case, standing[case.label])
        tests = len(unsettled) + sum(result.verdict != "identical" for result in self._results.values())
        self._compare([case for case in unsettled if case.label not in self._results], tests, full)
        judged = {result.version: result for result in self._judged(held)}
        self._compare([case for case in cases if is_open(judged[case.label])], tests, True)
        return CheckReport(
            tuple(self._judged(held)),
            time.perf_counter() - started,
            evaluated=self._cost["evaluated"],
            canaries=self._cost["canaries"],
            reused=self._cost["reused"],
            noise=self._different / self._repeated if self._repeated else None,
            notes=(*self.away, *self.drifted),
        )

    def _standing(self, cases: Sequence[Comparison]) -> dict[str, CheckResult]:
        """The results that stand without a run: the key is the baseline's, or was compared or scored before."""
        found = self._each(cases, lambda case: (case.label, self._stands(case)))
        return {label: result for label, result in found if result is not None}

    def _stands(self, case: Comparison) -> CheckResult | None:
        if case.is_reusable:
            return None if self._was_found_worse(case) else identical(case)
        return self._known(case) or self._scored(case)

    def _was_found_worse(self, case: Comparison) -> bool:
        """Whether all rows were run under the baseline's own key, and answered worse than at the baseline."""
        stored = self.catalog.baselines.comparison(case.baseline.evaluation, case.key)
        return stored is not None and stored["verdict"] in ("regressed", "inconclusive")

    def _judged(self, held: Sequence[Held]) -> list[CheckResult]:
        return judge([self._results[version.label] for version, _ in held])

    def case(self, held: Held) -> Comparison:
        """The task, data and key that a version is measured with; no row is read."""
        version, baseline = held
        task, now = (
            self.catalog.snapshots.attach(served_task(version, baseline)),
            read_task(*baseline.now, version.task),
        )
        data = self._data_now(task, version, baseline) if self._as_now else baseline.data
        if self._as_now and (task.fingerprint, task.data) != (now.fingerprint, now.data):
            self.drifted.append(drift(version, task, now))
        key = evaluation_key(self.base, task, data, Subject(None, version.digest, version.num_virtual_tokens))
        tolerated = now.config.regression
        return Comparison(version, baseline, task, data, key, tolerated, tolerated.policy or self._policy)

    def sampling(self, case: Comparison, *, whole: bool) -> Sampling:
        """Everything that running its rows takes."""
        split = self._rows(case)
        if split.fingerprint != case.data:
            raise DataError(f"{case.label}: its data changed while it was read; check again.")
        asked = examples(case.task, split, budget(self.base, case.task, case.version.num_virtual_tokens))
        return Sampling(case, self._baseline(case), split, asked, self._prefix(case), whole=whole)

    def _rows(self, case: Comparison) -> Split:
        """The rows of a case, those of its baseline where they are the same."""
        if case.data == case.baseline.data:
            return self.catalog.evaluations.rows(case.version, case.baseline.evaluation)
        return load_test_split(case.task)

    def run_rows(self, samplings: Iterable[Sampling], tests: int = 1) -> None:
        """Run the rows of many prompts in the same passes, until each is settled."""
        running = list(samplings)
        while running:
            started = time.perf_counter()
            asked = [(one.prefix, one.case.task, one.next_rows()) for one in running]
            answered = self._answers([(prefix, task, [row.query for row in rows]) for prefix, task, rows in asked])
            seconds = (time.perf_counter() - started) / max(1, sum(len(rows) for _, _, rows in asked))
            for one, answers in zip(running, answered, strict=True):
                one.take(answers, seconds)
            running = [one for one in running if not one.is_settled(tests)]

    def _compare(self, cases: Sequence[Comparison], tests: int, full: bool) -> None:
        """Run the rows of some prompts at a time; what came of each is kept before the next are begun."""
        for group in batched(cases, GROUP):
            samplings = self._each(group, lambda case: self.sampling(case, whole=full or case.is_reusable))
            self.run_rows(samplings, tests)
            self._each(samplings, self._conclude)

    def _conclude(self, sampling: Sampling) -> None:
        if sampling.error is not None:
            raise sampling.error
        case = sampling.case
        evaluation = sampling.evaluation(self.context.hub_metrics)
        result = self._with_texts(case, sampling.result(evaluation), sampling.split)
        self._cost["evaluated"] += evaluation.rows
        self._cost["reused"] += len(sampling.rows) - evaluation.rows
        if result.verdict != "identical":
            different = self._repeat(sampling)
            if not different and result.cause and (not result.changes or case.label in self._moved):
                result = replace(result, cause=UNEXPLAINED)
        if case.label not in self._moved:
            whole = evaluation.rows == len(sampling.rows) and not case.is_reusable
            new = whole and self.catalog.evaluations.with_key(case.key, case.task.name) is None
            self._keep(case, result, sampling.split, evaluation if new else None)
        self._results[case.label] = result
        self._tell()

    def _keep(self, case: Comparison, result: CheckResult, split: Split | None, evaluation: Evaluation | None) -> None:
        if self._trial:
            return
        baseline = case.baseline.evaluation
        self.catalog.baselines.save_comparison(case.version, baseline, case.key, result, split, evaluation)

    def _repeat(self, sampling: Sampling) -> int:
        """Run some rows that moved once more. How many are answered in another way than the first time?"""
        rows = sampling.moved()[:REPEATED_ROWS]
        queries = [sampling.rows[row].query for row in rows]
        (answers,) = self._answers([(sampling.prefix, sampling.case.task, queries)])
        if isinstance(answers, Exception):
            raise answers
        before = sampling.answers
        different = sum(1 for row, now in zip(rows, answers, strict=True) if before[row].output != now.output)
        self._repeated += len(rows)
        self._different += different
        return different

    def _look_at_canaries(self, cases: Sequence[Comparison]) -> None:
        """Find the prompts that answer one of their canaries in another way than they did."""
        looked_at = 0
        for group in batched(cases, GROUP):
            ready = self._each(group, self._canaries)
            answered = self._answers([(prefix, case.task, queries) for case, prefix, queries, _ in ready])
            for (case, _, _, expected), answers in zip(ready, answered, strict=True):
                self._cost["canaries"] += len(expected)
                if isinstance(answers, Exception) or [found.output for found in answers] != expected:
                    self._moved.add(case.label)
            looked_at += len(group)
            self.context.progress("looking at canaries", looked_at, len(cases))

    def _canaries(self, case: Comparison) -> tuple[Comparison, Prefix, list[Query], list[Any]]:
        """The prompt, and the rows to look at with what they were answered with."""
        watched = self.catalog.baselines.canaries(case.baseline.evaluation)
        if watched is None:
            baseline = case.baseline.evaluation
            rows = self.catalog.evaluations.rows(case.version, baseline)
            watched = canaries(rows, self.catalog.evaluations.get(baseline).predictions)
        room = budget(self.base, case.task, case.version.num_virtual_tokens)
        split = Split("canaries", tuple(canary.row for canary in watched))
        queries = [example.query for example in examples(case.task, split, room)]
        return case, self._prefix(case), queries, [canary.prediction for canary in watched]

    def _answers(self, asked: Sequence[tuple[Prefix, Task, Sequence[Query]]]) -> list[list[Answer] | Exception]:
        """The answers of each prompt, or the error of a prompt whose rows the model fails on."""
        try:
            found = answer(self.base, [Question(task, prefix, q) for prefix, task, queries in asked for q in queries])
        except Exception as error:  # a broken base model or tokenizer raises errors of many libraries
            if len(asked) == 1:
                return [error]
            return [answers for one in asked for answers in self._answers([one])]
        answers = iter(found)
        return [[next(answers) for _ in queries] for _, _, queries in asked]

    def _each(self, items: Sequence[Item], make: Callable[[Item], Made]) -> list[Made]:
        """The result of `make` for each item; where it fails, the version has failed its check."""
        made = []
        for item in items:
            try:
                made.append(make(item))
            except (SupersededError, UnavailableError):
                raise
            except Exception as error:  # as above; whatever keeps a score from being taken fails its check
                version, baseline = _held(item)
                reason = " ".join(str(error).split()) or type(error).__name__
                tolerated = tolerated_drop(version, baseline)
                self._results[version.label] = failure(
                    version.label, baseline.metric, baseline.score, tolerated, reason
                )
        return made

    def _known(self, case: Comparison) -> CheckResult | None:
        """The stored result of the same comparison under the same tolerance."""
        stored = self.catalog.baselines.comparison(case.baseline.evaluation, case.key)
        if stored is None:
            return None
        result = read_result(stored)
        tolerated = case.tolerated
        same = (result.max_drop, result.alpha) == (tolerated.max_drop, tolerated.alpha)
        return replace(result, policy=case.policy, reused=True) if same else None

    def _scored(self, case: Comparison) -> CheckResult | None:
        """A comparison with a score that was taken with this key before."""
        stored = self.catalog.evaluations.with_key(case.key, case.task.name)
        if stored is None:
            return None
        result = compare(case.label, self._baseline(case), stored, case.task.metrics[0], case.tolerated)
        result = self._with_texts(case, replace(result, policy=case.policy), None)
        self._keep(case, result, None, None)
        return replace(result, reused=True)

    def _with_texts(self, case: Comparison, result: CheckResult, split: Split | None) -> CheckResult:
        """Show the choices of flips as texts, and leave out flips of rows that are not the baseline's."""
        evidence = result.evidence
        if evidence is None or not evidence.flips:
            return result
        rows = (split or self._rows(case)).rows
        old = self.catalog.evaluations.rows(case.version, case.baseline.evaluation).rows
        task = case.task
        flips = tuple(
            replace(
                flip,
                reference=answer_text(task, rows[flip.row], flip.reference),
                before=answer_text(task, old[flip.row], flip.before),
                after=answer_text(task, rows[flip.row], flip.after),
                text=cut(row_text(task, rows[flip.row])),
            )
            for flip in evidence.flips
            if all(rows[flip.row].get(name) == old[flip.row].get(name) for name in task.fields)
        )
        return replace(result, evidence=replace(evidence, flips=flips))

    def _reuse(self, case: Comparison, result: CheckResult) -> None:
        self._results[case.label] = result
        self._cost["reused"] += case.baseline.rows if result.evidence is None else result.evidence.total
        self._tell()

    def _data_now(self, task: Task, version: VersionRecord, baseline: Baseline) -> str:
        try:
            return current_fingerprint(self.catalog, task, trial=self._trial)
        except (NotFoundError, UnavailableError) as error:
            self.away.append(f"{version.label} is checked on the rows of its baseline, as its data is away: {error}")
            return baseline.data

    def _baseline(self, case: Comparison) -> Evaluation:
        """The baseline with its rows, scored by the task's metric of now where that is another one."""
        stored = self.catalog.evaluations.get(case.baseline.evaluation)
        metric = case.task.metrics[0]
        if stored.metric == metric.name:
            return stored
        again = stored.metrics.get(metric.name)
        if again is None and not metric.reads_as(replace(metric, metric=stored.metric)):
            raise MetricError(
                f"{case.label} has no score in {metric.name}, as its predictions were taken for {stored.metric}; "
                f"run `ws.learn({case.version.task!r})`."
            )
        if again is None:
            again = score(metric, stored.predictions, stored.references, hub_metrics=self.context.hub_metrics)
        return replace(stored, metric=metric.name, score=again, higher_is_better=metric.higher_is_better)

    def _prefix(self, case: Comparison) -> Prefix:
        return compile_task(self.base, case.task, load_prompt(self.catalog, self.base, case.version, foreign=True))

    def _tell(self) -> None:
        self.context.progress("checking", len(self._results), self._total)


def _held(item: Held | Comparison | Sampling) -> Held:
    case = item.case if isinstance(item, Sampling) else item
    return (case.version, case.baseline) if isinstance(case, Comparison) else case
