"""Rows to records: every SELECT of the catalog."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, case, func, or_, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.query import joins, listings
from multiprompt.catalog.query.joins import baseline_id, is_held_against
from multiprompt.catalog.query.language import parse
from multiprompt.catalog.query.search import words
from multiprompt.catalog.query.values import MAX_INTEGER
from multiprompt.errors import IntegrityError, NotFoundError, QueryError, nearest
from multiprompt.records import (
    Adapter,
    BaseModelRecord,
    CheckResult,
    Evaluation,
    EvaluationRecord,
    Event,
    Listing,
    Run,
    TaskRecord,
    VersionRecord,
)

T = TypeVar("T")
# What one statement asks for by name; SQLite takes 32,766 bound values.
MAX_NAMES = 10_000
# The events that say which version serves a task from then on.
POINTER_MOVES = ("published", "rolled-back")
# The verdicts of a check that found a version worse, or could not measure it.
FOUND_WORSE = ("regressed", "failed")
NOTED, BLESSED, BELOW_FLOOR = "noted", "blessed", "below-floor"
# What bytes that are stored behind their own digest begin with.
SEAL = b"sha256:"
# What every publishing asks, built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_TASK_ID = select(s.tasks.c.id).where(s.tasks.c.name == bindparam("name"))
_EPOCH = select(s.settings.c.epoch)
_LAST_EVENT = select(s.events.c.at).order_by(s.events.c.id.desc()).limit(1)


def batched(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The values, so many at a time."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def tasks(
    connection: Connection,
    query: str = "",
    *,
    after: str | None = None,
    limit: int | None = None,
    as_of: datetime | None = None,
) -> Listing[TaskRecord]:
    """A page of the tasks; with `as_of` what there was then, and what was published."""
    if as_of is not None and not isinstance(as_of, datetime):
        raise QueryError(f"as_of is {as_of!r}; it must be a datetime, in UTC where it has no zone.")
    known = listings.TASKS if as_of is None else listings.tasks_as_of(_guarded_at(as_of))
    parsed = parse(query, known, limit)
    return parsed.page(connection, _task_query(as_of), s.tasks.c.id, _task, after)


def _task_query(as_of: datetime | None = None) -> Select[Any]:
    published = joins.published
    if as_of is None:
        published_at: ColumnElement[Any] = published.c.published_at
        task_file: ColumnElement[Any] = s.tasks.c.task_file_id
        guarded: ColumnElement[Any] = s.tasks.c.guarded
        joined = s.tasks.outerjoin(
            published, (published.c.task_id == s.tasks.c.id) & (published.c.state == "published")
        )
    else:
        published_at = joins.moved.c.at
        newest = select(func.max(s.task_files.c.id)).where(
            s.task_files.c.task_id == s.tasks.c.id, s.task_files.c.created_at <= as_of
        )
        task_file = func.coalesce(published.c.task_file_id, newest.correlate(s.tasks).scalar_subquery())
        guarded = _guarded_at(as_of)
        last = (
            select(func.max(s.events.c.id))
            .where(s.events.c.task_id == s.tasks.c.id, s.events.c.kind.in_(POINTER_MOVES), s.events.c.at <= as_of)
            .correlate(s.tasks)
            .scalar_subquery()
        )
        joined = s.tasks.outerjoin(joins.moved, joins.moved.c.id == last).outerjoin(
            published, (published.c.task_id == s.tasks.c.id) & (published.c.number == joins.moved.c.to_version)
        )
    query = select(
        s.tasks.c.name,
        s.tasks.c.created_at,
        s.tasks.c.file,
        guarded.label("guarded"),
        s.task_files.c.description,
        s.task_files.c.tags,
        s.task_files.c.metric,
        s.task_files.c.fingerprint,
        s.task_files.c.source,
        s.task_files.c.folder,
        published.c.number,
        published_at.label("published_at"),
        joins.baseline.c.score,
    ).select_from(
        joined.join(s.task_files, s.task_files.c.id == task_file)
        .outerjoin(joins.baseline, is_held_against(joins.baseline, published, as_of))
        .outerjoin(s.base_models, s.base_models.c.id == published.c.base_model_id)
    )
    return query if as_of is None else query.where(s.tasks.c.created_at <= as_of)


def _guarded_at(time: datetime) -> ColumnElement[int]:
    """Whether a task was guarded: whether the last event about it that there was by then made it so."""
    events = s.events.c
    about = events.kind.in_(["guarded", "unguarded"])
    last = (
        select(case((events.kind == "guarded", 1), else_=0))
        .where(events.task_id == s.tasks.c.id, about, events.at <= time)
        .order_by(events.id.desc())
        .limit(1)
    )
    return func.coalesce(last.correlate(s.tasks).scalar_subquery(), 0)


def _task(row: Row[Any]) -> TaskRecord:
    return TaskRecord(
        name=row.name,
        description=row.description,
        tags=tuple(row.tags),
        metric=row.metric,
        fingerprint=row.fingerprint,
        source=row.source,
        folder=row.folder,
        created_at=row.created_at,
        published=row.number,
        published_at=row.published_at,
        score=row.score,
        guarded=bool(row.guarded),
        file=row.file,
    )


def task(connection: Connection, name: str) -> TaskRecord:
    identity = task_id(connection, name)
    return _task(connection.execute(_task_query().where(s.tasks.c.id == identity)).one())


def task_id(connection: Connection, name: str) -> int:
    """Raises NotFoundError naming the nearest."""
    found = connection.execute(_TASK_ID, {"name": name}).scalar()
    if found is None:
        known = connection.scalars(select(s.tasks.c.name)).all()
        raise NotFoundError(f"no task {name!r} in the catalog; {nearest(name, known)}")
    return int(found)


def text(connection: Connection, task: int) -> str:
    """The words that a task is found by: those of its name, description, tags and notes."""
    query = (
        select(s.tasks.c.name, s.task_files.c.description, s.task_files.c.tags)
        .join(s.task_files, s.task_files.c.id == s.tasks.c.task_file_id)
        .where(s.tasks.c.id == task)
    )
    notes = (
        select(s.events.c.reason).where(s.events.c.task_id == task, s.events.c.kind == NOTED).order_by(s.events.c.id)
    )
    row = connection.execute(query).one_or_none()
    told = [] if row is None else [row.name, row.description, *row.tags]
    return " ".join(words([*told, *connection.scalars(notes)]))


def versions(
    connection: Connection, query: str = "", *, after: str | None = None, limit: int | None = None
) -> Listing[VersionRecord]:
    parsed = parse(query, listings.VERSIONS, limit)
    return parsed.page(connection, _version_query(), s.prompt_versions.c.id, _version, after)


def versions_of(connection: Connection, name: str) -> list[VersionRecord]:
    """A task's versions by number. Raises NotFoundError for an unknown task."""
    identity = task_id(connection, name)
    listing = _version_query().where(s.prompt_versions.c.task_id == identity).order_by(s.prompt_versions.c.number)
    return [_version(row) for row in connection.execute(listing)]


