"""Records to rows: every INSERT and UPDATE of the catalog, each within the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.reading import epoch, key_digest, task_id, version
from multiprompt.errors import ConflictError, StateError
from multiprompt.records import (
    Adapter,
    BaseModelRecord,
    CheckReport,
    Evaluation,
    Run,
    VersionRecord,
    VersionState,
)

if TYPE_CHECKING:
    from multiprompt.tasks.split import Split
    from multiprompt.tasks.task import Task


@dataclass(frozen=True)
class Stamp:
    """Who writes, and when."""

    actor: str
    at: datetime


@dataclass(frozen=True)
class Parent:
    """What a candidate came from: a version, or something outside the catalog that `label` names."""

    relation: str
    label: str
    version: VersionRecord | None = None


@dataclass(frozen=True)
class Candidate:
    """All that becomes a prompt version: the adapter, what made it, and what it scored."""

    task: Task
    base_model: BaseModelRecord
    adapter: Adapter
    method: str
    num_virtual_tokens: int
    run: Run | None
    parents: tuple[Parent, ...]
    hard: Evaluation
    soft: Evaluation
    data: Split
    training_data: tuple[Split, Split] | None


def digest(adapter: Adapter) -> str:
    """What identifies a prompt: a digest over the digests of the two files that its outputs depend on."""
    parts = hashlib.sha256(adapter.config).hexdigest() + hashlib.sha256(adapter.weights).hexdigest()
    return "sha256:" + hashlib.sha256(parts.encode()).hexdigest()


def add_task(connection: Connection, task: Task, stamp: Stamp) -> None:
    """Insert a task, or give a known one its new task file; the old one stays with the versions made from it."""
    row = connection.execute(
        select(s.tasks.c.id, s.tasks.c.task_file_id).where(s.tasks.c.name == task.name)
    ).one_or_none()
    identity = _insert(connection, s.tasks, name=task.name, created_at=stamp.at) if row is None else row.id
    file_id = _task_file(connection, identity, task, stamp)
    if row is not None and row.task_file_id == file_id:
        return
    connection.execute(s.tasks.update().where(s.tasks.c.id == identity).values(task_file_id=file_id))
    event(connection, "task-added" if row is None else "task-changed", identity, None, None, task.fingerprint, stamp)


def bind_base_model(connection: Connection, record: BaseModelRecord, stamp: Stamp) -> None:
    identity = _base_model(connection, record, stamp)
    connection.execute(
        s.settings.update().values(base_model_id=identity, base_model_source=record.source, dtype=record.dtype)
    )
    event(connection, "base-model-bound", None, None, None, str(record), stamp)


def set_forward(connection: Connection, fallback: str, stamp: Stamp) -> None:
    """Record how the base model is run, as an event where that changed."""
    found = connection.execute(select(s.settings.c.forward)).scalar_one()
    if found == fallback:
        return
    connection.execute(s.settings.update().values(forward=fallback))
    if fallback or found:
        event(connection, "engine-fallback" if fallback else "engine-packed", None, None, None, fallback, stamp)


def save_checkpoint(connection: Connection, name: str, key: str, data: bytes, stamp: Stamp) -> None:
    """Keep where a task's training stands, in place of what was kept before."""
    identity = task_id(connection, name)
    connection.execute(s.checkpoints.delete().where(s.checkpoints.c.task_id == identity))
    connection.execute(s.checkpoints.insert().values(task_id=identity, key=key, data=data, created_at=stamp.at))


def admit(
    connection: Connection,
    candidate: Candidate,
    check: CheckReport,
    publish: bool,
    reason: str,
    expected_epoch: int,
    stamp: Stamp,
) -> VersionRecord:
    """Store a candidate with its evidence, and publish or reject it.

    Raises ConflictError when a pointer moved since `expected_epoch`, with nothing written.
    """
    found = epoch(connection)
    if found != expected_epoch:
        raise ConflictError(
            f"{candidate.task.name}: another prompt was published meanwhile (epoch {found}, expected {expected_epoch})."
        )
    identity = task_id(connection, candidate.task.name)
    version_id, number = _insert_version(connection, identity, candidate, reason, stamp)
    snapshot_id = _snapshot(connection, candidate.data, keep=True, stamp=stamp)
    _evaluation(connection, identity, None, snapshot_id, candidate.hard, stamp)
    baseline_id = _evaluation(connection, identity, version_id, snapshot_id, candidate.soft, stamp)
    for parent in candidate.parents:
        _edge(connection, version_id, parent)
    save_check(connection, check, {}, version_id, stamp)
    connection.execute(s.checkpoints.delete().where(s.checkpoints.c.task_id == identity))
    _set(connection, version_id, baseline_id=baseline_id)
    if publish:
        _publish(connection, identity, version_id, number, reason, stamp)
    else:
        _set(connection, version_id, state="rejected")
        event(connection, "rejected", identity, None, number, reason, stamp)
    return version(connection, candidate.task.name, number)


