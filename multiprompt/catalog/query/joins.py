"""SQL expressions that the listings and the nouns share: joined tables, baselines, walks along the lineage."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CTE, ColumnElement, FromClause, Select, and_, func, select

from multiprompt.catalog import schema as s

# The published version of a task, and its baseline evaluation.
published = s.prompt_versions.alias("published")
baseline = s.evaluations.alias("baseline")
# The event that published a version.
moved = s.events.alias("moved")
MIN_FINGERPRINT = 8


def baseline_id(versions: FromClause = s.prompt_versions, at: datetime | None = None) -> ColumnElement[int]:
    """The id of a version's baseline evaluation, now or at a time.

    It is that of the last blessing, or that of the admission if there was none.
    """
    blessed = select(s.baselines.c.evaluation_id).where(s.baselines.c.version_id == versions.c.id)
    if at is not None:
        blessed = blessed.where(s.baselines.c.created_at <= at)
    newest = blessed.order_by(s.baselines.c.id.desc()).limit(1).correlate(versions).scalar_subquery()
    return func.coalesce(newest, versions.c.baseline_id)


def is_held_against(
    evaluations: FromClause, versions: FromClause = s.prompt_versions, at: datetime | None = None
) -> ColumnElement[bool]:
    """The condition that joins versions with their baselines; its first half lets a database begin at either side."""
    return and_(evaluations.c.version_id == versions.c.id, evaluations.c.id == baseline_id(versions, at))


def records_of(model_id: ColumnElement[int]) -> Select[tuple[int]]:
    """The ids of the records of a base model: of that one, and of those with its fingerprints of other releases."""
    one, other = s.base_models.alias(), s.base_models.alias()
    alike = other.join(one, first_record(one) == first_record(other))
    return select(other.c.id).select_from(alike).where(one.c.id == model_id)


def is_serving(versions: FromClause = s.prompt_versions) -> ColumnElement[bool]:
    """The condition that a version is published on the base model that the settings name."""
    serving = select(s.settings.c.base_model_id).scalar_subquery()
    return and_(versions.c.state == "published", versions.c.base_model_id.in_(records_of(serving)))


def first_record(models: FromClause) -> ColumnElement[int]:
    """The id of the first record of a base model."""
    return func.coalesce(models.c.renews_id, models.c.id)


def descendants(start: Select[tuple[int]]) -> CTE:
    """The ids of the versions that came, over any number of edges, from those that `start` selects."""
    edges = s.lineage
    found = select(edges.c.child_id.label("id")).where(edges.c.parent_id.in_(start)).cte(recursive=True)
    return found.union(select(edges.c.child_id).join(found, edges.c.parent_id == found.c.id))


def ancestors(start: Select[tuple[int]]) -> CTE:
    """The ids of the versions from which those that `start` selects came, over any number of edges."""
    edges = s.lineage
    first = select(edges.c.parent_id.label("id")).where(edges.c.child_id.in_(start), edges.c.parent_id.is_not(None))
    found = first.cte(recursive=True)
    return found.union(
        select(edges.c.parent_id).join(found, edges.c.child_id == found.c.id).where(edges.c.parent_id.is_not(None))
    )


def begins(column: ColumnElement[str], fingerprint: str) -> ColumnElement[bool]:
    """The condition that a digest begins so; `sha256:` may be left out. Raises ValueError for too few digits."""
    digits = fingerprint.removeprefix("sha256:")
    if len(digits) < MIN_FINGERPRINT:
        raise ValueError(f"expected at least {MIN_FINGERPRINT} digits of a fingerprint such as 'sha256:1f2a30b4…'")
    return column.startswith(f"sha256:{digits}", autoescape=True)
