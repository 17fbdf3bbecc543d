"""Columns: the rows of a data frame, or bare rows of one task, asked of it; answers as a column."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import InputRow
from multiprompt.errors import ConfigError, DataError
from multiprompt.records import Prediction
from multiprompt.tasks.draft import field_name
from multiprompt.tasks.memory import cells
from multiprompt.tasks.template import Template

if TYPE_CHECKING:
    from pandas import Series


def is_column(rows: object) -> bool:
    """Whether rows are a pandas DataFrame or Series, which is answered by a column."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, (pandas.DataFrame, pandas.Series))


def asked_of(catalog: Catalog, label: str, rows: Any) -> list[InputRow]:
    """Rows of one task: a data frame, whose columns are fields, a column of texts, or a list of texts or mappings."""
    if not isinstance(label, str):
        raise ConfigError(f"task is a {type(label).__name__}; give the name of a task or version.")
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise DataError(f"the rows are a {type(rows).__name__}; give a list of them, or a data frame.")
    is_frame = hasattr(rows, "columns")
    return [(label, row) for row in (_frame_rows(rows, lambda: _fields(catalog, label)) if is_frame else rows)]


def column(label: str, rows: Any, predictions: Sequence[Prediction]) -> Series:
    """The answers as a column with the index of the rows; None where a row has an error."""
    import pandas

    answers = [None if found.error is not None else found.output for found in predictions]
    return pandas.Series(answers, index=rows.index, name=label, dtype=object)


def _frame_rows(frame: Any, read: Callable[[], Collection[str]]) -> list[Mapping[str, Any]]:
    """The rows of a data frame; a column that no template can name goes by its field's name, too.

    Raises DataError where a field that is `read` is that of several columns.
    """
    names = list(map(str, frame.columns))
    of_field: dict[str, list[str]] = {}
    for name in names:
        of_field.setdefault(field_name(name) or name, []).append(name)
    several = {field: columns for field, columns in of_field.items() if len(columns) > 1}
    for field in sorted(several.keys() & read()) if several else ():
        raise DataError(f"the field {field!r} is that of the columns {', '.join(map(repr, several[field]))}: give one.")
    columns = {name: list(cells(frame.iloc[:, place])) for place, name in enumerate(names)}
    columns = {field_name(name): values for name, values in columns.items()} | columns
    return [{name: values[row] for name, values in columns.items()} for row in range(len(frame))]


def _fields(catalog: Catalog, label: str) -> frozenset[str]:
    """The fields that a version's rows are read by."""
    task = catalog.versions.task(catalog.versions.labelled(label))
    choices = task.doc_to_choice
    return task.fields | (choices.fields if isinstance(choices, Template) else frozenset())
