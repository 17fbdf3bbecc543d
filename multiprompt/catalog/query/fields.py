"""A field that a query can name: the SQL expression behind it, and how a condition on it holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select


class Flag(Integer):
    """1 or 0, which a query may call true and false."""


@dataclass(frozen=True)
class ValueIndex:
    """An index over values in another table: `ids` selects the rows' ids, and `row_id` is that id in the listing."""

    row_id: ColumnElement[int]
    ids: Select[tuple[int]]
    value: ColumnElement[Any]


@dataclass(frozen=True)
class Field:
    """A named expression. A field of many values (`exists` given) compares true when any value does.

    `values` are all that it can have, if they are few; another one is refused.
    """

    expression: ColumnElement[Any]
    exists: Callable[[ColumnElement[bool]], ColumnElement[bool]] | None = None
    index: ValueIndex | None = None
    values: tuple[str, ...] = ()

    def holds(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return condition if self.exists is None else self.exists(condition)


# Gives the condition for its argument. Raises ValueError, which tells the expected argument.
Function = Callable[[str], ColumnElement[bool]]


@dataclass(frozen=True)
class Fields:
    """The names of a listing: fixed ones, families such as `score.<metric>`, and functions."""

    listing: str
    fixed: Mapping[str, Field]
    families: Mapping[str, Callable[[str], Field]]
    functions: Mapping[str, Function] = field(default_factory=dict)

    def find(self, name: str) -> Field | None:
        family, dot, member = name.partition(".")
        if dot and member and family in self.families:
            return self.families[family](member)
        return self.fixed.get(name)

    @property
    def names(self) -> list[str]:
        return [*self.fixed, *(f"{family}.…" for family in self.families)]