def versions_labelled(connection: Connection, labels: Collection[str]) -> list[VersionRecord]:
    names = sorted({name for name, at, _ in (label.rpartition("@") for label in labels) if at})
    found = [
        _version(row)
        for some in batched(names, MAX_NAMES)
        for row in connection.execute(_version_query().where(s.tasks.c.name.in_(some)))
    ]
    return sorted((version for version in found if version.label in labels), key=lambda version: version.id)


def version(connection: Connection, name: str, number: int | None) -> VersionRecord:
    """A task's version by number, its published one without. Raises NotFoundError saying which there are."""
    identity = task_id(connection, name)
    versions = s.prompt_versions.c
    wanted = versions.state == "published" if number is None else versions.number == number
    row = connection.execute(_version_query().where(versions.task_id == identity, wanted)).one_or_none()
    if row is not None:
        return _version(row)
    found = versions_of(connection, name)
    listed = ", ".join(f"{v.number} ({v.state})" for v in found) or "none"
    if number is None:
        held = [v.label for v in found if v.state == "candidate"]
        cure = f"publish {held[-1]} --force --reason …" if held else f"learn {name}"
        raise NotFoundError(f"task {name!r} has no published version (versions: {listed}); run `multiprompt {cure}`.")
    raise NotFoundError(f"task {name!r} has no version {number}; its versions: {listed}.")


def version_by_id(connection: Connection, identity: int) -> VersionRecord:
    return _version(connection.execute(_VERSION_BY_ID, {"version": identity}).one())


def published(connection: Connection) -> list[VersionRecord]:
    """The published versions, in the order in which they were published first."""
    query = _version_query().where(s.prompt_versions.c.state == "published").order_by(s.prompt_versions.c.id)
    return [_version(row) for row in connection.execute(query)]


def epoch(connection: Connection) -> int:
    return int(connection.execute(_EPOCH).scalar_one())


def last_event(connection: Connection) -> datetime | None:
    """When the last event was."""
    found: datetime | None = connection.execute(_LAST_EVENT).scalar()
    return found


