"""Examples: rows rendered through a task's templates, cut to fit, with their answers."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from multiprompt.errors import DataError
from multiprompt.tasks.cells import whole_numbers
from multiprompt.tasks.data import Row, Split
from multiprompt.tasks.rows import as_read
from multiprompt.tasks.task import MAX_CHOICES, Task
from multiprompt.tasks.template import Column, NullFieldError, Template

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Query:
    """The input and the answers of one row. `choices` are the answers to choose from, None for free generation.

    `where` names the row in errors.
    """

    context: str
    choices: tuple[str, ...] | None
    truncated: bool = False
    where: str = field(default="", compare=False)


@dataclass(frozen=True)
class Example:
    """A query with its right answer: the index of a choice, a text, or several texts that are right."""

    query: Query
    target: int | str | tuple[str, ...]

    @property
    def answer(self) -> str:
        """The right answer's text; the first of several, as in a few-shot example of the harness."""
        if isinstance(self.target, int):
            return self.query.choices[self.target] if self.query.choices else str(self.target)
        return self.target if isinstance(self.target, str) else self.target[0]


@dataclass(frozen=True)
class Budget:
    """The number of tokens that a context may have, and the function that counts them.

    `room` is how many it may have together with the longest choice, where choices differ from row to row.
    """

    tokens: int
    count: CountTokens
    room: int | None = None


# For rows of which nothing but the answers is wanted: by a token count that costs nothing.
UNCOUNTED = Budget(tokens=1, count=lambda _: 0)


def constant_text(task: Task) -> str:
    """The text that every context of the task starts with; it is compiled into the prefix."""
    head = task.doc_to_text.constant_head
    if not task.config.keep_description:
        return head
    whole = not task.description.fields and task.description.constant_head == task.description.source
    return task.description.constant_head + (head if whole else "")


def examples(task: Task, split: Split, budget: Budget) -> list[Example]:
    """Every row of a split as an example. Raises DataError naming split and row of the first that cannot be one."""
    made = []
    for number, row in enumerate(split.rows):
        where = f"{task.name}: row {number} of split {split.name!r}"
        if number == 0:
            _refuse_several_inputs(task, row, where)
            _refuse_column_as_description(task, row, where)
        made.append(example(task, row, budget, where))
        if isinstance(made[-1].target, tuple) != isinstance(made[0].target, tuple):
            one, other = ("list", "text") if isinstance(made[-1].target, tuple) else ("text", "list")
            raise DataError(f"{where} has a {one} as answer, but row 0 has a {other}; write every answer as a list.")
    return made


def example(task: Task, row: Row, budget: Budget, where: str) -> Example:
    """A row as an example; `where` names it in errors. Raises DataError."""
    _require(task.fields, row, where)
    query = _query(task, row, budget, where)
    with _nulls(where):
        return Example(query, _target(task, row, query, where))


def check_labels(task: Task, split: Split, *, typed: bool) -> None:
    """Refuse labels, as text, that the harness reads in another way. Raises DataError naming the first.

    In a format with types they are text. In one without, a column of nothing but whole numbers is one of numbers, and
    one of nothing but truth values is one of these.
    """
    if not isinstance(task.doc_to_target, Column) or task.doc_to_choice is None:
        return
    labels = [row.get(task.doc_to_target.source) for row in split.rows]
    numbers = None if typed else whole_numbers(labels)
    for number, (row, label) in enumerate(zip(split.rows, labels, strict=True)):
        if numbers is None and not _is_digits(label):
            continue
        where = f"{task.name}: row {number} of split {split.name!r}"
        with _nulls(where):
            choices = _choices(task, row, where)
        place = choices.index(label) if label in choices else None
        if (place is None and numbers is None) or (place is not None and numbers and place != numbers[number]):
            raise DataError(
                f"{where} has the label {label!r} as text, {_read_as(place)} Write doc_to_target as a template: of "
                f"'{{{{{task.doc_to_target.source}}}}}', digits are the number of a choice, counted from 0, and any "
                "other text is the choice itself."
            )


def _read_as(place: int | None) -> str:
    if place is None:
        return "which is none of the choices; the harness takes no text of a column for a number."
    return f"which is the choice of the number {place}; the harness takes the label itself for the number of a choice."


def _is_digits(label: Any) -> TypeGuard[str]:
    return isinstance(label, str) and label.isascii() and label.isdigit()


