"""Splits: the rows of a task's data, read through `datasets`, with a fingerprint of what was read."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multiprompt.errors import DataError, IntegrityError, NotFoundError

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task

MAX_ROW_CHARACTERS = 2_000_000
MAX_PACKED_SPLIT_BYTES = 2_000_000_000
VALIDATION_SHARE = 0.1

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """The rows of one split, in order."""

    name: str
    rows: tuple[Row, ...]

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
    """The split that scores are taken on."""
    name = task.data.test or task.data.validation
    assert name is not None, "a task file without rows to evaluate on is refused when it is read"
    return _load_split(task, name)


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
    import datasets

    source = task.data
    files: dict[str, list[str]] | None = None
    if source.data_files is not None:
        if name not in source.data_files:
            raise DataError(
                f"{task.name} has no data_files for split {name!r}; it has: {', '.join(source.data_files)}."
            )
        files = {name: [_resolve(task, path) for path in source.data_files[name]]}
    try:
        dataset = datasets.load_dataset(source.path, source.name, data_files=files, split=name)
        # As they are stored, so that a template sees the same when they are learned from and when they are checked.
        rows = tuple(json.loads(_line(row)) for row in dataset)
    except DataError:
        raise
    except Exception as error:  # datasets raises errors of many libraries, whose cause says more than their text
        cause = error.__cause__ or error
        if isinstance(cause, StopIteration) or "corresponds to no data" in str(cause):
            raise DataError(f"{task.name}: split {name!r} is empty.") from None
        raise DataError(f"{task.name}: split {name!r} of {source.path} cannot be read: {_one_line(cause)}") from error
    if not rows:
        raise DataError(f"{task.name}: split {name!r} is empty.")
    for number, row in enumerate(rows):
        if sum(len(value) for value in row.values() if isinstance(value, str)) > MAX_ROW_CHARACTERS:
            raise DataError(f"{task.name}: row {number} of split {name!r} has over {MAX_ROW_CHARACTERS} characters.")
    return Split(name, rows)


def _resolve(task: Task, path: str) -> str:
    if "://" in path:
        return path
    resolved = task.folder / path
    if not any(mark in path for mark in "*?[") and not resolved.is_file():
        raise DataError(f"{task.name}: the data file {resolved} does not exist.")
    return str(resolved)


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
    return Split(training.name, kept), Split(f"{training.name}[validation]", held)


def _line(row: Row) -> bytes:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
