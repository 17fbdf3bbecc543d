"""Rows that fail alone: a row without an answer costs no other row its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from multiprompt.errors import DataError, MultipromptError

Item = TypeVar("Item")
Made = TypeVar("Made")
# What is done about a row, by its index, for which there is nothing but an error.
Refuse = Callable[[int, MultipromptError], None]


def end_call(_: int, error: MultipromptError) -> NoReturn:
    """The first row that fails ends the call."""
    raise error


def read_each(
    read: Callable[[Sequence[Item]], Sequence[Made]], items: Sequence[Item], refuse: Refuse
) -> list[Made | None]:
    """What is read of all items at once; where that fails, of each by itself, with None for those that are refused."""
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
