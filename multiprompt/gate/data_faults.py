"""Faults of a task's data that let a score look better, or surer, than it is; told by numbers of rows alone."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Hashable, Iterator, Sequence, Set
from itertools import combinations

from multiprompt.errors import MultipromptError, counted
from multiprompt.gate.statistics import detectable_loss
from multiprompt.tasks.data import Row, Split
from multiprompt.tasks.example import UNCOUNTED, examples
from multiprompt.tasks.split import TaskData
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Template
from multiprompt.tasks.urls import without_secrets

# The number of rows and labels that a warning names.
SHOWN = 5
_ROWS_A_STEP = 1000
_NO_WORD = re.compile(r"[\W_]+")


def data_faults(task: Task, data: TaskData) -> tuple[str, ...]:
    """A line a fault: too few test rows, templates that read none of their fields, rows or splits that are used twice,
    test labels that training never sees."""
    sources, rows = (*_no_field(task), *_one_answer(task, data), *_shared_sources(task)), _shared_rows(task, data)
    faults = (*_few_rows(task, data.test), *sources, *rows, *_unseen(task, data))
    return tuple(f"{task.name}: {fault}" for fault in faults)


def few_rows(task: Task, test: Split) -> tuple[str, ...]:
    """The same of a task that has no rows to learn from."""
    return tuple(f"{task.name}: {fault}" for fault in _few_rows(task, test))


def _few_rows(task: Task, test: Split) -> Iterator[str]:
    """The least drop that McNemar's exact test can show on so many rows, at the task's `alpha`."""
    max_drop, rows = task.config.regression.max_drop, len(test.rows)
    lost = detectable_loss(0, task.config.regression.alpha)
    if rows < lost:
        yield f"split {test.name!r} has {counted(rows, 'row')}, too few to show any drop; {lost} rows are the least"
    elif task.metrics[0].per_example and 0 < max_drop * rows < lost:
        yield (
            f"the {rows} rows of split {test.name!r} can show a drop of {lost / rows:.4f} at the least, but "
            f"max_drop is {max_drop:g}; about {math.ceil(lost / max_drop)} rows could show that"
        )


def _no_field(task: Task) -> Iterator[str]:
    """A task whose input reads nothing of its rows."""
    if not task.fields:
        yield f"doc_to_text {task.doc_to_text.source[:100]!r} reads no field, so that the model sees all rows alike"


def _one_answer(task: Task, data: TaskData) -> Iterator[str]:
    """A bare text that was meant to name the column of the answers, but names none."""
    target = task.doc_to_target
    if isinstance(target, int) or isinstance(task.doc_to_choice, Template):
        return
    if not any(map(target.read_by, (*data.training.rows, *data.test.rows))):
        yield f"doc_to_target {target.source[:100]!r} reads no field, so that all rows have the same answer"


def _shared_sources(task: Task) -> Iterator[str]:
    """Splits, or files of splits, that serve two purposes."""
    source = task.data
    splits = {"training": source.training, "validation": source.validation, "test": source.test}
    named = [(purpose, split) for purpose, split in splits.items() if split is not None]
    for (first, one), (second, other) in combinations(named, 2):
        files = source.data_files or {}
        shared = set(files.get(one, ())) & set(files.get(other, ()))
        if one == other:
            yield f"split {one!r} is used for {first} and for {second}"
        elif shared:
            yield f"{first} and {second} are read from the same file {without_secrets(min(shared))}"


def _shared_rows(task: Task, data: TaskData) -> Iterator[str]:
    """Test rows that training or validation holds, too, as they are or but for case, spaces and punctuation."""
    names = sorted(task.fields)
    if not names:
        return
    for purpose, split in (("training", data.training), ("validation", data.validation)):
        exact = {_fields(row, names) for row in split.rows}
        near = {_letters(row, names) for row in split.rows} - {""}
        same = [n for n, row in enumerate(data.test.rows) if _fields(row, names) in exact]
        known = set(same)
        alike = [n for n, row in enumerate(data.test.rows) if n not in known and _letters(row, names) in near]
        total = len(data.test.rows)
        if same:
            yield f"{len(same)} of {total} test rows are {purpose} rows, too (test rows {_listed(same)})"
        if alike:
            yield (
                f"{len(alike)} of {total} test rows are {purpose} rows but for case, spaces or punctuation "
                f"(test rows {_listed(alike)})"
            )


def _unseen(task: Task, data: TaskData) -> Iterator[str]:
    """Choices that are right in the test rows and never in training, where all rows have the same choices."""
    if not isinstance(task.doc_to_choice, tuple):
        return
    choices = set(task.doc_to_choice)
    try:
        missing = choices - _labels(task, data.training, choices)
        unseen = missing & _labels(task, data.test, missing)
    except MultipromptError:  # training, or reading the rows, names the row that is no example
        return
    if unseen:
        listed = _listed([choice for choice in task.doc_to_choice if choice in unseen])
        yield f"no training row has the answer {listed}, but test rows have"


def _labels(task: Task, split: Split, wanted: Set[str]) -> set[str]:
    """The right answers of a split's rows, read until all that are wanted were seen."""
    seen: set[str] = set()
    for start in range(0, len(split.rows), _ROWS_A_STEP):
        if wanted <= seen:
            break
        some = Split(split.name, split.rows[start : start + _ROWS_A_STEP])
        seen |= {example.answer for example in examples(task, some, UNCOUNTED)}
    return seen


def _fields(row: Row, names: Sequence[str]) -> str:
    return json.dumps([row.get(name) for name in names], sort_keys=True, ensure_ascii=False, default=str)


def _letters(row: Row, names: Sequence[str]) -> str:
    """A row's letters and digits alone, field by field; empty where it has none."""
    texts = [_NO_WORD.sub("", unicodedata.normalize("NFKC", str(row.get(name))).casefold()) for name in names]
    return "\n".join(texts).strip()


def _listed(values: Sequence[Hashable]) -> str:
    return ", ".join(map(str, values[:SHOWN])) + (", …" if len(values) > SHOWN else "")
