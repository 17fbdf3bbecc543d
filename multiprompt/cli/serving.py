"""The command that answers: predict."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import click

from multiprompt.catalog.labels import parse_label
from multiprompt.cli.completion import complete_labels
from multiprompt.cli.options import (
    catalog_option,
    json_option,
    working,
)
from multiprompt.cli.output import (
    echo,
    print_json,
)
from multiprompt.cli.words import in_shell_words
from multiprompt.errors import DataError, NotFoundError
from multiprompt.records import Prediction
from multiprompt.workspace import Workspace


@click.command()
@click.argument("task", required=False, metavar="TASK[@V]", shell_complete=complete_labels)
@click.argument("texts", nargs=-1, metavar="TEXT…")
@click.option(
    "--input", "source", type=click.File("rb"), help="JSON lines of rows, or one JSON array; - is standard input."
)
@catalog_option
@json_option
def predict(task: str | None, texts: tuple[str, ...], source: Any, catalog: str, as_json: bool) -> None:
    """Answer TEXTs of one task, or the rows of a file.

    A row of --input is an object with the task's fields, and with "task" where no TASK is given. A row that cannot be
    answered is named on standard error, the others are answered, and the exit status is 2. A file with a row for
    another task than TASK is refused.
    """
    if bool(texts) == (source is not None) or (task is None and source is None):
        raise click.UsageError("give TASK and TEXT…, or --input")
    rows: list[tuple[str, Any]] = [(task, text) for text in texts] if task and texts else []
    lines = () if rows else _read_rows(source, task)
    with working(catalog) as workspace:
        if task and lines:
            _refuse_other_tasks(workspace, task, lines)
        found = workspace.predict(rows or [(row.label, row.fields) for row in lines], strict=source is None)
    predictions = [_on_line(row.line, one) for row, one in zip(lines, found, strict=True)] if lines else found
    failed = [prediction.error for prediction in predictions if prediction.error is not None]
    for error in failed:
        echo(f"error: {in_shell_words(error)}", err=True)
    cut = sum(prediction.truncated for prediction in predictions)
    if cut:
        echo(f"{cut} of {len(predictions)} texts were cut at their end to fit the model's context", err=True)
    if as_json:
        print_json(predictions)
    else:
        for prediction in predictions:
            chance = (prediction.probabilities or {}).get(prediction.output)
            echo(prediction.output if chance is None else f"{prediction.output}\t{chance:.4f}")
    sys.exit(2 if failed else 0)


@dataclass(frozen=True)
class _InputRow:
    """A row of --input, with the line that it begins on and the label that it asks."""

    line: int
    label: str
    fields: dict[str, Any]


def _read_rows(source: Any, task: str | None) -> list[_InputRow]:
    """Rows as training reads them from a data file, each with the name of its task."""
    from multiprompt.tasks.formats import read_rows
    from multiprompt.tasks.rows import MAX_SPLIT_ROWS
    from multiprompt.tasks.streams import FileStream

    rows = []
    try:
        for line, row in read_rows(FileStream(source), "json", []):
            name = task or row.pop("task", None)
            if not isinstance(name, str):
                raise NotFoundError(f'line {line} of --input names no task: add "task", or give TASK before --input.')
            rows.append(_InputRow(line, name, row))
            if len(rows) > MAX_SPLIT_ROWS:
                raise DataError(f"it holds over {MAX_SPLIT_ROWS} rows; use fewer at a time.")
    except DataError as error:
        raise DataError(f"--input: {error}") from None
    if not rows:
        raise DataError("--input holds no rows.")
    return _with_all_fields(rows)


def _with_all_fields(rows: list[_InputRow]) -> list[_InputRow]:
    """The rows, each with every field that rows of its label have, as in a split: one that it lacks is None."""
    from multiprompt.tasks.rows import MAX_MISSING_VALUES

    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.label, {}).update(dict.fromkeys(row.fields))
    if sum(len(names[row.label]) - len(row.fields) for row in rows) > MAX_MISSING_VALUES:
        raise DataError(f"the rows of --input lack over {MAX_MISSING_VALUES} values; give each row the same fields.")
    return [replace(row, fields=names[row.label] | row.fields) for row in rows]


def _refuse_other_tasks(workspace: Workspace, label: str, rows: list[_InputRow]) -> None:
    """Raises DataError where a row's "task" names another task or version of the catalog, unless `label` reads it."""
    own = parse_label(label)[0]
    named = {row.fields["task"]: row.line for row in reversed(rows) if isinstance(row.fields.get("task"), str)}
    known = {record.name for record in workspace.tasks()} if named.keys() - {own, label} else set()
    others = [name for name in named if name not in (own, label) and name.partition("@")[0] in known]
    if others and "task" not in workspace.task(workspace.version(label).label).fields:
        first = min(others, key=named.__getitem__)
        raise DataError(
            f"line {named[first]} of --input names the task {first}, but TASK is {label}; leave TASK out, and "
            "each row is answered by the task that it names."
        )


def _on_line(line: int, prediction: Prediction) -> Prediction:
    """A prediction whose error names the line of --input."""
    error = prediction.error
    return prediction if error is None else replace(prediction, error=f"line {line} of --input: {error}")


COMMANDS = (predict,)
