"""Blocks of the guide: found in Markdown, and run in order in one folder a page."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiprompt.cli.main import cli
from multiprompt.errors import MultipromptError

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|file|exit): (?P<value>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
RUN = ("python", "shell")


@dataclass(frozen=True)
class Block:
    """A fenced block. The comment before it says why it is not run, which file it is, or its exit status."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    value: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(page: str, markdown: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(markdown):
        line = markdown.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], found["text"], found["mark"] or "", found["value"] or "")


class Page:
    """A page that is run: one folder, and one namespace for its Python."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, Any] = {}

    def run(self, block: Block) -> None:
        """Run a block. Raises AssertionError with its place and its output where it fails."""
        if block.mark == "file":
            path = self._folder / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.mark != "not run" and block.language == "python":
            self._run_python(block)
        elif block.mark != "not run" and block.language == "shell":
            status = int(block.value) if block.mark == "exit" else 0
            for command in _commands(block.text):
                found, output = self._run_command(command)
                assert found == status, f"{block.where}: `{command}` ended with {found}:\n{output}"

    def _run_python(self, block: Block) -> None:
        output = io.StringIO()
        try:
            with contextlib.chdir(self._folder), contextlib.redirect_stdout(output):
                exec(compile(block.text, block.where, "exec"), self._names)
        except Exception as error:
            raise AssertionError(f"{block.where}: {type(error).__name__}: {error}") from error

    def _run_command(self, command: str) -> tuple[int, str]:
        """A command of multiprompt runs in this process, which has torch loaded; any other in a shell."""
        words = shlex.split(command, comments=True)
        if words[0] != "multiprompt" or set(words) & {"|", ">", "&&", "<", "&"}:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            return done.returncode, done.stdout + done.stderr
        output = io.StringIO()
        with contextlib.chdir(self._folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                return int(cli.main(words[1:], standalone_mode=False) or 0), output.getvalue()
            except SystemExit as stop:
                return int(stop.code or 0), output.getvalue()
            except (MultipromptError, Exception) as error:
                return 2, f"{output.getvalue()}{type(error).__name__}: {error}"


def _commands(text: str) -> list[str]:
    """The commands of a block, a line each; a line that ends in a backslash goes on."""
    joined = text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
