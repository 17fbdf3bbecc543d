"""Tasks: their files, notes and guards, and the words that a search finds them by."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, FromClause, Row, Select, bindparam, case, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.events import NOTED, POINTER_MOVES, append_event, event_query, event_record
from multiprompt.catalog.query.joins import baseline, is_held_against, is_serving, moved, published
from multiprompt.catalog.query.language import parse
from multiprompt.catalog.query.listings import TASKS, tasks_as_of
from multiprompt.catalog.query.search import words
from multiprompt.catalog.snapshots import keep_snapshots
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.errors import NotFoundError, QueryError, StateError, nearest
from multiprompt.records import Event, Listing, TaskRecord

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task

# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_TASK_ID = select(s.tasks.c.id).where(s.tasks.c.name == bindparam("name"))
_TASK_FILE = select(s.task_files.c.id).where(
    *(s.task_files.c[part] == bindparam(part) for part in ("task_id", "source", "folder"))
)


class Tasks(Noun):
    def add(self, task: Task) -> TaskRecord:
        """Add a task, or give a known one its new task file; the old file stays with the versions made from it.

        The rows of a task that has them in memory are stored, too.
        """
        from multiprompt.tasks.reading import read_snapshot

        splits = [read_snapshot(task, split) for split in task.data.snapshots]
        with self._store.write() as (connection, stamp):
            keep_snapshots(connection, splits, stamp)
            _add(connection, task, stamp)
            return _get(connection, task.name)

    def find(
        self, query: str = "", *, after: str | None = None, limit: int | None = None, as_of: datetime | None = None
    ) -> Listing[TaskRecord]:
        """A page of tasks; `as_of` gives those of an earlier time, with what was published. Raises QueryError."""
        if as_of is not None and not isinstance(as_of, datetime):
            raise QueryError(f"as_of is {as_of!r}; it must be a datetime, in UTC where it has no zone.")
        parsed = parse(query, TASKS if as_of is None else tasks_as_of(_guarded_at(as_of)), limit)
        listing = _query() if as_of is None else _query_at(as_of)
        with self._store.read() as connection:
            return parsed.page(connection, listing, s.tasks.c.id, _record, after)

    def get(self, name: str) -> TaskRecord:
        """A task by name. Raises NotFoundError, which names the nearest."""
        with self._store.read() as connection:
            return _get(connection, name)

    def guard(self, name: str, guarded: bool, reason: str) -> None:
        """Let the pointer of a task move by force alone, or like the others' again."""
        with self._store.write() as (connection, stamp):
            guarded_id = task_id(connection, name)
            known = connection.execute(select(s.tasks.c.guarded).where(s.tasks.c.id == guarded_id)).scalar_one()
            if bool(known) != guarded:
                connection.execute(s.tasks.update().where(s.tasks.c.id == guarded_id).values(guarded=int(guarded)))
                kind = "guarded" if guarded else "unguarded"
                append_event(connection, kind, guarded_id, None, None, reason, stamp)

    def note(self, name: str, text: str) -> None:
        """Keep a note on a task among its events, where `matches` finds it. Raises StateError for an empty note."""
        with self._store.write() as (connection, stamp):
            if not text.strip():
                raise StateError("the note is empty; write what it says.")
            noted_id = task_id(connection, name)
            append_event(connection, NOTED, noted_id, None, None, text, stamp)
            _index_words(connection, noted_id)

    def notes(self, name: str) -> list[Event]:
        """The notes on a task, oldest first. Raises NotFoundError."""
        with self._store.read() as connection:
            about = s.events.c.task_id == task_id(connection, name), s.events.c.kind == NOTED
            noted = event_query().where(*about).order_by(s.events.c.id)
            return [event_record(row) for row in connection.execute(noted)]


def task_id(connection: Connection, name: str) -> int:
    """The id of a task. Raises NotFoundError, which names the nearest."""
    found = connection.execute(_TASK_ID, {"name": name}).scalar()
    if found is None:
        known = connection.scalars(select(s.tasks.c.name)).all()
        raise NotFoundError(f"no task {name!r} in the catalog; {nearest(name, known)}")
    return int(found)


def task_file_id(connection: Connection, task_id: int, task: Task, stamp: Stamp) -> int:
    """The id of a task's file, which is stored if it is new."""
    wanted = {"task_id": task_id, "source": task.source, "folder": str(task.folder)}
    found = connection.execute(_TASK_FILE, wanted).scalar()
    if found is not None:
        return int(found)
    file_id = insert(
        connection,
        s.task_files,
        **wanted,
        fingerprint=task.fingerprint,
        description=task.description.source.strip(),
        metric=task.metrics[0].name,
        tags=list(task.tags),
        created_at=stamp.at,
    )
    tags = [{"task_file_id": file_id, "tag": tag} for tag in dict.fromkeys(task.tags)]
    if tags:
        connection.execute(s.task_tags.insert(), tags)
    return file_id


