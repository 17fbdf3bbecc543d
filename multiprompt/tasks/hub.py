"""Datasets of the Hugging Face hub, read through `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from multiprompt.errors import DataError, UnavailableError
from multiprompt.tasks.files import BUILDERS, HUB
from multiprompt.tasks.rows import RowList
from multiprompt.tasks.tables import converted, plain, rows_of
from multiprompt.tasks.task import Task

_BATCH_ROWS = 100


def hub_rows(task: Task, split: str) -> tuple[tuple[Mapping[str, Any], ...], tuple[str, ...]]:
    """The rows of a split, and a note for each column whose values were converted. Raises DataError."""
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    source = task.data
    if source.path in _PACKAGED_DATASETS_MODULES:
        raise DataError(
            f"{task.name}: dataset_path {source.path!r} needs dataset_kwargs.data_files."
            if source.path in BUILDERS
            else f"{task.name}: dataset_path {source.path!r} is not supported; use {', '.join(BUILDERS)}, "
            "a folder or a dataset of the hub."
        )
    # With its scheme, a name is never taken for a folder of the working directory.
    path = HUB + source.path.removeprefix(HUB)
    try:
        dataset = datasets.load_dataset(path, source.name, data_files=source.data_files, split=split)
        rows = RowList()
        batches = dataset.with_format("arrow").iter(_BATCH_ROWS)
        for number, row in enumerate(chain.from_iterable(map(rows_of, batches))):
            rows.add(plain(row), f"row {number}")
        types = converted(dataset.features.arrow_schema)
    except DataError as error:
        raise DataError(f"{task.name}: split {split!r} of {source.path}: {error}") from None
    except Exception as error:  # datasets raises errors of many libraries, whose cause says more than their text
        cause = error.__cause__ or error
        if isinstance(cause, StopIteration) or "corresponds to no data" in str(cause):
            raise DataError(f"{task.name}: split {split!r} is empty.") from None
        raise DataError(f"{task.name}: split {split!r} of {source.path} cannot be read: {_one_line(cause)}") from error
    return rows.with_all_fields(), tuple(f"column {name!r}: {kind} is read as text" for name, kind in types.items())


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


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
