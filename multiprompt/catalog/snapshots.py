"""Data snapshots: the rows that scores were taken on, by fingerprint, and the data files known to hold such rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import store_artifacts
from multiprompt.catalog.store import Noun, Stamp, insert

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split

# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_SNAPSHOTS = select(s.data_snapshots.c.id, s.data_snapshots.c.fingerprint, s.data_snapshots.c.sha256).where(
    s.data_snapshots.c.fingerprint.in_(bindparam("fingerprints", expanding=True))
)


class Snapshots(Noun):
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
    kept = data.fingerprint in known and known[data.fingerprint].sha256 is not None
    sha256 = None if kept else store_artifacts(connection, {"rows": data.pack()}, stamp)["rows"]
    for fingerprint, split in splits.items():
        if fingerprint not in known:
            ids[fingerprint] = insert(
                connection,
                s.data_snapshots,
                fingerprint=fingerprint,
                split=split.name,
                rows=len(split.rows),
                sha256=sha256 if split is data else None,
                created_at=stamp.at,
            )
        elif split is data and not kept:
            update = s.data_snapshots.update().where(s.data_snapshots.c.id == ids[fingerprint])
            connection.execute(update.values(sha256=sha256))
    return ids
