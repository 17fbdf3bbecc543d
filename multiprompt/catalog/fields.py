"""The fields that a query can name, for each listing of the catalog."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, FromClause, String, exists, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.query import Field, Fields

published = s.prompt_versions.alias("published")
baseline = s.evaluations.alias("baseline")


def _columns(**columns: ColumnElement[Any]) -> dict[str, Field]:
    return {name: Field(column) for name, column in columns.items()}


def _score(evaluations: FromClause, metric: str) -> Field:
    return Field(evaluations.c.metrics[metric].as_float())


def _tag(key: str = "") -> Field:
    """A task's tags: `tag = 'nlp'` finds the tag nlp, `tag.team = 'nlp'` the tag team:nlp."""
    entries = func.json_each(s.task_files.c.tags).table_valued("value")
    entry = func.cast(entries.c.value, type_=String)
    head = f"{key}:" if key else ""
    return Field(
        func.substr(entry, len(head) + 1, type_=String),
        lambda condition: exists(
            select(1).select_from(entries).where(entry.startswith(head, autoescape=True), condition)
        ),
    )


TASKS = Fields(
    {
        **_columns(
            name=s.tasks.c.name,
            description=s.task_files.c.description,
            metric=s.task_files.c.metric,
            published=published.c.number,
            published_at=published.c.published_at,
            created_at=s.tasks.c.created_at,
            score=baseline.c.score,
        ),
        "tag": _tag(),
    },
    {"score": lambda metric: _score(baseline, metric), "tag": _tag},
)
VERSIONS = Fields(
    {
        **_columns(
            task=s.tasks.c.name,
            number=s.prompt_versions.c.number,
            state=s.prompt_versions.c.state,
            method=s.prompt_versions.c.method,
            tokens=s.prompt_versions.c.num_virtual_tokens,
            base=s.base_models.c.name,
            digest=s.prompt_versions.c.digest,
            reason=s.prompt_versions.c.reason,
            created_at=s.prompt_versions.c.created_at,
            published_at=s.prompt_versions.c.published_at,
            retired_at=s.prompt_versions.c.retired_at,
            metric=baseline.c.metric,
            score=baseline.c.score,
        ),
        "tag": _tag(),
    },
    {"score": lambda metric: _score(baseline, metric), "tag": _tag},
)
EVALUATIONS = Fields(
    _columns(
        task=s.tasks.c.name,
        version=s.prompt_versions.c.number,
        kind=s.evaluations.c.kind,
        metric=s.evaluations.c.metric,
        score=s.evaluations.c.score,
        rows=s.evaluations.c.rows,
        seconds=s.evaluations.c.seconds,
        created_at=s.evaluations.c.created_at,
    ),
    {"score": lambda metric: _score(s.evaluations, metric)},
)
EVENTS = Fields(
    _columns(
        kind=s.events.c.kind,
        task=s.tasks.c.name,
        actor=s.events.c.actor,
        at=s.events.c.at,
        from_version=s.events.c.from_version,
        to_version=s.events.c.to_version,
        reason=s.events.c.reason,
    ),
    {},
)
