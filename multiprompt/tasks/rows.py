"""Rows as they come from a parser: each is bounded and checked before it is kept."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

from multiprompt.errors import DataError

MAX_ROW_CHARACTERS = 2_000_000
MAX_ROW_VALUES = 100_000
MAX_ROW_DEPTH = 64
MAX_SPLIT_ROWS = 5_000_000
MAX_SPLIT_VALUES = 50_000_000
MAX_MISSING_VALUES = 10_000_000


# What pandas has in place of a missing value.
_MISSING = ("NAType", "NaTType")


def asked(row: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """A row of a call with these fields as a data file would hold them. Raises DataError for what none can hold."""
    return {name: _as_read(value, name) if name in fields else value for name, value in row.items()}


def _as_read(value: Any, field: str) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    try:
        text = json.dumps(value, sort_keys=True, default=_as_json)
    except UnicodeDecodeError:
        raise DataError(f"the field {field!r} holds bytes that are not UTF-8 text.") from None
    except _NoValueError as error:
        raise DataError(f"the field {field!r} holds a {error}; give texts, numbers, lists and mappings.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"the field {field!r} cannot be read: {error}.") from None
    return json.loads(text, parse_constant=lambda _: None)


class _NoValueError(Exception):
    """A value of a type that rows do not have."""


def _as_json(value: Any) -> Any:
    """As tables are read: dates, times and decimals are their text, bytes are UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Mapping):
        return dict(value)
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _of_array(value)
    raise _NoValueError(type(value).__name__)


def _of_array(value: Any) -> Any:
    """An array's values one by one; a number of few bits has the digits that it is written with."""
    if getattr(value, "ndim", 0):
        return list(value)
    found = value.tolist()
    return float(str(value)) if isinstance(found, float) else found


class RowList:
    """The rows of one split, in order."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._values = self._present = 0
        self._fields: set[str] = set()
        self._known_texts: set[str] = set()

    def add(self, row: dict[str, Any], line: int) -> None:
        """Keep a row. Raises DataError, naming the line, for a row that is too large or holds what is no text."""
        try:
            self._values += self._checked(row)
        except DataError as error:
            raise DataError(f"line {line} {error}") from None
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
        """How many values a row has, nested ones included."""
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


def _check_text(text: str) -> None:
    if "\0" in text:
        raise DataError("holds a NUL character (\\u0000); remove it.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError("holds half of a surrogate pair (\\ud800 to \\udfff), which is no character.") from None
