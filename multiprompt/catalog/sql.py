"""Read-only SQL over the documented views, for people and notebooks. Time, rows and memory are bounded."""

from __future__ import annotations

import json
import marshal
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from multiprompt.catalog import sqlite_select
from multiprompt.catalog.database import database_path, is_sqlite, reading
from multiprompt.errors import QueryError
from multiprompt.records import SqlResult

MAX_CHARACTERS = 100_000
MAX_ROWS = 1_000_000
MAX_SECONDS = 86_400
# The bytes that the values of a result may take, each counted with `sqlite_select.VALUE_BYTES` on top.
MAX_BYTES = 64_000_000
# A larger row is refused by PostgreSQL before it is sent.
_MAX_ROW_BYTES = 16_000_000
_MAX_FETCH = 1000
# Functions that give another value at each call, and do nothing else.
_HARMLESS = ("random", "clock_timestamp", "timeofday", "gen_random_uuid")
# In PostgreSQL's own reading of a statement every function that it calls has a number; what views call is in it.
_CALLED = re.compile(r":(?:\w*funcid|aggfnoid|winfnoid)\s+(\d+)")
_FUNCTIONS = text(
    """
    SELECT DISTINCT proname FROM pg_proc
    WHERE oid = ANY(CAST(:called AS oid[])) AND provolatile = 'v'
    AND NOT (pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(:harmless))
    ORDER BY proname
""".replace("::", r"\:\:")
)


@dataclass(frozen=True)
class Attached:
    """Another SQLite file that is read beside the catalog, under a name, and a view over it."""

    file: Path
    name: str
    view: str
    query: str


def select_rows(
    engine: Engine, statement: str, limit: int, seconds: float, attached: Attached | None = None
) -> SqlResult:
    """The first rows of one SELECT.

    Raises QueryError for a statement that is wrong, would change anything, or takes too much time or memory.
    """
    if len(statement) > MAX_CHARACTERS:
        raise QueryError(f"the statement has {len(statement)} characters; the limit is {MAX_CHARACTERS}.")
    if "\0" in statement or statement != statement.encode(errors="replace").decode():
        raise QueryError("SQL: the statement holds a NUL or half a character, which no text holds.")
    if not 1 <= limit <= MAX_ROWS:
        raise QueryError(f"SQL: a limit of {limit} rows; give one from 1 to {MAX_ROWS}.")
    if not 0 < seconds <= MAX_SECONDS:
        raise QueryError(f"SQL: a limit of {seconds} seconds; give one above 0, to {MAX_SECONDS}.")
    if is_sqlite(engine):
        return _on_sqlite(engine, statement, limit, seconds, attached)
    return _on_postgresql(engine, statement, limit, seconds)


