"""The fields and functions that a query can name, for each listing of the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import CTE, ColumnElement, FromClause, Select, String, exists, func, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from multiprompt.catalog import schema as s
from multiprompt.catalog.labels import parse_label
from multiprompt.catalog.query import Field, Fields, Function, parse_time
from multiprompt.catalog.search import matches
from multiprompt.errors import MultipromptError

published = s.prompt_versions.alias("published")
baseline = s.evaluations.alias("baseline")
# The event that published what was published at a time.
moved = s.events.alias("moved")
MIN_FINGERPRINT = 8


class _Elements(FunctionElement[Any]):
    """The elements of a JSON array, a row each with a `value`."""

    inherit_cache = True
    name = "json_each"


@compiles(_Elements, "postgresql")
def _elements_of_postgresql(element: _Elements, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text({compiler.process(element.clauses, **options)})"


@compiles(_Elements)
def _elements_of_sqlite(element: _Elements, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


def _columns(**columns: ColumnElement[Any]) -> dict[str, Field]:
    return {name: Field(column) for name, column in columns.items()}


def _score(evaluations: FromClause, metric: str) -> Field:
    return Field(evaluations.c.metrics[metric].as_float())


def _tag(key: str = "") -> Field:
    """A task's tags: `tag = 'nlp'` finds the tag nlp, `tag.team = 'nlp'` the tag team:nlp."""
    entries = _Elements(s.task_files.c.tags).table_valued("value")
    entry = func.cast(entries.c.value, type_=String)
    head = f"{key}:" if key else ""
    return Field(
        func.substr(entry, len(head) + 1, type_=String),
        lambda condition: exists(
            select(1).select_from(entries).where(entry.startswith(head, autoescape=True), condition)
        ),
    )


def _labelled(label: str) -> Select[tuple[int]]:
    """The ids of the versions that a label means, all of a task's without a number."""
    try:
        name, number = parse_label(label)
    except MultipromptError:
        raise ValueError("expected a version such as 'sst2@1', or a task") from None
    found = select(s.prompt_versions.c.id).join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
    found = found.where(s.tasks.c.name == name)
    return found if number is None else found.where(s.prompt_versions.c.number == number)


def descendants(start: Select[tuple[int]]) -> CTE:
    """The ids of the versions that came, over any number of edges, from those that `start` selects."""
    edges = s.lineage
    found = select(edges.c.child_id.label("id")).where(edges.c.parent_id.in_(start)).cte("descendants", recursive=True)
    return found.union(select(edges.c.child_id).join(found, edges.c.parent_id == found.c.id))


def ancestors(start: Select[tuple[int]]) -> CTE:
    """The ids of the versions from which those that `start` selects came, over any number of edges."""
    edges = s.lineage
    first = select(edges.c.parent_id.label("id")).where(edges.c.child_id.in_(start), edges.c.parent_id.is_not(None))
    found = first.cte("ancestors", recursive=True)
    return found.union(
        select(edges.c.parent_id).join(found, edges.c.child_id == found.c.id).where(edges.c.parent_id.is_not(None))
    )


def _learned_from(fingerprint: str) -> Select[tuple[int]]:
    """The runs that trained or validated on data of this fingerprint, or of one that begins with it."""
    if len(fingerprint.removeprefix("sha256:")) < MIN_FINGERPRINT:
        raise ValueError(f"expected at least {MIN_FINGERPRINT} digits of a fingerprint such as 'sha256:1f2a30b4…'")
    data = select(s.data_snapshots.c.id).where(s.data_snapshots.c.fingerprint.startswith(fingerprint, autoescape=True))
    return select(s.runs.c.id).where(
        or_(s.runs.c.training_snapshot_id.in_(data), s.runs.c.validation_snapshot_id.in_(data))
    )


def _regressed_since(time: str) -> Select[tuple[int]]:
    """The versions that a check since then found worse, or failed to measure."""
    return (
        select(s.check_results.c.version_id)
        .join(s.checks, s.check_results.c.check_id == s.checks.c.id)
        .where(s.check_results.c.verdict.in_(["regressed", "failed"]), s.checks.c.created_at >= parse_time(time))
    )


def _functions(versions: FromClause) -> dict[str, Function]:
    """What can be asked of a listing whose rows have one of `versions`."""

    def among(ids: Callable[[str], Any]) -> Function:
        return lambda argument: versions.c.id.in_(ids(argument))

    return {
        "descendant_of": among(lambda label: select(descendants(_labelled(label)).c.id)),
        "ancestor_of": among(lambda label: select(ancestors(_labelled(label)).c.id)),
        "regressed_since": among(_regressed_since),
        "learned_from": lambda fingerprint: versions.c.run_id.in_(_learned_from(fingerprint)),
        "matches": lambda text: matches(s.tasks.c.id, text),
    }


def _tasks(published_at: ColumnElement[Any]) -> Fields:
    return Fields(
        {
            **_columns(
                name=s.tasks.c.name,
                description=s.task_files.c.description,
                metric=s.task_files.c.metric,
                guarded=s.tasks.c.guarded,
                published=published.c.number,
                published_at=published_at,
                created_at=s.tasks.c.created_at,
                method=published.c.method,
                tokens=published.c.num_virtual_tokens,
                base=s.base_models.c.name,
                score=baseline.c.score,
            ),
            "tag": _tag(),
        },
        {"score": lambda metric: _score(baseline, metric), "tag": _tag},
        _functions(published),
    )


TASKS = _tasks(published.c.published_at)
TASKS_AS_OF = _tasks(moved.c.at)
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
    _functions(s.prompt_versions),
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
    _functions(s.prompt_versions),
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
