"""Labels: how people name a prompt version, and the rows that are asked by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from multiprompt.errors import DataError, NotFoundError

InputRow = tuple[str, Mapping[str, Any] | str]


def parse_label(label: str) -> tuple[str, int | None]:
    """`sst2@2` → ("sst2", 2); `sst2` → ("sst2", None). Raises NotFoundError for anything else after the @."""
    if not isinstance(label, str):
        raise NotFoundError(
            f"{str(label)[:100]!r} is no name of a task or version: give a text such as sst2 or sst2@2."
        )
    name, at, number = label.partition("@")
    if not at:
        return name, None
    if not number.isdecimal() or len(number) > 9:
        raise NotFoundError(f"{label!r} names no version: write task@number, for example {name}@1.")
    return name, int(number)


def as_rows(rows: Iterable[InputRow]) -> Sequence[InputRow]:
    """The rows of a call. Raises DataError for what is no list."""
    if isinstance(rows, (str, bytes, Mapping)) or hasattr(rows, "columns") or not isinstance(rows, Iterable):
        raise DataError(
            f"what is asked is a {type(rows).__name__}, but it must be a list of pairs: the name of a task or version, "
            "and its row. Rows of one task come without its name where task= names it."
        )
    return rows if isinstance(rows, Sequence) else list(rows)


def as_pair(asking: InputRow) -> InputRow:
    """A row with its label. Raises DataError for anything but a pair of these."""
    if isinstance(asking, (tuple, list)) and len(asking) == 2 and isinstance(asking[0], str):
        return asking[0], asking[1]
    raise DataError("it must be a pair: the name of a task or version, and its row; or name one with task=.")
