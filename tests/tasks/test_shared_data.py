"""The task files of the shared data folder: each is read whole, and every row becomes an example."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiprompt.tasks.example import Budget, constant_text, examples
from multiprompt.tasks.split import load_data
from multiprompt.tasks.task import Task
from tests.conftest import SHARED_DATA

FILES = sorted(SHARED_DATA.glob("*/task.yaml"))
WORDS = Budget(200, lambda text: len(text.split()))

pytestmark = pytest.mark.skipif(not FILES, reason="the shared data folder is not beside this checkout")


def test_all_27_tasks_are_there_under_names_of_their_own() -> None:
    tasks = [Task.from_file(path) for path in FILES]
    assert len({task.name for task in tasks}) == 27


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_row_becomes_an_example(path: Path) -> None:
    task = Task.from_file(path)
    data = load_data(task)
    for split in (data.training, data.validation, data.test):
        made = examples(task, split, WORDS)
        assert len(made) == len(split.rows) > 0
        assert all(example.query.context.startswith(constant_text(task)) for example in made)
        assert all(WORDS.count(example.query.context) <= WORDS.tokens for example in made)
        assert all(example.answer for example in made)
        assert len({example.answer for example in made}) > 1
    assert len({data.training.fingerprint, data.validation.fingerprint, data.test.fingerprint}) == 3
