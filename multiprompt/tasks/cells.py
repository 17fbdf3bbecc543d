"""Cells of CSV files, which are texts here, but numbers, truth values or nulls in the harness."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from multiprompt.errors import DataError, TemplateError
from multiprompt.tasks.data import Row, Split
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Column, Null, NullFieldError, Template

# The texts that pandas reads as truth values and numbers.
TRUTH: Mapping[str, bool] = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_WHOLE = re.compile(r"[ \t]*[+-]?[0-9]{1,18}[ \t]*")
_NUMBER = re.compile(r"[ \t]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t]*")


class _Cell:
    """A value that is written out as its cell."""

    def __init__(self, cell: str) -> None:
        self.cell = cell

    def __str__(self) -> str:
        return self.cell


class _Whole(_Cell, int):
    pass


class _Number(_Cell, float):
    pass


class _Empty(Null):
    """A null that is written out as its cell."""

    def __str__(self) -> str:  # type: ignore[override]
        return ""


def whole_numbers(cells: Sequence[Any]) -> list[int] | None:
    """A column of nothing but whole numbers or truth values, as the harness reads it; None for any other."""
    if all(cell in TRUTH for cell in cells):
        return [int(TRUTH[cell]) for cell in cells]
    return list(map(int, cells)) if all(map(_matches(_WHOLE), cells)) else None


def check_cells(task: Task, split: Split) -> None:
    """Refuse a template that tells texts from the values that the harness reads. Raises DataError naming the row.

    One that only writes fields out does not; it writes each as its cell.
    """
    _refuse_several_inputs(task, split)
    parts = (task.description, task.doc_to_text, task.doc_to_target, task.doc_to_choice)
    templates = [part for part in parts if isinstance(part, Template) and not isinstance(part, Column)]
    fields = sorted(frozenset().union(*(one.worked_fields for one in templates)))
    readings = {name: found for name in fields if (found := _reading([row.get(name) for row in split.rows]))}
    for number, row in enumerate(split.rows if readings else ()):
        typed = {**row, **{name: reading(row[name]) for name, reading in readings.items()}}
        for one in templates:
            if _differ(one, row, typed):
                names = ", ".join(sorted(one.worked_fields & readings.keys()))
                raise DataError(
                    f"{task.name}: row {number} of split {split.name!r}: {one.where} tests or computes with {names}, "
                    "which in a CSV file is text here, but numbers, truth values or nulls in the harness. "
                    "Write the rows as JSON lines or parquet."
                )


def _refuse_several_inputs(task: Task, split: Split) -> None:
    """The harness takes a text that is a whole number for the index of one of several inputs."""
    column = task.doc_to_text
    if not isinstance(column, Column) or task.doc_to_choice is None:
        return
    if whole_numbers([row.get(column.source) for row in split.rows]) is not None:
        raise DataError(
            f"{task.name}: split {split.name!r} has numbers as doc_to_text, by which the harness would choose one of "
            "several inputs; write doc_to_text as a template with a word before or behind the number."
        )


def _reading(cells: Sequence[Any]) -> Callable[[str], Any] | None:
    """The function by which the harness reads a cell of this column; None where it reads texts."""
    filled = [cell for cell in cells if cell != ""]
    if not all(isinstance(cell, str) for cell in filled):
        return None
    if all(cell in TRUTH for cell in filled):
        return lambda cell: TRUTH[cell] if cell else _Empty(cell)
    for pattern, kind in ((_WHOLE, _Whole), (_NUMBER, _Number)):
        if all(map(_matches(pattern), filled)):
            return lambda cell, kind=kind: kind(cell) if cell else _Empty(cell)  # type: ignore[misc]
    return None if len(filled) == len(cells) else lambda cell: cell or _Empty(cell)


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda cell: isinstance(cell, str) and pattern.fullmatch(cell) is not None


def _differ(template: Template, row: Row, typed: Row) -> bool:
    """Whether both can be rendered, and as other texts. The harness fails on choices that are no texts."""
    try:
        here, there = template.render(row), template.render(typed)
    except (TemplateError, NullFieldError):
        return False
    return here != there and not (template.where == "doc_to_choice" and _holds_others_than_texts(there))


def _holds_others_than_texts(text: str) -> bool:
    try:
        return not all(isinstance(choice, str) for choice in ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return True
