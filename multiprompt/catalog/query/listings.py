"""The fields and functions that a query can name, for each listing of the catalog."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    FromClause,
    Select,
    String,
    and_,
    case,
    exists,
    func,
    literal,
    select,
    type_coerce,
    union,
)

from multiprompt.catalog import schema as s
from multiprompt.catalog.labels import parse_label
from multiprompt.catalog.query.fields import Field, Fields, Flag, Function, ValueIndex
from multiprompt.catalog.query.joins import ancestors, baseline, begins, descendants, moved, published
from multiprompt.catalog.query.search import matches
from multiprompt.catalog.query.values import parse_time
from multiprompt.config import POLICIES
from multiprompt.errors import MultipromptError

STATES = ("candidate", "published", "retired", "rejected")
EVALUATION_KINDS = ("soft", "hard")
EVENT_KINDS = (
    "published", "rolled-back", "rejected", "held", "below-floor", "blessed", "noted", "guarded", "unguarded",
    "task-added", "task-changed", "base-model-bound", "base-model-renewed", "base-model-moved",
    "engine-fallback", "engine-packed",
    *(f"policy-{policy}" for policy in POLICIES),
)  # fmt: skip


def _columns(**columns: ColumnElement[Any]) -> dict[str, Field]:
    return {name: Field(column) for name, column in columns.items()}


def _score(evaluations: FromClause, metric: str) -> Field:
    """An evaluation's score by a metric; that by the main one is read from the evaluation itself, which is quicker."""
    scores = s.evaluation_scores
    measured = select(scores.c.score).where(scores.c.evaluation_id == evaluations.c.id, scores.c.metric == metric)
    return Field(
        case(
            (evaluations.c.metric == metric, evaluations.c.score),
            else_=measured.correlate(evaluations).scalar_subquery(),
        ),
        index=ValueIndex(
            evaluations.c.id, select(scores.c.evaluation_id).where(scores.c.metric == metric), scores.c.score
        ),
    )


def _tag(key: str = "") -> Field:
    """A task's tags: `tag = 'nlp'` finds the tag nlp, `tag.team = 'nlp'` the tag team:nlp."""
    tag, head = s.task_tags.c.tag, f"{key}:" if key else ""
    mine = select(1).where(s.task_tags.c.task_file_id == s.task_files.c.id).correlate(s.task_files)

    def any_tag(condition: Any) -> ColumnElement[bool]:
        if condition.operator is operator.eq:
            return exists(mine.where(tag == literal(head, String) + condition.right))
        return exists(mine.where(func.substr(tag, 1, len(head)) == head, condition))

    return Field(func.substr(tag, len(head) + 1, type_=String), any_tag)


def _labelled(label: str) -> Select[tuple[int]]:
    """The ids of the versions that a label means, all of a task's without a number."""
    try:
        name, number = parse_label(label)
        if not name:
            raise ValueError
    except (MultipromptError, ValueError):
        raise ValueError("expected a version such as 'sst2@1', or a task") from None
    found = select(s.prompt_versions.c.id).join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
    found = found.where(s.tasks.c.name == name)
    return found if number is None else found.where(s.prompt_versions.c.number == number)


def _learned_from(fingerprint: str) -> CompoundSelect[tuple[int]]:
    """The runs that trained or validated on data of this fingerprint, or of one that begins with it."""
    data = select(s.data_snapshots.c.id).where(begins(s.data_snapshots.c.fingerprint, fingerprint))
    # An index answers each half; of one with `or`, none would.
    return union(
        select(s.runs.c.id).where(s.runs.c.training_snapshot_id.in_(data)),
        select(s.runs.c.id).where(s.runs.c.validation_snapshot_id.in_(data)),
    )


def _regressed_since(time: str) -> Select[tuple[int]]:
    """The versions that a check since then found worse or could not measure."""
    return (
        select(s.check_results.c.version_id)
        .join(s.checks, s.check_results.c.check_id == s.checks.c.id)
        .where(s.check_results.c.verdict.in_(["regressed", "failed"]), s.checks.c.created_at >= parse_time(time))
    )


def _functions(versions: FromClause) -> dict[str, Function]:
    """The functions of a listing whose rows have one of `versions`."""

    def among(column: ColumnElement[Any], ids: Callable[[str], Any]) -> Function:
        # Rows without a version or a run are not among any, and so among what `not` finds.
        return lambda argument: and_(column.is_not(None), column.in_(ids(argument)))

    return {
        "descendant_of": among(versions.c.id, lambda label: select(descendants(_labelled(label)).c.id)),
        "ancestor_of": among(versions.c.id, lambda label: select(ancestors(_labelled(label)).c.id)),
        "regressed_since": among(versions.c.id, _regressed_since),
        "learned_from": among(versions.c.run_id, _learned_from),
        "matches": lambda text: matches(s.tasks.c.id, text),
    }


def _tasks(published_at: ColumnElement[Any], guarded: ColumnElement[Any]) -> Fields:
    return Fields(
        "tasks",
        {
            **_columns(
                name=s.tasks.c.name,
                description=s.task_files.c.description,
                metric=s.task_files.c.metric,
                guarded=type_coerce(guarded, Flag),
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


TASKS = _tasks(published.c.published_at, s.tasks.c.guarded)


def tasks_as_of(guarded: ColumnElement[Any]) -> Fields:
    """The fields of tasks at an earlier time, when `published_at` and `guarded` had other values."""
    return _tasks(moved.c.at, guarded)


VERSIONS = Fields(
    "versions",
    {
        **_columns(
            task=s.tasks.c.name,
            number=s.prompt_versions.c.number,
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
        "state": Field(s.prompt_versions.c.state, values=STATES),
        "tag": _tag(),
    },
    {"score": lambda metric: _score(baseline, metric), "tag": _tag},
    _functions(s.prompt_versions),
)
EVALUATIONS = Fields(
    "evaluations",
    {
        **_columns(
            task=s.tasks.c.name,
            version=s.prompt_versions.c.number,
            metric=s.evaluations.c.metric,
            score=s.evaluations.c.score,
            rows=s.evaluations.c.rows,
            seconds=s.evaluations.c.seconds,
            created_at=s.evaluations.c.created_at,
        ),
        "kind": Field(s.evaluations.c.kind, values=EVALUATION_KINDS),
    },
    {"score": lambda metric: _score(s.evaluations, metric)},
    _functions(s.prompt_versions),
)
EVENTS = Fields(
    "events",
    {
        **_columns(
            task=s.tasks.c.name,
            actor=s.events.c.actor,
            at=s.events.c.at,
            from_version=s.events.c.from_version,
            to_version=s.events.c.to_version,
            reason=s.events.c.reason,
        ),
        "kind": Field(s.events.c.kind, values=EVENT_KINDS),
    },
    {},
)
