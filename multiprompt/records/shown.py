"""The look of records: a line in a console, an escaped HTML table in a notebook. Rows of data are never shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from html import escape
from typing import Any

MAX_CELL, MAX_ROWS = 80, 20


class Shown:
    """Something that names its facts: its `repr` is a line of them, and a notebook shows them as a table."""

    def _facts(self) -> Mapping[str, Any]:
        """The facts to show, by their names."""
        raise NotImplementedError

    @property
    def _line(self) -> str:
        """The facts on one line."""
        return ", ".join(f"{name} {cell(value)}" for name, value in self._facts().items())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._line}>"

    def _repr_html_(self) -> str:
        return html_table((type(self).__name__, ""), list(self._facts().items()))


def facts_of(record: Any) -> Mapping[str, Any]:
    """The facts of a record, or else its fields."""
    if isinstance(record, Shown):
        return record._facts()
    return {field.name: getattr(record, field.name) for field in fields(record)}


def html_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of escaped cells."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell(value))}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines of cells, padded to the width of their column."""
    lines = [list(columns), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def cell(value: Any) -> str:
    """A value on one short line."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, Mapping):
        value = [f"{key}: {cell(inner)}" for key, inner in value.items()]
    if isinstance(value, (tuple, list)):
        value = ", ".join(map(cell, value))
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"
