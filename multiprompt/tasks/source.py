"""Where a task's rows come from, and a digest that moves when these do, without reading them as rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from glob import glob
from pathlib import Path

from multiprompt.errors import NotFoundError, UnavailableError
from multiprompt.tasks.task import Task


def source_digest(task: Task) -> str | None:
    """A digest of the contents of a task's data files, or the hub's revision; None for files that have to be fetched.

    Raises NotFoundError where files are missing, UnavailableError where the hub cannot be asked.
    """
    source = task.data
    if source.data_files is None:
        folder = task.folder / source.path
        return _contents(folder.rglob("*")) if folder.is_dir() else hub_revision("dataset", source.path)
    patterns = sorted({path for paths in source.data_files.values() for path in paths})
    if any("://" in pattern for pattern in patterns):
        return None
    # Path.glob takes no absolute patterns.
    matches = {pattern: glob(pattern, root_dir=task.folder, recursive=True) for pattern in patterns}  # noqa: PTH207
    found = {pattern: [task.folder / match for match in matches[pattern]] for pattern in patterns}
    for pattern, files in found.items():
        if not any(file.is_file() for file in files):
            raise NotFoundError(f"{task.name}: no data file {task.folder / pattern} is there.")
    return _contents(file for files in found.values() for file in files)


def hub_revision(kind: str, name: str) -> str:
    """The newest revision of a dataset or model. Raises UnavailableError when the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(name) if kind == "dataset" else HfApi().model_info(name)
    except Exception as error:  # the hub client raises errors of several libraries
        raise UnavailableError(
            f"the {kind} {name} cannot be watched: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    return f"hub:{found.sha}"


def _contents(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(file for file in files if file.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return "sha256:" + digest.hexdigest()
