"""Faults of a task's data: each is named, with the numbers of rows and none of their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from multiprompt.gate.data_faults import data_faults
from multiprompt.tasks.data import Split
from multiprompt.tasks.split import TaskData
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping


def rows(name: str, texts: Sequence[str], labels: Sequence[str] = ("red", "green")) -> Split:
    return Split(
        name,
        tuple({"text": text, "label": labels[n % len(labels)], "id": f"{name} {n}"} for n, text in enumerate(texts)),
    )


def faults(
    training: Split = rows("train", ["a", "b", "c", "d"]),  # noqa: B008
    test: Split = rows("test", [f"t{n}" for n in range(600)]),  # noqa: B008
    validation: Split = rows("validation", ["v", "w"]),  # noqa: B008
    **keys: Any,
) -> list[str]:
    task = Task.from_mapping(task_mapping() | keys)
    return [fault.removeprefix("colour: ") for fault in data_faults(task, TaskData(training, validation, test))]


def settled(**regression: Any) -> dict[str, Any]:
    return {"multiprompt": {"regression": regression}}


def test_sound_data_has_no_faults() -> None:
    assert faults() == []


def test_too_few_rows_to_detect_max_drop_name_the_least_drop_that_they_show() -> None:
    (fault,) = faults(test=rows("test", [f"t{n}" for n in range(40)]))
    assert fault == (
        "the 40 rows of split 'test' can show a drop of 0.1500 at the least, but max_drop is 0.01; "
        "about 600 rows could show that"
    )
    assert faults(test=rows("test", [f"t{n}" for n in range(40)]), **settled(max_drop=0.15)) == []
    (fault,) = faults(test=rows("test", ["x", "y", "z"]), **settled(max_drop=0.0))
    assert fault == "split 'test' has 3 rows, too few to show any drop; 6 rows are the least"


def test_test_rows_among_the_others_are_counted_and_numbered() -> None:
    """A row is what the model is shown of it: another id or label makes no other row."""
    test = rows("test", ["a", "new", "B!", "v"] + [f"t{n}" for n in range(596)], ("green", "red"))
    assert faults(test=test) == [
        "1 of 600 test rows are training rows, too (test rows 0)",
        "1 of 600 test rows are training rows but for case, spaces or punctuation (test rows 2)",
        "1 of 600 test rows are validation rows, too (test rows 3)",
    ]
    many = rows("test", ["secret"] * 600)
    (fault,) = faults(rows("train", ["secret", "b"]), many)
    assert fault == "600 of 600 test rows are training rows, too (test rows 0, 1, 2, 3, 4, …)"


def test_rows_of_punctuation_alone_are_not_alike() -> None:
    assert faults(rows("train", ["+", "x"]), rows("test", ["-", "*"] * 300)) == []


def test_fields_that_the_task_does_not_read_make_no_duplicates() -> None:
    assert faults(rows("train", ["a", "b"]), rows("test", ["c", "d"] * 300), doc_to_text="{{id}}") == []


def test_an_answer_that_training_lacks_is_named() -> None:
    test = rows("test", [f"t{n}" for n in range(600)], ("red", "blue", "green"))
    assert faults(test=test) == ["no training row has the answer blue, but test rows have"]


def test_one_split_or_file_for_two_purposes_is_named() -> None:
    assert "split 'train' is used for training and for test" in faults(test_split="train")
    files = {"train": "rows.jsonl", "validation": "v.jsonl", "test": "rows.jsonl"}
    assert "training and test are read from the same file rows.jsonl" in faults(dataset_kwargs={"data_files": files})
    assert faults(test_split=None, dataset_kwargs={"data_files": files}) == []


@pytest.mark.parametrize("text", [None, 7, {"a": [1]}, ["x"]])
def test_fields_of_any_type_are_compared(text: Any) -> None:
    odd = Split("train", ({"text": text, "label": "red"}, {"text": "b", "label": "green"}))
    test = Split("test", ({"text": text, "label": "red"}, *rows("test", [f"t{n}" for n in range(599)]).rows))
    assert faults(odd, test)[0] == "1 of 600 test rows are training rows, too (test rows 0)"


def test_a_text_without_a_field_is_named_and_one_that_names_a_column_is_compared() -> None:
    (fault,) = faults(doc_to_text="{{'Review Text'}}", description="")
    assert fault == "doc_to_text \"{{'Review Text'}}\" reads no field, so that the model sees all rows alike"
    test, training = (Split(name, ({"Review Text": "a", "label": "red"},) * 600) for name in ("test", "train"))
    found = faults(training=training, test=test, doc_to_text="Review Text")
    assert [fault.split(" (")[0] for fault in found] == ["600 of 600 test rows are training rows, too"]


def test_an_answer_that_names_no_column_is_named() -> None:
    told = "doc_to_target 'dark red' reads no field, so that all rows have the same answer"
    choices = ["dark red", "green"]
    assert told in faults(doc_to_target="dark red", doc_to_choice=choices)
    for keys in ({"doc_to_target": 0}, {"doc_to_target": "dark red", "doc_to_choice": "{{['dark red', text]}}"}, {}):
        assert not any("same answer" in fault for fault in faults(**keys))