def query_of(task: Task, row: Row, budget: Budget) -> Query:
    """A row without its answer, as it comes at inference. Raises DataError naming the task."""
    where = f"{task.name}: the row"
    _require(task.fields, row, where)
    return _query(task, _as_read(task, row, where), budget, where)


def _as_read(task: Task, row: Row, where: str) -> Row:
    """The row, with the fields that its input is built from as a data file would have given them."""
    choices = task.doc_to_choice
    read = task.fields | (choices.read_by(row) if isinstance(choices, Template) else frozenset())
    plain = dict(row)
    for name in sorted(read & row.keys()):
        try:
            plain[name] = as_read(row[name])
        except DataError as error:
            raise DataError(f"{where}: the field {name!r} {error}") from None
    return plain


def answer_text(task: Task, row: Row, answer: Any) -> Any:
    """A prediction or right answer of a row as it is told: the text of a choice in place of its index."""
    if not task.is_multiple_choice or not isinstance(answer, int):
        return answer
    choices = choices_of(task, row)
    return choices[answer] if 0 <= answer < len(choices) else answer


def choices_of(task: Task, row: Row) -> tuple[str, ...]:
    """The choices of a row. Raises DataError where its field gives none."""
    return _choices(task, row, f"{task.name}: the row")


def row_text(task: Task, row: Row) -> str:
    """The fields of a row that the model reads, each under its name where there are several."""
    values = {name: str(row[name]) for name in sorted(task.fields) if row.get(name) is not None}
    return next(iter(values.values())) if len(values) == 1 else "; ".join(f"{n}: {v}" for n, v in values.items())


def predicted(task: Task, query: Query, found: str | Sequence[float]) -> tuple[int | str, ...]:
    """The prediction of each of the task's metrics; `found` is a text, or the choices' log-likelihoods (nats).

    The first one is the answer. Raises DataError where a filter fails.
    """
    if isinstance(found, str):
        texts = {pipeline: pipeline.apply(found) for pipeline in task.pipelines}
        return tuple(texts[metric.pipeline] for metric in task.metrics)
    return tuple(metric.predicted(found, query.choices or ()) for metric in task.metrics)


def _query(task: Task, row: Row, budget: Budget, where: str) -> Query:
    with _nulls(where):
        choices = _choices(task, row, where) if task.is_multiple_choice else None
        context = _context(task, row)
    try:
        budget = _beside_choices(task, choices, budget)
        if budget.count(context) <= budget.tokens:
            return Query(context, choices, where=where)
        return Query(_shortened(task, row, budget), choices, truncated=True, where=where)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _beside_choices(task: Task, choices: tuple[str, ...] | None, budget: Budget) -> Budget:
    """The budget of a context where the choices are the row's own. Raises DataError when they leave it no room."""
    if choices is None or budget.room is None or not isinstance(task.doc_to_choice, Template):
        return budget
    longest = max(budget.count(task.target_delimiter + choice) for choice in choices)
    if longest >= budget.room:
        raise DataError(
            f"its longest choice has {longest} tokens, but text and choice together may have {budget.room}. "
            "Shorten the choice or lower num_virtual_tokens."
        )
    return replace(budget, tokens=min(budget.tokens, budget.room - longest))


@contextmanager
def _nulls(where: str) -> Iterator[None]:
    """Names the row in which a null would become text."""
    try:
        yield
    except NullFieldError as error:
        raise DataError(f"{where}: the field {str(error)!r} is empty (null).") from None


def _refuse_several_inputs(task: Task, row: Row, where: str) -> None:
    """The harness takes a first row whose text is a number for the index of one of several inputs."""
    if task.doc_to_choice is None:
        return
    _require(task.fields, row, where)
    with _nulls(where):
        text = task.doc_to_text.value(row)
    is_index = isinstance(text, int) if isinstance(task.doc_to_text, Column) else str(text).isdigit()
    if is_index:
        raise DataError(
            f"{where} has a number as doc_to_text, by which the harness would choose one of several inputs; "
            "put a word before or behind it."
        )


def _refuse_column_as_description(task: Task, row: Row, where: str) -> None:
    """The harness takes a description that is the name of a column for that column."""
    name = task.description.source
    if task.config.keep_description and name in row:
        raise DataError(
            f"{where} has a field of the name {name[:100]!r}, which is also the description; write it in {{{{…}}}} to "
            "read the field, or write another description."
        )


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
    """The number of characters of a field that fit, by bisection; more characters are more tokens."""
    text = row[name]
    low, high = 0, min(len(text), budget.tokens * 64)
    while low < high:
        middle = (low + high + 1) // 2
        if budget.count(_context(task, {**row, name: text[:middle]})) <= budget.tokens:
            low = middle
        else:
            high = middle - 1
    return low