def artifact(connection: Connection, sha256: str, label: str) -> bytes:
    """Stored bytes. Raises IntegrityError when they are missing or have another digest."""
    data = connection.execute(select(s.artifacts.c.data).where(s.artifacts.c.sha256 == sha256)).scalar()
    if data is None:
        raise IntegrityError(f"{label}: the artifact {sha256[:15]}… is missing; restore a backup.")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise IntegrityError(
            f"{label}: stored as sha256 {sha256[:15]}…, but the bytes have {found[:15]}…; restore a backup."
        )
    return bytes(data)


def is_below_floor(connection: Connection, record: VersionRecord) -> bool:
    """Whether a version is a candidate because it did not beat its task's floor."""
    events = s.events.c
    about = events.task_id == task_id(connection, record.task), events.to_version == record.number
    return connection.execute(select(events.id).where(*about, events.kind == BELOW_FLOOR)).first() is not None


def served_since_blessed(connection: Connection, name: str) -> list[VersionRecord]:
    """A task's versions that were published since its last blessing or roll-back, and the one that this left."""
    events = s.events.c
    moves = connection.execute(
        select(events.kind, events.to_version)
        .where(events.task_id == task_id(connection, name), events.kind.in_((*POINTER_MOVES, BLESSED)))
        .order_by(events.id)
    )
    numbers: set[int] = set()
    for kind, number in moves:
        numbers = {*numbers, number} if kind == "published" else {number}
    return [version for version in versions_of(connection, name) if version.number in numbers]