def roll_back(connection: Connection, name: str, number: int | None, reason: str, stamp: Stamp) -> VersionRecord:
    """Publish a retired version again, by default the one retired last. Raises StateError when there is none."""
    identity = task_id(connection, name)
    if number is None:
        query = (
            select(s.prompt_versions.c.number)
            .where(s.prompt_versions.c.task_id == identity, s.prompt_versions.c.state == "retired")
            .order_by(s.prompt_versions.c.retired_at.desc(), s.prompt_versions.c.number.desc())
        )
        number = connection.execute(query.limit(1)).scalar()
        if number is None:
            raise StateError(f"task {name!r} has no retired version to roll back to.")
    target = version(connection, name, number)
    if target.state != "retired":
        raise StateError(f"{target.label} is {target.state}; only a retired version can be published again.")
    _publish(connection, identity, target.id, target.number, reason, stamp, kind="rolled-back")
    return version(connection, name, number)


def save_check(
    connection: Connection,
    check: CheckReport,
    evaluations: Mapping[str, Evaluation],
    version_id: int | None,
    stamp: Stamp,
) -> None:
    """Store a check; `evaluations` are those it took, by version label."""
    check_id = _insert(
        connection,
        s.checks,
        version_id=version_id,
        passed=int(check.passed),
        seconds=check.seconds,
        created_at=stamp.at,
    )
    for result in check.results:
        name, _, number = result.version.rpartition("@")
        checked = version(connection, name, int(number))
        evaluation_id = None
        if result.version in evaluations:
            snapshot_id = connection.execute(
                select(s.evaluations.c.snapshot_id)
                .join(s.prompt_versions, s.prompt_versions.c.baseline_id == s.evaluations.c.id)
                .where(s.prompt_versions.c.id == checked.id)
            ).scalar_one()
            evaluation_id = _evaluation(
                connection, task_id(connection, name), checked.id, snapshot_id, evaluations[result.version], stamp
            )
        _insert(
            connection,
            s.check_results,
            check_id=check_id,
            version_id=checked.id,
            evaluation_id=evaluation_id,
            baseline=result.baseline,
            score=result.score,
            max_drop=result.max_drop,
            verdict=result.verdict,
            cause=result.cause,
        )


def event(
    connection: Connection,
    kind: str,
    task: int | None,
    from_version: int | None,
    to_version: int | None,
    reason: str,
    stamp: Stamp,
) -> None:
    _insert(
        connection,
        s.events,
        at=stamp.at,
        actor=stamp.actor,
        kind=kind,
        task_id=task,
        from_version=from_version,
        to_version=to_version,
        reason=reason,
    )


def _publish(
    connection: Connection, task: int, version_id: int, number: int, reason: str, stamp: Stamp, kind: str = "published"
) -> None:
    of_task = s.prompt_versions.c.task_id == task
    old = connection.execute(
        select(s.prompt_versions.c.id, s.prompt_versions.c.number).where(
            of_task, s.prompt_versions.c.state == "published"
        )
    ).one_or_none()
    if old is not None:
        _set(connection, old.id, state="retired", retired_at=stamp.at)
    _set(connection, version_id, state="published", published_at=stamp.at, retired_at=None)
    connection.execute(s.settings.update().values(epoch=s.settings.c.epoch + 1))
    event(connection, kind, task, old.number if old else None, number, reason, stamp)


def _insert_version(
    connection: Connection, identity: int, candidate: Candidate, reason: str, stamp: Stamp
) -> tuple[int, int]:
    highest = select(func.max(s.prompt_versions.c.number)).where(s.prompt_versions.c.task_id == identity)
    number = (connection.execute(highest).scalar() or 0) + 1
    state: VersionState = "candidate"
    version_id = _insert(
        connection,
        s.prompt_versions,
        task_id=identity,
        number=number,
        state=state,
        method=candidate.method,
        num_virtual_tokens=candidate.num_virtual_tokens,
        base_model_id=_base_model(connection, candidate.base_model, stamp),
        task_file_id=_task_file(connection, identity, candidate.task, stamp),
        run_id=None if candidate.run is None else _run(connection, identity, candidate, candidate.run, stamp),
        config_sha256=_artifact(connection, "adapter-config", candidate.adapter.config, stamp),
        weights_sha256=_artifact(connection, "adapter-weights", candidate.adapter.weights, stamp),
        encoder_sha256=_encoder(connection, candidate.adapter, stamp),
        digest=digest(candidate.adapter),
        reason=reason,
        created_at=stamp.at,
    )
    return version_id, number


