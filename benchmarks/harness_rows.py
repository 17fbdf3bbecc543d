"""Small rows made up for a task file: every field that its templates read, in the shape in which they read it."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Environment, nodes

from multiprompt.errors import MultipromptError
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Budget, examples
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Column, Template

ROWS, CHOICES = 8, 4
WORDS = ("lamp", "river", "stone", "cloud", "Garten", "día", "harbour", "seven", "日本", "window")
Row = dict[str, Any]
# The steps from a row to a value: field names, then keys of mappings, with 0 for any place in a list.
Path = tuple[str | int, ...]
# The one answer that the harness takes where choices are written out.
_INDEX: Callable[[int, list[str]], Any] = lambda index, _: index  # noqa: E731
# What an answer may be, from the index of the right choice and the texts of the choices.
ANSWERS: tuple[Callable[[int, list[str]], Any], ...] = (
    lambda index, choices: choices[index],
    _INDEX,
    lambda index, _: str(index),
    lambda index, _: "ABCDEFGHIJ"[index],
    lambda index, _: str(index + 1),
    lambda index, _: index + 1,
    lambda index, _: "abcdefghij"[index],
    lambda index, _: bool(index),
)
TEXTS: tuple[Callable[[int, list[str]], Any], ...] = (
    lambda index, _: WORDS[index],
    lambda index, _: [WORDS[index], WORDS[index].upper()],
    _INDEX,
)
_FINE = Budget(10**9, len)
PARSER = Environment(autoescape=True)  # only parses


def made_up(task: Task, seed: int) -> tuple[Row, ...] | None:
    """Rows that the task accepts, with answers of more than one kind where they can be; None where none are found."""
    context = paths(task.description, task.doc_to_text)
    choices = paths(task.doc_to_choice) | listed(task.doc_to_choice)
    answer = paths(task.doc_to_target)
    inputs = {path[0] for path in context | choices}
    own = {path for path in answer if path[0] not in inputs}
    kinds = ANSWERS if task.is_multiple_choice else TEXTS if task.doc_to_choice is None else (_INDEX,)
    for turn in range(len(kinds)):
        kind = kinds[(turn + seed) % len(kinds)]
        rows = tuple(_row(task, number, context | choices, answer, own, kind) for number in range(ROWS))
        if all(row is not None for row in rows) and _accepted(task, rows):
            return rows
    return None


def answer_field(task: Task) -> str | None:
    """The field that alone makes up the answer, where it is a column of its own."""
    found = paths(task.doc_to_target)
    return str(next(iter(found))[0]) if len(found) == 1 and all(len(path) == 1 for path in found) else None


def _row(
    task: Task, number: int, inputs: set[Path], answer: set[Path], own: set[Path], kind: Callable[[int, list[str]], Any]
) -> Row | None:
    rng = random.Random(f"{task.name} {number}")
    shared = {path for path in answer if path not in own}
    row = _value(inputs | shared, lambda path: _leaf(path, rng))
    try:
        choices = _choices(task, row)
        index = number % min(len(choices), 9)
        return row | _value(own, lambda _: kind(index, choices)) if own else row
    except (MultipromptError, IndexError, ValueError, TypeError, SyntaxError):
        return None


def _accepted(task: Task, rows: tuple[Row, ...]) -> bool:
    try:
        made = examples(task, Split("test", rows), _FINE)
    except MultipromptError:
        return False
    if task.doc_to_choice is not None and any(map(_is_an_index_here_alone, _answers(task, rows))):
        return False
    fixed = isinstance(task.doc_to_target, int) or not task.is_multiple_choice
    return fixed or len({row.target for row in made}) > 1


def _answers(task: Task, rows: tuple[Row, ...]) -> list[Any]:
    column = task.doc_to_target
    return [row.get(column.source) for row in rows] if isinstance(column, Column) else []


def _is_an_index_here_alone(answer: Any) -> bool:
    """Digits as text in a column are an index in a CSV file alone; the harness finds those of JSON in no choice."""
    return isinstance(answer, str) and answer.isdigit()


def _choices(task: Task, row: Row) -> list[str]:
    if task.doc_to_choice is None:
        return list(WORDS)
    if not isinstance(task.doc_to_choice, Template):
        return list(task.doc_to_choice)
    found = task.doc_to_choice.value(row)
    return found if isinstance(found, list) else list(ast.literal_eval(found))


def _leaf(path: Path, rng: random.Random) -> Any:
    if isinstance(path[-1], int):
        named = next(step for step in reversed(path) if isinstance(step, str))
        return "ABCDEFGHIJ"[path[-1]] if "label" in named else f"{rng.choice(WORDS)} {path[-1]}"
    return f"{rng.choice(WORDS)} {rng.choice(WORDS)} {rng.randrange(100)}"


def _value(wanted: set[Path], leaf: Callable[[Path], Any], above: Path = ()) -> Any:
    """Mappings, lists and leaves such that every wanted path leads to a value."""
    heads = {path[0] for path in wanted if path}
    if not heads:
        return leaf(above)
    names = sorted(head for head in heads if isinstance(head, str))
    if names:
        return {name: _value(_below(wanted, name), leaf, (*above, name)) for name in names}
    return [_value(_below(wanted, 0), leaf, (*above, place)) for place in range(CHOICES)]


def _below(wanted: set[Path], head: str | int) -> set[Path]:
    return {path[1:] for path in wanted if path and path[0] == head}


def paths(*templates: Any) -> set[Path]:
    """What templates read of a row."""
    found: set[Path] = set()
    for one in templates:
        if isinstance(one, Column):
            found.add((one.source,))
        elif isinstance(one, Template):
            _read(PARSER.parse(one.source), {}, found)
    return found


def listed(choices: Any) -> set[Path]:
    """The path of a list of choices that a column or one expression gives."""
    if isinstance(choices, Column):
        return {(choices.source, 0)}
    if not isinstance(choices, Template):
        return set()
    body = PARSER.parse(choices.source).body
    outputs = body[0].nodes if len(body) == 1 and isinstance(body[0], nodes.Output) else []
    path = _path(outputs[0], {}) if len(outputs) == 1 else None
    return {(*path, 0)} if path else set()


def _read(node: nodes.Node, bound: dict[str, Path], found: set[Path]) -> None:
    """Collect the longest chains of names, keys and places below a node."""
    path = _path(node, bound)
    if path is not None:
        found.add(path)
    if isinstance(node, nodes.For) and isinstance(node.target, nodes.Name):
        looped = _path(node.iter, bound)
        bound = bound | ({node.target.name: (*looped, 0)} if looped else {node.target.name: ()})
    for child in _parts(node):
        _read(child, bound, found)
        if isinstance(child, nodes.Assign) and isinstance(child.target, nodes.Name):
            bound = bound | {child.target.name: _path(child.node, bound) or ()}


def _parts(node: nodes.Node) -> Iterable[nodes.Node]:
    """The children that are read for themselves, not as a part of a chain."""
    children: Iterator[nodes.Node] = node.iter_child_nodes()
    chain = isinstance(node, (nodes.Getattr, nodes.Getitem))
    return [child for child in children if not (chain and child is node.node) or not _chained(child)]


def _chained(node: nodes.Node) -> bool:
    return isinstance(node, (nodes.Name, nodes.Getattr, nodes.Getitem))


def _path(node: nodes.Node, bound: dict[str, Path]) -> Path | None:
    if isinstance(node, nodes.Name):
        path = bound.get(node.name, (node.name,)) if node.ctx == "load" and node.name not in ("range", "loop") else ()
        return path or None
    if isinstance(node, nodes.Getattr):
        path = _path(node.node, bound)
        return path and (
            (*path, 0) if node.attr == "index" else path if hasattr(str, node.attr) else (*path, node.attr)
        )
    if isinstance(node, nodes.Getitem):
        path = _path(node.node, bound)
        key = node.arg.value if isinstance(node.arg, nodes.Const) else 0
        return path and (*path, key if isinstance(key, str) else 0)
    return None
