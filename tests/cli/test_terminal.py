"""Tables on a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import multiprompt as mp
from tests.conftest import task_mapping

TABLES = [
    (("tasks",), "colour"),
    (("versions",), "published"),
    (("evaluations",), "hard"),
    (("events",), "task-added"),
    (("jobs",), "queued"),
    (("schedule", "list"), "active"),
    (("plan",), "retrain"),
    (("matrix",), "colour"),
    (("evaluation", "2"), "sky"),
    (("diff", "colour@1", "colour@2", "--no-tokens"), "num_virtual_tokens"),
    (("check",), "identical"),
    (("impact", "base", "tiny"), "runs-on"),
]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A catalog with two versions of a task, a job, a schedule and a long note."""
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "rows.jsonl").write_text('{"text": "sky", "label": "red"}\n{"text": "sea", "label": "green"}\n' * 6)
    files = dict.fromkeys(("train", "validation", "test"), str(folder / "rows.jsonl"))
    with mp.open(folder / "catalog.db", str(tiny_model), dtype="float32") as ws:
        for tokens in (4, 5):
            mapping = task_mapping("colour") | {"dataset_kwargs": {"data_files": files}}
            mapping["multiprompt"] = mapping["multiprompt"] | {"num_virtual_tokens": tokens}
            mapping["multiprompt"]["regression"] = {"floor": "none", "max_drop": 1.0}
            ws.add_task(mp.Task.from_mapping(mapping))
            ws.learn("colour")
        ws.submit("colour")
        ws.schedule("colour", cron="0 3 * * *")
        ws.note("colour", "a long note " * 20)
    return folder / "catalog.db"


def on_terminal(catalog: Path, width: int, *arguments: str) -> str:
    """What a command prints on a terminal of a width, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [sys.executable, "-m", "multiprompt", *arguments, "--catalog", str(catalog)]
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        printed = b""
        with contextlib.suppress(OSError):  # Linux ends the reading of a closed terminal with an error
            while read := os.read(ours, 65536):
                printed += read
        os.close(ours)
        assert process.wait() == 0, printed
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.decode()).replace("\r", "")


@pytest.mark.parametrize(("command", "says"), TABLES, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_a_table_fits_80_columns_and_keeps_what_it_is_read_for(
    catalog: Path, command: tuple[str, ...], says: str
) -> None:
    lines = on_terminal(catalog, 80, *command).splitlines()
    table = [line for line in lines if not re.match(r"pass:|left out:|\d+ prompt|.*rows flipped", line)]
    assert max(map(len, table)) <= 80
    assert any(says in line for line in table[1:])


def test_a_narrow_terminal_keeps_the_verdict_beside_the_version_and_names_what_is_left_out(catalog: Path) -> None:
    lines = on_terminal(catalog, 60, "check").splitlines()
    assert any(re.match(r"colour@2 +identical ", line) for line in lines)
    assert any(line.startswith("left out: detectable, tolerated") for line in lines)


def test_a_pipe_gets_whole_lines_without_colours(catalog: Path) -> None:
    command = [sys.executable, "-m", "multiprompt", "check", "--catalog", str(catalog)]
    environment = {**os.environ, "COLUMNS": "40", "FORCE_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    heading, row, *_ = done.stdout.splitlines()
    assert re.split("  +", heading) == [
        "version", "verdict", "metric", "baseline", "now", "drop", "95 % of it", "tolerated", "detectable", "cause",
    ]  # fmt: skip
    assert row.startswith("colour@2  identical  acc ")
    assert "\x1b" not in done.stdout


def test_a_job_id_is_not_folded_so_that_it_can_be_copied(catalog: Path) -> None:
    with mp.open(catalog, create=False) as ws:
        (job,) = ws.jobs()
    assert job.id in on_terminal(catalog, 80, "jobs")
