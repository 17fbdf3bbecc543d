"""Printing of records: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from datetime import datetime
from typing import Any

import click

from multiprompt.cli.words import in_shell_words
from multiprompt.errors import MultipromptError, counted, percent, printable
from multiprompt.records import (
    AddedTask,
    CheckReport,
    CheckResult,
    EvaluationReport,
    Job,
    LearnReport,
    Matrix,
    Progress,
    TokenChange,
    VersionDiff,
)

_CELL = 50
_FLIPS = 20
# Characters of a row's text, and labels of a confusion matrix, that a table shows.
_TEXT, _MOST_LABELS = 80, 30
_MARKS = {True: "", False: "wrong", None: ""}


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text; on a terminal without what would act on it. Files and pipes get the very text."""
    stream = sys.stderr if err else sys.stdout
    click.echo(printable(str(text)) if stream.isatty() else text, err=err)


def print_json(value: Any) -> None:
    echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def print_result(value: Any, text: str, as_json: bool) -> None:
    """Print what a command did: as JSON, or in a line."""
    if as_json:
        print_json(value)
    else:
        echo(text)


@contextmanager
def told_in_json(records: Sequence[Any], wanted: bool) -> Iterator[None]:
    """Print records as JSON when the work on them ends, also where it fails; the error is then the last of them."""
    failed: list[Any] = []
    try:
        yield
    except MultipromptError as error:
        failed.append({"error": in_shell_words(" ".join(str(error).split()))})
        raise
    finally:
        if wanted:
            print_json([*records, *failed])


def print_csv(records: Sequence[Any]) -> None:
    """A line a record under the names of its fields; what has fields of its own is given as JSON."""
    rows = [asdict(record) for record in records]
    if rows:
        print_rows_csv(list(rows[0]), [list(row.values()) for row in rows])