def _on_sqlite(engine: Engine, statement: str, limit: int, seconds: float, attached: Attached | None) -> SqlResult:
    """Select in a process of its own: a single call of an SQLite function can take hours, and is not interrupted."""
    order = {
        "uri": f"{database_path(engine).as_uri()}?mode=ro",
        "statement": statement,
        "limit": limit,
        "bytes": MAX_BYTES,
        "attached": None
        if attached is None or not attached.file.exists()
        else (f"{attached.file.as_uri()}?mode=ro", attached.name, attached.view, attached.query),
    }
    command = [sys.executable, "-I", "-S", sqlite_select.__file__]
    try:
        done = subprocess.run(
            command, input=json.dumps(order).encode(), capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise _too_slow(seconds) from None
    if done.returncode != 0:
        raise QueryError(f"SQL: SQLite could not run it: its process ended with status {done.returncode}.")
    refused, columns, rows, cut = marshal.loads(done.stdout)  # noqa: S302  (our own process wrote it)
    if refused:
        raise QueryError(f"SQL: {refused}.")
    return SqlResult(tuple(columns), tuple(map(tuple, rows)), cut)


def _on_postgresql(engine: Engine, statement: str, limit: int, seconds: float) -> SqlResult:
    import psycopg

    # One parser reads the statement both times, between the same parentheses, by the extended protocol. That takes one
    # statement at a time, and none but a SELECT or VALUES can stand there. Nothing is written, so that a role that may
    # only read can ask, also on a standby.
    found = f"(\n{statement.rstrip().removesuffix(';')}\n) AS found"
    deadline = time.monotonic() + seconds
    try:
        with reading(engine) as connection:
            _refuse_actions(connection, f"SELECT FROM {found}", deadline)
            whole = f"SELECT found.* FROM {found} WHERE {_FITS}"  # noqa: S608  (it was read above)
            return _fetch(connection, whole, limit, deadline)
    except psycopg.errors.QueryCanceled:
        raise _too_slow(seconds) from None
    except psycopg.Error as error:
        only = "; give one SELECT" if isinstance(error, psycopg.errors.SyntaxError) else ""
        raise QueryError(f"SQL: {str(error).partition(chr(10))[0].rstrip('.')}{only}.") from None


# Ends the statement when a row is too large: what cannot be cast is told.
_FITS = (
    f"CASE WHEN pg_column_size(found.*) <= {_MAX_ROW_BYTES} THEN true"
    f" ELSE ('a row over {_MAX_ROW_BYTES} bytes, of ' || pg_column_size(found.*))::boolean END"
)


def _refuse_actions(connection: Connection, statement: str, deadline: float) -> None:
    """Raises QueryError when a statement calls a function that may do something, such as pg_terminate_backend."""
    driver = _driver(connection)
    with driver.cursor() as settings:
        _set_timeout(settings, deadline)
        settings.execute("SET LOCAL debug_pretty_print = off; SET LOCAL debug_print_rewritten = on")
        read = _reading_of(driver, settings, statement)
        settings.execute("SET LOCAL debug_print_rewritten = off")
    numbers = sorted(map(int, _CALLED.findall(read)))
    called = connection.execute(_FUNCTIONS, {"called": numbers, "harmless": list(_HARMLESS)}).scalars().all()
    if called:
        raise QueryError(f"SQL: {', '.join(called)} may do more than read, so that it is not allowed here.")


def _reading_of(driver: Any, settings: Any, statement: str) -> str:
    """The server's own reading of a statement, with its views, as it tells it when it is asked to print it."""
    from psycopg import pq
    from psycopg.errors import error_from_result

    told: list[str] = []

    def hear(message: Any) -> None:
        told.append(message.message_detail or "")

    settings.execute("SET LOCAL client_min_messages = log")
    driver.add_notice_handler(hear)
    try:
        parsed = driver.pgconn.prepare(b"", statement.encode(driver.info.encoding))
    finally:
        driver.remove_notice_handler(hear)
    if parsed.status != pq.ExecStatus.COMMAND_OK:
        raise error_from_result(parsed, driver.info.encoding)
    settings.execute("SET LOCAL client_min_messages = warning")
    if not any(told):
        raise QueryError("SQL: the server does not tell how it reads it; ask it without a pooler.")
    return "".join(told)


def _fetch(connection: Connection, statement: str, limit: int, deadline: float) -> SqlResult:
    """Rows from a cursor of the server's, some at a time, so that they never take more memory than they may."""
    driver = _driver(connection)
    rows: list[tuple[Any, ...]] = []
    taken, largest = 0, _MAX_ROW_BYTES
    with driver.cursor() as settings, driver.cursor("multiprompt_select") as cursor:
        _set_timeout(settings, deadline)
        cursor.execute(statement)
        columns = tuple(column.name for column in cursor.description)
        fetched = wanted = 1
        while len(rows) <= limit and fetched == wanted:
            _set_timeout(settings, deadline)
            wanted = max(1, min(_MAX_FETCH, limit + 1 - len(rows), _MAX_ROW_BYTES // largest))
            found = cursor.fetchmany(wanted)
            sizes = [sum(map(sqlite_select.size, row)) for row in found]
            rows, fetched, taken, largest = rows + found, len(found), taken + sum(sizes), max([1, *sizes])
            if taken > MAX_BYTES:
                raise QueryError(f"SQL: {sqlite_select.TOO_LARGE.format(MAX_BYTES)}.")
    return SqlResult(columns, tuple(rows[:limit]), len(rows) > limit)


def _driver(connection: Connection) -> Any:
    """The driver's own connection, which leaves percent signs and colons of a statement as they are."""
    return connection.connection.driver_connection


def _set_timeout(cursor: Any, deadline: float) -> None:
    """Let the next statement take as long as is left."""
    left = max(1, round((deadline - time.monotonic()) * 1000))
    cursor.execute(f"SET LOCAL statement_timeout = {left}")


def _too_slow(seconds: float) -> QueryError:
    return QueryError(f"SQL: it was not done after {seconds:g} s: ask for less, or give it more seconds.")
