"""The query language: `score.acc > 0.8 and tag.team = 'nlp' order by published_at desc limit 10`, to SQL expressions.

    query      := [either] ["order by" field ["asc" | "desc"]] ["limit" number]
    either     := both ("or" both)*
    both       := term ("and" term)*
    term       := "not" term | "(" either ")" | function "(" text ")" | comparison
    comparison := field ("=" | "!=" | "<" | "<=" | ">" | ">=" | "like") value
                | field ["not"] "in" "(" value ("," value)* ")" | field "is" ["not"] "null"

Values are numbers or quoted texts ('' stands for a quote in one); times are texts such as '2026-11-01', in UTC where
they name no zone. `guarded` is compared with true or false, or with 1 or 0. `like` takes no notice of case; % stands
for any text, _ for any character, and \\ before one for itself. Rows without a value to be ordered by come last. Values
are only ever bound parameters.
"""

from __future__ import annotations

import base64
import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

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
    not_,
    or_,
    select,
)
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Grouping

from multiprompt.errors import QueryError, nearest
from multiprompt.records import Listing

T = TypeVar("T")

MAX_CHARACTERS = 10_000
MAX_DEPTH = 50
MAX_COMPARISONS = 200
MAX_INTEGER = 2**31
# Pages beyond this are read in one go: a statement takes no more than some ten thousand parameters.
_MAX_NARROW = 1000
# So few are looked up and sorted sooner than a page of them is come across among a million.
_FEW = 2000
_NO_PLACE = "{!r} is no place in a listing: give what the page before ended with."
NO_TIME = "expected a time such as '2026-11-01' or '2026-11-01T03:00'"

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])|'(?P<text>(?:[^']|'')*)'"
    r"|(?P<word>[A-Za-z_][\w.-]*)|(?P<symbol><=|>=|!=|[<>=(),]))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "like": lambda column, pattern: column.ilike(pattern, escape="\\"),
}  # fmt: skip
_FLAGS = {"true": 1, "false": 0}
# What an index answers.
_BY_INDEX = (operator.eq, operator.lt, operator.le, operator.gt, operator.ge, operators.in_op)


class Flag(Integer):
    """1 or 0, which a query may call true and false."""


@dataclass(frozen=True)
class ValueIndex:
    """What finds rows by a value that lies in another table: their ids, which `identity` has in the listing."""

    identity: ColumnElement[int]
    ids: Select[tuple[int]]
    value: ColumnElement[Any]


