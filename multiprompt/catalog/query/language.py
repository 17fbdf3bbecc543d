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

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from sqlalchemy import ColumnElement, String, and_, not_, or_
from sqlalchemy.sql import operators

from multiprompt.catalog.query.fields import Field, Fields, Flag
from multiprompt.catalog.query.page import BY_INDEX, Lookup, Order, Query
from multiprompt.catalog.query.values import MAX_INTEGER, NO_TIME, is_time, parse_time
from multiprompt.errors import QueryError, nearest

MAX_CHARACTERS = 10_000
MAX_DEPTH = 50
MAX_COMPARISONS = 200

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])|'(?P<text>(?:[^']|'')*)'"
    r"|(?P<word>[A-Za-z_][\w.-]*)|(?P<symbol><=|>=|!=|[<>=(),]))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "like": lambda column, pattern: column.ilike(pattern, escape="\\"),
}  # fmt: skip
_FLAGS = {"true": 1, "false": 0}


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
        if field.index is not None and compare in BY_INDEX:
            ids = field.index.ids.where(compare(field.index.value, value))
            self._lookups.append(Lookup(found, field.index.row_id, ids))
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
        if is_time(field.expression):
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
