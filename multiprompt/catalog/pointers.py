"""Pointers: the published version of each task on each base model, and its moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.base_models import base_model_id
from multiprompt.catalog.events import POINTER_MOVES, append_event
from multiprompt.catalog.query.joins import published, records_of
from multiprompt.catalog.settings import advance_epoch
from multiprompt.catalog.store import Noun, Stamp
from multiprompt.catalog.tasks import task_id
from multiprompt.catalog.versions import is_below_floor, version, version_by_id
from multiprompt.errors import StateError
from multiprompt.records import VersionRecord, VersionState

PointerMove = Literal["published", "rolled-back"]
# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_IS_OLD = and_(
    published.c.task_id == s.tasks.c.id,
    published.c.state == "published",
    published.c.base_model_id.in_(records_of(bindparam("base_model"))),
)
_STANDING: Select[Any] = (
    select(
        s.tasks.c.id,
        s.tasks.c.guarded,
        select(func.coalesce(func.max(s.prompt_versions.c.number), 0))
        .where(s.prompt_versions.c.task_id == s.tasks.c.id)
        .scalar_subquery()
        .label("highest"),
        published.c.id.label("old_id"),
        published.c.number.label("old"),
    )
    .select_from(s.tasks.outerjoin(published, _IS_OLD))
    .where(s.tasks.c.id == bindparam("task"))
)
_SET_VERSION = s.prompt_versions.update().where(s.prompt_versions.c.id == bindparam("version"))
# The state of a version before each move.
_MOVES_FROM: Mapping[PointerMove, VersionState] = {"published": "candidate", "rolled-back": "retired"}
_TO: Mapping[PointerMove, str] = {"published": "publish", "rolled-back": "roll back to"}


class Pointers(Noun):
    def publish(self, task: str, number: int | None, reason: str, *, force: bool = False) -> VersionRecord:
        """Publish a candidate, by default the newest. Raises StateError as `move` does."""
        with self._store.write() as (connection, stamp):
            return move(connection, task, number, "published", reason, force, stamp)

    def roll_back(
        self, task: str, number: int | None, reason: str, *, force: bool = False, replaces: int | None = None
    ) -> VersionRecord:
        """Publish a retired version again, in place of any other or only of the version `replaces`.

        Raises StateError as `move` does.
        """
        with self._store.write() as (connection, stamp):
            return move(connection, task, number, "rolled-back", reason, force, stamp, replaces)

    def rolled_back(self, version: VersionRecord) -> int | None:
        """The number of the version that took this one's place, if the last move of the task was that rollback."""
        events = s.events.c
        with self._store.read() as connection:
            moves = select(events.kind, events.from_version, events.to_version).where(
                events.task_id == task_id(connection, version.task), events.kind.in_(POINTER_MOVES)
            )
            last = connection.execute(moves.order_by(events.id.desc()).limit(1)).one_or_none()
            if last is None or (last.kind, last.from_version) != ("rolled-back", version.number):
                return None
            return int(last.to_version)


def move(
    connection: Connection,
    task: str,
    number: int | None,
    kind: PointerMove,
    reason: str,
    force: bool,
    stamp: Stamp,
    replaces: int | None = None,
) -> VersionRecord:
    """Publish a candidate, or roll back to a retired version; without a number the newest of these.

    Raises StateError when there is none, or when another version is published than the one that it `replaces`. So it
    does for a candidate, a guarded task, and a version that did not learn if `force` or a reason is missing.
    """
    state = _MOVES_FROM[kind]
    moved_id = task_id(connection, task)
    if number is None:
        number = _newest(connection, moved_id, state)
        if number is None:
            raise StateError(f"task {task!r} has no {state} version to {_TO[kind]}.")
    target = version(connection, task, number)
    if target.state != state:
        raise StateError(
            f"{target.label} is {target.state}; publish takes a candidate, and rollback takes a retired version."
        )
    standing = read_standing(connection, moved_id, base_model_id(connection, target.base_model, stamp))
    if replaces is not None and standing.old != replaces:
        raise StateError(f"{task}@{standing.old} was published meanwhile, so {task}@{replaces} is not replaced.")
    forced = force and reason.strip()
    if standing.guarded and not forced:
        raise StateError(f"task {task!r} is guarded: its pointer moves only with `force=True` and `reason='…'`.")
    if not forced and is_below_floor(connection, target):
        raise StateError(f"{target.label} {target.reason}; it is published only with `force=True` and `reason='…'`.")
    if kind == "published" and not forced:
        raise StateError(
            f"{target.label} was held, and the gate does not judge it again: it is published only with "
            "`force=True` and `reason='…'`. Learn the task again to have it judged."
        )
    point_at(connection, standing, target.id, target.number, reason or "asked for", stamp, kind)
    return version_by_id(connection, target.id)


def read_standing(connection: Connection, task_id: int, base_model_id: int) -> Row[Any]:
    """A task's id, whether it is `guarded`, its `highest` version number, and its published version on a base model.

    That version is in `old_id` (its id) and `old` (its number).
    """
    return connection.execute(_STANDING, {"task": task_id, "base_model": base_model_id}).one()


def point_at(
    connection: Connection,
    standing: Row[Any],
    version_id: int,
    number: int,
    reason: str,
    stamp: Stamp,
    kind: PointerMove = "published",
    **values: Any,
) -> None:
    """Publish a version in place of the published one, and set other `values` of it."""
    if standing.old_id is not None:
        set_version(connection, standing.old_id, state="retired", retired_at=stamp.at)
    set_version(connection, version_id, state="published", published_at=stamp.at, retired_at=None, **values)
    advance_epoch(connection)
    append_event(connection, kind, standing.id, standing.old, number, reason, stamp)


def set_version(connection: Connection, version_id: int, **values: Any) -> None:
    connection.execute(_SET_VERSION, {"version": version_id, **values})


def _newest(connection: Connection, task_id: int, state: VersionState) -> int | None:
    """The number of the version of a state that was retired last, or else the highest."""
    versions = s.prompt_versions.c
    query = (
        select(versions.number)
        .where(versions.task_id == task_id, versions.state == state)
        .order_by(versions.retired_at.desc(), versions.number.desc())
    )
    return connection.execute(query.limit(1)).scalar()
