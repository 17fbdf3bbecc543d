"""The changes of a task file, key by key, in few and short lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

from multiprompt.errors import MultipromptError
from multiprompt.tasks.task import Task
from multiprompt.tasks.urls import without_secrets

MAX_LINES, MAX_CHARACTERS = 20, 80
_SHOWN = ("description", "doc_to_text", "target_delimiter", "doc_to_choice", "doc_to_target")


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of a task file that were added, removed or given another value, such as `multiprompt.training.steps`."""
    old, new = _flat(before), _flat(after)
    return [key for key in dict.fromkeys([*old, *new]) if _line(old, key) != _line(new, key)]


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """A line `-key: value` for what was, and `+key: value` for what is; at most 20 lines, long values cut."""
    old, new = _flat(before), _flat(after)
    lines = [
        f"{sign}{_cut(_shown(_line(side, key)))}"
        for key in changed_keys(before, after)
        for sign, side in (("-", old), ("+", new))
        if key in side
    ]
    if len(lines) <= MAX_LINES:
        return tuple(lines)
    return (*lines[: MAX_LINES - 1], f"… and {len(lines) - MAX_LINES + 1} more lines")


def template_difference(before: Task, after: Task, names: tuple[str, str]) -> tuple[str, ...]:
    """A unified diff of what the model is shown and asked; empty where it is the same."""
    old, new = _template_lines(before), _template_lines(after)
    return tuple(unified_diff(old, new, *names, lineterm="", n=1))


def _template_lines(task: Task) -> list[str]:
    """The keys of a task file that make the model's input, a line of text on a line of its own."""
    lines = []
    for key in (key for key in _SHOWN if key in task.mapping):
        value = task.mapping[key]
        text = (
            value if isinstance(value, str) else "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        )
        lines += [f"{key}:", *(f"  {line}" for line in text.split("\n"))]
    return lines


def file_difference(source: str, file: Path) -> tuple[str, ...] | None:
    """The differences of a task file on disk from the `source` that a task was read from before.

    Empty where it says the same, None where it is gone.
    """
    if not file.exists():
        return None
    try:
        if file.read_text(encoding="utf-8") == source:
            return ()
        before = Task.from_source(source, file.parent, where=str(file))
        return difference(before.mapping, Task.from_file(file).mapping)
    except (OSError, ValueError, MultipromptError) as error:
        return (f"it cannot be read as a task file any more: {' '.join(str(error).split())}",)


def _flat(mapping: Mapping[Any, Any], head: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        inner = isinstance(value, Mapping) and value
        flat |= _flat(value, f"{head}{key}.") if inner else {f"{head}{key}": value}
    return flat


def _line(flat: Mapping[str, Any], key: str) -> str:
    return f"{key}: {json.dumps(flat[key], ensure_ascii=False, default=str)}" if key in flat else ""


def _shown(line: str) -> str:
    """A line without the secrets of URLs that data are read from."""
    return without_secrets(line) if line.startswith("dataset_") else line


def _cut(line: str) -> str:
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1]}…"
