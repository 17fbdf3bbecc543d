"""The library's messages name Python calls in backquotes; the command line says the same as commands and options."""

from __future__ import annotations

import ast
import re
import shlex

# The calls that messages name, and the commands that do the same.
COMMANDS = {
    "mp.open": "init",
    "ws.add_task": "add",
    "ws.evaluations": "evaluations",
    "ws.learn": "learn",
    "ws.lineage": "lineage",
    "ws.publish": "publish",
    "ws.rollback": "rollback",
    "ws.verify": "verify",
}
_CALL = re.compile(r"`(\w+\.\w+)(\([^`]*\))`")
_SETTING = re.compile(r"`(\w+)=([^`]+)`")


def in_shell_words(message: str) -> str:
    """`ws.learn('x')` as `multiprompt learn x`, and `force=True` as --force; any other text as it is."""
    return _SETTING.sub(lambda found: _option(found[1], found[2]), _CALL.sub(_command, message))


def _command(found: re.Match[str]) -> str:
    try:
        call = ast.parse(f"f{found[2]}", mode="eval").body
    except SyntaxError:
        return found[0]
    if found[1] not in COMMANDS or not isinstance(call, ast.Call):
        return found[0]
    words = [_word(ast.unparse(argument)) for argument in call.args]
    words += [_option(str(keyword.arg), ast.unparse(keyword.value)) for keyword in call.keywords]
    return f"`{' '.join(['multiprompt', COMMANDS[found[1]], *words])}`"


def _option(name: str, value: str) -> str:
    option = f"--{name.replace('_', '-')}"
    return option if value == "True" else f"{option} {_word(value)}"


def _word(value: str) -> str:
    """A Python literal as a word of a command line; the ellipsis stays as it is."""
    try:
        text = str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        text = value
    return text if text == "…" else shlex.quote(text)