def task_words(connection: Connection, task_id: int) -> str:
    """The words that a task is found by: those of its name, description, tags and notes."""
    query = (
        select(s.tasks.c.name, s.task_files.c.description, s.task_files.c.tags)
        .join(s.task_files, s.task_files.c.id == s.tasks.c.task_file_id)
        .where(s.tasks.c.id == task_id)
    )
    notes = (
        select(s.events.c.reason).where(s.events.c.task_id == task_id, s.events.c.kind == NOTED).order_by(s.events.c.id)
    )
    row = connection.execute(query).one_or_none()
    told = [] if row is None else [row.name, row.description, *row.tags]
    return " ".join(words([*told, *connection.scalars(notes)]))


def _add(connection: Connection, task: Task, stamp: Stamp) -> None:
    row = connection.execute(
        select(s.tasks.c.id, s.tasks.c.task_file_id, s.tasks.c.file).where(s.tasks.c.name == task.name)
    ).one_or_none()
    added_id = insert(connection, s.tasks, name=task.name, created_at=stamp.at) if row is None else row.id
    path = "" if task.file is None else str(task.file)
    if row is None or row.file != path:
        connection.execute(s.tasks.update().where(s.tasks.c.id == added_id).values(file=path))
    file_id = task_file_id(connection, added_id, task, stamp)
    if row is not None and row.task_file_id == file_id:
        return
    connection.execute(s.tasks.update().where(s.tasks.c.id == added_id).values(task_file_id=file_id))
    kind = "task-added" if row is None else "task-changed"
    append_event(connection, kind, added_id, None, None, task.fingerprint, stamp)
    _index_words(connection, added_id)


def _index_words(connection: Connection, task_id: int) -> None:
    """Bring the words that `matches` searches up to date."""
    connection.execute(s.task_texts.delete().where(s.task_texts.c.task_id == task_id))
    connection.execute(s.task_texts.insert().values(task_id=task_id, words=task_words(connection, task_id)))


def _get(connection: Connection, name: str) -> TaskRecord:
    found_id = task_id(connection, name)
    return _record(connection.execute(_query().where(s.tasks.c.id == found_id)).one())


def _query() -> Select[Any]:
    """The tasks with their published versions."""
    serving = (published.c.task_id == s.tasks.c.id) & is_serving(published)
    return _columns(
        s.tasks.outerjoin(published, serving),
        s.tasks.c.task_file_id,
        s.tasks.c.guarded,
        published.c.published_at,
    )


def _query_at(time: datetime) -> Select[Any]:
    """The tasks that there were at a time, with the versions that were published then."""
    newest_file = (
        select(func.max(s.task_files.c.id))
        .where(s.task_files.c.task_id == s.tasks.c.id, s.task_files.c.created_at <= time)
        .correlate(s.tasks)
        .scalar_subquery()
    )
    last_move = (
        select(func.max(s.events.c.id))
        .where(s.events.c.task_id == s.tasks.c.id, s.events.c.kind.in_(POINTER_MOVES), s.events.c.at <= time)
        .correlate(s.tasks)
        .scalar_subquery()
    )
    joined = s.tasks.outerjoin(moved, moved.c.id == last_move).outerjoin(
        published, (published.c.task_id == s.tasks.c.id) & (published.c.number == moved.c.to_version)
    )
    file_id = func.coalesce(published.c.task_file_id, newest_file)
    found = _columns(joined, file_id, _guarded_at(time), moved.c.at, time)
    return found.where(s.tasks.c.created_at <= time)


def _columns(
    joined: FromClause,
    file_id: ColumnElement[Any],
    guarded: ColumnElement[Any],
    published_at: ColumnElement[Any],
    time: datetime | None = None,
) -> Select[Any]:
    return select(
        s.tasks.c.name,
        s.tasks.c.created_at,
        s.tasks.c.file,
        guarded.label("guarded"),
        s.task_files.c.description,
        s.task_files.c.tags,
        s.task_files.c.metric,
        s.task_files.c.fingerprint,
        s.task_files.c.source,
        s.task_files.c.folder,
        published.c.number,
        published_at.label("published_at"),
        baseline.c.score,
    ).select_from(
        joined.join(s.task_files, s.task_files.c.id == file_id)
        .outerjoin(baseline, is_held_against(baseline, published, time))
        .outerjoin(s.base_models, s.base_models.c.id == published.c.base_model_id)
    )


def _guarded_at(time: datetime) -> ColumnElement[int]:
    """1 if the last event about guarding a task by then guarded it, else 0."""
    events = s.events.c
    about = events.kind.in_(["guarded", "unguarded"])
    last = (
        select(case((events.kind == "guarded", 1), else_=0))
        .where(events.task_id == s.tasks.c.id, about, events.at <= time)
        .order_by(events.id.desc())
        .limit(1)
    )
    return func.coalesce(last.correlate(s.tasks).scalar_subquery(), 0)


def _record(row: Row[Any]) -> TaskRecord:
    return TaskRecord(
        name=row.name,
        description=row.description,
        tags=tuple(row.tags),
        metric=row.metric,
        fingerprint=row.fingerprint,
        source=row.source,
        folder=row.folder,
        created_at=row.created_at,
        published=row.number,
        published_at=row.published_at,
        score=row.score,
        guarded=bool(row.guarded),
        file=row.file,
    )