def _choices(task: Task, row: Row, where: str) -> tuple[str, ...]:
    if not isinstance(task.doc_to_choice, Template):
        return task.doc_to_choice or ()
    _require(task.doc_to_choice.fields, row, where)
    found = task.doc_to_choice.value(row)
    is_column = isinstance(task.doc_to_choice, Column) and task.doc_to_choice.read_by(row)
    listed = found if is_column or isinstance(found, list) else _literal(str(found))
    if not isinstance(listed, list) or not all(isinstance(choice, str) and choice for choice in listed):
        raise DataError(f"{where}: doc_to_choice gives {str(found)[:100]!r}, which is no list of texts.")
    if not 2 <= len(listed) <= MAX_CHOICES:
        raise DataError(f"{where}: doc_to_choice gives {len(listed)} choices; there must be 2 to {MAX_CHOICES}.")
    return tuple(listed)


def _literal(text: str) -> Any:
    """The value that a text writes out in Python; None for any other text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _target(task: Task, row: Row, query: Query, where: str) -> int | str | tuple[str, ...]:
    target: Any = task.doc_to_target
    if isinstance(target, Template):
        _require(target.fields, row, where)
        target = _target_value(target, row, has_choices=task.doc_to_choice is not None)
    if isinstance(target, list):
        return _several(task, target, where)
    if query.choices is not None:
        return _choice_index(target, query.choices, where)
    if task.doc_to_choice is not None:
        choices = _choices(task, row, where)
        return choices[_choice_index(target, choices, where)]
    if not isinstance(target, str) and not all(pipeline.takes_first for pipeline in task.pipelines):
        raise DataError(
            f"{where} has an answer that is no text; the harness finds it equal to no answer, as filter_list does not "
            "end in take_first."
        )
    return str(target)


def _target_value(target: Template, row: Row, *, has_choices: bool) -> Any:
    """As the harness reads it: a column as it is; of a text, digits among choices are an index, brackets a list."""
    value = target.value(row)
    if isinstance(target, Column) and target.read_by(row):
        return value
    if has_choices and _is_digits(value):
        return int(value[:100])
    listed = _literal(value) if value[:1] == "[" and value[-1:] == "]" else None
    return value if listed is None else listed


def _several(task: Task, targets: list[Any], where: str) -> tuple[str, ...]:
    """Right answers of which any counts."""
    if task.is_multiple_choice:
        raise DataError(f"{where} has a list of right choices; only one right choice is supported.")
    others = [metric.metric for metric in task.metrics if metric.metric != "exact_match"]
    if others:
        raise DataError(f"{where} has several right answers, which the metric {others[0]} cannot score.")
    if not targets or not all(isinstance(target, str) for target in targets):
        raise DataError(f"{where} has a list as answer; it must hold at least one text, and nothing else.")
    return tuple(targets)


def _choice_index(target: Any, choices: Sequence[str], where: str) -> int:
    """A whole number is an index; a text is one of the choices, or else the digits of an index."""
    if isinstance(target, bool):
        return _truth_index(target, choices, where)
    if not isinstance(target, int):
        target = str(target)
        if target in choices:
            return choices.index(target)
    if isinstance(target, int) or (_is_digits(target) and len(target) < 10):
        index = int(target)
        if 0 <= index < len(choices):
            return index
    shown = ", ".join(map(repr, choices[:8])) + (", …" if len(choices) > 8 else "")
    raise DataError(f"{where} has the label {str(target)[:100]!r}, which is none of the choices: {shown}.")


def _truth_index(target: bool, choices: Sequence[str], where: str) -> int:
    """False is the first choice and true the second, as in the harness."""
    if str(target) in choices and choices.index(str(target)) != int(target):
        raise DataError(
            f"{where} has the label {str(target).lower()}, which is the choice {str(target)!r} by its text and "
            f"{choices[int(target)]!r} by the harness's rule; write the label as a text or a number."
        )
    return int(target)


def _require(fields: Iterable[str], row: Row, where: str) -> None:
    for name in sorted(fields):
        if name not in row:
            raise DataError(f"{where} lacks the field {name!r}; it has: {', '.join(sorted(map(str, row)))}.")
