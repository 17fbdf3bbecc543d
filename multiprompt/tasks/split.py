"""Splits: the rows of a task's data, with a fingerprint of what was read."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multiprompt.errors import DataError, IntegrityError, NotFoundError

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task

# Moves when the same bytes are read as other rows.
READER_VERSION = 3
MAX_PACKED_SPLIT_BYTES = 2_000_000_000
VALIDATION_SHARE = 0.1

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """The rows of one split, in order.

    `notes` say how columns were converted when the split was read. `source` is the digest of the files that it was read
    from; None for other origins.
    """

    name: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)
    source: str | None = field(default=None, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of name, number of rows and content; equal fingerprints mean equal data."""
        digest = hashlib.sha256(f"{self.name}\n{len(self.rows)}\n".encode())
        for row in self.rows:
            digest.update(_line(row))
        return "sha256:" + digest.hexdigest()

    def pack(self) -> bytes:
        """The rows as compressed JSON lines; `unpack` reads them back."""
        return zlib.compress(b"".join(map(_line, self.rows)), level=9)

    @classmethod
    def unpack(cls, name: str, packed: bytes) -> Split:
        """Raises IntegrityError when the bytes are not what `pack` wrote."""
        try:
            inflater = zlib.decompressobj()
            text = inflater.decompress(packed, MAX_PACKED_SPLIT_BYTES)
            if inflater.unconsumed_tail or inflater.unused_data or not inflater.eof:
                raise ValueError("it is cut off, too large, or goes on after its end")
            return cls(name, tuple(json.loads(line) for line in text.splitlines()))
        except (zlib.error, ValueError) as error:
            raise IntegrityError(f"the stored rows of split {name} cannot be read: {error}") from None


@dataclass(frozen=True)
class TaskData:
    """The three splits that learning a task takes."""

    training: Split
    validation: Split
    test: Split

    @property
    def notes(self) -> tuple[str, ...]:
        """How columns were converted when the splits were read, each said once."""
        splits = (self.training, self.validation, self.test)
        return tuple(dict.fromkeys(note for split in splits for note in split.notes))


def load_data(task: Task) -> TaskData:
    """Read a task's splits.

    Scores are taken on `test_split`, or on `validation_split` where there is no test split, as the harness does.
    Without rows for validation a tenth of the training rows is held out. Raises DataError on a missing or empty split.
    """
    if task.data.training is None:
        raise DataError(f"{task.name} names no training_split, so it cannot be learned.")
    training = _load_split(task, task.data.training)
    test = load_test_split(task)
    if task.data.validation is not None and task.data.test is not None:
        return TaskData(training, _load_split(task, task.data.validation), test)
    return TaskData(*_hold_out(training), test)


def load_test_split(task: Task) -> Split:
    """The rows that scores are taken on. Raises DataError."""
    return _load_split(task, scored_split(task))


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


def _load_split(task: Task, name: str) -> Split:
    from multiprompt.tasks.reading import read_split  # a listing needs splits, but nothing that reads files

    return read_split(task, name)


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


def _line(row: Row) -> bytes:
    """A row with its fields sorted; within a field, keys keep their order, in which templates walk over them."""
    return json.dumps(dict(sorted(row.items())), ensure_ascii=False, default=str).encode() + b"\n"
