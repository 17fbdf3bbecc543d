"""Rows that the catalog keeps for tasks without data files, by their fingerprints."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.reading import artifact
from multiprompt.catalog.writing import Stamp, artifacts, insert
from multiprompt.errors import IntegrityError, NotFoundError
from multiprompt.tasks.data import Split


def keep_snapshots(connection: Connection, splits: Sequence[Split], stamp: Stamp) -> None:
    """Keep the rows of splits; those that are kept already stay as they are."""
    for split in splits:
        query = select(s.data_snapshots).where(s.data_snapshots.c.fingerprint == split.fingerprint)
        known = connection.execute(query).one_or_none()
        if known is not None and known.sha256 is not None:
            continue
        sha256 = artifacts(connection, {"rows": split.pack()}, stamp)["rows"]
        if known is None:
            values = {"fingerprint": split.fingerprint, "split": split.name, "rows": len(split.rows)}
            insert(connection, s.data_snapshots, **values, sha256=sha256, created_at=stamp.at)
        else:
            update = s.data_snapshots.update().where(s.data_snapshots.c.id == known.id)
            connection.execute(update.values(sha256=sha256))


def snapshot(connection: Connection, fingerprint: str) -> Split:
    """The rows of a fingerprint. Raises NotFoundError, and IntegrityError when they are not those that were kept."""
    row = connection.execute(
        select(s.data_snapshots).where(s.data_snapshots.c.fingerprint == fingerprint)
    ).one_or_none()
    if row is None or row.sha256 is None:
        raise NotFoundError(
            f"the catalog does not hold the rows {fingerprint[:15]}…; add the task with its rows (Task.from_rows)."
        )
    split = Split.unpack(row.split, artifact(connection, row.sha256, f"split {row.split}"))
    if split.fingerprint != fingerprint:
        raise IntegrityError(f"the stored rows of split {row.split} do not have their fingerprint; restore a backup.")
    return split
