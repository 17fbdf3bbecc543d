"""Data snapshots: rows by their fingerprint, and the data files known to hold such rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import read_artifact, store_artifacts
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.errors import IntegrityError, NotFoundError
from multiprompt.tasks.data import Split

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task

# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_SNAPSHOTS = select(s.data_snapshots.c.id, s.data_snapshots.c.fingerprint, s.data_snapshots.c.sha256).where(
    s.data_snapshots.c.fingerprint.in_(bindparam("fingerprints", expanding=True))
)


class Snapshots(Noun):
    def get(self, fingerprint: str) -> Split:
        """Stored rows. Raises NotFoundError, and IntegrityError when they do not have their fingerprint."""
        query = select(s.data_snapshots).where(s.data_snapshots.c.fingerprint == fingerprint)
        with self._store.read() as connection:
            row = connection.execute(query).one_or_none()
            if row is None or row.sha256 is None:
                raise NotFoundError(
                    f"the catalog does not hold the rows {fingerprint[:15]}…; add the task with its rows "
                    "(Task.from_rows)."
                )
            split = Split.unpack(row.split, read_artifact(connection, row.sha256, f"split {row.split}"))
        if split.fingerprint != fingerprint:
            raise IntegrityError(
                f"the stored rows of split {row.split} do not have their fingerprint; restore a backup."
            )
        return split

    def attach(self, task: Task) -> Task:
        """The same task; the rows that its file names by fingerprint are read from this catalog."""
        return replace(task, read_snapshot=self.get) if task.data.snapshots else task

    def source_fingerprint(self, digest: str) -> str | None:
        """The fingerprint of the rows in data files of a digest, if they were read before."""
        query = select(s.data_sources.c.fingerprint).where(s.data_sources.c.digest == digest)
        with self._store.read() as connection:
            found: str | None = connection.execute(query).scalar()
            return found

    def save_source(self, digest: str, fingerprint: str) -> None:
        """Keep the fingerprint of the rows in data files of a digest."""
        with self._store.write() as (connection, _):
            connection.execute(s.data_sources.delete().where(s.data_sources.c.digest == digest))
            connection.execute(s.data_sources.insert().values(digest=digest, fingerprint=fingerprint))


def store_snapshots(connection: Connection, data: Split, trained: Sequence[Split], stamp: Stamp) -> dict[str, int]:
    """The ids of splits by fingerprint; new ones are stored, with the rows of `data` only."""
    splits = {split.fingerprint: split for split in (*trained, data)}
    known = {row.fingerprint: row for row in connection.execute(_SNAPSHOTS, {"fingerprints": list(splits)})}
    ids = {fingerprint: int(row.id) for fingerprint, row in known.items()}
    for fingerprint, split in splits.items():
        if fingerprint not in known:
            ids[fingerprint] = _insert(connection, split, store_rows=split is data, stamp=stamp)
    if data.fingerprint in known and known[data.fingerprint].sha256 is None:
        _store_rows(connection, ids[data.fingerprint], data, stamp)
    return ids


def keep_snapshots(connection: Connection, splits: Sequence[Split], stamp: Stamp) -> None:
    """Store splits with all of their rows, if they are not stored so already."""
    for split in splits:
        store_snapshots(connection, split, (), stamp)


def _insert(connection: Connection, split: Split, *, store_rows: bool, stamp: Stamp) -> int:
    sha256 = store_artifacts(connection, {"rows": split.pack()}, stamp)["rows"] if store_rows else None
    values = {"fingerprint": split.fingerprint, "split": split.name, "rows": len(split.rows)}
    return insert(connection, s.data_snapshots, **values, sha256=sha256, created_at=stamp.at)


def _store_rows(connection: Connection, snapshot_id: int, split: Split, stamp: Stamp) -> None:
    sha256 = store_artifacts(connection, {"rows": split.pack()}, stamp)["rows"]
    connection.execute(s.data_snapshots.update().where(s.data_snapshots.c.id == snapshot_id).values(sha256=sha256))
