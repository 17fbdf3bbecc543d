"""Read-only SQL over the documented views, for people and notebooks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from multiprompt.catalog.database import database_path, is_sqlite, reading
from multiprompt.errors import QueryError
from multiprompt.records import SqlResult

MAX_CHARACTERS = 100_000
# Rows of a catalog are looked at by these; everything that writes, attaches or loads is refused.
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}


@dataclass(frozen=True)
class Attached:
    """Another SQLite file that is read beside the catalog, under a name, and a view over it."""

    file: Path
    name: str
    view: str
    query: str


def select_rows(engine: Engine, statement: str, limit: int, attached: Attached | None = None) -> SqlResult:
    """The first rows of one SELECT. Raises QueryError for a statement that is wrong or would change anything."""
    if len(statement) > MAX_CHARACTERS:
        raise QueryError(f"the statement has {len(statement)} characters; the limit is {MAX_CHARACTERS}.")
    return (
        _on_sqlite(engine, statement, limit, attached)
        if is_sqlite(engine)
        else _on_postgresql(engine, statement, limit)
    )


def _on_sqlite(engine: Engine, statement: str, limit: int, attached: Attached | None) -> SqlResult:
    with _read_only(engine, attached) as connection:
        try:
            cursor = connection.execute(statement)
            rows = cursor.fetchmany(limit + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            refused = "not authorized" in str(error) or "prohibited" in str(error)
            raise QueryError(f"SQL: {'only SELECT is allowed here' if refused else error}.") from None
        if cursor.description is None:
            raise QueryError("SQL: only SELECT is allowed here.")
        return _result([column[0] for column in cursor.description], rows, limit)


@contextmanager
def _read_only(engine: Engine, attached: Attached | None) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{database_path(engine).as_uri()}?mode=ro", uri=True)
    try:
        if attached is not None and attached.file.exists():
            connection.execute(f"ATTACH ? AS {attached.name}", (f"{attached.file.as_uri()}?mode=ro",))
            connection.execute(f"CREATE TEMP VIEW {attached.view} AS {attached.query}")
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        yield connection
    finally:
        connection.close()


def _on_postgresql(engine: Engine, statement: str, limit: int) -> SqlResult:
    if statement.lstrip("( \t\r\n").partition(" ")[0].strip().lower() not in ("select", "with", "table", "values"):
        raise QueryError("SQL: only SELECT is allowed here.")
    with reading(engine) as connection:
        connection.detach()  # it may hold locks afterwards that a SELECT took, so nobody else gets it
        try:
            result = connection.execute(text(statement.replace(":", r"\:")))
            return _result(list(result.keys()), result.fetchmany(limit + 1), limit)
        except (DBAPIError, ResourceClosedError) as error:
            reason = str(getattr(error, "orig", error)).partition("\n")[0]
            raise QueryError(f"SQL: {reason}.") from None


def _result(columns: list[str], rows: Any, limit: int) -> SqlResult:
    return SqlResult(tuple(columns), tuple(tuple(row) for row in rows[:limit]), len(rows) > limit)
