"""Rows in memory: records, data frames and datasets become the draft of a task, and its splits by fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from multiprompt.errors import DataError, NotFoundError, nearest
from multiprompt.tasks.data import Split
from multiprompt.tasks.draft import Draft, answer_column, default_name, draft_task
from multiprompt.tasks.rows import RowList, as_read
from multiprompt.tasks.tables import rows_of

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

_TABLE_ROWS = 1000


def snapshots_of(draft: Draft) -> dict[str, Split]:
    """The splits of a draft by their fingerprints; those of training carry the notes."""
    splits = [Split(name, rows, draft.notes if name == "train" else ()) for name, rows in draft.splits.items()]
    return {split.fingerprint: split for split in splits}


def draft_rows(
    rows: Iterable[Mapping[str, Any]],
    text: str,
    label: str | None,
    target: str | None,
    instruction: str | None,
    name: str | None,
    seed: int,
) -> Draft:
    """The draft of mappings. Raises DataError naming the row that is none."""
    answer = answer_column(label, target)
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise DataError(f"the rows are a {type(rows).__name__}, but they must be a list of mappings.")
    kept, known = RowList(), dict[str, None]()
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"row {number} is a {type(row).__name__}, but it must be a mapping with {text!r}.")
        known |= dict.fromkeys(map(str, row))
        kept.add(_read(row, (text, answer), number), f"row {number}")
    _require_columns(known, (text, answer))
    read = kept.with_all_fields()
    return draft_task(read, text, label, target, name=name or default_name(answer), instruction=instruction, seed=seed)


def draft_frame(frame: DataFrame, text: str, label: str | None, target: str | None, *rest: Any) -> Draft:
    """The draft of a data frame. Whole numbers that pandas holds as floats beside missing cells stay whole."""
    answer = answer_column(label, target)
    if not hasattr(frame, "columns") or not hasattr(frame, "convert_dtypes"):
        raise DataError(f"the frame is a {type(frame).__name__}, but it must be a pandas DataFrame.")
    names = list(map(str, frame.columns))
    _require_columns(names, (text, answer))
    for column in (text, answer):
        if names.count(column) > 1:
            raise DataError(f"the column {column!r} stands twice; rename one.")
    columns = [cells(frame.iloc[:, names.index(column)]) for column in (text, answer)]
    rows = (dict(zip((text, answer), row, strict=True)) for row in zip(*columns, strict=True))
    return draft_rows(rows, text, label, target, *rest)


def draft_dataset(dataset: Dataset, text: str, label: str | None, target: str | None, *rest: Any) -> Draft:
    """The draft of one split of `datasets`."""
    answer = answer_column(label, target)
    if isinstance(dataset, Mapping):
        raise DataError(f"the dataset has the splits {', '.join(map(str, dataset))}; give one, as in dataset['train'].")
    if not hasattr(dataset, "features"):
        raise DataError(f"the dataset is a {type(dataset).__name__}, but it must be a split of `datasets`.")
    features = dataset.features or {}
    if features:
        _require_columns(features, (text, answer))
        dataset = dataset.select_columns(list(dict.fromkeys((text, answer))))
    names = getattr(features.get(answer), "names", None)
    rows = _dataset_rows(dataset)
    if names:
        rows = ({**row, answer: named(row[answer], names, answer)} for row in rows)
    return draft_rows(rows, text, label, target, *rest)


def _dataset_rows(dataset: Any) -> Iterable[Mapping[str, Any]]:
    """The rows as a file of them would be read, whatever format was set; a transform that was set is applied."""
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":
        transformed: Iterable[Mapping[str, Any]] = dataset
        return transformed
    return (row for table in dataset.with_format("arrow").iter(_TABLE_ROWS) for row in rows_of(table))


def named(value: Any, names: Sequence[str], column: str) -> Any:
    """The name of a ClassLabel's number; None for -1, which stands for no label. Raises DataError."""
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise DataError(f"the column {column!r} holds a number beyond its {len(names)} label names.")
    return names[value]


def cells(column: Any) -> Any:
    """The cells of a column as a file of it would be read.

    pandas makes whole numbers floats where a cell is missing, and widens short floats, whose digits are then others.
    """
    if column.dtype.kind != "f":
        return column
    whole = column.convert_dtypes() if column.isna().any() else column
    return column.to_numpy() if whole.dtype.kind == "f" else whole


def _read(row: Mapping[str, Any], columns: Sequence[str], number: int) -> dict[str, Any]:
    try:
        return {column: as_read(row[column]) for column in columns if column in row}
    except DataError as error:
        raise DataError(f"row {number} {error}") from None


def _require_columns(known: Iterable[Any], columns: Sequence[str]) -> None:
    names = list(map(str, known))
    if not names:
        raise DataError("there are no rows.")
    for column in columns:
        if column not in names:
            raise NotFoundError(f"there is no column {column!r}; {nearest(str(column), names)}")
