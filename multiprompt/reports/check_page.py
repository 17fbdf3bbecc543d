"""A check as a page for people and as JUnit XML for build servers."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from multiprompt.records import CheckReport, CheckResult, Matrix
from multiprompt.reports.measures import measures

_TEMPLATES = Path(__file__).parent / "templates"
_SEVERITY = ("failed", "regressed", "inconclusive", "improved", "unchanged", "identical")
MAX_IDENTICAL = 200
MAX_MATRIX = 50


def html(report: CheckReport, matrix: Matrix, catalog: str, base: str, at: datetime) -> str:
    """One self-contained page: the verdict, then every task that is not as it was, what changed, and the matrix."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    shown = sorted(report.results, key=lambda result: _SEVERITY.index(result.verdict))
    told = [result for result in shown if not (result.reused and result.verdict == "identical")]
    same = [result for result in shown if result.reused and result.verdict == "identical"]
    last = _last(matrix, MAX_MATRIX)
    environment.filters.update(score=_score, chance=_chance, heat=lambda value, column: _heat(last, value, column))
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


def _chance(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
