"""Columns: the rows of a data frame, or bare rows of one task, asked of it; answers as a column."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiprompt.catalog.labels import InputRow
from multiprompt.errors import ConfigError, DataError
from multiprompt.records import Prediction
from multiprompt.tasks.draft import field_name
from multiprompt.tasks.memory import cells

if TYPE_CHECKING:
    from pandas import Series


def is_column(rows: object) -> bool:
    """Whether rows are a pandas DataFrame or Series, which is answered by a column."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, (pandas.DataFrame, pandas.Series))


def asked_of(label: str, rows: Any) -> list[InputRow]:
    """Rows of one task: a data frame, whose columns are fields, a column of texts, or a list of texts or mappings."""
    if not isinstance(label, str):
        raise ConfigError(f"task is a {type(label).__name__}; give the name of a task or version.")
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise DataError(f"the rows are a {type(rows).__name__}; give a list of them, or a data frame.")
    return [(label, row) for row in (_frame_rows(rows) if hasattr(rows, "columns") else rows)]


def column(label: str, rows: Any, predictions: Sequence[Prediction]) -> Series:
    """The answers as a column with the index of the rows; None where a row has an error."""
    import pandas

    answers = [None if found.error is not None else found.output for found in predictions]
    return pandas.Series(answers, index=rows.index, name=label, dtype=object)


def _frame_rows(frame: Any) -> list[Mapping[str, Any]]:
    """The rows of a data frame; a column that no template can name goes by its field's name, too."""
    columns = {str(name): list(cells(frame.iloc[:, place])) for place, name in enumerate(frame.columns)}
    columns = {field_name(name): values for name, values in columns.items()} | columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
