"""One SELECT on an SQLite file, for `catalog.sql`, which runs this file as a process with little memory.

It imports nothing but the standard library, so that it starts in some hundredths of a second. An order comes as JSON on
standard input. The answer (refusal, columns, rows, whether there were more) goes out as `marshal` writes it.
"""

from __future__ import annotations

import json
import marshal
import resource
import sqlite3
import sys
from typing import Any

MEMORY_BYTES = 1_000_000_000
# For what SQLite sorts on disk.
FILE_BYTES = 1_000_000_000
# The bytes that a value takes in Python beside its letters.
VALUE_BYTES = 50
TOO_LARGE = "the rows take more than {} bytes: select fewer rows or columns"
_ONLY = "only SELECT is allowed here"
# Rows of a catalog are looked at by these; everything that writes, attaches or loads is refused.
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_DENIED_FUNCTIONS = ("fts3_tokenizer", "load_extension")

Answer = tuple[str, list[str], list[tuple[Any, ...]], bool]


def size(value: Any) -> int:
    """About how many bytes a value takes in Python."""
    return VALUE_BYTES + (len(value) if isinstance(value, str | bytes | list | dict) else 0)


def answer(order: dict[str, Any]) -> Answer:
    connection = sqlite3.connect(order["uri"], uri=True, timeout=30)
    try:
        if order["attached"] is not None:
            uri, name, view, query = order["attached"]
            connection.execute(f"ATTACH ? AS {name}", (uri,))
            connection.execute(f"CREATE TEMP VIEW {view} AS {query}")
        connection.set_authorizer(_authorize)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, order["bytes"])
        return _select(connection, order["statement"], order["limit"], order["bytes"])
    except MemoryError:
        return f"it needs more than {MEMORY_BYTES} bytes of memory: ask for less", [], [], False
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        told = " ".join(str(error).split()).rstrip(".")
        refused = any(word in told for word in ("not authorized", "authorization denied", "prohibited"))
        return _ONLY if refused else told, [], [], False
    finally:
        connection.close()


def _authorize(action: int, _first: str | None, second: str | None, *_: str | None) -> int:
    denied = action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second in _DENIED_FUNCTIONS)
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


def _select(connection: sqlite3.Connection, statement: str, limit: int, most: int) -> Answer:
    rows: list[tuple[Any, ...]] = []
    cursor = connection.execute(statement)
    if cursor.description is None:
        return _ONLY, [], [], False
    taken = 0
    for row in cursor:
        if len(rows) == limit:
            return "", _names(cursor), rows, True
        rows.append(row)
        taken += sum(map(size, row))
        if taken > most:
            return TOO_LARGE.format(most), [], [], False
    return "", _names(cursor), rows, False


def _names(cursor: sqlite3.Cursor) -> list[str]:
    return [column[0] for column in cursor.description]


def _bound() -> None:
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    _bound()
    sys.stdout.buffer.write(marshal.dumps(answer(json.load(sys.stdin))))
