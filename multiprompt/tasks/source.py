"""A digest that moves when a task's data do, without reading them as rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from multiprompt.errors import DataError
from multiprompt.tasks.files import HUB, open_file, split_files, task_files
from multiprompt.tasks.hub import hub_revision
from multiprompt.tasks.task import Task


def source_digest(task: Task, split: str | None = None) -> str | None:
    """A digest of the files of a task, or of one split; the hub's revision; None for files that have to be fetched.

    That of a split equals `Split.source` of rows that were read from the same bytes. Raises NotFoundError where files
    are missing, DataError where they cannot be read, UnavailableError where the hub cannot be asked.
    """
    snapshots = task.data.snapshots
    if snapshots:
        return files_digest(snapshots.items()) if split is None else snapshots.get(split)
    files = task_files(task) if split is None else split_files(task, split)
    if files is None:
        return hub_revision("dataset", task.data.path.removeprefix(HUB))
    if any(file.is_remote for file in files):
        return None
    digests = []
    for file in files:
        with closing(open_file(file)) as opened:
            try:
                digests.append((file.location, hashlib.file_digest(opened, "sha256").hexdigest()))
            except OSError as error:
                raise DataError(f"{file.location} cannot be read: {error.strerror or error}.") from None
    return files_digest(digests)


def files_digest(digests: Iterable[tuple[str, str]]) -> str:
    """One digest of files, given as (location, SHA-256) in reading order."""
    lines = (f"{Path(location).name} {digest}\n" for location, digest in digests)
    return "sha256:" + hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
