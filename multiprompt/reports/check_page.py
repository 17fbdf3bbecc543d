"""A check as a page for people and as JUnit XML for build servers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from multiprompt.context import Context
from multiprompt.errors import printable
from multiprompt.records import CheckReport, CheckResult, Edge, EvaluationReport, Matrix, VersionRecord
from multiprompt.reports.evaluation import newest_report
from multiprompt.reports.lineage import named_lineage
from multiprompt.reports.measures import measures
from multiprompt.tasks.file_change import template_difference

_TEMPLATES = Path(__file__).parent / "templates"
_SEVERITY = ("failed", "regressed", "inconclusive", "improved", "unchanged", "identical")
MAX_IDENTICAL = 200
MAX_MATRIX = 50
# Versions with evidence, rows of an evaluation, labels of a confusion matrix, characters of a row's text.
MAX_EVIDENCE, MAX_ROWS, MAX_LABELS, MAX_TEXT = 20, 50, 30, 300


@dataclass(frozen=True)
class VersionEvidence:
    """The evidence of a version beside its verdict; `template` is the difference of the newest task file from its own.

    `evaluation` is its newest stored score.
    """

    evaluation: EvaluationReport | None
    template: tuple[str, ...]
    lineage: tuple[Edge, ...]


def gather_evidence(context: Context, report: CheckReport) -> dict[str, VersionEvidence]:
    """The evidence of the versions that are told first, by label."""
    labels = {result.version for result in _by_severity(report.results)[:MAX_EVIDENCE]}
    return {version.label: _evidence(context, version) for version in context.catalog.versions.with_labels(labels)}


def _evidence(context: Context, version: VersionRecord) -> VersionEvidence:
    own, newest = context.catalog.versions.task(version), context.task(version.task)
    edges = named_lineage(context.catalog, version.task, version.number)
    return VersionEvidence(
        newest_report(context, version),
        template_difference(own, newest, (version.label, "newest task file")),
        tuple(edge for edge in edges if edge.child == version.label),
    )


def _by_severity(results: Sequence[CheckResult]) -> list[CheckResult]:
    return sorted(results, key=lambda result: _SEVERITY.index(result.verdict))


def html(
    report: CheckReport,
    matrix: Matrix,
    catalog: str,
    base: str,
    at: datetime,
    evidence: Mapping[str, VersionEvidence],
) -> str:
    """One self-contained page: the verdict, then every task that is not as it was, what changed, and the matrix."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    shown = _by_severity(report.results)
    told = [result for result in shown if not (result.reused and result.verdict == "identical")]
    same = [result for result in shown if result.reused and result.verdict == "identical"]
    last = _last(matrix, MAX_MATRIX)
    environment.filters.update(
        score=_score, chance=_chance, shown=_shown, heat=lambda value, column: _heat(last, value, column)
    )
    return environment.get_template("check.html").render(
        report=report,
        shown=told + same[:MAX_IDENTICAL],
        hidden=max(0, len(same) - MAX_IDENTICAL),
        matrix=last,
        cut=len(matrix.tasks) if len(matrix.tasks) > MAX_MATRIX else 0,
        measures=measures(matrix),
        catalog=catalog,
        base=base,
        at=at,
        evidence=evidence,
        rows=MAX_ROWS,
        labels=MAX_LABELS,
    )


def junit(report: CheckReport, at: datetime) -> str:
    """A test case a version: a regression that blocks is a failure, what could not be measured an error."""
    failures = sum(result.blocks and result.verdict != "failed" for result in report.results)
    errors = sum(result.verdict == "failed" for result in report.results)
    suite = ElementTree.Element(
        "testsuite",
        name="multiprompt check",
        tests=str(len(report.results)),
        failures=str(failures),
        errors=str(errors),
        time=f"{report.seconds:.3f}",
        timestamp=at.isoformat(),
    )
    for result in report.results:
        _case(suite, result)
    ElementTree.SubElement(suite, "system-out").text = "\n".join(
        map(_printable, (report.summary, report.cost, *report.notes))
    )
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, result: CheckResult) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname="multiprompt", name=result.version)
    message = _printable(result.told)
    if result.verdict == "failed":
        ElementTree.SubElement(case, "error", message=message)
    elif result.blocks:
        ElementTree.SubElement(case, "failure", message=message)
    else:
        ElementTree.SubElement(case, "system-out").text = message


def _printable(text: str) -> str:
    """XML has no control characters, not even escaped ones."""
    return "".join(character if character.isprintable() else " " for character in text)


def _last(matrix: Matrix, size: int) -> Matrix:
    return Matrix(
        matrix.tasks[-size:],
        tuple(row[-size:] for row in matrix.scores[-size:]),
        matrix.before[-size:],
        matrix.higher_is_better[-size:],
    )


def _heat(matrix: Matrix, value: float, column: int) -> str:
    """Green at the best score of a column and fading towards the worst, so that a loss down a column is seen."""
    known = [row[column] for row in matrix.scores]
    low = min(0.0, *(score for score in known if score is not None))
    high = max(1.0, *(score for score in known if score is not None))
    share = (value - low) / (high - low)
    if matrix.higher_is_better and not matrix.higher_is_better[column]:
        share = 1 - share
    return f"hsl(150 60% 45% / {100 * share:.0f}%)"


def _score(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _shown(value: object) -> str:
    """A text or label, cut where it is long; control characters are visible, and line ends are kept."""
    text = str(value)
    return printable(text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…")


def _chance(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
