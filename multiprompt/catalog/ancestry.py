"""Lineage: what a version came from and what came from it, over any number of edges, and what a change would touch."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import CTE, ColumnElement, Connection, Select, literal, or_, select

from multiprompt.catalog import reading
from multiprompt.catalog import schema as s
from multiprompt.catalog.baselines import is_held_against
from multiprompt.catalog.fields import ancestors, begins, descendants
from multiprompt.errors import NotFoundError, QueryError
from multiprompt.records import Edge, Impact, VersionRecord


def lineage(connection: Connection, versions: list[VersionRecord]) -> list[Edge]:
    """The edges above and below versions, and what each version on them was made of. Five statements at any depth."""
    start = select(s.prompt_versions.c.id).where(s.prompt_versions.c.id.in_([version.id for version in versions]))
    above, below = ancestors(start), descendants(start)
    edges = s.lineage.c
    walked = or_(edges.child_id.in_(_with(start, above)), edges.parent_id.in_(_with(start, below)))
    child = s.prompt_versions.alias("child")
    query = (
        select(s.tasks.c.name, child.c.number, edges.relation, edges.parent_label)
        .join(child, edges.child_id == child.c.id)
        .join(s.tasks, child.c.task_id == s.tasks.c.id)
        .where(walked)
        .order_by(s.lineage.c.id)
    )
    found = [Edge(f"{row.name}@{row.number}", row.relation, row.parent_label) for row in connection.execute(query)]
    everyone = or_(*(s.prompt_versions.c.id.in_(ids) for ids in (_with(start, above), _with(start, below))))
    return [*found, *_materials(connection, select(s.prompt_versions.c.id).where(everyone))]


def _with(start: Select[tuple[int]], others: CTE) -> Select[tuple[int]]:
    return select(s.prompt_versions.c.id).where(
        or_(s.prompt_versions.c.id.in_(start), s.prompt_versions.c.id.in_(select(others.c.id)))
    )


def _materials(connection: Connection, versions: Select[tuple[int]]) -> Iterator[Edge]:
    """The base model, data, run and job of each version."""
    data = {name: s.data_snapshots.alias(name) for name in ("trained", "validated", "evaluated")}
    query = (
        select(
            s.tasks.c.name,
            s.prompt_versions.c.number,
            s.base_models.c.weights,
            s.runs.c.id.label("run"),
            s.runs.c.job,
            *(
                column.label(f"{name}_{column.name}")
                for name, snapshot in data.items()
                for column in (snapshot.c.fingerprint, snapshot.c.split, snapshot.c.rows)
            ),
        )
        .select_from(s.prompt_versions)
        .join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
        .join(s.base_models, s.prompt_versions.c.base_model_id == s.base_models.c.id)
        .outerjoin(s.runs, s.prompt_versions.c.run_id == s.runs.c.id)
        .outerjoin(s.evaluations, is_held_against(s.evaluations))
        .outerjoin(data["trained"], s.runs.c.training_snapshot_id == data["trained"].c.id)
        .outerjoin(data["validated"], s.runs.c.validation_snapshot_id == data["validated"].c.id)
        .outerjoin(data["evaluated"], s.evaluations.c.snapshot_id == data["evaluated"].c.id)
        .where(s.prompt_versions.c.id.in_(versions))
        .order_by(s.prompt_versions.c.id)
    )
    for row in connection.execute(query):
        label = f"{row.name}@{row.number}"
        made_of = (
            Edge(label, "runs-on", row.weights),
            Edge(label, "trained-on", row.trained_fingerprint, row.trained_split, row.trained_rows),
            Edge(label, "validated-on", row.validated_fingerprint, row.validated_split, row.validated_rows),
            Edge(label, "evaluated-on", row.evaluated_fingerprint, row.evaluated_split, row.evaluated_rows),
            Edge(label, "made-by", f"run {row.run}" if row.run else ""),
            Edge(label, "asked-by", f"job {row.job}" if row.job else ""),
        )
        yield from (edge for edge in made_of if edge.parent)


def impact_of_base(connection: Connection, name: str) -> list[Impact]:
    """The published prompts that run on a base model, named by its name or by how the digest of its weights begins."""
    base = s.base_models.c
    named = or_(base.name == name, base.source == name)
    if name.startswith("sha256:"):
        named = _begins(base.weights, name)
    if connection.execute(select(base.id).where(named)).first() is None:
        known = connection.scalars(select(base.name).distinct()).all()
        raise NotFoundError(f"no base model {name!r} in the catalog; it has {', '.join(known) or 'none'}.")
    return _impacts(connection, select(s.prompt_versions.c.id, literal("runs-on")).join(s.base_models).where(named))


def impact_of_data(connection: Connection, fingerprint: str) -> list[Impact]:
    """The published prompts that were trained, validated or scored on data whose fingerprint begins so."""
    found = _begins(s.data_snapshots.c.fingerprint, fingerprint)
    ids = connection.scalars(select(s.data_snapshots.c.id).where(found)).all()
    if not ids:
        raise NotFoundError(f"no data {fingerprint} in the catalog; `multiprompt lineage TASK` shows what there is.")
    versions, runs, evaluations = s.prompt_versions.c, s.runs.c, s.evaluations.c
    uses = (
        select(versions.id, literal("trained-on")).join(s.runs).where(runs.training_snapshot_id.in_(ids)),
        select(versions.id, literal("validated-on")).join(s.runs).where(runs.validation_snapshot_id.in_(ids)),
        select(versions.id, literal("evaluated-on"))
        .select_from(s.prompt_versions)
        .join(s.evaluations, is_held_against(s.evaluations))
        .where(evaluations.snapshot_id.in_(ids)),
    )
    return [impact for use in uses for impact in _impacts(connection, use)]


def _impacts(connection: Connection, use: Select[tuple[int, str]]) -> list[Impact]:
    """The published versions among those used so, with the rows and seconds that their last evaluation took."""
    used = use.where(s.prompt_versions.c.state == "published").subquery()
    version, relation = used.c
    query = (
        select(s.tasks.c.name, s.prompt_versions.c.number, relation, s.evaluations.c.rows, s.evaluations.c.seconds)
        .select_from(used)
        .join(s.prompt_versions, s.prompt_versions.c.id == version)
        .join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
        .join(s.evaluations, is_held_against(s.evaluations))
        .order_by(s.tasks.c.name)
    )
    return [Impact(f"{name}@{number}", how, rows, cost) for name, number, how, rows, cost in connection.execute(query)]


def _begins(column: ColumnElement[str], fingerprint: str) -> ColumnElement[bool]:
    try:
        return begins(column, fingerprint)
    except ValueError as error:
        raise QueryError(f"{fingerprint!r}: {error}") from None


def of_label(connection: Connection, name: str, number: int | None) -> list[VersionRecord]:
    """The versions that a label means: the one of a number, else all of the task."""
    return reading.versions_of(connection, name) if number is None else [reading.version(connection, name, number)]
