"""The data of a task: the splits that it is learned from and scored on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from multiprompt.errors import DataError, NotFoundError
from multiprompt.tasks.data import Row, Split
from multiprompt.tasks.reading import read_split
from multiprompt.tasks.task import Task

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class TaskData:
    """The three splits that learning a task takes."""

    training: Split
    validation: Split
    test: Split

    @property
    def notes(self) -> tuple[str, ...]:
        """The conversions of columns when the splits were read, each said once."""
        splits = (self.training, self.validation, self.test)
        return tuple(dict.fromkeys(note for split in splits for note in split.notes))


def load_data(task: Task) -> TaskData:
    """Read a task's splits.

    Scores are taken on `test_split`, or on `validation_split` where there is no test split, as the harness does.
    Without rows for validation a tenth of the training rows is held out. Raises DataError on a missing or empty split.
    """
    if task.data.training is None:
        raise DataError(f"{task.name} names no training_split, so it cannot be learned.")
    training = read_split(task, task.data.training, to_learn=True)
    test = load_test_split(task, to_learn=True)
    if task.data.validation is not None and task.data.test is not None:
        return TaskData(training, read_split(task, task.data.validation, to_learn=True), test)
    return TaskData(*_hold_out(training), test)


def load_test_split(task: Task, *, to_learn: bool = False) -> Split:
    """The rows that scores are taken on, with `to_learn` those of a new version. Raises DataError."""
    return read_split(task, scored_split(task), to_learn=to_learn)


def scored_split(task: Task) -> str:
    """The name of the split that scores are taken on."""
    name = task.data.test or task.data.validation
    assert name is not None, "a task file without rows to evaluate on is refused when it is read"
    return name


def load_row(task: Task, split: str, number: int) -> Row:
    """A row of the training, validation or test rows, counted from 0. Raises NotFoundError naming what there is."""
    if split == "test":
        rows = load_test_split(task).rows
    elif split in ("training", "validation"):
        rows = getattr(load_data(task), split).rows
    else:
        raise NotFoundError(f"{task.name} has no split {split!r}; give training, validation or test.")
    if not 0 <= number < len(rows):
        raise NotFoundError(f"{task.name}: the {split} rows are 0 to {len(rows) - 1}; there is no row {number}.")
    return rows[number]


def _hold_out(training: Split) -> tuple[Split, Split]:
    if len(training.rows) < 2:
        raise DataError(
            f"split {training.name!r} has {len(training.rows)} row; two are needed to hold out validation rows."
        )
    order: Sequence[int] = random.Random(0).sample(range(len(training.rows)), len(training.rows))
    count = max(1, int(len(order) * VALIDATION_SHARE))
    held_out = set(order[:count])
    kept = tuple(row for i, row in enumerate(training.rows) if i not in held_out)
    held = tuple(row for i, row in enumerate(training.rows) if i in held_out)
    return replace(training, rows=kept), Split(f"{training.name}[validation]", held)
