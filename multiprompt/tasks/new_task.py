"""A new task from a data file: the rows of its splits and a readable task file, in a folder."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiprompt.errors import DataError, NotFoundError, StateError
from multiprompt.tasks.draft import SPLITS, answer_column, default_name, draft_task
from multiprompt.tasks.files import BUILDERS, format_of
from multiprompt.tasks.memory import named
from multiprompt.tasks.reading import read_split
from multiprompt.tasks.task import Task
from multiprompt.tasks.task_file import write

_FILES = (*(f"{split}.jsonl" for split in SPLITS), "task.yaml")
_PART = ".multiprompt-new-"


@dataclass(frozen=True)
class WrittenTask:
    """The task file that was written, the rows of each split, the labels of a choice, and notes of left-out rows."""

    file: Path
    rows: Mapping[str, int]
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def write_new_task(
    data: Path,
    text: str,
    label: str | None = None,
    target: str | None = None,
    *,
    instruction: str | None = None,
    name: str | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> WrittenTask:
    """Write the splits and the task file of a data file, or of a folder that `datasets` saved.

    A `label` column makes a multiple-choice task, a `target` column a generation task. Raises DataError, NotFoundError
    for an unknown column, and StateError where the folder holds something already.
    """
    answer = answer_column(label, target)
    name = name or name_of(data)
    folder = out or _folder(name)
    _clear_parts(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StateError(f"{folder} exists and is no empty folder: choose another with `out='…'`.")
    rows = _with_label_names(_read(data, name), data, answer)
    draft = draft_task(rows, text, label, target, name=name, instruction=instruction, seed=seed)
    mapping = draft.mapping("json", {split: f"{split}.jsonl" for split in SPLITS})
    Task.from_mapping(mapping, folder)
    files = {f"{split}.jsonl": _lines(part) for split, part in draft.splits.items()}
    _write_folder(folder, files | {"task.yaml": write(mapping)})
    counts = {split: len(part) for split, part in draft.splits.items()}
    return WrittenTask(folder / "task.yaml", counts, draft.labels, draft.notes)


def remove_written(task: WrittenTask) -> None:
    """Remove the files that `write_new_task` wrote, and their folder where nothing else is in it."""
    folder = task.file.parent
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()) and not Path.cwd().samefile(folder):
        folder.rmdir()


def name_of(data: Path) -> str:
    """The name of a data file's task where none is given."""
    return default_name(data.stem.partition(".")[0])


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write a folder with all of its files, or none; an empty folder is filled, the last file last."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _new_part(folder if folder.exists() else folder.parent) as part:
        for name, text in files.items():
            (part / name).write_text(text, encoding="utf-8", newline="\n")
        if part.parent != folder:
            part.rename(folder)
            return
        for name in files:
            (part / name).rename(folder / name)
        part.rmdir()


@contextmanager
def _new_part(parent: Path) -> Iterator[Path]:
    """A hidden folder for unfinished files, locked while this process lives; removed where writing fails."""
    part = parent / f"{_PART}{secrets.token_hex(8)}"
    part.mkdir()
    lock = _lock(part)
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _clear_parts(folder: Path) -> None:
    """Remove what a killed call left in a folder or beside it; a folder that another process writes is locked."""
    folder = folder.resolve()
    for place in (folder, folder.parent):
        for part in place.glob(f"{_PART}*") if place.is_dir() else ():
            lock = _lock(part)
            if lock is None:
                continue
            if place == folder:
                for name in _FILES:
                    (folder / name).unlink(missing_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A lock on a folder that ends with this process; None where another process holds it."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _folder(name: str) -> Path:
    if Path(name).name != name:
        raise StateError(f"the name {name!r} is no name of a folder: choose one with `out='…'`.")
    return Path(name)


def _read(data: Path, name: str) -> Sequence[Mapping[str, Any]]:
    """The rows of a data file, or of the train split of a folder."""
    if not data.exists():
        raise NotFoundError(f"{data} does not exist.")
    source: dict[str, Any] = {"dataset_path": str(data.resolve()), "test_split": "train"}
    if not data.is_dir():
        kind = format_of(data.name)
        if kind is None:
            raise DataError(f"{data} has no known format; give one of: {', '.join(sorted(BUILDERS))}.")
        files = {"data_files": {"train": str(data.resolve())}}
        source = {"dataset_path": "csv" if kind == "tsv" else kind, "dataset_kwargs": files, "test_split": "train"}
    task = {"task": name, "output_type": "generate_until", "doc_to_text": "{{''}}", "doc_to_target": "{{''}}"}
    return read_split(Task.from_mapping({**task, **source}), "train").rows


def _with_label_names(rows: Sequence[Mapping[str, Any]], data: Path, column: str) -> Sequence[Mapping[str, Any]]:
    """Rows of a saved dataset with the names of a ClassLabel column in place of its numbers."""
    names = _label_names(data, column) if data.is_dir() else []
    if not names:
        return rows
    return [{**row, column: named(row.get(column), names, column)} for row in rows]


def _label_names(folder: Path, column: str) -> list[str]:
    """The label names that `save_to_disk` wrote for a column; empty for a column of another kind."""
    for file in (folder / "train" / "dataset_info.json", folder / "dataset_info.json"):
        try:
            feature = json.loads(file.read_bytes())["features"][column]
            if feature["_type"] == "ClassLabel":
                return [str(name) for name in feature["names"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return []
