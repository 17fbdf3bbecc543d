"""The keys of a task file: those that it must have, those that it may have, and those that change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiprompt.errors import TaskFileError, nearest

_REQUIRED = ("task", "dataset_path", "output_type", "doc_to_text", "doc_to_target")
_OPTIONAL = (
    "metric_list",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "description",
    "doc_to_choice",
    "target_delimiter",
    "generation_kwargs",
    "filter_list",
    "tag",
    "metadata",
    "multiprompt",
)
# Keys of the harness that change no score when a task is run without few-shot examples.
_WITHOUT_EFFECT = (
    "task_alias",
    "group",
    "num_fewshot",
    "fewshot_delimiter",
    "fewshot_split",
    "fewshot_config",
    "repeats",
    "should_decontaminate",
    "doc_to_decontamination_query",
)


def check_keys(mapping: Mapping[str, Any], where: str) -> None:
    """Raises TaskFileError for a key that is missing or not supported."""
    if is_group(mapping):
        raise TaskFileError(
            f"{where} is a group of tasks; add its tasks with `multiprompt add --group {where}`, which looks for them."
        )
    if "include" in mapping:
        raise TaskFileError(f"{where} uses include, which only a file can do; write the included keys out.")
    for key in _REQUIRED:
        if mapping.get(key) is None:
            raise TaskFileError(f"{where} lacks the key {key!r}.")
    known = {*_REQUIRED, *_OPTIONAL, *_WITHOUT_EFFECT}
    for key in mapping:
        if key not in known:
            raise TaskFileError(f"{where} has the key {key!r}, which is not supported; {nearest(str(key), known)}")
    if mapping.get("num_fewshot"):
        raise TaskFileError(
            f"{where} asks for {mapping['num_fewshot']} few-shot examples; a soft prompt replaces them."
        )


def is_group(mapping: Mapping[str, Any]) -> bool:
    """Whether a file groups other tasks instead of being one."""
    return "group" in mapping and not isinstance(mapping.get("task"), str)


def text_of(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise TaskFileError(f"{key} is {value!r}, but it must be text.")
    return value
