"""The fingerprint of a task's rows as they are now. Rows are read only where their files are new."""

from __future__ import annotations

import hashlib

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import UnavailableError
from multiprompt.tasks.data import READER_VERSION
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.split import load_test_split, scored_split
from multiprompt.tasks.task import Task


def current_fingerprint(catalog: Catalog, task: Task, *, trial: bool) -> str:
    """The fingerprint of a task's rows as they are now; a `trial` stores nothing.

    Raises NotFoundError or UnavailableError where the data is away, and DataError where it cannot be read.
    """
    digest = source_digest(task, scored_split(task))
    if digest is None:
        return load_test_split(task).fingerprint
    known = catalog.snapshots.source_fingerprint(_source_key(task, digest))
    if known is not None:
        return known
    rows = load_test_split(task)
    # The data may have changed since the digest was taken. Rows of files bring the digest of what was read.
    source = rows.source or _unmoved(task, digest)
    if source is not None and not trial:
        catalog.snapshots.save_source(_source_key(task, source), rows.fingerprint)
    return rows.fingerprint


def _unmoved(task: Task, digest: str) -> str | None:
    """The digest that was taken of a task's data before its rows were read, if it is that of now."""
    try:
        return digest if source_digest(task, scored_split(task)) == digest else None
    except UnavailableError:
        return None


def _source_key(task: Task, digest: str) -> str:
    """The key of a stored fingerprint. It holds the version of the reader, because another one may read other rows."""
    return hashlib.sha256(f"reader {READER_VERSION} {digest} {task.data}".encode()).hexdigest()
