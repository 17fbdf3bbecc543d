"""An evaluation joined to the texts of its rows, with scores of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from multiprompt.context import Context
from multiprompt.errors import NotFoundError
from multiprompt.records import (
    AnsweredRow,
    ClassScore,
    ConfusionMatrix,
    Evaluation,
    EvaluationRecord,
    EvaluationReport,
    VersionRecord,
)
from multiprompt.tasks.data import Row
from multiprompt.tasks.example import answer_text, choices_of, row_text
from multiprompt.tasks.metric import per_example_scores
from multiprompt.tasks.task import Task


def report_evaluation(context: Context, evaluation_id: int) -> EvaluationReport:
    """An evaluation with its rows as texts. Raises NotFoundError."""
    catalog = context.catalog
    found = catalog.evaluations.get(evaluation_id)
    quoted = found.task.replace("'", "''")
    record = next(one for one in catalog.evaluations.find(f"task = '{quoted}'") if one.id == evaluation_id)
    return report(context, record, found)


def report(context: Context, record: EvaluationRecord, found: Evaluation) -> EvaluationReport:
    """An evaluation that was read, with its record, as texts; numbers of choices stay where the rows are gone."""
    versions = context.catalog.versions.of(found.task)
    own = [version for version in versions if version.label == record.version]
    task = _task_file(context, found, [*own, *reversed(versions)])
    answers, labels = _answers(task, found, _rows(context, [*own, *versions], record))
    confusion = _confusion(answers, labels)
    return EvaluationReport(
        **{field.name: getattr(found, field.name) for field in fields(Evaluation)},
        id=record.id,
        version=record.version,
        answers=tuple(sorted(answers, key=lambda answer: answer.is_right is not False)),
        classes=() if confusion is None else tuple(_class_scores(confusion)),
        confusion=confusion,
    )


def _task_file(context: Context, found: Evaluation, versions: Sequence[VersionRecord]) -> Task:
    """The task file that a score was taken with, by its fingerprint; else that of the version, or the newest."""
    fingerprint = found.key.get("task file", "").rpartition("scored by ")[2]
    newest = context.task(found.task)
    candidates = [*map(context.catalog.versions.task, versions[:1]), newest]
    if all(task.fingerprint != fingerprint for task in candidates):
        candidates += map(context.catalog.versions.task, versions[1:])
    return next((task for task in candidates if task.fingerprint == fingerprint), candidates[0])


def _rows(context: Context, versions: Sequence[VersionRecord], record: EvaluationRecord) -> Sequence[Row]:
    """The rows that a score was taken on; none where they are not stored."""
    try:
        return context.catalog.evaluations.rows(versions[0], record.id).rows if versions else ()
    except NotFoundError:
        return ()


def _answers(task: Task, found: Evaluation, rows: Sequence[Row]) -> tuple[list[AnsweredRow], tuple[str, ...]]:
    """The rows as texts and the labels that they share; numbers where the rows are gone or no task file reads them."""
    pairs = list(zip(found.references, found.predictions, strict=True))
    hits = _hits(task, found) or [None] * len(pairs)
    try:
        told = [(answer_text(task, row, a), answer_text(task, row, b)) for row, (a, b) in zip(rows, pairs, strict=True)]
        labels = _labels(task, rows)
    except ValueError:
        rows, told, labels = (), pairs, ()
    texts = [row_text(task, row) for row in rows] or [""] * len(pairs)
    return [AnsweredRow(n, texts[n], *told[n], hits[n]) for n in range(len(pairs))], labels


def _hits(task: Task, found: Evaluation) -> Sequence[bool | None] | None:
    """Whether each row is right; None for a metric that knows no right row."""
    if task.is_multiple_choice:
        return [given == right for given, right in zip(found.predictions, found.references, strict=True)]
    metric = next((metric for metric in task.metrics if metric.name == found.metric), None)
    scores = None if metric is None else per_example_scores(metric, found.predictions, found.references)
    return None if scores is None else [score == 1.0 for score in scores]


def _labels(task: Task, rows: Sequence[Row]) -> tuple[str, ...]:
    """The choices, where all rows have the same ones."""
    if not task.is_multiple_choice or not rows:
        return ()
    choices = {choices_of(task, row) for row in rows}
    return choices.pop() if len(choices) == 1 else ()


def _confusion(answers: Sequence[AnsweredRow], labels: tuple[str, ...]) -> ConfusionMatrix | None:
    if not all(answer.right in labels and answer.given in labels for answer in answers) or not labels:
        return None
    places = {label: place for place, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for answer in answers:
        counts[places[answer.right]][places[answer.given]] += 1
    return ConfusionMatrix(labels, tuple(map(tuple, counts)))


def _class_scores(confusion: ConfusionMatrix) -> Iterator[ClassScore]:
    """A score whose denominator is 0 is 0, as in scikit-learn."""
    for place, label in enumerate(confusion.labels):
        hits = confusion.counts[place][place]
        support, given = sum(confusion.counts[place]), sum(row[place] for row in confusion.counts)
        yield ClassScore(label, _share(hits, given), _share(hits, support), _share(2 * hits, given + support), support)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def newest_report(context: Context, version: VersionRecord) -> EvaluationReport | None:
    """The newest stored score of a version on its own or other rows; None where there is none."""
    quoted = version.task.replace("'", "''")
    query = f"task = '{quoted}' and version = {version.number} order by created_at desc"
    found = context.catalog.evaluations.find(query, limit=1)
    return report(context, found[0], context.catalog.evaluations.get(found[0].id)) if found else None
