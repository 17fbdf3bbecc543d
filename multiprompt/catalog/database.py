"""The connection to SQLite or PostgreSQL: transactions, one writer at a time, errors a user can act on."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DisconnectionError, OperationalError
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from multiprompt.catalog.storage import misplaced
from multiprompt.catalog.urls import parse_url, require_usable, shown_url, with_whole_path
from multiprompt.errors import CatalogError, IntegrityError, MultipromptError, SchemaError, UnavailableError
from multiprompt.records import Problem

T = TypeVar("T")
BUSY_TIMEOUT_SECONDS = 30
# The names in one statement; SQLite takes 32,766 bound values.
MAX_NAMES = 10_000
# Whoever writes to a catalog on PostgreSQL holds this advisory lock, as on SQLite the one of the file.
_WRITE_LOCK = 0x6D70
_BUSY = "another process held the catalog for {} s: wait for it and try again"
# The ways out by the first letters of SQLite's error names and of PostgreSQL's SQLSTATEs.
_CURES = {
    "SQLITE_READONLY": (
        "the file or its folder is read-only: give the user write permission, or copy the catalog elsewhere"
    ),
    "SQLITE_FULL": "the disk is full: free some space; nothing was written",
    "SQLITE_IOERR": "the disk reports an error: check it, then restore a backup",
    "SQLITE_BUSY": _BUSY,
    "SQLITE_LOCKED": _BUSY,
    "SQLITE_CANTOPEN": "the folder does not exist or is not writable: create it, or choose another path",
    "SQLITE_CORRUPT": "the file is damaged: restore a backup",
    "55P03": _BUSY,
    "53100": "the server's disk is full: free some space; nothing was written",
    "25006": "the database is read-only: open it where it can be written",
    "42501": "{}: grant it to the user, or open the catalog as another one",
    "57P": "the server ended the connection: try again; nothing was written",
    "08": "the server cannot be reached: check the URL and that it runs; nothing was written",
}
# Those of them that may pass by themselves, so that a job tries again.
_PASSING = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED", "55P03", "53", "57P", "08", "40")
# PostgreSQL refuses a connection in words alone.
_REFUSED = {
    r'FATAL:\s+(database|role) ".*" does not exist': (
        "the server has no such database or user: create it, or check the URL"
    ),
    r"password|authentication": "the server refuses the user or the password: check the URL",
    r"": "the server cannot be reached: check the URL and that it runs; nothing was written",
}


def database_engine(url: str) -> Engine:
    """An engine for a path or a SQLAlchemy URL. Raises CatalogError when it is neither SQLite's nor PostgreSQL's."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql_engine(parsed)
    if parsed.get_backend_name() != "sqlite":
        raise CatalogError(
            f"{shown_url(parsed)} is neither SQLite nor PostgreSQL, which are the databases that hold catalogs."
        )
    if not parsed.database or parsed.database == ":memory:":
        raise CatalogError("a catalog is a file: give a path, or a URL like sqlite:///multiprompt.db.")
    require_usable(parsed)
    return _sqlite_engine(with_whole_path(parsed), NullPool)


def watching_engine(engine: Engine) -> Engine:
    """The same database over connections that stay open, for reads of a fraction of a millisecond.

    On PostgreSQL they all do. On SQLite others close after each use, so that the file alone is the whole catalog
    whenever nobody is at work.
    """
    return _sqlite_engine(engine.url, QueuePool) if is_sqlite(engine) else engine


def is_sqlite(where: Engine | Connection) -> bool:
    return where.dialect.name == "sqlite"


def database_path(engine: Engine) -> Path:
    """The file of a catalog on SQLite, also where the URL is a `file:` URI."""
    return Path(_file_name(engine)).resolve()


def _file_name(engine: Engine) -> str:
    assert is_sqlite(engine), f"{location(engine)} is no file"
    name = str(engine.url.database)
    return name.removeprefix("file:").partition("?")[0] if name.startswith("file:") else name


def file_identity(engine: Engine) -> tuple[int, int] | None:
    """Device and inode of an SQLite file, which one that takes its place has others of; None where there is no file."""
    try:
        found = Path(_file_name(engine)).stat() if is_sqlite(engine) else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def location(engine: Engine) -> str:
    """The place of the catalog, to be shown: a path, or a URL without its password."""
    return str(database_path(engine)) if is_sqlite(engine) else shown_url(engine.url)


