"""Evaluation: a prompt's scores on a split with the answer to each row, under a key of all that can move them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as library_version
from typing import Any

from multiprompt.engine.answering import Answer, Question, answer, budget, compile_task
from multiprompt.engine.base import BaseModel
from multiprompt.engine.decoding import decoding
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.records import Evaluation
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import UNCOUNTED, Example, Query, examples, query_of
from multiprompt.tasks.metric import metric_version, score
from multiprompt.tasks.task import Task

Advance = Callable[[int], None]
HARD = "hard"
_LIBRARIES = ("multiprompt", "torch", "transformers", "tokenizers")


@dataclass(frozen=True, eq=False)
class Subject:
    """The prompt that is evaluated: a soft prompt with its digest, or the hard prompt (`prompt` is None)."""

    prompt: SoftPrompt | None
    digest: str
    num_virtual_tokens: int

    @classmethod
    def hard(cls, task: Task) -> Subject:
        """The instruction alone. Rows are cut as for the soft prompt, so that both see the same text."""
        return cls(None, HARD, task.config.prompt.num_virtual_tokens)

    @classmethod
    def soft(cls, prompt: SoftPrompt, digest: str) -> Subject:
        return cls(prompt, digest, prompt.num_virtual_tokens)


def evaluation_key(base: BaseModel, task: Task, data: str, subject: Subject) -> dict[str, str]:
    """All that can move the score, by cause; `data` is the fingerprint of the rows."""
    return {
        "prompt": f"{subject.digest}/{subject.num_virtual_tokens}",
        "base": f"{base.record.weights}/{base.record.config}",
        "tokenizer": base.record.tokenizer,
        "task file": task.fingerprint,
        "data": data,
        "metric": ", ".join(metric_version(metric) for metric in task.metrics),
        "decoding": decoding(base, task),
        "dtype": base.record.dtype,
        "device": base.device.type,
        "library": _libraries(),
    }


@lru_cache
def _libraries() -> str:
    return ", ".join(f"{name}=={library_version(name)}" for name in _LIBRARIES)


def evaluate(
    base: BaseModel,
    task: Task,
    split: Split,
    subject: Subject,
    *,
    hub_metrics: bool = False,
    advance: Advance = lambda _: None,
) -> Evaluation:
    """Score a prompt on every row of a split. Raises DataError for a row that is not an example, or MetricError."""
    started = time.perf_counter()
    prefix = compile_task(base, task, subject.prompt)
    rows = examples(task, split, budget(base, task, subject.num_virtual_tokens))
    answers = answer(base, [Question(task, prefix, row.query) for row in rows], advance)
    key = evaluation_key(base, task, split.fingerprint, subject)
    seconds = time.perf_counter() - started
    return scored(task, rows, answers, key, subject, hub_metrics=hub_metrics, seconds=seconds)


def evaluate_as_served(
    base: BaseModel, own: Task, subject: Subject, task: Task, split: Split, *, hub_metrics: bool = False
) -> Evaluation:
    """Render rows by the prompt's own task file; score them by the first metric and the right answers of `task`.

    An answer that is no choice of `task` is wrong. Raises DataError or TemplateError where the prompt's own file
    cannot read a row.
    """
    started = time.perf_counter()
    prefix, room = compile_task(base, own, subject.prompt), budget(base, own, subject.num_virtual_tokens)
    queries = [query_of(own, row, room) for row in split.rows]
    answers = answer(base, [Question(own, prefix, query) for query in queries])
    rows, metric = examples(task, split, UNCOUNTED), task.metrics[0]
    right = references(task, rows)
    given = [_as_answer(row, _text(query, found)) for row, query, found in zip(rows, queries, answers, strict=True)]
    value = score(metric, given, right, hub_metrics=hub_metrics)
    key = evaluation_key(base, own, split.fingerprint, subject)
    return Evaluation(
        task=task.name,
        kind="soft",
        metric=metric.name,
        score=value,
        higher_is_better=metric.higher_is_better,
        metrics={metric.name: value},
        key=key | {"task file": f"{own.fingerprint}, scored by {task.fingerprint}"},
        predictions=tuple(given),
        references=tuple(right),
        truncated=sum(query.truncated for query in queries),
        seconds=time.perf_counter() - started,
    )


def _text(query: Query, found: Answer) -> str:
    return str(found.output) if query.choices is None else query.choices[int(found.output)]


def _as_answer(row: Example, text: str) -> int | str:
    """A text as a prediction for a row: for a text that is not a choice, the index of a wrong one."""
    choices = row.query.choices
    if choices is None or not isinstance(row.target, int):
        return text
    if text == choices[row.target]:
        return row.target
    return choices.index(text) if text in choices else (row.target + 1) % len(choices)


def references(task: Task, rows: Sequence[Example]) -> list[Any]:
    """The right answers, in the form that metrics compare predictions with."""
    if task.is_multiple_choice:
        return [row.target for row in rows]
    return [list(row.target) if isinstance(row.target, tuple) else row.target for row in rows]


def scored(
    task: Task,
    rows: Sequence[Example],
    answers: Sequence[Answer],
    key: Mapping[str, str],
    subject: Subject,
    *,
    hub_metrics: bool,
    seconds: float,
) -> Evaluation:
    """The scores of given answers, by every metric. Raises MetricError.

    The evaluation keeps the predictions of the task's first metric.
    """
    right = references(task, rows)
    scores = {
        metric.name: score(metric, [found.outputs[place] for found in answers], right, hub_metrics=hub_metrics)
        for place, metric in enumerate(task.metrics)
    }
    main = task.metrics[0]
    return Evaluation(
        task=task.name,
        kind="hard" if subject.digest == HARD else "soft",
        metric=main.name,
        score=scores[main.name],
        higher_is_better=main.higher_is_better,
        metrics=scores,
        key=key,
        predictions=tuple(found.output for found in answers),
        references=tuple(right),
        truncated=sum(row.query.truncated for row in rows),
        seconds=seconds,
    )
