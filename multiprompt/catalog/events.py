"""Events: who moved which pointer, when and why. They are only ever appended."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.query.language import parse
from multiprompt.catalog.query.listings import EVENTS
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.records import Event, Listing

# The events after which another version serves a task.
POINTER_MOVES = ("published", "rolled-back")
NOTED, BLESSED, BELOW_FLOOR = "noted", "blessed", "below-floor"


class Events(Noun):
    def find(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Event]:
        """A page of events, oldest first. Raises QueryError."""
        parsed = parse(query, EVENTS, limit)
        with self._store.read() as connection:
            return parsed.page(connection, event_query(), s.events.c.id, event_record, after)


def event_query() -> Select[Any]:
    """The SELECT of all events, for `event_record`."""
    return select(s.events, s.tasks.c.name.label("task")).outerjoin(s.tasks)


def event_record(row: Row[Any]) -> Event:
    return Event(row.id, row.at, row.actor, row.kind, row.task, row.from_version, row.to_version, row.reason)


def append_event(
    connection: Connection,
    kind: str,
    task_id: int | None,
    from_version: int | None,
    to_version: int | None,
    reason: str,
    stamp: Stamp,
) -> None:
    insert(
        connection,
        s.events,
        at=stamp.at,
        actor=stamp.actor,
        kind=kind,
        task_id=task_id,
        from_version=from_version,
        to_version=to_version,
        reason=reason,
    )
