"""Rows as they come from a parser: each is bounded and checked before it is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite, isnan
from numbers import Integral, Real
from typing import Any
from uuid import UUID

from multiprompt.errors import DataError

MAX_ROW_CHARACTERS = 2_000_000
MAX_ROW_VALUES = 100_000
MAX_ROW_DEPTH = 64
MAX_SPLIT_ROWS = 5_000_000
MAX_SPLIT_VALUES = 50_000_000
MAX_MISSING_VALUES = 10_000_000


class RowList:
    """The rows of one split, in order."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._values = self._present = 0
        self._fields: set[str] = set()
        self._known_texts: set[str] = set()

    def add(self, row: dict[str, Any], place: str) -> None:
        """Keep a row. Raises DataError, naming its place, for a row that is too large or holds what is no text."""
        try:
            self._values += self._checked(row)
        except DataError as error:
            raise DataError(f"{place} {error}") from None
        self._rows.append(row)
        self._fields.update(row)
        if len(self._rows) > MAX_SPLIT_ROWS:
            raise DataError(f"the split has over {MAX_SPLIT_ROWS} rows; use fewer.")
        if max(self._values, len(self._rows) * len(self._fields)) > MAX_SPLIT_VALUES:
            raise DataError(f"the split has over {MAX_SPLIT_VALUES} values; use fewer rows or fields.")
        self._present += len(row)
        if len(self._rows) * len(self._fields) - self._present > MAX_MISSING_VALUES:
            raise DataError(
                f"the rows lack over {MAX_MISSING_VALUES} values of the split's {len(self._fields)} fields; "
                "give each row the same fields."
            )

    def with_all_fields(self) -> tuple[dict[str, Any], ...]:
        """The rows, each with every field of the split: one that a row does not have is None, as in a table."""
        names = sorted(self._fields)
        return tuple(row if len(row) == len(names) else {name: row.get(name) for name in names} for row in self._rows)

    def _checked(self, row: dict[str, Any]) -> int:
        """The number of values in a row, nested ones included."""
        characters = values = depth = 0
        level: list[Any] = [row]
        while level:
            depth += 1
            if depth > MAX_ROW_DEPTH:
                raise DataError(f"is nested over {MAX_ROW_DEPTH} levels deep.")
            below: list[Any] = []
            for one in level:
                values += len(one)
                characters += self._checked_names(one) if isinstance(one, dict) else 0
                characters += _checked_values(one.values() if isinstance(one, dict) else one, below)
            if characters > MAX_ROW_CHARACTERS:
                raise DataError(f"has over {MAX_ROW_CHARACTERS} characters.")
            if values > MAX_ROW_VALUES:
                raise DataError(f"has over {MAX_ROW_VALUES} values.")
            level = below
        return values

    def _checked_names(self, names: Collection[str]) -> int:
        """Check the field names that were not seen before; gives the number of their characters."""
        fresh = [name for name in names if name not in self._known_texts]
        characters = _checked_values(fresh, [])
        self._known_texts.update(fresh)
        return characters


def _checked_values(values: Iterable[Any], below: list[Any]) -> int:
    """The number of characters of the texts among the values; adds lists and objects to `below`."""
    characters = 0
    for value in values:
        if isinstance(value, str):
            characters += len(value)
            _check_text(value)
        elif isinstance(value, (dict, list)):
            below.append(value)
        elif isinstance(value, float) and not isfinite(value):
            raise DataError("holds a number that is too large.")
    return characters


def _refuse_nul(text: str) -> None:
    if "\0" in text:
        raise DataError("holds a NUL character (\\u0000); remove it.")


def _check_text(text: str) -> None:
    _refuse_nul(text)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError("holds half of a surrogate pair (\\ud800 to \\udfff), which is no character.") from None


def as_read(value: Any) -> Any:
    """A value of a call as a data file would have given it: plain types, what is no number as null, dates as text.

    Values of pandas and numpy become those that they stand for. Raises DataError for what no data file holds.
    """
    if value is None or type(value) is bool:
        return value
    if type(value).__name__ == "NAType":  # pandas' missing value
        return None
    if isinstance(value, Mapping):
        return {_key(key): as_read(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", False):
        return [as_read(inner) for inner in value]
    if isinstance(value, (str, bytes)):
        text = _decoded(value) if isinstance(value, bytes) else str.__str__(value)
        _refuse_nul(text)
        return text
    if isinstance(value, (date, time, timedelta, Decimal, UUID)):
        return None if value != value else str(value)
    return _number(value)


def _number(value: Any) -> Any:
    """A number of Python or numpy; a short one has the fewest digits that name it, as in a table."""
    if isinstance(value, Integral):
        return _whole(int(value))
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, float):
        number = float(value)
    elif isinstance(value, Real) and hasattr(value, "dtype"):
        number = float(str(value))
    else:
        raise DataError(f"holds a {type(value).__name__}; give texts, numbers, lists, mappings or None.")
    if isnan(number):
        return None
    if not isfinite(number):
        raise DataError("holds a number that is too large.")
    return number


def _whole(number: int) -> int:
    """A whole number that can be written out; Python limits the digits."""
    try:
        str(number)
    except ValueError:
        raise DataError("holds a number of too many digits.") from None
    return number


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise DataError(f"holds a mapping with a {type(key).__name__} as a key; its keys must be texts.")
    return str.__str__(key)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError("holds bytes that are not UTF-8 text.") from None
