"""One open catalog: its connections, and the actor, clock and claim of what is written to it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Engine, Table, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.database import file_identity, reading, watching_engine, writing
from multiprompt.catalog.jobs import end, require_claim
from multiprompt.errors import ConfigError
from multiprompt.records import Claim, Outcome

Clock = Callable[[], datetime]
# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_LAST_EVENT = select(s.events.c.at).order_by(s.events.c.id.desc()).limit(1)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Stamp:
    """The actor and the time of a write."""

    actor: str
    at: datetime


class Database:
    """The connections to a catalog. The stores of one catalog share them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._watched: tuple[int, int] | None = None
        weakref.finalize(self, engine.dispose)

    @cached_property
    def _watching(self) -> Engine:
        return watching_engine(self.engine)

    @contextmanager
    def watch(self) -> Iterator[tuple[Connection, object]]:
        """A quick read transaction over a connection that stays open, and the identity of the file that it reads."""
        file = file_identity(self.engine)
        if file is not None and file != self._watched:
            # The open connections still read the old file after another one took its place.
            self._watching.dispose()
            self._watched = file
        with reading(self._watching) as connection:
            yield connection, self._watched

    def close(self) -> None:
        """Close the connections that stay open; the next call opens new ones."""
        self._watching.dispose()


@dataclass(frozen=True)
class Store:
    """Read and write transactions of one catalog. Writes carry the actor, the time of the clock and the claim."""

    database: Database
    actor: str = "unknown"
    clock: Clock = _now
    claim: Claim | None = None

    @property
    def engine(self) -> Engine:
        return self.database.engine

    @property
    def job(self) -> str | None:
        """The job that writes here."""
        return None if self.claim is None else self.claim.job

    def now(self) -> datetime:
        """The time of the clock. Raises ConfigError for a time without a zone."""
        time = self.clock()
        if time.utcoffset() is None:
            raise ConfigError(f"the clock gave {time.isoformat()} without a zone: give one like datetime.now(UTC).")
        return time

    def read(self) -> AbstractContextManager[Connection]:
        """A read transaction: one consistent view."""
        return reading(self.engine)

    @contextmanager
    def write(self) -> Iterator[tuple[Connection, Stamp]]:
        """A write transaction and its stamp, whose time is never before that of the last event.

        Raises SupersededError when the claim is no longer the newest on its job.
        """
        with writing(self.engine) as connection:
            if self.claim is not None:
                require_claim(connection, self.claim)
            now = self.now()
            yield connection, Stamp(self.actor, max(now, connection.execute(_LAST_EVENT).scalar() or now))

    def end_job(self, connection: Connection, good: bool, text: str, stamp: Stamp) -> None:
        """End the job that writes here with an outcome, within a write transaction; nothing without a job."""
        if self.claim is not None:
            end(connection, self.claim.job, Outcome(good, text), stamp.at)


class Noun:
    """One kind of thing in a catalog. Each method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store


def insert(connection: Connection, table: Table, **values: Any) -> int:
    """Insert a row and give its id."""
    result = connection.execute(table.insert(), values)
    key: Any = result.inserted_primary_key
    assert key is not None
    return int(key[0])