@dataclass(frozen=True)
class Field:
    """What a field name stands for. A field of many values (`exists` given) compares true when any value does.

    `values` are all that it can have, where they are few; another one is refused.
    """

    expression: ColumnElement[Any]
    exists: Callable[[ColumnElement[bool]], ColumnElement[bool]] | None = None
    index: ValueIndex | None = None
    values: tuple[str, ...] = ()

    def holds(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return condition if self.exists is None else self.exists(condition)


# The condition that a function's argument stands for. Raises ValueError saying what the argument should be.
Function = Callable[[str], ColumnElement[bool]]


@dataclass(frozen=True)
class Fields:
    """What a listing can be asked: fixed names, families such as `score.<metric>`, and functions."""

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


@dataclass(frozen=True)
class Order:
    """What a listing is ordered by; `name` is what the query calls it."""

    name: str
    expression: ColumnElement[Any]
    descending: bool


@dataclass(frozen=True)
class Lookup:
    """A condition, and the ids that `identity` has where it holds, from an index."""

    condition: ColumnElement[bool]
    identity: ColumnElement[int]
    ids: Select[tuple[int]]


@dataclass(frozen=True)
class Query:
    """A parsed query of a listing, to be put onto a SELECT."""

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
        """The records from behind `after`, as many as the limit says. Raises QueryError for a place elsewhere."""
        rows = self._rows(connection, listing, key, after)
        shown = rows if self.limit is None else rows[: self.limit]
        return Listing(map(record, shown), self.cursor(shown[-1]) if len(shown) < len(rows) and shown else None)

    def _rows(
        self, connection: Connection, listing: Select[Any], key: ColumnElement[Any], after: str | None
    ) -> Sequence[Row[Any]]:
        """What an ordered page needs of each row is looked up when the page is known: sorting whole rows is slow."""
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
        """The query with what an index finds where that is little: SQLite would go through all to come across it."""
        conditions = list(_conditions(self.where))
        required = {id(condition) for condition in conditions}
        known = (lookup for lookup in self.lookups if id(lookup.condition) in required)
        for lookup in (*map(_lookup, filter(_is_indexed, conditions)), *known):
            found = connection.scalars(lookup.ids.limit(_FEW + 1)).all()
            if len(found) <= _FEW:
                others = (other for other in conditions if other is not lookup.condition)
                # By `in` alone SQLite does not see that an outer join must find something, so that it can begin there.
                return replace(self, where=and_(lookup.identity > 0, lookup.identity.in_(found), *others))
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
        """What points at a row of this listing, for `after`."""
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
    """What must hold, all of it, of a row that is looked for."""
    if isinstance(where, Grouping):
        where = where.element
    if isinstance(where, BooleanClauseList) and where.operator is operators.and_:
        for part in where.clauses:
            yield from _conditions(part)
    elif where is not None:
        yield where


def _is_indexed(condition: Any) -> bool:
    compares = isinstance(condition, BinaryExpression) and condition.operator in _BY_INDEX
    columns = condition.left.base_columns if compares else ()
    return any(isinstance(column, Column) and (column.index or column.primary_key) for column in columns)


def _lookup(condition: Any) -> Lookup:
    identity = condition.left.table.c.id
    return Lookup(condition, identity, select(identity).where(condition))


def _read_cursor(after: str) -> tuple[str, Any, Any]:
    try:
        read = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        if isinstance(read, list) and len(read) == 3 and isinstance(read[0], str):
            return _in_range(read[0]), read[1], read[2]
    except (ValueError, RecursionError):
        pass
    raise QueryError(_NO_PLACE.format(after[:40]))


def _as_value(value: Any, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """What a cursor says a row is ordered by, as a value of that column. Raises QueryError when it cannot be one."""
    kind = column.type
    try:
        if _is_time(column):
            value = parse_time(value if isinstance(value, str) else "")
        elif isinstance(kind, String) != isinstance(value, str) or isinstance(value, bool | list | dict | None):
            raise ValueError
        elif isinstance(kind, Integer):
            value = int(value)
        return literal(_in_range(value), kind)
    except (ValueError, OverflowError):
        raise QueryError(_NO_PLACE.format(value)) from None


def _in_range(value: Any) -> Any:
    """A value that every database stores. Raises ValueError."""
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValueError
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, str) and ("\0" in value or value != value.encode(errors="replace").decode()):
        raise ValueError
    return value


def _is_time(expression: ColumnElement[Any]) -> bool:
    return expression.type.python_type is datetime


@dataclass(frozen=True)
class _Token:
    kind: str
    value: str
    column: int


def parse(text: str, fields: Fields, limit: int | None = None) -> Query:
    """Parse a query over a listing's fields; `limit` holds where it names none.

    Raises QueryError naming the column where it went wrong.
    """
    if len(text) > MAX_CHARACTERS:
        raise QueryError(f"the query has {len(text)} characters; the limit is {MAX_CHARACTERS}.")
    for place, letter in enumerate(text):
        if letter == "\0" or "\ud800" <= letter <= "\udfff":
            raise QueryError(f"query, column {place + 1}, at {letter!r}: no text holds this character")
    if limit is not None and not 0 <= limit < MAX_INTEGER:
        raise QueryError(f"a page of {limit} records: give a limit from 0 to {MAX_INTEGER - 1}.")
    query = _Parser(text, fields).query()
    return query if query.limit is not None else replace(query, limit=limit)


def parse_time(text: str) -> datetime:
    """An ISO date or time, in UTC where it names no zone. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(NO_TIME) from None


def _unreadable(letter: str) -> str:
    if letter == "'":
        return "the quote is not closed; write '' for a quote within a text"
    return "cannot be read; a text stands in single quotes" if letter in '"`‘’“”' else "cannot be read"


class _Parser:
    def __init__(self, text: str, fields: Fields) -> None:
        self._text = text
        self._fields = fields
        self._tokens = list(self._scan())
        self._next = 0
        self._depth = 0
        self._comparisons = 0
        self._lookups: list[Lookup] = []

    def query(self) -> Query:
        first = self._peek
        where = None if first.kind == "end" or first.value.lower() in ("order", "limit") else self._either()
        order = self._order() if self._take("order") else None
        limit = self._limit() if self._take("limit") else None
        if self._peek.kind != "end":
            self._fail("expected 'and', 'or', 'order by', 'limit' or the end")
        return Query(self._fields.listing, where, order, limit, tuple(self._lookups))

    def _order(self) -> Order:
        self._require("by")
        token, field = self._peek, self._field()
        if field.exists is not None:
            self._fail(f"{token.value!r} has many values, so nothing can be ordered by it", token)
        descending = self._take("desc")
        if not descending:
            self._take("asc")
        return Order(token.value, field.expression, descending)

    def _limit(self) -> int:
        token = self._advance()
        if token.kind != "number" or not token.value.isdecimal() or len(token.value) > 9:
            self._fail("expected a whole number after 'limit'", token)
        return int(token.value)

    def _either(self) -> ColumnElement[bool]:
        found = [self._both()]
        while self._take("or"):
            found.append(self._both())
        return or_(*found)

    def _both(self) -> ColumnElement[bool]:
        found = [self._term()]
        while self._take("and"):
            found.append(self._term())
        return and_(*found)

    def _term(self) -> ColumnElement[bool]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"the query is nested more than {MAX_DEPTH} deep")
        if self._take("not"):
            found = not_(self._term())
        elif self._take("("):
            found = self._either().self_group()
            self._require(")")
        elif self._peek.kind == "word" and self._second.value == "(" and self._second.kind == "symbol":
            found = self._function()
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _function(self) -> ColumnElement[bool]:
        self._count()
        token = self._advance()
        function = self._fields.functions.get(token.value.lower())
        if not self._fields.functions:
            self._fail(f"unknown function {token.value!r}; {self._fields.listing} have none", token)
        if function is None:
            self._fail(f"unknown function {token.value!r}; {nearest(token.value, list(self._fields.functions))}", token)
        self._require("(")
        argument = self._advance()
        if argument.kind != "text":
            self._fail("expected a text in single quotes", argument)
        try:
            found = function(argument.value)
        except ValueError as error:
            self._fail(str(error), argument)
        self._require(")")
        return found

    def _count(self) -> None:
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            self._fail(f"the query has more than {MAX_COMPARISONS} comparisons")

    def _comparison(self) -> ColumnElement[bool]:
        self._count()
        field = self._field()
        if self._take("is"):
            negated = self._take("not")
            self._require("null")
            present = field.holds(field.expression.is_not(None))
            return present if negated else not_(present)
        negated = self._take("not")
        if negated or self._peek.value.lower() == "in":
            self._require("in")
            found = self._compared(field, operators.in_op, self._values(field))
            return not_(found) if negated else found
        compare = _COMPARE.get(self._peek.value.lower()) if self._peek.kind in ("symbol", "word") else None
        if compare is None:
            self._fail("expected a comparison (= != < <= > >= like in is)")
        if self._peek.value.lower() == "like":
            if not isinstance(field.expression.type, String):
                self._fail("only a text can be like something")
            field = replace(field, values=())
        self._advance()
        return self._compared(field, compare, self._value(field))

    def _compared(self, field: Field, compare: Callable[[Any, Any], Any], value: Any) -> ColumnElement[bool]:
        found = field.holds(compare(field.expression, value))
        if field.index is not None and compare in _BY_INDEX:
            ids = field.index.ids.where(compare(field.index.value, value))
            self._lookups.append(Lookup(found, field.index.identity, ids))
        return found

    def _values(self, field: Field) -> list[Any]:
        self._require("(")
        values = [self._value(field)]
        while self._take(","):
            values.append(self._value(field))
        self._require(")")
        return values

    def _field(self) -> Field:
        token = self._advance()
        if token.kind != "word":
            self._fail("expected a field", token)
        field = self._fields.find(token.value)
        if field is None:
            self._fail(f"unknown field {token.value!r}; {nearest(token.value, self._fields.names)}", token)
        return field

    def _value(self, field: Field) -> Any:
        token = self._advance()
        kind = field.expression.type
        if _is_time(field.expression):
            return self._time(token)
        if isinstance(kind, String):
            if token.kind != "text":
                self._fail("expected a text in single quotes", token)
            if field.values and token.value not in field.values:
                self._fail(f"no record has this value; {nearest(token.value, field.values)}", token)
            return token.value
        if isinstance(kind, Flag) and token.kind == "word" and token.value.lower() in _FLAGS:
            return _FLAGS[token.value.lower()]
        if token.kind != "number":
            self._fail("expected true or false" if isinstance(kind, Flag) else "expected a number", token)
        return float(token.value)

    def _time(self, token: _Token) -> datetime:
        try:
            if token.kind != "text":
                raise ValueError(NO_TIME)
            return parse_time(token.value)
        except ValueError as error:
            self._fail(str(error), token)

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    @property
    def _second(self) -> _Token:
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)]

    def _advance(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _take(self, word: str) -> bool:
        if self._peek.kind in ("word", "symbol") and self._peek.value.lower() == word:
            self._next += 1
            return True
        return False

    def _require(self, word: str) -> None:
        if not self._take(word):
            self._fail(f"expected {word!r}")

    def _scan(self) -> list[_Token]:
        tokens, position = [], 0
        end = len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None:
                column = position + len(self._text[position:]) - len(self._text[position:].lstrip())
                self._fail(_unreadable(self._text[column]), _Token("", self._text[column : column + 20], column))
            kind = str(match.lastgroup)
            value = match[kind].replace("''", "'") if kind == "text" else match[kind]
            tokens.append(_Token(kind, value, match.start(kind)))
            position = match.end()
        return [*tokens, _Token("end", "", end)]

    def _fail(self, what: str, token: _Token | None = None) -> NoReturn:
        token = token or self._peek
        shown = "the end" if token.kind == "end" else repr(token.value)
        what += "; one = compares" if token.value == "=" and token.kind != "text" else ""
        raise QueryError(f"query, column {token.column + 1}, at {shown}: {what}")
