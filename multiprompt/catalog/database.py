"""The SQLite connection: WAL, foreign keys, busy timeout, immediate write transactions, errors a user can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from multiprompt.errors import CatalogError, IntegrityError, SchemaError

BUSY_TIMEOUT_SECONDS = 30
_CURES = {
    "readonly": "the file or its folder is read-only: give the user write permission, or copy the catalog elsewhere",
    "disk is full": "the disk is full: free some space; nothing was written",
    "disk i/o": "the disk reports an error: check it, then restore a backup",
    "locked": f"another process held the catalog for {BUSY_TIMEOUT_SECONDS} s: wait for it and try again",
    "unable to open": "the folder does not exist or is not writable: create it, or choose another path",
    "malformed": "the file is damaged: restore a backup",
}


def database_engine(url: str) -> Engine:
    """An engine for a path or a SQLAlchemy URL. Raises CatalogError for a database that is not SQLite."""
    try:
        parsed = make_url(url) if "://" in url else URL.create("sqlite", database=url)
    except ArgumentError:
        raise CatalogError(f"{url!r} is no catalog: give a path, or a URL like sqlite:///multiprompt.db.") from None
    if parsed.get_backend_name() != "sqlite":
        raise CatalogError(f"{parsed.render_as_string()} is not SQLite, which is the one supported database so far.")
    if not parsed.database or parsed.database == ":memory:":
        raise CatalogError("a catalog is a file: give a path, or a URL like sqlite:///multiprompt.db.")
    return _engine(parsed, NullPool)


def watching_engine(engine: Engine) -> Engine:
    """The same database over connections that stay open, for reads of a fraction of a millisecond.

    Others close after each use, so that the file alone is the whole catalog whenever nobody is at work.
    """
    return _engine(engine.url, QueuePool)


def _engine(url: URL, pool: type[Pool]) -> Engine:
    engine = create_engine(url, poolclass=pool, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def database_path(engine: Engine) -> Path:
    """The catalog's file, also where the URL is a `file:` URI."""
    name = str(engine.url.database)
    return Path(name.removeprefix("file:").partition("?")[0] if name.startswith("file:") else name).resolve()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read transaction: one consistent view."""
    with _translated(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction that takes the write lock at once; all of it is stored, or nothing."""
    with _translated(engine), engine.connect().execution_options(immediate=True) as connection, connection.begin():
        yield connection


def _configure(dbapi_connection: Any, _: Any) -> None:
    # The driver's own transaction control would begin too late; `_begin` does it.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    path = database_path(engine)
    try:
        yield
    except ConstraintError as error:
        raise IntegrityError(f"{path} refuses the change: {error.orig}.") from error
    except OperationalError as error:
        raise CatalogError(f"{path}: {_cure(str(error.orig))}.") from error
    except DatabaseError as error:
        if "not a database" in str(error.orig):
            raise SchemaError(f"{path} is no catalog: it is not an SQLite file. Choose another path.") from error
        raise CatalogError(f"{path}: {_cure(str(error.orig))}.") from error


def _cure(message: str) -> str:
    return next((cure for sign, cure in _CURES.items() if sign in message.lower()), message)