def print_rows_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    csv.writer(sys.stdout).writerows([columns, *([_csv_cell(value) for value in row] for row in rows)])


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], optional: Sequence[str] = (), cut: Sequence[str] = ()
) -> None:
    """Columns padded to their widest cell; numbers to the right.

    On a terminal the table fits its width: `cut` columns are cut, `optional` ones left out, other long text is folded.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    numeric = [
        bool(rows) and all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(columns))
    ]
    if sys.stdout.isatty():
        from multiprompt.cli.terminal import print_fitted

        print_fitted(list(map(printable, columns)), cells, numeric, optional, cut)
        return
    for line in [list(columns), *cells]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        echo("  ".join(padded).rstrip())


def print_learned(report: LearnReport) -> None:
    if not report.is_new:
        echo(in_shell_words(report.reason))
        return
    score = "" if report.measured in report.reason else f"; {report.measured}"
    majority = "" if report.majority is None else f", majority {report.majority:.4f}"
    reason = in_shell_words(report.reason)
    echo(f"{report.version} {report.state}: {reason}{score}; hard prompt {report.hard:.4f}{majority}")
    print_warnings(report.warnings)
    if report.truncated:
        echo(f"  evaluation rows that were cut: {report.truncated}, to fit the model's context")
    check = report.check
    told = tuple(result for result in check.results if not (result.reused and result.verdict == "identical"))
    if check.results:
        echo(f"  others: {check.summary}; {check.cost}")
    if told:
        print_check(replace(check, results=told))
    echo(f"  other published prompts {'untouched' if report.untouched else 'CHANGED'}")


def print_warnings(warnings: Sequence[str]) -> None:
    """Warnings go to standard error, beside whatever is printed."""
    for warning in warnings:
        echo(f"warning: {in_shell_words(warning)}", err=True)


def print_added(task: AddedTask) -> None:
    """A task that was added, what changed in its file, and what is wrong with its data."""
    echo(f"added {task.name} ({task.metric}): {task.change}")
    for line in task.difference:
        echo(f"  {line}")
    print_warnings(task.warnings)


def print_check(report: CheckReport) -> None:
    """A line a version, what is open or noisy, and what a reader should know beside."""
    print_table(
        ("version", "verdict", "metric", "baseline", "now", "drop", "95 % of it", "tolerated", "detectable", "cause"),
        [
            (r.version, r.verdict, r.metric, r.baseline, r.score, r.drop, *_evidence(r), in_shell_words(r.cause))
            for r in report.results
        ],
        ("detectable", "tolerated", "95 % of it", "metric", "drop"),
    )
    for result in report.results:
        evidence = result.evidence
        if result.verdict == "inconclusive" and evidence is not None and evidence.rows_needed:
            needed = counted(evidence.rows_needed, "row")
            echo(f"{result.version}: about {needed} would settle it, not {evidence.rows}")
    if report.noise is not None:
        echo(f"noise floor: a second run answers {percent(report.noise, 1)} of the rows that moved in another way")
    for note in report.notes:
        echo(f"note: {in_shell_words(note)}")


def _evidence(result: CheckResult) -> tuple[str | None, float, float | None]:
    evidence = result.evidence
    if evidence is None or evidence.interval is None:
        return None, result.max_drop, None
    return f"{evidence.interval.low:+.4f} to {evidence.interval.high:+.4f}", result.max_drop, evidence.detectable


def print_diff(diff: VersionDiff) -> None:
    """The differences, then scores, flipped rows and virtual tokens."""
    if diff.changes:
        rows = [(change.name, _value(change.before), _value(change.after)) for change in diff.changes]
        print_table(("made with", diff.before, diff.after), rows)
    for line in diff.template:
        echo(line)
    for score in diff.scores:
        interval = score.interval
        sure = (
            "" if interval is None else f" ({percent(interval.confidence)} {interval.low:+.4f} to {interval.high:+.4f})"
        )
        echo(f"{score.metric} {score.before:.4f} → {score.after:.4f}: {score.after - score.before:+.4f}{sure}")
    better = sum(flip.better for flip in diff.flips)
    echo(f"{counted(len(diff.flips), 'row')} flipped: {better} to right, {len(diff.flips) - better} to wrong")
    if diff.flips:
        flips = [
            (f.row, *map(_value, (f.reference, f.before, f.after)), _cut(f.text, _TEXT)) for f in diff.flips[:_FLIPS]
        ]
        print_table(("row", "right answer", diff.before, diff.after, "text"), flips, cut=("text",))
    if diff.tokens:
        echo("virtual tokens (nearest words explain little: prompts near any text can be found for a task)")
        print_table(
            ("token", "norm", "norm", "cosine", "nearest words", "nearest words"),
            [(t.index, *_norms(t), t.cosine, *_nearest(t)) for t in diff.tokens],
        )


def print_evaluation(found: EvaluationReport) -> None:
    """The score, the rows with wrong ones first, the scores of each class and the confusion matrix."""
    wrong = sum(answer.is_right is False for answer in found.answers)
    prompt = f"{found.version or found.task}, {found.kind} prompt"
    echo(f"{prompt}: {found.metric} {found.score:.4f} on {counted(found.rows, 'row')}, {wrong} wrong")
    print_table(
        ("row", "", "right answer", "given answer", "text"),
        [(a.row, _MARKS[a.is_right], *map(_value, (a.right, a.given)), _cut(a.text, _TEXT)) for a in found.answers],
        cut=("text",),
    )
    if found.confusion is None:
        return
    echo()
    print_table(
        ("label", "precision", "recall", "f1", "support"),
        [(c.label, c.precision, c.recall, c.f1, c.support) for c in found.classes],
    )
    if len(found.confusion.labels) > _MOST_LABELS:
        echo(f"the confusion matrix has {len(found.confusion.labels)} labels: --json prints it")
        return
    echo("\nRows by right label (row) and given label (column):")
    labels = found.confusion.labels
    print_table(("", *labels), [(name, *row) for name, row in zip(labels, found.confusion.counts, strict=True)])


def _norms(change: TokenChange) -> list[float | None]:
    return [None if token is None else token.norm for token in (change.before, change.after)]


def _nearest(change: TokenChange) -> list[str]:
    return ["-" if token is None else _value(token.nearest) for token in (change.before, change.after)]


def print_matrix(matrix: Matrix) -> None:
    echo("Score on each task (column) after learning the task of the row:")
    print_table(
        ("", *matrix.tasks), [(name, *scores) for name, scores in zip(matrix.tasks, matrix.scores, strict=True)]
    )


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar for each piece of long work, on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        shown: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            bar = bars.tasks[shown[what]] if what in shown else None
            if bar is None or bar.completed >= done or bar.total != total:
                shown[what] = bars.add_task(printable(what), total=total)
            bars.update(shown[what], completed=done)

        yield advance


def _value(value: Any) -> str:
    """A value on one line of a table, cut where it is long; digests at the length that tells them apart."""
    text = " ".join(map(repr, value)) if isinstance(value, tuple | list) else str("-" if value is None else value)
    return f"{text[:19]}…" if text.startswith("sha256:") else _cut(" ".join(text.split()), _CELL)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _cell(value: Any) -> str:
    """A value on one line, whatever it holds."""
    return printable(_text(value)).replace("\n", "\\n").replace("\t", "\\t")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def print_job(job: Job, as_json: bool) -> None:
    print_result(
        job, f"{job.id} {job.kind} {job.task or 'of all'}: {in_shell_words(job.outcome) or job.state}", as_json
    )
