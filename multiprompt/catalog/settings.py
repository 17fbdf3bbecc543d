"""Settings of a catalog: the epoch, which counts the moves of pointers, and the policy for regressions."""

from __future__ import annotations

from sqlalchemy import Connection, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.events import append_event
from multiprompt.catalog.store import Noun

# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_EPOCH = select(s.settings.c.epoch)
_NEXT_EPOCH = s.settings.update().values(epoch=s.settings.c.epoch + 1)


class Settings(Noun):
    def epoch(self) -> int:
        """The number of pointer moves so far; quick enough to read before each answer."""
        return self.epoch_and_file()[0]

    def epoch_and_file(self) -> tuple[int, object]:
        """The epoch, and the identity of the file that it is read from; another file may take its place."""
        with self._store.database.watch() as (connection, file):
            return epoch(connection), file

    def policy(self) -> str:
        """The policy of a task whose file names none: block, warn or rollback."""
        with self._store.read() as connection:
            return str(connection.execute(select(s.settings.c.policy)).scalar_one())

    def set_policy(self, policy: str, reason: str) -> None:
        with self._store.write() as (connection, stamp):
            if connection.execute(select(s.settings.c.policy)).scalar_one() != policy:
                connection.execute(s.settings.update().values(policy=policy))
                append_event(connection, f"policy-{policy}", None, None, None, reason, stamp)


def epoch(connection: Connection) -> int:
    return int(connection.execute(_EPOCH).scalar_one())


def advance_epoch(connection: Connection) -> None:
    connection.execute(_NEXT_EPOCH)
