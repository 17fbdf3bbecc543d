"""Rows that fail alone: a row that fails takes no answer from another row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from multiprompt.errors import DataError, MultipromptError

Item = TypeVar("Item")
Made = TypeVar("Made")
# Gets the index and the error of a row that fails.
Refuse = Callable[[int, MultipromptError], None]


def end_call(_: int, error: MultipromptError) -> NoReturn:
    """Raises the error, so that the first row that fails ends the call."""
    raise error


def read_each(
    read: Callable[[Sequence[Item]], Sequence[Made]], items: Sequence[Item], refuse: Refuse
) -> list[Made | None]:
    """Read all items at once; where that fails, read each by itself. An item that is refused is None."""
    try:
        return list(read(items))
    except DataError:
        return [_read_one(read, item, number, refuse) for number, item in enumerate(items)]


def _read_one(read: Callable[[Sequence[Item]], Sequence[Made]], item: Item, number: int, refuse: Refuse) -> Made | None:
    try:
        return read([item])[0]
    except DataError as error:
        refuse(number, error)
        return None
