"""Prompt versions: their records, files and states."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, bindparam, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import digest, read_artifact
from multiprompt.catalog.base_models import base_columns, base_model_record
from multiprompt.catalog.database import MAX_NAMES, batched
from multiprompt.catalog.events import BELOW_FLOOR, BLESSED, POINTER_MOVES
from multiprompt.catalog.labels import parse_label
from multiprompt.catalog.query.joins import baseline, is_held_against, is_serving
from multiprompt.catalog.query.language import parse
from multiprompt.catalog.query.listings import VERSIONS
from multiprompt.catalog.query.values import MAX_INTEGER
from multiprompt.catalog.settings import epoch
from multiprompt.catalog.snapshots import Snapshots
from multiprompt.catalog.store import Noun
from multiprompt.catalog.tasks import task_id
from multiprompt.errors import NotFoundError
from multiprompt.records import Adapter, Listing, VersionRecord

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task


class Versions(Noun):
    def find(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[VersionRecord]:
        """A page of versions. Raises QueryError."""
        parsed = parse(query, VERSIONS, limit)
        with self._store.read() as connection:
            return parsed.page(connection, _query(), s.prompt_versions.c.id, _record, after)

    def of(self, task: str) -> list[VersionRecord]:
        """The versions of a task by number. Raises NotFoundError for an unknown task."""
        with self._store.read() as connection:
            return versions_of(connection, task)

    def get(self, task: str, number: int | None = None) -> VersionRecord:
        """A version by number, or the published one. Raises NotFoundError, which names those that there are."""
        with self._store.read() as connection:
            return version(connection, task, number)

    def labelled(self, label: str) -> VersionRecord:
        """The version of `sst2@2`, or the published one of `sst2`. Raises NotFoundError."""
        return self.get(*parse_label(label))

    def with_labels(self, labels: Collection[str]) -> list[VersionRecord]:
        """The versions of these labels; the label of no version is passed over."""
        names = sorted({name for name, at, _ in (label.rpartition("@") for label in labels) if at})
        with self._store.read() as connection:
            found = [
                _record(row)
                for some in batched(names, MAX_NAMES)
                for row in connection.execute(_query().where(s.tasks.c.name.in_(some)))
            ]
        return sorted((version for version in found if version.label in labels), key=lambda version: version.id)

    def published(self) -> tuple[int, list[VersionRecord]]:
        """The epoch, and the published versions in it; one consistent view."""
        with self._store.read() as connection:
            return epoch(connection), published_versions(connection)

    def served_since_blessed(self, task: str) -> list[VersionRecord]:
        """The versions of a task that served since its last blessing or roll-back, with the one that this left."""
        events = s.events.c
        with self._store.read() as connection:
            moves = connection.execute(
                select(events.kind, events.to_version)
                .where(events.task_id == task_id(connection, task), events.kind.in_((*POINTER_MOVES, BLESSED)))
                .order_by(events.id)
            )
            numbers: set[int] = set()
            for kind, number in moves:
                numbers = {*numbers, number} if kind == "published" else {number}
            return [version for version in versions_of(connection, task) if version.number in numbers]

    def is_below_floor(self, version: VersionRecord) -> bool:
        """Whether a version did not beat its task's floor when it was admitted."""
        with self._store.read() as connection:
            return is_below_floor(connection, version)

    def adapter(self, version: VersionRecord) -> Adapter:
        """The files of a version. Raises IntegrityError when a stored byte changed."""
        with self._store.read() as connection:
            return _adapter(connection, version)

    def digests(self) -> dict[str, str]:
        """The digest of each published version by its label, recomputed from the stored bytes."""
        with self._store.read() as connection:
            return {version.label: digest(_adapter(connection, version)) for version in published_versions(connection)}

    def task(self, version: VersionRecord) -> Task:
        """The task as it was when the version was made."""
        from multiprompt.tasks.task import Task

        query = (
            select(s.task_files.c.source, s.task_files.c.folder)
            .join(s.prompt_versions, s.prompt_versions.c.task_file_id == s.task_files.c.id)
            .where(s.prompt_versions.c.id == version.id)
        )
        with self._store.read() as connection:
            row = connection.execute(query).one()
        return Snapshots(self._store).attach(Task.from_source(row.source, Path(row.folder), where=version.label))


