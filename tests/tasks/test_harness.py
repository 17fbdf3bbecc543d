"""Task files are counted by what stops them, and scored as lm_eval scores them.

The same over the harness's own task files is `python -m benchmarks.harness`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.harness import compare, count
from benchmarks.harness_rows import made_up
from multiprompt.tasks.task import Task

CHOICE: dict[str, Any] = {
    "dataset_path": "owner/name",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{passage}}\nQ: {{question.stem}}\nA:",
    "doc_to_choice": "{{question.choices.text}}",
    "doc_to_target": "{{question.choices.label.index(answerKey)}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
TEXT: dict[str, Any] = {
    "dataset_path": "owner/name",
    "test_split": "test",
    "doc_to_text": "My Question",
    "doc_to_target": "Right Answers",
    "output_type": "generate_until",
    "fewshot_delimiter": "#",
    "generation_kwargs": {},
    "metric_list": [{"metric": "exact_match", "ignore_case": True}],
    "filter_list": [
        {"name": "word", "filter": [{"function": "regex", "regex_pattern": r"(\w+)"}, {"function": "take_first"}]},
        {"name": "all", "filter": [{"function": "lowercase"}, {"function": "take_first"}]},
    ],
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, keys in {"choice": CHOICE, "text": TEXT, "group": {"group": "g", "task": ["choice"]}}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | keys))
    (tmp_path / "code.yaml").write_text("task: code\ndoc_to_text: !function utils.text\n")
    return tmp_path


def test_task_files_are_counted_by_what_stops_them(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepted = count(sorted(files.glob("*.yaml")))
    assert [file.stem for file in accepted] == ["choice", "text"]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "4 files: 2 accepted, 1 with a Python function,"
    assert told[2].split(maxsplit=1) == ["1", "is a group of tasks"]


def test_rows_are_made_up_in_the_shape_that_the_templates_read() -> None:
    rows = made_up(Task.from_mapping({"task": "choice"} | CHOICE), 0)
    assert rows is not None
    assert {name: type(value) for name, value in rows[0].items()} == {
        "passage": str,
        "question": dict,
        "answerKey": str,
    }
    assert rows[1]["question"]["choices"]["label"][1] == rows[1]["answerKey"] == "B"


def test_scores_are_those_of_the_harness(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval", reason="pip install lm_eval==0.4.13")
    assert compare([files / "choice.yaml", files / "text.yaml"], 2, tmp_path)
    assert "2 of 2 task files have equal prompts and scores" in capsys.readouterr().out
