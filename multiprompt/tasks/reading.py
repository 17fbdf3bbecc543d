"""A split of a task, read once from its files or from the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from io import BufferedIOBase

from multiprompt.errors import DataError, NotFoundError
from multiprompt.tasks.cells import check_cells
from multiprompt.tasks.data import Row, Split
from multiprompt.tasks.example import check_labels
from multiprompt.tasks.files import DataFile, open_file, split_files
from multiprompt.tasks.formats import TABLES, read_rows
from multiprompt.tasks.hub import hub_rows
from multiprompt.tasks.rows import RowList
from multiprompt.tasks.source import files_digest
from multiprompt.tasks.streams import FileStream
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Template
from multiprompt.tasks.urls import without_secrets

# Formats that hold nothing but text, in which the harness finds other types.
_UNTYPED = ("csv", "tsv")


def read_split(task: Task, name: str, *, to_learn: bool = False) -> Split:
    """Read a split of a task. Raises DataError where it is missing, empty, or no rows.

    What is to be learned from may not hold cells from which the harness would make another text.
    """
    if task.data.snapshots:
        split = read_snapshot(task, name)
        check_labels(task, split, typed=True)
        return split
    try:
        files = split_files(task, name)
    except NotFoundError as error:
        raise DataError(str(error)) from None
    split = Split(name, *hub_rows(task, name)) if files is None else _read(task, name, files)
    if not split.rows:
        raise DataError(f"{task.name}: split {name!r} is empty.")
    typed = files is None or any(file.format not in _UNTYPED for file in files)
    check_labels(task, split, typed=typed)
    if to_learn and not typed:
        check_cells(task, split)
    return split


def read_snapshot(task: Task, name: str) -> Split:
    """The rows of a split that a catalog keeps. Raises DataError where it does not have them."""
    fingerprint = task.data.snapshots.get(name)
    if fingerprint is None:
        raise DataError(f"{task.name} has no rows for split {name!r}; it has: {', '.join(task.data.snapshots)}.")
    if task.read_snapshot is None:
        raise DataError(f"{task.name}: the rows of split {name!r} are in a catalog, and none is open here.")
    try:
        split = task.read_snapshot(fingerprint)
    except NotFoundError as error:
        raise DataError(f"{task.name}: split {name!r}: {error}") from None
    return replace(split, source=fingerprint)


def _read(task: Task, name: str, files: Sequence[DataFile]) -> Split:
    """Read the files of a split once: the rows and the digest come from the same bytes."""
    rows, notes, digests = RowList(), list[str](), list[tuple[str, str]]()
    columns: dict[frozenset[str], str] = {}
    for file in files:
        try:
            digest, found = _read_file(file, rows, notes)
            digests.append((file.location, digest))
            if found and file.format != "json":
                columns.setdefault(found, file.location)
                _require_equal(columns)
        except (DataError, NotFoundError) as error:
            raise DataError(
                f"{task.name}: split {name!r} of {without_secrets(task.data.path)} cannot be read: {error}"
            ) from None
    read = rows.with_all_fields()
    if any(file.format == "json" for file in files):
        notes += map(_told_whole, _mixed_numbers(task, read))
    return Split(name, read, tuple(dict.fromkeys(notes)), files_digest(digests))


def _mixed_numbers(task: Task, rows: Sequence[Row]) -> list[str]:
    """The fields that the task reads which hold whole numbers in some rows, fractions in others, and nothing else."""
    parts = (task.description, task.doc_to_text, task.doc_to_target, task.doc_to_choice)
    used = {name for part in parts if isinstance(part, Template) and rows for name in part.read_by(rows[0])}
    return [name for name in sorted(used) if {type(row.get(name)) for row in rows} - {type(None)} == {int, float}]


def _told_whole(name: str) -> str:
    return f"field {name!r}: a whole number stays as it is written, where the harness adds .0 beside fractions"


def _require_equal(columns: Mapping[frozenset[str], str]) -> None:
    """Raises DataError where files of one split have other columns; a row would lack the others' (as in `datasets`)."""
    if len(columns) > 1:
        (one, first), (other, second) = columns.items()
        more, less = (", ".join(sorted(left - right))[:100] or "none" for left, right in ((other, one), (one, other)))
        raise DataError(
            f"{without_secrets(second)} has the columns {more}, where {without_secrets(first)} has {less}; "
            "give the files of a split the same columns."
        )


def _read_file(file: DataFile, rows: RowList, notes: list[str]) -> tuple[str, frozenset[str] | None]:
    """Read one file into `rows`; gives its SHA-256 and the fields of its first row, None without rows."""
    fields = None
    with closing(open_file(file)) as opened:
        try:
            state = _state(opened)
            stream = FileStream(opened)
            counted = "row" if file.format in TABLES else "line"
            for number, row in read_rows(stream, file.format, notes):
                rows.add(row, f"{counted} {number}")
                fields = fields or frozenset(row)
            digest = stream.digest()
            if _state(opened) != state:
                raise DataError("it changed while it was read; write a new file and rename it, or try again.")
        except DataError as error:
            raise DataError(f"{without_secrets(file.location)}: {error}") from None
    if fields is None:
        notes.append(f"{without_secrets(file.location)} holds no rows")
    return digest, fields


def _state(opened: BufferedIOBase) -> tuple[int, int] | None:
    """The state of an open file, which changes when it is written to; None for a remote one."""
    try:
        found = os.fstat(opened.fileno())
    except (AttributeError, OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
