"""Examples: rows rendered through a task's templates, cut to fit, with their answers."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from multiprompt.errors import DataError
from multiprompt.tasks.split import Row, Split
from multiprompt.tasks.task import MAX_CHOICES, Task
from multiprompt.tasks.template import Template

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Query:
    """What the model is shown for one row. `choices` are the answers to choose from, None for free generation.

    `where` names the row in errors.
    """

    context: str
    choices: tuple[str, ...] | None
    truncated: bool = False
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Example:
    """A query with its right answer: the index of a choice, or a text."""

    query: Query
    target: int | str

    @property
    def answer(self) -> str:
        """The right answer's text."""
        return (
            self.query.choices[self.target] if self.query.choices and isinstance(self.target, int) else str(self.target)
        )


@dataclass(frozen=True)
class Budget:
    """How many tokens a context may have, and how tokens are counted.

    `room` is how many it may have together with the longest choice, where choices differ from row to row.
    """

    tokens: int
    count: CountTokens
    room: int | None = None


def constant_text(task: Task) -> str:
    """The text that every context of the task starts with; it is compiled into the prefix."""
    head = task.doc_to_text.constant_head
    if not task.config.keep_description:
        return head
    whole = not task.description.fields and task.description.constant_head == task.description.source
    return task.description.constant_head + (head if whole else "")


def examples(task: Task, split: Split, budget: Budget) -> list[Example]:
    """Every row of a split as an example. Raises DataError naming split and row of the first that cannot be one."""
    return [
        example(task, row, budget, f"{task.name}: row {number} of split {split.name!r}")
        for number, row in enumerate(split.rows)
    ]


def example(task: Task, row: Row, budget: Budget, where: str) -> Example:
    """A row as an example; `where` names it in errors. Raises DataError."""
    query = _query(task, row, budget, where)
    return Example(query, _target(task, row, query, where))


def queries(task: Task, rows: Iterable[Row], budget: Budget) -> list[Query]:
    """Rows without answers, as they come at inference. Raises DataError naming the row."""
    return [_query(task, row, budget, f"{task.name}: row {number}") for number, row in enumerate(rows)]


def postprocess(task: Task, text: str) -> str:
    """A generated text through the task's filters."""
    for name in task.filters:
        if name == "remove_whitespace":
            text = text.strip()
        elif name == "lowercase":
            text = text.lower()
        elif name == "uppercase":
            text = text.upper()
    return text


def _query(task: Task, row: Row, budget: Budget, where: str) -> Query:
    _require(task.fields, row, where)
    choices = _choices(task, row, where)
    context = _context(task, row)
    try:
        budget = _beside_choices(task, choices, budget)
        if budget.count(context) <= budget.tokens:
            return Query(context, choices, where=where)
        return Query(_shortened(task, row, budget), choices, truncated=True, where=where)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _beside_choices(task: Task, choices: tuple[str, ...] | None, budget: Budget) -> Budget:
    """What a context may have where the choices are the row's own. Raises DataError when they leave it no room."""
    if choices is None or budget.room is None or not isinstance(task.doc_to_choice, Template):
        return budget
    longest = max(budget.count(task.target_delimiter + choice) for choice in choices)
    if longest >= budget.room:
        raise DataError(
            f"its longest choice has {longest} tokens, but text and choice together may have {budget.room}. "
            "Shorten the choice or lower num_virtual_tokens."
        )
    return replace(budget, tokens=min(budget.tokens, budget.room - longest))


def _context(task: Task, row: Row) -> str:
    description = task.description.render(row) if task.config.keep_description else ""
    return description + task.doc_to_text.render(row)


def _shortened(task: Task, row: Row, budget: Budget) -> str:
    """The context with its longest field cut at the end until it fits; instruction and template stay whole."""
    texts = {name: row[name] for name in sorted(task.fields) if isinstance(row[name], str)}
    cut = dict(row)
    while texts:
        name = max(texts, key=lambda field: len(cut[field]))
        if not cut[name]:
            break
        cut[name] = cut[name][: _longest_fit(task, cut, name, budget)]
        context = _context(task, cut)
        if budget.count(context) <= budget.tokens:
            return context
    raise DataError(
        f"the instruction alone has {budget.count(_context(task, cut))} tokens, but {budget.tokens} fit. "
        "Shorten the description or raise multiprompt.max_input_tokens."
    )


def _longest_fit(task: Task, row: dict[str, Any], name: str, budget: Budget) -> int:
    """How many characters of a field fit, by bisection; the number of tokens grows with the number of characters."""
    text = row[name]
    low, high = 0, min(len(text), budget.tokens * 64)
    while low < high:
        middle = (low + high + 1) // 2
        if budget.count(_context(task, {**row, name: text[:middle]})) <= budget.tokens:
            low = middle
        else:
            high = middle - 1
    return low


def _choices(task: Task, row: Row, where: str) -> tuple[str, ...] | None:
    if not task.is_multiple_choice:
        return None
    if not isinstance(task.doc_to_choice, Template):
        return task.doc_to_choice
    _require(task.doc_to_choice.fields, row, where)
    rendered = task.doc_to_choice.render(row)
    try:
        listed = ast.literal_eval(rendered)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(choice, str) and choice for choice in listed):
        raise DataError(f"{where}: doc_to_choice gives {rendered[:100]!r}, which is no list of texts.")
    if not 2 <= len(listed) <= MAX_CHOICES:
        raise DataError(f"{where}: doc_to_choice gives {len(listed)} choices; there must be 2 to {MAX_CHOICES}.")
    return tuple(listed)


def _target(task: Task, row: Row, query: Query, where: str) -> int | str:
    target: Any = task.doc_to_target
    if isinstance(target, Template):
        _require(target.fields, row, where)
        target = row[target.bare_field] if target.bare_field else target.render(row)
    if query.choices is None:
        return str(target)
    return _choice_index(target, query.choices, where)


def _choice_index(target: Any, choices: Sequence[str], where: str) -> int:
    """A whole number is an index; a text is one of the choices, or else the digits of an index."""
    if isinstance(target, bool) or not isinstance(target, int):
        target = str(target)
        if target in choices:
            return choices.index(target)
    if isinstance(target, int) or (target.isdecimal() and len(target) < 10):
        index = int(target)
        if 0 <= index < len(choices):
            return index
    shown = ", ".join(map(repr, choices[:8])) + (", …" if len(choices) > 8 else "")
    raise DataError(f"{where} has the label {str(target)[:100]!r}, which is none of the choices: {shown}.")


def _require(fields: Iterable[str], row: Row, where: str) -> None:
    for name in sorted(fields):
        if row.get(name) is None:
            raise DataError(f"{where} lacks the field {name!r}; it has: {', '.join(sorted(map(str, row)))}.")
