"""The library speaks Python, and the command line speaks command line: a test of each message that names a way out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import multiprompt as mp
from multiprompt.cli.main import cli
from multiprompt.cli.words import in_shell_words

PACKAGE = Path(mp.__file__).parent
ROOMS = (
    "catalog",
    "context.py",
    "engine",
    "gate",
    "jobs",
    "learning",
    "opening.py",
    "reports",
    "serving",
    "tasks",
    "workspace.py",
)
# A worker, an upgrade and a group are started in a shell alone. The other two are commands of other programs.
SHELL_ONLY = ("multiprompt worker", "multiprompt upgrade", "--group", "pip download", "multiprompt evaluation {{")


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module without its docstrings, a value in each place of an f-string."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in docstrings | parts:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(_filled(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _filled(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    return "'x'" if isinstance(part, ast.FormattedValue) and part.conversion == ord("r") else "1"


def messages() -> Iterator[str]:
    for room in ROOMS:
        path = PACKAGE / room
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for text in texts(ast.parse(module.read_text(encoding="utf-8"))):
                if " " in text and not any(known in text for known in SHELL_ONLY):
                    yield text


def test_no_message_of_the_library_names_a_command_or_an_option() -> None:
    said = [text for text in messages() if re.search(r"`multiprompt |(?<!\S)`?--[a-z]", text)]
    assert said == []


def test_each_call_that_a_message_names_is_a_method_and_a_command_with_these_options() -> None:
    named = [call for text in messages() for call in re.findall(r"`((?:ws|mp)\.\w+\([^`]*\))`", text)]
    assert len(named) >= 8
    for call in named:
        name = call.partition("(")[0]
        assert hasattr(mp.Workspace if name.startswith("ws.") else mp, name.partition(".")[2]), call
        told = in_shell_words(f"run `{call}`")
        command = re.fullmatch(r"run `multiprompt (\S+)(.*)`", told)
        assert command is not None, call
        options = {option for parameter in cli.commands[command[1]].params for option in parameter.opts}
        assert set(re.findall(r"--\S+", command[2])) <= options, told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("run `ws.learn('a b')`.", "run `multiprompt learn 'a b'`."),
        ("`ws.rollback('x', to=2)` publishes it", "`multiprompt rollback x --to 2` publishes it"),
        ("`ws.publish('x@1', force=True, reason='…')`", "`multiprompt publish x@1 --force --reason …`"),
        ("or learn it with `as_added=True`.", "or learn it with --as-added."),
        ("give one with `reason='…'`.", "give one with --reason …."),
        ("a row says `ws.drop('x')` and `f(` and `a b=c`", "a row says `ws.drop('x')` and `f(` and `a b=c`"),
    ],
)
def test_a_python_call_is_told_as_a_command(said: str, told: str) -> None:
    assert in_shell_words(said) == told
