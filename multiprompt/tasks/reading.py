"""A split of a task, read once from its files or from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from multiprompt.errors import DataError, NotFoundError
from multiprompt.tasks.example import check_digits
from multiprompt.tasks.files import DataFile, open_file, split_files
from multiprompt.tasks.formats import read_rows
from multiprompt.tasks.hub import hub_rows
from multiprompt.tasks.rows import RowList
from multiprompt.tasks.source import files_digest
from multiprompt.tasks.split import Split
from multiprompt.tasks.streams import FileStream
from multiprompt.tasks.task import Task

# Formats that hold nothing but text.
_UNTYPED = ("csv", "tsv", "text")


def read_split(task: Task, name: str) -> Split:
    """Read a split of a task. Raises DataError where it is missing, empty, or no rows."""
    try:
        files = split_files(task, name)
    except NotFoundError as error:
        raise DataError(str(error)) from None
    split = Split(name, *hub_rows(task, name)) if files is None else _read(task, name, files)
    if not split.rows:
        raise DataError(f"{task.name}: split {name!r} is empty.")
    check_digits(task, split, typed=files is None or any(file.format not in _UNTYPED for file in files))
    return split


def _read(task: Task, name: str, files: Sequence[DataFile]) -> Split:
    """Read the files of a split once: the rows and the digest come from the same bytes."""
    rows, notes, digests = RowList(), list[str](), list[tuple[str, str]]()
    for file in files:
        try:
            digests.append((file.location, _read_file(file, rows, notes)))
        except (DataError, NotFoundError) as error:
            raise DataError(f"{task.name}: split {name!r} of {task.data.path} cannot be read: {error}") from None
    return Split(name, rows.with_all_fields(), tuple(dict.fromkeys(notes)), files_digest(digests))


def _read_file(file: DataFile, rows: RowList, notes: list[str]) -> str:
    """Read one file into `rows`; gives its SHA-256."""
    with closing(open_file(file)) as opened:
        try:
            stream = FileStream(opened)
            for line, row in read_rows(stream, file.format, notes):
                rows.add(row, line)
            return stream.digest()
        except DataError as error:
            raise DataError(f"{file.location}: {error}") from None
