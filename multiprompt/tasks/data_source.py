"""The source of a task's rows, as its task file names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiprompt.errors import TaskFileError
from multiprompt.tasks.keys import text_of
from multiprompt.tasks.urls import has_secret, without_secrets

# The dataset_path of a task whose rows a catalog keeps; its data_files are the fingerprints of these.
SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class DataSource:
    """The source of the rows; a folder and `data_files` are relative to the task file's folder."""

    path: str
    name: str | None
    data_files: Mapping[str, list[str]] | None
    training: str | None
    validation: str | None
    test: str | None

    @property
    def snapshots(self) -> Mapping[str, str]:
        """The fingerprint of each split, by its name, where a catalog keeps the rows; empty for other data."""
        files = self.data_files or {}
        if self.path != SNAPSHOT or not all(len(f) == 1 and f[0].startswith("sha256:") for f in files.values()):
            return {}
        return {split: fingerprint for split, (fingerprint,) in files.items()}


def read_data_source(mapping: Mapping[str, Any]) -> DataSource:
    """The source that a task file names. Raises TaskFileError."""
    options = mapping.get("dataset_kwargs") or {}
    if not isinstance(options, dict):
        raise TaskFileError(f"dataset_kwargs is {options!r}, but it must be a mapping.")
    for key in options:
        if key == "trust_remote_code" and options[key] is not False:
            raise TaskFileError("dataset_kwargs asks for trust_remote_code, which would run code from data; remove it.")
        if key not in ("data_files", "trust_remote_code"):
            raise TaskFileError(f"dataset_kwargs has {key!r}; only 'data_files' is supported.")
    splits = {key: mapping.get(key) for key in ("training_split", "validation_split", "test_split")}
    for key, value in splits.items():
        if value is not None and not text_of(value, key):
            raise TaskFileError(f"{key} is empty; name a split, or leave the key out.")
    if splits["test_split"] is None and splits["validation_split"] is None:
        raise TaskFileError("it names neither test_split nor validation_split, so there are no rows to evaluate on.")
    name = mapping.get("dataset_name")
    return DataSource(
        path=text_of(mapping["dataset_path"], "dataset_path"),
        name=None if name is None else text_of(name, "dataset_name"),
        data_files=_data_files(options.get("data_files"), splits["training_split"]),
        training=splits["training_split"],
        validation=splits["validation_split"],
        test=splits["test_split"],
    )


def _data_files(value: Any, training_split: str | None) -> Mapping[str, list[str]] | None:
    if value is None:
        return None
    by_split = value if isinstance(value, dict) else {training_split or "train": value}
    files: dict[str, list[str]] = {}
    for split, paths in by_split.items():
        listed = paths if isinstance(paths, list) else [paths]
        files[text_of(split, "data_files")] = [text_of(path, f"data_files.{split}") for path in listed]
    return files


def refuse_secrets(source: DataSource) -> None:
    """Raises TaskFileError for a URL with a password or token, as a catalog keeps and shows the task file."""
    files = [path for paths in (source.data_files or {}).values() for path in paths]
    for url in filter(has_secret, [source.path, *files]):
        raise TaskFileError(
            f"{without_secrets(url)} holds a password or token, which a catalog would keep; give it to fsspec by its "
            "configuration or environment, or fetch the file."
        )