@contextmanager
def making(path: Path) -> Iterator[None]:
    """While an SQLite file is made: others of this machine that would make one in the folder wait.

    To write ahead of a file is decided without waiting for those who read it, so nobody may read it yet.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def make_like(path: Path, other: Path) -> None:
    """Make an empty file that the same people may read and write as another one. Raises OSError where there is one."""
    mode = other.stat().st_mode & 0o666
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    path.chmod(mode)


def write_ahead(path: Path) -> None:
    """Make an SQLite file whose readers do not wait for its writer."""
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
    raw.close()


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


def batched(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The values, so many at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _sqlite_engine(url: URL, pool: type[Pool]) -> Engine:
    engine = create_engine(url, poolclass=pool, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql_engine(url: URL) -> Engine:
    """Opening a connection takes longer than most transactions, so that up to five are kept for the next ones.

    A kept one is asked whether it lives before it is used. Statements are not prepared on it, since behind a pooler of
    the server's the next transaction may meet another server process.
    """
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            max_overflow=-1,
            connect_args={"prepare_threshold": None},
        )
    except ModuleNotFoundError:
        raise CatalogError("a catalog on PostgreSQL needs its driver: pip install 'multiprompt[postgresql]'.") from None
    event.listen(engine, "connect", _remember_process)
    event.listen(engine, "checkout", _require_process)
    return engine


def _remember_process(_: Any, record: Any) -> None:
    record.info["process"] = os.getpid()


def _require_process(_: Any, record: Any, proxy: Any) -> None:
    """Leave a connection to the process that opened it; a forked one opens its own."""
    if record.info["process"] != os.getpid():
        record.dbapi_connection = proxy.dbapi_connection = None
        raise DisconnectionError


def _configure(dbapi_connection: Any, _: Any) -> None:
    # The driver's own transaction control would begin too late; `_begin` does it.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    # A commit that is on disk then moves what it wrote into the file itself. By default one commit in a thousand pages
    # does that for all, so that one publishing in a dozen takes twice as long as the others.
    cursor.execute("PRAGMA wal_autocheckpoint = 1")
    cursor.close()


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except ConstraintError as error:
        raise IntegrityError(f"{location(engine)} refuses the change: {_first_line(error)}.") from error
    except DatabaseError as error:
        where = location(engine)
        if "not a database" in str(error.orig):
            raise SchemaError(f"{where} is no catalog: it is not an SQLite file. Choose another path.") from error
        kind = UnavailableError if _may_pass(error) else CatalogError
        raise kind(f"{where}: {_cure(error)}.") from error
    except UnicodeEncodeError as error:
        raise CatalogError(
            f"{location(engine)}: {error.object!r} holds half a character, which no database stores."
        ) from error
    except MultipromptError:
        raise
    except Exception as error:
        damage = _damage(engine)
        if damage:
            raise IntegrityError(f"{location(engine)}, {damage[0].where}: {damage[0].what}.") from error
        raise


def _damage(engine: Engine) -> list[Problem]:
    """The values of other types that a catalog on SQLite holds; none where it cannot be asked."""
    if not is_sqlite(engine):
        return []
    try:
        with engine.connect() as connection:
            return misplaced(connection)
    except DatabaseError:
        return []


def _first_line(error: DatabaseError) -> str:
    return str(error.orig).partition("\n")[0].rstrip(".")


def _code(error: DatabaseError) -> str | None:
    """The SQLSTATE of PostgreSQL, or the name of SQLite's error."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "sqlite_errorname", None)


def _may_pass(error: DatabaseError) -> bool:
    code = _code(error)
    if code is None and _is_of_sqlite(error):
        return False
    if code is None:
        return isinstance(error, OperationalError) and not any(
            re.search(sign, str(error.orig)) for sign in _REFUSED if sign
        )
    return code.startswith(_PASSING)


def _is_of_sqlite(error: DatabaseError) -> bool:
    return isinstance(error.orig, sqlite3.Error)


def _cure(error: DatabaseError) -> str:
    code = _code(error)
    if code is None and _is_of_sqlite(error) and "decode" in str(error.orig):
        return f"{_first_line(error).partition(' with text')[0]}: the file is damaged: restore a backup"
    if code is None and isinstance(error, OperationalError) and not _is_of_sqlite(error):
        return next(cure for sign, cure in _REFUSED.items() if re.search(sign, str(error.orig)))
    cure = next((cure for sign, cure in _CURES.items() if code and code.startswith(sign)), _first_line(error))
    return cure.format(BUSY_TIMEOUT_SECONDS if cure is _BUSY else _first_line(error))
