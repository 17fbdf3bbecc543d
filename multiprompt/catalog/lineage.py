"""Lineage: the ancestors and descendants of a version, and the versions that a change would touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import CTE, ColumnElement, Connection, Select, literal, or_, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.query.joins import ancestors, begins, descendants, is_held_against, is_serving
from multiprompt.catalog.store import Noun
from multiprompt.catalog.versions import version, versions_of
from multiprompt.errors import NotFoundError, QueryError
from multiprompt.records import Edge, Impact, VersionRecord


@dataclass(frozen=True)
class Parent:
    """A parent of a candidate: a version, or something outside the catalog that `label` names."""

    relation: str
    label: str
    version: VersionRecord | None = None


class Lineage(Noun):
    def of(self, task: str, number: int | None = None) -> list[Edge]:
        """The edges above and below a version, or all versions of a task, and the materials of each version on them.

        It takes five statements at any depth.
        """
        with self._store.read() as connection:
            versions = versions_of(connection, task) if number is None else [version(connection, task, number)]
            start = select(s.prompt_versions.c.id).where(s.prompt_versions.c.id.in_([found.id for found in versions]))
            above, below = _with(start, ancestors(start)), _with(start, descendants(start))
            everyone = or_(*(s.prompt_versions.c.id.in_(ids) for ids in (above, below)))
            materials = _materials(connection, select(s.prompt_versions.c.id).where(everyone))
            return [*_edges(connection, above, below), *materials]

    def impact_of_base(self, name: str) -> list[Impact]:
        """The published prompts on a base model, given by its name or by the first digits of its weights' digest.

        Raises NotFoundError.
        """
        base = s.base_models.c
        named = (
            _begins(base.weights, name) if name.startswith("sha256:") else or_(base.name == name, base.source == name)
        )
        with self._store.read() as connection:
            if connection.execute(select(base.id).where(named)).first() is None:
                known = connection.scalars(select(base.name).distinct()).all()
                raise NotFoundError(f"no base model {name!r} in the catalog; it has {', '.join(known) or 'none'}.")
            use = select(s.prompt_versions.c.id, literal("runs-on")).join(s.base_models).where(named)
            return _impacts(connection, use)

    def impact_of_data(self, fingerprint: str) -> list[Impact]:
        """The published prompts that were trained, validated or scored on data, given by its first digits.

        Raises NotFoundError or QueryError.
        """
        found = _begins(s.data_snapshots.c.fingerprint, fingerprint)
        with self._store.read() as connection:
            ids = connection.scalars(select(s.data_snapshots.c.id).where(found)).all()
            if not ids:
                raise NotFoundError(f"no data {fingerprint} in the catalog; `ws.lineage('TASK')` shows what there is.")
            return [impact for use in _uses(ids) for impact in _impacts(connection, use)]


def insert_edges(connection: Connection, child_id: int, parents: Sequence[Parent]) -> None:
    rows = [
        {
            "child_id": child_id,
            "relation": parent.relation,
            "parent_id": None if parent.version is None else parent.version.id,
            "parent_label": parent.label,
        }
        for parent in parents
    ]
    if rows:
        connection.execute(s.lineage.insert(), rows)


def _edges(connection: Connection, above: Select[tuple[int]], below: Select[tuple[int]]) -> list[Edge]:
    edges = s.lineage.c
    child = s.prompt_versions.alias("child")
    query = (
        select(s.tasks.c.name, child.c.number, edges.relation, edges.parent_label)
        .join(child, edges.child_id == child.c.id)
        .join(s.tasks, child.c.task_id == s.tasks.c.id)
        .where(or_(edges.child_id.in_(above), edges.parent_id.in_(below)))
        .order_by(edges.id)
    )
    return [Edge(f"{row.name}@{row.number}", row.relation, row.parent_label) for row in connection.execute(query)]


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


def _uses(ids: Sequence[int]) -> tuple[Select[tuple[int, str]], ...]:
    """The versions that used data of these ids, each with how."""
    versions, runs, evaluations = s.prompt_versions.c, s.runs.c, s.evaluations.c
    return (
        select(versions.id, literal("trained-on")).join(s.runs).where(runs.training_snapshot_id.in_(ids)),
        select(versions.id, literal("validated-on")).join(s.runs).where(runs.validation_snapshot_id.in_(ids)),
        select(versions.id, literal("evaluated-on"))
        .select_from(s.prompt_versions)
        .join(s.evaluations, is_held_against(s.evaluations))
        .where(evaluations.snapshot_id.in_(ids)),
    )


def _impacts(connection: Connection, use: Select[tuple[int, str]]) -> list[Impact]:
    """The published versions among those used so, with the rows and seconds that their last evaluation took."""
    used = use.where(is_serving()).subquery()
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