def _run(connection: Connection, identity: int, candidate: Candidate, run: Run, stamp: Stamp) -> int:
    assert candidate.training_data is not None, "a run has training data"
    training, validation = candidate.training_data
    return _insert(
        connection,
        s.runs,
        task_id=identity,
        training_snapshot_id=_snapshot(connection, training, keep=False, stamp=stamp),
        validation_snapshot_id=_snapshot(connection, validation, keep=False, stamp=stamp),
        settings=run.settings,
        environment=run.environment,
        losses=list(run.losses),
        validations=[list(validation) for validation in run.validations],
        best_step=run.best_step,
        truncated=run.truncated,
        seconds=run.seconds,
        created_at=stamp.at,
    )


def _base_model(connection: Connection, record: BaseModelRecord, stamp: Stamp) -> int:
    c = s.base_models.c
    query = select(c.id).where(
        c.weights == record.weights, c.tokenizer == record.tokenizer, c.config == record.config, c.dtype == record.dtype
    )
    found = connection.execute(query).scalar()
    if found is not None:
        return int(found)
    return _insert(
        connection,
        s.base_models,
        name=record.name,
        source=record.source,
        revision=record.revision,
        architecture=record.architecture,
        dtype=record.dtype,
        weights=record.weights,
        tokenizer=record.tokenizer,
        config=record.config,
        created_at=stamp.at,
    )


def _task_file(connection: Connection, identity: int, task: Task, stamp: Stamp) -> int:
    c = s.task_files.c
    query = select(c.id).where(c.task_id == identity, c.source == task.source, c.folder == str(task.folder))
    found = connection.execute(query).scalar()
    if found is not None:
        return int(found)
    return _insert(
        connection,
        s.task_files,
        task_id=identity,
        fingerprint=task.fingerprint,
        source=task.source,
        folder=str(task.folder),
        description=task.description.source.strip(),
        metric=task.metrics[0].name,
        tags=list(task.tags),
        created_at=stamp.at,
    )


def _snapshot(connection: Connection, split: Split, keep: bool, stamp: Stamp) -> int:
    c = s.data_snapshots.c
    found = connection.execute(select(c.id, c.sha256).where(c.fingerprint == split.fingerprint)).one_or_none()
    if found is not None and (found.sha256 is not None or not keep):
        return int(found.id)
    sha256 = _artifact(connection, "rows", split.pack(), stamp) if keep else None
    if found is not None:
        connection.execute(s.data_snapshots.update().where(c.id == found.id).values(sha256=sha256))
        return int(found.id)
    return _insert(
        connection,
        s.data_snapshots,
        fingerprint=split.fingerprint,
        split=split.name,
        rows=len(split.rows),
        sha256=sha256,
        created_at=stamp.at,
    )


def _evaluation(
    connection: Connection, task: int, version_id: int | None, snapshot_id: int, evaluation: Evaluation, stamp: Stamp
) -> int:
    results = {"predictions": list(evaluation.predictions), "references": list(evaluation.references)}
    return _insert(
        connection,
        s.evaluations,
        task_id=task,
        version_id=version_id,
        snapshot_id=snapshot_id,
        kind=evaluation.kind,
        metric=evaluation.metric,
        score=evaluation.score,
        higher_is_better=int(evaluation.higher_is_better),
        metrics=dict(evaluation.metrics),
        key=key_digest(evaluation.key),
        key_parts=dict(evaluation.key),
        results=zlib.compress(json.dumps(results, ensure_ascii=False).encode()),
        rows=evaluation.rows,
        truncated=evaluation.truncated,
        seconds=evaluation.seconds,
        created_at=stamp.at,
    )


def _edge(connection: Connection, child_id: int, parent: Parent) -> None:
    parent_id = None if parent.version is None else parent.version.id
    _insert(
        connection,
        s.lineage,
        child_id=child_id,
        relation=parent.relation,
        parent_id=parent_id,
        parent_label=parent.label,
    )


def _artifact(connection: Connection, kind: str, data: bytes, stamp: Stamp) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    known = connection.execute(select(s.artifacts.c.sha256).where(s.artifacts.c.sha256 == sha256)).scalar()
    if known is None:
        connection.execute(s.artifacts.insert().values(sha256=sha256, kind=kind, data=data, created_at=stamp.at))
    return sha256


def _encoder(connection: Connection, adapter: Adapter, stamp: Stamp) -> str | None:
    return None if adapter.encoder is None else _artifact(connection, "prompt-encoder", adapter.encoder, stamp)


def _set(connection: Connection, version_id: int, **values: Any) -> None:
    connection.execute(s.prompt_versions.update().where(s.prompt_versions.c.id == version_id).values(**values))


def _insert(connection: Connection, table: Table, **values: Any) -> int:
    result = connection.execute(table.insert().values(**values))
    key: Sequence[Any] | None = result.inserted_primary_key
    assert key is not None
    return int(key[0])