def versions_of(connection: Connection, task: str) -> list[VersionRecord]:
    """The versions of a task by number. Raises NotFoundError for an unknown task."""
    of_task = s.prompt_versions.c.task_id == task_id(connection, task)
    listing = _query().where(of_task).order_by(s.prompt_versions.c.number)
    return [_record(row) for row in connection.execute(listing)]


def version(connection: Connection, task: str, number: int | None) -> VersionRecord:
    """A version by number, or the published one. Raises NotFoundError, which names those that there are."""
    versions = s.prompt_versions.c
    wanted = is_serving() if number is None else versions.number == number
    of_task = versions.task_id == task_id(connection, task)
    is_known = number is None or (isinstance(number, int) and abs(number) < MAX_INTEGER)
    row = connection.execute(_query().where(of_task, wanted)).one_or_none() if is_known else None
    if row is not None:
        return _record(row)
    found = versions_of(connection, task)
    listed = ", ".join(f"{v.number} ({v.state})" for v in found) or "none"
    if number is None:
        held = [v.label for v in found if v.state == "candidate"]
        cure = f"ws.publish({held[-1]!r}, force=True, reason='…')" if held else f"ws.learn({task!r})"
        raise NotFoundError(f"task {task!r} has no published version (versions: {listed}); run `{cure}`.")
    raise NotFoundError(f"task {task!r} has no version {str(number)[:100]}; its versions: {listed}.")


def version_by_id(connection: Connection, version_id: int) -> VersionRecord:
    return _record(connection.execute(_VERSION_BY_ID, {"version": version_id}).one())


def published_versions(connection: Connection) -> list[VersionRecord]:
    """The versions that serve, in the order of their ids."""
    query = _query().where(is_serving()).order_by(s.prompt_versions.c.id)
    return [_record(row) for row in connection.execute(query)]


def is_below_floor(connection: Connection, version: VersionRecord) -> bool:
    """Whether a version is a candidate because it did not beat its task's floor."""
    events = s.events.c
    about = events.task_id == task_id(connection, version.task), events.to_version == version.number
    return connection.execute(select(events.id).where(*about, events.kind == BELOW_FLOOR)).first() is not None


def _adapter(connection: Connection, version: VersionRecord) -> Adapter:
    files = s.prompt_versions.c
    row = connection.execute(
        select(files.config_sha256, files.weights_sha256, files.encoder_sha256).where(files.id == version.id)
    ).one()
    return Adapter(
        config=read_artifact(connection, row.config_sha256, version.label),
        weights=read_artifact(connection, row.weights_sha256, version.label),
        encoder=None if row.encoder_sha256 is None else read_artifact(connection, row.encoder_sha256, version.label),
    )


def _query() -> Select[Any]:
    joined = (
        s.prompt_versions.join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
        .join(s.task_files, s.prompt_versions.c.task_file_id == s.task_files.c.id)
        .join(s.base_models, s.prompt_versions.c.base_model_id == s.base_models.c.id)
        .outerjoin(baseline, is_held_against(baseline))
    )
    score = baseline.c.metric, baseline.c.score
    return select(s.prompt_versions, s.tasks.c.name, *score, *base_columns()).select_from(joined)


# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_VERSION_BY_ID = _query().where(s.prompt_versions.c.id == bindparam("version"))


def _record(row: Row[Any]) -> VersionRecord:
    return VersionRecord(
        id=row.id,
        task=row.name,
        number=row.number,
        state=row.state,
        method=row.method,
        num_virtual_tokens=row.num_virtual_tokens,
        digest=row.digest,
        base_model=base_model_record(row),
        created_at=row.created_at,
        published_at=row.published_at,
        retired_at=row.retired_at,
        metric=row.metric,
        score=row.score,
        reason=row.reason,
    )
