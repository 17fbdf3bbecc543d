"""A page of a listing: conditions, order, and the cursor of the next page."""

from __future__ import annotations

import base64
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    BinaryExpression,
    BooleanClauseList,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    String,
    and_,
    literal,
    or_,
    select,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping

from multiprompt.catalog.query.values import in_range, is_time, parse_time
from multiprompt.errors import QueryError
from multiprompt.records import Listing

T = TypeVar("T")

# Larger pages are read in one statement: it takes no more than some ten thousand parameters.
_MAX_NARROW = 1000
# Up to this many rows, a look-up and a sort are quicker than a walk through a million rows.
_FEW = 2000
_NO_PLACE = "{!r} is no place in a listing: give what the page before ended with."
# The comparisons that an index answers.
BY_INDEX = (operator.eq, operator.lt, operator.le, operator.gt, operator.ge, operators.in_op)


@dataclass(frozen=True)
class Order:
    """The order of a listing; `name` is the field's name in the query."""

    name: str
    expression: ColumnElement[Any]
    descending: bool


@dataclass(frozen=True)
class Lookup:
    """A condition, and a SELECT of the ids for which it holds, which an index answers."""

    condition: ColumnElement[bool]
    row_id: ColumnElement[int]
    ids: Select[tuple[int]]


@dataclass(frozen=True)
class Query:
    """A parsed query of a listing. `apply` adds it to a SELECT, `page` reads the records."""

    listing: str
    where: ColumnElement[bool] | None = None
    order: Order | None = None
    limit: int | None = None
    lookups: tuple[Lookup, ...] = ()

    def page(
        self,
        connection: Connection,
        listing: Select[Any],
        key: ColumnElement[Any],
        record: Callable[[Row[Any]], T],
        after: str | None = None,
    ) -> Listing[T]:
        """At most `limit` records behind `after`. Raises QueryError for an `after` of another listing."""
        rows = self._rows(connection, listing, key, after)
        shown = rows if self.limit is None else rows[: self.limit]
        return Listing(map(record, shown), self.cursor(shown[-1]) if len(shown) < len(rows) and shown else None)

    def _rows(
        self, connection: Connection, listing: Select[Any], key: ColumnElement[Any], after: str | None
    ) -> Sequence[Row[Any]]:
        """Sort ids alone, then read the rows of the page: sorting whole rows is slow."""
        if self.limit is None:
            return connection.execute(self.apply(listing, key, after)).all()
        query = self._looked_up(connection)
        if self.order is None or self.limit > _MAX_NARROW:
            return connection.execute(query.apply(listing, key, after)).all()
        narrow = query.apply(listing.with_only_columns(maintain_column_froms=True), key, after)
        places = {row.page_key: place for place, row in enumerate(connection.execute(narrow))}
        found = Query(self.listing, order=self.order).apply(listing, key).where(key.in_(places))
        return sorted(connection.execute(found), key=lambda row: places[row.page_key])

    def _looked_up(self, connection: Connection) -> Query:
        """The query by ids, if an index finds few for one of its conditions; SQLite would walk through all rows."""
        conditions = list(_conditions(self.where))
        required = {id(condition) for condition in conditions}
        known = (lookup for lookup in self.lookups if id(lookup.condition) in required)
        for lookup in (*map(_lookup, filter(_is_indexed, conditions)), *known):
            found = connection.scalars(lookup.ids.limit(_FEW + 1)).all()
            if len(found) <= _FEW:
                others = (other for other in conditions if other is not lookup.condition)
                # By `in` alone SQLite does not see that an outer join must find something, so that it can begin there.
                return replace(self, where=and_(lookup.row_id > 0, lookup.row_id.in_(found), *others))
        return self

    def apply(self, select: Select[Any], key: ColumnElement[Any], after: str | None = None) -> Select[Any]:
        """The SELECT with the query's conditions, ordered, from behind the row that `after` points at.

        `key` is the listing's primary key, which makes the order total; one row more than the limit is taken, which
        says whether there are more. Raises QueryError for an `after` of another listing.
        """
        if self.where is not None:
            select = select.where(self.where)
        if after is not None:
            select = select.where(self._behind(after, key))
        if self.order is None:
            select = select.add_columns(key.label("page_key")).order_by(key)
        else:
            value = self.order.expression
            ordered = (value.desc(), key.desc()) if self.order.descending else (value.asc(), key.asc())
            select = select.add_columns(key.label("page_key"), value.label("page_value"))
            select = select.order_by(ordered[0].nulls_last(), ordered[1])
        return select if self.limit is None else select.limit(self.limit + 1)

    def cursor(self, row: Row[Any]) -> str:
        """The cursor of a row in this listing, for `after`."""
        value = None if self.order is None else row.page_value
        shown = value.isoformat() if isinstance(value, datetime) else value
        return base64.urlsafe_b64encode(json.dumps([self._sorting, row.page_key, shown]).encode()).decode().rstrip("=")

    def _behind(self, after: str, key: ColumnElement[Any]) -> ColumnElement[bool]:
        sorting, place, value = _read_cursor(after)
        if sorting != self._sorting:
            raise QueryError(f"this place is in {sorting[:80]!r}, not in {self._sorting!r}: ask for the same order.")
        number = _as_value(place, key)
        if self.order is None:
            return key > number
        column, descending = self.order.expression, self.order.descending
        next_key = key < number if descending else key > number
        if value is None:
            return and_(column.is_(None), next_key)
        at = _as_value(value, column)
        beyond = column < at if descending else column > at
        if isinstance(column, Column) and isinstance(key, Column) and column.table is key.table and not column.nullable:
            # In this form the database finds the place in an index instead of walking to it.
            return and_(column <= at if descending else column >= at, or_(beyond, next_key))
        return or_(beyond, and_(column == at, next_key), column.is_(None))

    @property
    def _sorting(self) -> str:
        by = "" if self.order is None else f" order by {self.order.name}" + " desc" * self.order.descending
        return self.listing + by


def _conditions(where: Any) -> Iterator[Any]:
    """The conditions that all must hold."""
    if isinstance(where, Grouping):
        where = where.element
    if isinstance(where, BooleanClauseList) and where.operator is operators.and_:
        for part in where.clauses:
            yield from _conditions(part)
    elif where is not None:
        yield where


def _is_indexed(condition: Any) -> bool:
    compares = isinstance(condition, BinaryExpression) and condition.operator in BY_INDEX
    columns = condition.left.base_columns if compares else ()
    return any(isinstance(column, Column) and (column.index or column.primary_key) for column in columns)


def _lookup(condition: Any) -> Lookup:
    row_id = condition.left.table.c.id
    return Lookup(condition, row_id, select(row_id).where(condition))


def _read_cursor(after: str) -> tuple[str, Any, Any]:
    try:
        read = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        if isinstance(read, list) and len(read) == 3 and isinstance(read[0], str):
            return in_range(read[0]), read[1], read[2]
    except (ValueError, RecursionError):
        pass
    raise QueryError(_NO_PLACE.format(after[:40]))


def _as_value(value: Any, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A cursor's value as a value of that column. Raises QueryError when it cannot be one."""
    kind = column.type
    try:
        if is_time(column):
            value = parse_time(value if isinstance(value, str) else "")
        elif isinstance(kind, String) != isinstance(value, str) or isinstance(value, bool | list | dict | None):
            raise ValueError
        elif isinstance(kind, Integer):
            value = int(value)
        return literal(in_range(value), kind)
    except (ValueError, OverflowError):
        raise QueryError(_NO_PLACE.format(value)) from None
