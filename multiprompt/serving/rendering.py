"""Rendering: the model's exact input for a row of a task or version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiprompt.catalog.labels import parse_label
from multiprompt.context import Context
from multiprompt.engine.answering import budget
from multiprompt.engine.rendering import render
from multiprompt.records import Rendering
from multiprompt.serving.predictor import as_row
from multiprompt.tasks.example import Example, Query, example, query_of
from multiprompt.tasks.split import load_row


def render_row(context: Context, label: str, row: Mapping[str, Any] | str | int, split: str) -> Rendering:
    """The input of a row, which is a mapping of fields, a text, or the number of a row of a split.

    A task that has no published version is rendered as its file says.
    """
    catalog = context.catalog
    learned = parse_label(label)[1] is not None or catalog.tasks.get(label).published is not None
    version = catalog.versions.labelled(label) if learned else None
    task = context.task(label) if version is None else catalog.versions.task(version)
    base = context.base_model()
    length = task.config.prompt.num_virtual_tokens if version is None else version.num_virtual_tokens
    room = budget(base, task, length)
    asked: Query | Example
    if isinstance(row, int) and not isinstance(row, bool):
        asked = example(task, load_row(task, split, row), room, f"{task.name}: row {row} of split {split!r}")
    else:
        asked = query_of(task, as_row(task, row), room)
    return render(base, task, asked, None if version is None else version.label, length)
