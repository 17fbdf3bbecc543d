"""Completion, as bash runs it: names of the catalog on TAB, quickly and without an error."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

import multiprompt as mp
from tests.conftest import MakeTask


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment with a program `multiprompt` that fails where a heavy library is loaded."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "multiprompt").write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'datasets', 'evaluate'):\n"
        "    sys.modules[name] = None\n"
        "from multiprompt.cli.main import main\n"
        "main()\n"
    )
    (folder / "multiprompt").chmod(0o755)
    root = str(Path(mp.__file__).parents[1])
    paths = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": root}
    return {**os.environ, **paths, "MULTIPROMPT_CATALOG": str(tmp_path / "catalog.db")}


def completed(program: dict[str, str], *words: str) -> list[str]:
    """What bash offers behind these words, by the function that it is given to use."""
    script = (
        'source <(_MULTIPROMPT_COMPLETE=bash_source multiprompt); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_multiprompt_completion multiprompt; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "-c", script, "bash", "multiprompt", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=program, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_names_of_the_catalog_are_completed(
    workspace: mp.Workspace, make_task: MakeTask, program: dict[str, str]
) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    workspace.add_task(make_task("shape"))
    job = workspace.submit("shape")
    workspace.schedule("colour", every=timedelta(hours=6), called="nightly")
    assert completed(program, "learn", "") == ["colour", "shape"]
    assert completed(program, "learn", "colour", "s") == ["shape"]
    assert completed(program, "predict", "c") == ["colour"]
    assert completed(program, "show", "colour@") == ["colour@1"]
    assert completed(program, "rollback", "colour", "--to", "") == ["1"]
    assert completed(program, "job", "show", "") == [job.id]
    assert completed(program, "schedule", "pause", "n") == ["nightly"]
    assert completed(program, "evaluation", "") == ["2", "1"]
    assert completed(program, "docs", "gl") == ["glossary"]
    assert "learn" in completed(program, "le")
    assert completed(program, "learn", "--catalog", "nowhere.db", "") == []


def test_a_catalog_that_is_missing_or_none_completes_nothing(program: dict[str, str], tmp_path: Path) -> None:
    assert completed(program, "learn", "") == []
    (tmp_path / "catalog.db").write_text("no database")
    for words in (("learn", ""), ("job", "show", ""), ("schedule", "pause", ""), ("show", "x@")):
        assert completed(program, *words) == []
    assert (tmp_path / "catalog.db").read_text() == "no database"


def test_a_server_that_does_not_answer_completes_nothing(program: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        assert completed(program | {"MULTIPROMPT_CATALOG": url}, "learn", "") == []
