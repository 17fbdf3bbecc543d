"""The connection to SQLite or PostgreSQL: transactions, one writer at a time, errors a user can act on."""

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
# Whoever writes to a catalog on PostgreSQL holds this advisory lock, as on SQLite the one of the file.
_WRITE_LOCK = 0x6D70
_CURES = {
    "readonly": "the file or its folder is read-only: give the user write permission, or copy the catalog elsewhere",
    "disk is full": "the disk is full: free some space; nothing was written",
    "disk i/o": "the disk reports an error: check it, then restore a backup",
    "locked": f"another process held the catalog for {BUSY_TIMEOUT_SECONDS} s: wait for it and try again",
    "lock timeout": f"another process held the catalog for {BUSY_TIMEOUT_SECONDS} s: wait for it and try again",
    "unable to open": "the folder does not exist or is not writable: create it, or choose another path",
    "malformed": "the file is damaged: restore a backup",
    "no space left": "the server's disk is full: free some space; nothing was written",
    "password": "the server refuses the user or the password: check the URL",
    "does not exist": "the server has no such database or user: create it, or check the URL",
    "connection": "the server cannot be reached: check the URL and that it runs; nothing was written",
}


def database_engine(url: str) -> Engine:
    """An engine for a path or a SQLAlchemy URL. Raises CatalogError when it is neither SQLite's nor PostgreSQL's."""
    try:
        parsed = make_url(url) if "://" in url else URL.create("sqlite", database=url)
    except ArgumentError:
        raise CatalogError(f"{url!r} is no catalog: give a path, or a URL like sqlite:///multiprompt.db.") from None
    if parsed.get_backend_name() == "postgresql":
        return _postgresql_engine(parsed, NullPool)
    if parsed.get_backend_name() != "sqlite":
        raise CatalogError(
            f"{parsed.render_as_string()} is neither SQLite nor PostgreSQL, which are the databases that hold catalogs."
        )
    if not parsed.database or parsed.database == ":memory:":
        raise CatalogError("a catalog is a file: give a path, or a URL like sqlite:///multiprompt.db.")
    return _sqlite_engine(parsed, NullPool)


def watching_engine(engine: Engine) -> Engine:
    """The same database over connections that stay open, for reads of a fraction of a millisecond.

    Others close after each use, so that on SQLite the file alone is the whole catalog whenever nobody is at work.
    """
    return (_sqlite_engine if is_sqlite(engine) else _postgresql_engine)(engine.url, QueuePool)


def is_sqlite(where: Engine | Connection) -> bool:
    return where.dialect.name == "sqlite"


def database_path(engine: Engine) -> Path:
    """The file of a catalog on SQLite, also where the URL is a `file:` URI."""
    name = str(engine.url.database)
    return Path(name.removeprefix("file:").partition("?")[0] if name.startswith("file:") else name).resolve()


def location(engine: Engine) -> str:
    """Where the catalog is, to be shown: a path, or a URL without its password."""
    return str(database_path(engine)) if is_sqlite(engine) else engine.url.render_as_string()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read transaction: one consistent view."""
    with _translated(engine), engine.connect() as connection:
        if not is_sqlite(engine):
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with connection.begin():
            yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction that takes the write lock at once; all of it is stored, or nothing."""
    with _translated(engine), engine.connect().execution_options(immediate=True) as connection, connection.begin():
        if not is_sqlite(engine):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_SECONDS}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK})")
        yield connection


def _sqlite_engine(url: URL, pool: type[Pool]) -> Engine:
    engine = create_engine(url, poolclass=pool, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql_engine(url: URL, pool: type[Pool]) -> Engine:
    try:
        return create_engine(url.set(drivername="postgresql+psycopg"), poolclass=pool, pool_pre_ping=pool is QueuePool)
    except ModuleNotFoundError:
        raise CatalogError("a catalog on PostgreSQL needs its driver: pip install 'multiprompt[postgresql]'.") from None


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
    where = location(engine)
    try:
        yield
    except ConstraintError as error:
        raise IntegrityError(f"{where} refuses the change: {_first_line(error)}.") from error
    except OperationalError as error:
        raise CatalogError(f"{where}: {_cure(_first_line(error))}.") from error
    except DatabaseError as error:
        if "not a database" in str(error.orig):
            raise SchemaError(f"{where} is no catalog: it is not an SQLite file. Choose another path.") from error
        raise CatalogError(f"{where}: {_cure(_first_line(error))}.") from error


def _first_line(error: DatabaseError) -> str:
    return str(error.orig).partition("\n")[0].rstrip(".")


def _cure(message: str) -> str:
    return next((cure for sign, cure in _CURES.items() if sign in message.lower()), message)