def found_worse(connection: Connection, label: str) -> CheckResult | None:
    """What the newest stored check that a version was part of found wrong with it; None where it found nothing."""
    (record,) = versions_labelled(connection, [label])
    results, admitted = s.check_results.c, s.prompt_versions
    others = or_(s.checks.c.version_id.is_(None), admitted.c.task_id != task_id(connection, record.task))
    newest = (
        select(s.checks.c.id)
        .outerjoin(admitted, admitted.c.id == s.checks.c.version_id)
        .where(others)
        .order_by(s.checks.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    found = select(s.check_results).where(results.check_id == newest, results.version_id == record.id)
    row = connection.execute(found.where(results.verdict.in_(FOUND_WORSE))).first()
    if row is None:
        return None
    drop = None if row.score is None else abs(row.baseline - row.score)
    return CheckResult(label, record.metric or "", row.baseline, row.score, drop, row.max_drop, row.verdict, row.cause)


def adapter(connection: Connection, record: VersionRecord) -> Adapter:
    row = connection.execute(
        select(
            s.prompt_versions.c.config_sha256, s.prompt_versions.c.weights_sha256, s.prompt_versions.c.encoder_sha256
        ).where(s.prompt_versions.c.id == record.id)
    ).one()
    return Adapter(
        config=artifact(connection, row.config_sha256, record.label),
        weights=artifact(connection, row.weights_sha256, record.label),
        encoder=None if row.encoder_sha256 is None else artifact(connection, row.encoder_sha256, record.label),
    )


def base_model(connection: Connection) -> tuple[str | None, str, BaseModelRecord | None]:
    """What the catalog is bound to: the reference to load it by, the dtype, and the record once it was loaded."""
    row = connection.execute(
        select(s.settings.c.base_model_source, s.settings.c.dtype, s.settings.c.base_model_id)
    ).one()
    if row.base_model_id is None:
        return row.base_model_source, row.dtype, None
    found = connection.execute(select(*_base_columns()).where(s.base_models.c.id == row.base_model_id)).one()
    return row.base_model_source, row.dtype, _base(found)


def forward(connection: Connection) -> str | None:
    """Why the base model is not run by the packed forward; empty if it is, None before it was loaded."""
    found: str | None = connection.execute(select(s.settings.c.forward)).scalar_one()
    return found


def checkpoint(connection: Connection, name: str, key: str) -> bytes | None:
    query = select(s.checkpoints.c.data).where(
        s.checkpoints.c.task_id == task_id(connection, name), s.checkpoints.c.key == key
    )
    stored = connection.execute(query).scalar()
    return None if stored is None else unsealed(stored, f"the checkpoint of {name}")


def sealed(data: bytes) -> bytes:
    """Bytes behind their SHA-256."""
    return SEAL + hashlib.sha256(data).digest() + data


def unsealed(stored: bytes, where: str) -> bytes:
    """The bytes that `sealed` took. Raises IntegrityError when one changed."""
    start = len(SEAL) + hashlib.sha256().digest_size
    data = stored[start:]
    if stored[:start] != SEAL + hashlib.sha256(data).digest():
        raise IntegrityError(f"{where} does not have the digest that it was stored under")
    return data


def baseline(connection: Connection, record: VersionRecord) -> Evaluation:
    """The baseline evaluation of a version."""
    of = select(baseline_id()).where(s.prompt_versions.c.id == record.id)
    row = connection.execute(evaluation_query().where(s.evaluations.c.id == of.scalar_subquery())).one_or_none()
    if row is None:
        raise NotFoundError(f"{record.label} has no baseline evaluation.")
    return evaluation(row)


def evaluations(
    connection: Connection, query: str = "", *, after: str | None = None, limit: int | None = None
) -> Listing[EvaluationRecord]:
    parsed = parse(query, listings.EVALUATIONS, limit)
    listing = (
        select(s.evaluations, s.tasks.c.name, s.prompt_versions.c.number, s.data_snapshots.c.fingerprint)
        .join(s.tasks, s.evaluations.c.task_id == s.tasks.c.id)
        .join(s.data_snapshots, s.evaluations.c.snapshot_id == s.data_snapshots.c.id)
        .outerjoin(s.prompt_versions, s.evaluations.c.version_id == s.prompt_versions.c.id)
    )
    return parsed.page(connection, listing, s.evaluations.c.id, _evaluation_record, after)


def _evaluation_record(row: Row[Any]) -> EvaluationRecord:
    return EvaluationRecord(
        id=row.id,
        task=row.name,
        version=None if row.number is None else f"{row.name}@{row.number}",
        kind=row.kind,
        metric=row.metric,
        score=row.score,
        metrics=row.metrics,
        rows=row.rows,
        truncated=row.truncated,
        seconds=row.seconds,
        data=row.fingerprint,
        created_at=row.created_at,
    )


def evaluation_by_id(connection: Connection, identity: int) -> Evaluation:
    known = evaluation_query().where(s.evaluations.c.id == identity)
    row = connection.execute(known).one_or_none() if abs(identity) < MAX_INTEGER else None
    if row is None:
        raise NotFoundError(f"no evaluation {identity}; `multiprompt evaluations` lists them.")
    return evaluation(row)


def evaluation_with_key(connection: Connection, key: str, task: str | None = None) -> Evaluation | None:
    known = (s.evaluations.c.key == key, *([] if task is None else [s.tasks.c.name == task]))
    query = evaluation_query().where(*known).order_by(s.evaluations.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else evaluation(row)


def snapshot(connection: Connection, record: VersionRecord, evaluation: int | None) -> tuple[str, str, bytes]:
    """The data that a version's baseline, or another evaluation, was taken on: (split name, fingerprint, rows)."""
    baseline = select(baseline_id()).where(s.prompt_versions.c.id == record.id).scalar_subquery()
    query = (
        select(s.data_snapshots)
        .join(s.evaluations, s.evaluations.c.snapshot_id == s.data_snapshots.c.id)
        .where(s.evaluations.c.id == (baseline if evaluation is None else evaluation))
    )
    row = connection.execute(query).one_or_none()
    if row is None or row.sha256 is None:
        raise NotFoundError(f"{record.label} has no stored evaluation rows.")
    return row.split, row.fingerprint, artifact(connection, row.sha256, f"{record.label}, split {row.split}")


def task_file(connection: Connection, record: VersionRecord) -> tuple[str, str]:
    """The task file that a version was made with: (source, folder)."""
    query = (
        select(s.task_files.c.source, s.task_files.c.folder)
        .join(s.prompt_versions, s.prompt_versions.c.task_file_id == s.task_files.c.id)
        .where(s.prompt_versions.c.id == record.id)
    )
    row = connection.execute(query).one()
    return row.source, row.folder


def run(connection: Connection, record: VersionRecord) -> Run | None:
    """The training of a version, None for an imported one."""
    training, validation = (s.data_snapshots.alias(name) for name in ("training", "validation"))
    query = (
        select(s.runs, training.c.fingerprint.label("trained"), validation.c.fingerprint.label("validated"))
        .join(s.prompt_versions, s.prompt_versions.c.run_id == s.runs.c.id)
        .join(training, s.runs.c.training_snapshot_id == training.c.id)
        .join(validation, s.runs.c.validation_snapshot_id == validation.c.id)
        .where(s.prompt_versions.c.id == record.id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Run(
        settings=row.settings,
        environment=row.environment,
        training_data=row.trained,
        validation_data=row.validated,
        losses=tuple(row.losses),
        validations=tuple((step, exact, loss) for step, exact, loss in row.validations),
        best_step=row.best_step,
        truncated=row.truncated,
        seconds=row.seconds,
    )


def events(
    connection: Connection, query: str = "", *, after: str | None = None, limit: int | None = None
) -> Listing[Event]:
    everything = select(s.events, s.tasks.c.name.label("task")).outerjoin(s.tasks)
    return parse(query, listings.EVENTS, limit).page(connection, everything, s.events.c.id, _event, after)


def _event(row: Row[Any]) -> Event:
    return Event(row.id, row.at, row.actor, row.kind, row.task, row.from_version, row.to_version, row.reason)


def has_version_of(connection: Connection, job: str) -> bool:
    return connection.execute(select(s.runs.c.id).where(s.runs.c.job == job).limit(1)).first() is not None


def job_seconds(connection: Connection, kind: str, task: str | None) -> float | None:
    """Training, evaluations and check of the newest version; of the newest check, where there is no task."""
    if task is None:
        return connection.execute(
            select(s.checks.c.seconds).where(s.checks.c.version_id.is_(None)).order_by(s.checks.c.id.desc()).limit(1)
        ).scalar()
    versions, runs, scores, checks = s.prompt_versions, s.runs, s.evaluations, s.checks
    learned = kind != "evaluate"
    query = (
        select(
            scores.c.seconds * (2 if learned else 1)
            + (func.coalesce(runs.c.seconds, 0.0) + func.coalesce(checks.c.seconds, 0.0) if learned else 0.0)
        )
        .select_from(versions)
        .join(scores, is_held_against(scores))
        .outerjoin(runs, runs.c.id == versions.c.run_id)
        .outerjoin(checks, checks.c.version_id == versions.c.id)
        .where(versions.c.task_id == task_id(connection, task))
        .order_by(versions.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


def key_digest(parts: Any) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def _base_columns() -> list[Any]:
    c = s.base_models.c
    return [
        c.name.label("base_name"),
        c.source.label("base_source"),
        c.revision.label("base_revision"),
        c.architecture,
        c.dtype.label("base_dtype"),
        c.weights,
        c.tokenizer,
        c.config,
    ]


def _base(row: Row[Any]) -> BaseModelRecord:
    return BaseModelRecord(
        row.base_name,
        row.base_source,
        row.base_revision,
        row.architecture,
        row.base_dtype,
        row.weights,
        row.tokenizer,
        row.config,
    )


def _version_query() -> Select[Any]:
    joined = (
        s.prompt_versions.join(s.tasks, s.prompt_versions.c.task_id == s.tasks.c.id)
        .join(s.task_files, s.prompt_versions.c.task_file_id == s.task_files.c.id)
        .join(s.base_models, s.prompt_versions.c.base_model_id == s.base_models.c.id)
        .outerjoin(joins.baseline, is_held_against(joins.baseline))
    )
    baseline = joins.baseline.c
    return select(s.prompt_versions, s.tasks.c.name, baseline.metric, baseline.score, *_base_columns()).select_from(
        joined
    )


_VERSION_BY_ID = _version_query().where(s.prompt_versions.c.id == bindparam("version"))


def _version(row: Row[Any]) -> VersionRecord:
    return VersionRecord(
        id=row.id,
        task=row.name,
        number=row.number,
        state=row.state,
        method=row.method,
        num_virtual_tokens=row.num_virtual_tokens,
        digest=row.digest,
        base_model=_base(row),
        created_at=row.created_at,
        published_at=row.published_at,
        retired_at=row.retired_at,
        metric=row.metric,
        score=row.score,
        reason=row.reason,
    )


def evaluation_query() -> Select[Any]:
    return (
        select(s.evaluations, s.evaluation_results.c.results, s.tasks.c.name, s.prompt_versions.c.number)
        .join(s.tasks, s.evaluations.c.task_id == s.tasks.c.id)
        .join(s.evaluation_results, s.evaluation_results.c.evaluation_id == s.evaluations.c.id)
        .outerjoin(s.prompt_versions, s.evaluations.c.version_id == s.prompt_versions.c.id)
    )


def evaluation(row: Row[Any]) -> Evaluation:
    try:
        results = json.loads(zlib.decompress(row.results))
    except (zlib.error, ValueError) as error:
        raise IntegrityError(f"the stored results of an evaluation of {row.name} cannot be read: {error}") from None
    return Evaluation(
        task=row.name,
        kind=row.kind,
        metric=row.metric,
        score=row.score,
        higher_is_better=bool(row.higher_is_better),
        metrics=row.metrics,
        key=row.key_parts,
        predictions=tuple(results["predictions"]),
        references=tuple(results["references"]),
        truncated=row.truncated,
        seconds=row.seconds,
    )
