"""What changed in a task file is told key by key, in few and short lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from multiprompt.tasks.file_change import changed_keys, difference, file_difference
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping


def test_the_keys_that_changed_are_named_down_to_the_setting() -> None:
    old = {"task": "a", "multiprompt": {"training": {"steps": 6, "seed": 1}}, "tag": ["x"], "gone": 1}
    new = {"task": "a", "multiprompt": {"training": {"steps": 8, "seed": 1}}, "tag": ["x", "y"], "new": {}}
    assert changed_keys(old, new) == ["multiprompt.training.steps", "tag", "gone", "new"]
    assert difference(old, new) == (
        "-multiprompt.training.steps: 6",
        "+multiprompt.training.steps: 8",
        '-tag: ["x"]',
        '+tag: ["x", "y"]',
        "-gone: 1",
        "+new: {}",
    )
    assert difference(old, old) == ()


def test_a_difference_shows_no_secret_of_a_url() -> None:
    old = {"dataset_kwargs": {"data_files": {"test": "https://me:hunter2@host/a.csv?token=hunter2"}}}
    new = {"dataset_kwargs": {"data_files": {"test": ["a.csv"]}}}
    assert difference(old, new) == (
        '-dataset_kwargs.data_files.test: "https://***@host/a.csv?token=***"',
        '+dataset_kwargs.data_files.test: ["a.csv"]',
    )


def test_a_difference_is_bounded() -> None:
    told = difference({}, {f"k{n}": "x" * 1000 for n in range(50)})
    assert len(told) == 20
    assert told[-1] == "… and 31 more lines"
    assert max(map(len, told)) <= 81


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda text: text, []),
        (lambda text: "# a comment\n" + text, []),
        (lambda text: text.replace("Which colour", "What colour"), ["-description: ", "+description: "]),
        (lambda text: "task: [", ["it cannot be read as a task file any more: "]),
        (lambda text: "\udcff", ["it cannot be read as a task file any more: "]),
    ],
)
def test_a_file_is_compared_with_what_was_read_of_it(tmp_path: Path, edit: object, told: list[str]) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump(task_mapping()))
    task = Task.from_file(file)
    assert task.file == file
    file.write_bytes(edit(file.read_text()).encode(errors="surrogateescape"))  # type: ignore[operator]
    found = file_difference(task.source, file)
    assert found is not None
    assert [line.startswith(start) for line, start in zip(found, told, strict=True)] == [True] * len(told)


def test_a_file_that_is_gone_is_no_difference(tmp_path: Path) -> None:
    assert file_difference("", tmp_path / "gone.yaml") is None
