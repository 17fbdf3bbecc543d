"""Printing of records: tables for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from datetime import datetime
from typing import Any

import click

from multiprompt.errors import MultipromptError, counted, percent
from multiprompt.records import (
    AddedTask,
    CheckReport,
    CheckResult,
    LearnReport,
    Matrix,
    Progress,
    TokenChange,
    VersionDiff,
)

_CELL = 50
# Characters that move a terminal's cursor, or turn the order of letters.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FLIPS = 20


def echo(text: object = "", *, err: bool = False) -> None:
    """Print text; on a terminal without what would act on it. Files and pipes get the very text."""
    stream = sys.stderr if err else sys.stdout
    click.echo(printable(str(text)) if stream.isatty() else text, err=err)


def printable(text: str) -> str:
    """Text with its control characters, but line ends and tabs, written as JSON writes them."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Any) -> None:
    echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


@contextmanager
def told_in_json(records: Sequence[Any], wanted: bool) -> Iterator[None]:
    """Print records as JSON when the work on them ends, also where it fails; the error is then the last of them."""
    failed: list[Any] = []
    try:
        yield
    except MultipromptError as error:
        failed.append({"error": " ".join(str(error).split())})
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


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    numeric = [
        bool(rows) and all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(columns))
    ]
    for line in [list(columns), *cells]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        echo("  ".join(padded).rstrip())


def print_learned(report: LearnReport) -> None:
    if not report.is_new:
        echo(report.reason)
        return
    score = "" if report.measured in report.reason else f"; {report.measured}"
    majority = "" if report.majority is None else f", majority {report.majority:.4f}"
    echo(f"{report.version} {report.state}: {report.reason}{score}; hard prompt {report.hard:.4f}{majority}")
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
        echo(f"warning: {warning}", err=True)


def print_added(task: AddedTask) -> None:
    """A task that was added, what changed in its file, and what is wrong with its data."""
    echo(f"added {task.name} ({task.metric}): {task.change}")
    for line in task.difference:
        echo(f"  {line}")
    print_warnings(task.warnings)


def print_check(report: CheckReport) -> None:
    """A line a version, what is open or noisy, and what a reader should know beside."""
    print_table(
        ("version", "metric", "baseline", "now", "drop", "95 % of it", "tolerated", "detectable", "verdict", "cause"),
        [(r.version, r.metric, r.baseline, r.score, r.drop, *_evidence(r), r.verdict, r.cause) for r in report.results],
    )
    for result in report.results:
        evidence = result.evidence
        if result.verdict == "inconclusive" and evidence is not None and evidence.rows_needed:
            needed = counted(evidence.rows_needed, "row")
            echo(f"{result.version}: about {needed} would settle it, not {evidence.rows}")
    if report.noise is not None:
        echo(f"noise floor: a second run answers {percent(report.noise, 1)} of the rows that moved in another way")
    for note in report.notes:
        echo(f"note: {note}")


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
    for score in diff.scores:
        interval = score.interval
        sure = (
            "" if interval is None else f" ({percent(interval.confidence)} {interval.low:+.4f} to {interval.high:+.4f})"
        )
        echo(f"{score.metric} {score.before:.4f} → {score.after:.4f}: {score.after - score.before:+.4f}{sure}")
    better = sum(flip.better for flip in diff.flips)
    echo(f"{counted(len(diff.flips), 'row')} flipped: {better} to right, {len(diff.flips) - better} to wrong")
    if diff.flips:
        flips = [(f.row, f.reference, f.before, f.after) for f in diff.flips[:_FLIPS]]
        print_table(("row", "reference", diff.before, diff.after), [tuple(map(_value, flip)) for flip in flips])
    if diff.tokens:
        echo("virtual tokens (nearest words explain little: prompts near any text can be found for a task)")
        print_table(
            ("token", "norm", "norm", "cosine", "nearest words", "nearest words"),
            [(t.index, *_norms(t), t.cosine, *_nearest(t)) for t in diff.tokens],
        )


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
    text = f"{text[:19]}…" if text.startswith("sha256:") else " ".join(text.split())
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


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
