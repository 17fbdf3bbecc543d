"""Verification: every digest, reference and invariant of a catalog, recomputed from what is stored."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select, text

from multiprompt.catalog import reading, writing
from multiprompt.catalog import schema as s
from multiprompt.errors import IntegrityError
from multiprompt.records import Problem
from multiprompt.tasks.split import Split


def problems(connection: Connection) -> Iterator[Problem]:
    """What is wrong, one finding after another; nothing when all is well."""
    yield from _structure(connection)
    yield from _artifacts(connection)
    yield from _versions(connection)
    yield from _snapshots(connection)
    yield from _evaluations(connection)
    yield from _events(connection)


def _structure(connection: Connection) -> Iterator[Problem]:
    for line in connection.execute(text("PRAGMA integrity_check")).scalars():
        if line != "ok":
            yield Problem("database", str(line))
    for table, row, target, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield Problem(f"table {table}", f"row {row} refers to a missing row of {target}")
    present = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")))
    for name in sorted(s.TRIGGERS - present):
        yield Problem("database", f"the trigger {name}, which protects published prompts, is missing")


def _artifacts(connection: Connection) -> Iterator[Problem]:
    for sha256 in connection.scalars(select(s.artifacts.c.sha256)).all():
        try:
            reading.artifact(connection, sha256, f"artifact {sha256[:15]}…")
        except IntegrityError as error:
            yield Problem("artifacts", str(error))


def _versions(connection: Connection) -> Iterator[Problem]:
    for version in reading.versions(connection):
        try:
            if writing.digest(reading.adapter(connection, version)) != version.digest:
                yield Problem(version.label, f"its files do not have the digest {version.digest}")
        except IntegrityError:
            yield Problem(version.label, "its adapter cannot be read")


def _snapshots(connection: Connection) -> Iterator[Problem]:
    scored = select(s.evaluations.c.snapshot_id)
    for row in connection.execute(select(s.data_snapshots).where(s.data_snapshots.c.id.in_(scored))).all():
        where = f"split {row.split} ({row.fingerprint[:15]}…)"
        if row.sha256 is None:
            yield Problem(where, "the rows that a score was taken on are not stored")
            continue
        try:
            if Split.unpack(row.split, reading.artifact(connection, row.sha256, where)).fingerprint != row.fingerprint:
                yield Problem(where, "the stored rows do not have its fingerprint")
        except IntegrityError as error:
            yield Problem(where, str(error))


def _evaluations(connection: Connection) -> Iterator[Problem]:
    for row in connection.execute(reading.evaluation_query()):
        where = f"evaluation {row.id} of {row.name}"
        if reading.key_digest(row.key_parts) != row.key:
            yield Problem(where, "its key is not the digest of the key's parts")
        try:
            if reading.evaluation(row).rows != row.rows:
                yield Problem(where, f"it holds the results of other than {row.rows} rows")
        except IntegrityError as error:
            yield Problem(where, str(error))


def _events(connection: Connection) -> Iterator[Problem]:
    """The events, replayed, must end where the pointers are."""
    replayed: dict[str, int] = {}
    for event in reading.events(connection):
        if event.task is not None and event.kind in ("published", "rolled-back") and event.to_version is not None:
            replayed[event.task] = event.to_version
    pointers = {version.task: version.number for version in reading.published(connection)}
    for task in sorted(replayed.keys() | pointers.keys()):
        if replayed.get(task) != pointers.get(task):
            found, told = pointers.get(task, "none"), replayed.get(task, "none")
            yield Problem(f"task {task}", f"version {found} is published, but the events tell of {told}")
