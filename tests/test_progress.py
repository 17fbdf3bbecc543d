"""Progress and logs: a line now and then in a file, bars in a notebook, and INFO logs that say how learning goes."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import multiprompt as mp
from multiprompt.cli.progress import progress_lines
from tests.conftest import MakeTask


def test_a_file_gets_a_line_now_and_then_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    advance = progress_lines(seconds=0.05)
    for step in range(1, 4):
        advance("colour: training", step, 100)
    assert capsys.readouterr().err == ""
    time.sleep(0.06)
    for step in (50, 51, 100):
        advance("colour: training", step, 100)
    advance("checking", 3, 3)
    assert capsys.readouterr().err == "colour: training: 50 of 100\ncolour: training: 100 of 100\n"


def test_a_notebook_shows_one_bar_for_each_piece_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(mp.__file__).parents[1]))
    code = """
from multiprompt.notebook import Bars, in_notebook
assert in_notebook()
bars = Bars()
for step in range(1, 4):
    bars("a <b>: training", step, 3)
bars("checking", 1, 2)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown: list[Any] = [output.data for output in notebook.cells[0].outputs]
    assert [one["text/plain"] for one in shown] == ["a <b>: training: 3 of 3", "checking: 1 of 2"]
    assert shown[0]["text/html"] == '<progress value="3" max="3"></progress> a &lt;b&gt;: training: 3 of 3'


def test_logs_of_level_info_say_how_learning_goes(
    workspace: mp.Workspace, make_task: MakeTask, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.add_task(make_task("colour"))
    with caplog.at_level(logging.INFO, "multiprompt"):
        workspace.learn("colour")
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("multiprompt")]
    assert logged[0].startswith("loading the base model from ")
    assert logged[1].startswith("loaded tiny (sha256:")
    for place, step in enumerate((0, 3, 6), start=2):
        assert logged[place].startswith(f"colour: step {step} of 6, validation loss ")
    assert logged[5].startswith("colour@1 published: acc ")


def test_the_package_lists_its_interface_only() -> None:
    assert set(dir(mp)) == {"MultipromptError", "Task", "Workspace", "errors", "open", "__version__"}
    assert mp.Task.__name__ == "Task"
