"""Task files on disk, compared with what was added."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from multiprompt.catalog.catalog import Catalog
from multiprompt.context import Context
from multiprompt.errors import StateError, counted
from multiprompt.records import TaskRecord
from multiprompt.tasks.file_change import file_difference
from multiprompt.tasks.task import Task

_SHOWN_LINES, _SHOWN_TASKS = 6, 5


def require_as_added(context: Context, name: str) -> Task:
    """A task as it was added. Raises StateError where its file on disk differs by now."""
    record = context.catalog.tasks.get(name)
    changes = _changes(record)
    if changes:
        raise StateError(
            f"{name}: its task file {record.file} was edited since it was added ({_on_one_line(changes)}). "
            f"Run `ws.add_task({record.file!r})`, or learn it with `as_added=True`."
        )
    return context.task_of(record)


def file_notes(catalog: Catalog, names: Collection[str]) -> list[str]:
    """A line for each task file that was edited since it was added, and one for those that are gone."""
    notes, missing = [], []
    for record in (record for record in catalog.tasks.find() if record.name in names):
        changes = _changes(record)
        if changes:
            notes.append(
                f"{record.name}: its task file {record.file} was edited since it was added ({_on_one_line(changes)})"
            )
        elif changes is None and record.file != "":
            missing.append(record.name)
    if missing:
        listed = ", ".join(missing[:_SHOWN_TASKS]) + ", …" * (len(missing) > _SHOWN_TASKS)
        notes.append(f"{counted(len(missing), 'task file')} gone, so that an edit is not seen: {listed}")
    return notes


def _changes(record: TaskRecord) -> Sequence[str] | None:
    """The differences of a task's file on disk from the one that was added; None where there is no such file."""
    return file_difference(record.source, Path(record.file)) if record.file else None


def _on_one_line(changes: Sequence[str]) -> str:
    shown = list(changes[:_SHOWN_LINES]) + ["…"] * (len(changes) > _SHOWN_LINES)
    return "; ".join(shown)
