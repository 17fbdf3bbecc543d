"""Records to rows: every INSERT and UPDATE of the catalog, each within the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, Row, Select, Table, bindparam, func, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.fields import published
from multiprompt.catalog.jobs import is_held
from multiprompt.catalog.reading import (
    BELOW_FLOOR,
    NOTED,
    epoch,
    evaluation_with_key,
    is_below_floor,
    key_digest,
    sealed,
    task_id,
    text,
    version,
    version_by_id,
)
from multiprompt.errors import ConflictError, StateError
from multiprompt.records import (
    Adapter,
    BaseModelRecord,
    Canary,
    Evaluation,
    Run,
    VersionRecord,
    VersionState,
)
from multiprompt.tasks.canaries import canaries

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split
    from multiprompt.tasks.task import Task


PointerMove = Literal["published", "rolled-back"]
# What becomes of a candidate. One that is kept stays a candidate until it is published, one that is held until it is
# published by force.
Decision = Literal["publish", "keep", "hold", "reject"]
# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_STANDING: Select[Any] = (
    select(
        s.tasks.c.id,
        s.tasks.c.guarded,
        select(func.coalesce(func.max(s.prompt_versions.c.number), 0))
        .where(s.prompt_versions.c.task_id == s.tasks.c.id)
        .scalar_subquery()
        .label("highest"),
        published.c.id.label("old_id"),
        published.c.number.label("old"),
    )
    .outerjoin(published, (published.c.task_id == s.tasks.c.id) & (published.c.state == "published"))
    .where(s.tasks.c.id == bindparam("task"))
)
_BASE_MODEL = select(s.base_models.c.id).where(
    *(s.base_models.c[part] == bindparam(part) for part in ("weights", "tokenizer", "config", "dtype"))
)
_TASK_FILE = select(s.task_files.c.id).where(
    *(s.task_files.c[part] == bindparam(part) for part in ("task_id", "source", "folder"))
)
_SNAPSHOTS = select(s.data_snapshots.c.id, s.data_snapshots.c.fingerprint, s.data_snapshots.c.sha256).where(
    s.data_snapshots.c.fingerprint.in_(bindparam("fingerprints", expanding=True))
)
_STORED = select(s.artifacts.c.sha256).where(s.artifacts.c.sha256.in_(bindparam("digests", expanding=True)))
_SET_VERSION = s.prompt_versions.update().where(s.prompt_versions.c.id == bindparam("version"))
_NEXT_EPOCH = s.settings.update().values(epoch=s.settings.c.epoch + 1)
_DROP_CHECKPOINT = s.checkpoints.delete().where(s.checkpoints.c.task_id == bindparam("task"))
# The state that a version is in before it is moved so.
_MOVES_FROM: Mapping[PointerMove, VersionState] = {"published": "candidate", "rolled-back": "retired"}
_TO: Mapping[PointerMove, str] = {"published": "publish", "rolled-back": "roll back to"}


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
    job: str | None = None


def digest(adapter: Adapter) -> str:
    """What identifies a prompt: a digest over the digests of the two files that its outputs depend on."""
    return digest_of(hashlib.sha256(adapter.config).hexdigest(), hashlib.sha256(adapter.weights).hexdigest())


def digest_of(config_sha256: str, weights_sha256: str) -> str:
    """The same from the hexadecimal SHA-256 of each file."""
    return "sha256:" + hashlib.sha256((config_sha256 + weights_sha256).encode()).hexdigest()


def add_task(connection: Connection, task: Task, stamp: Stamp) -> None:
    """Insert a task, or give a known one its new task file; the old one stays with the versions made from it."""
    row = connection.execute(
        select(s.tasks.c.id, s.tasks.c.task_file_id, s.tasks.c.file).where(s.tasks.c.name == task.name)
    ).one_or_none()
    identity = insert(connection, s.tasks, name=task.name, created_at=stamp.at) if row is None else row.id
    path = "" if task.file is None else str(task.file)
    if row is None or row.file != path:
        connection.execute(s.tasks.update().where(s.tasks.c.id == identity).values(file=path))
    file_id = task_file(connection, identity, task, stamp)
    if row is not None and row.task_file_id == file_id:
        return
    connection.execute(s.tasks.update().where(s.tasks.c.id == identity).values(task_file_id=file_id))
    event(connection, "task-added" if row is None else "task-changed", identity, None, None, task.fingerprint, stamp)
    _index_text(connection, identity)


def note(connection: Connection, name: str, said: str, stamp: Stamp) -> None:
    """Keep a note on a task among its events, where `matches` finds it. Raises StateError for an empty note."""
    if not said.strip():
        raise StateError("the note is empty; write what it says.")
    identity = task_id(connection, name)
    event(connection, NOTED, identity, None, None, said, stamp)
    _index_text(connection, identity)


def guard(connection: Connection, name: str, guarded: bool, reason: str, stamp: Stamp) -> None:
    """Let a task's pointer be moved by force alone, or as others' again."""
    identity = task_id(connection, name)
    known = connection.execute(select(s.tasks.c.guarded).where(s.tasks.c.id == identity)).scalar_one()
    if bool(known) != guarded:
        connection.execute(s.tasks.update().where(s.tasks.c.id == identity).values(guarded=int(guarded)))
        event(connection, "guarded" if guarded else "unguarded", identity, None, None, reason, stamp)


def name_base_model(connection: Connection, reference: str) -> None:
    unbound = s.settings.c.base_model_id.is_(None)
    connection.execute(s.settings.update().where(unbound).values(base_model_source=reference))


def move_base_model(connection: Connection, reference: str, stamp: Stamp) -> None:
    """Load the base model that the catalog is bound to from another place from now on."""
    connection.execute(s.settings.update().values(base_model_source=reference))
    event(connection, "base-model-moved", None, None, None, f"it is loaded from {reference}", stamp)


def bind_base_model(
    connection: Connection, record: BaseModelRecord, former: BaseModelRecord | None, stamp: Stamp
) -> None:
    if former is not None:
        record = replace(record, name=former.name, source=former.source, revision=former.revision)
    identity = _base_model(connection, record, stamp)
    connection.execute(
        s.settings.update().values(base_model_id=identity, base_model_source=record.source, dtype=record.dtype)
    )
    kind = "base-model-bound" if former is None else "base-model-renewed"
    said = str(record) if former is None else f"{former} is now identified as {record}"
    event(connection, kind, None, None, None, said, stamp)


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
    connection.execute(_DROP_CHECKPOINT, {"task": identity})
    values = {"task_id": identity, "key": key, "data": sealed(data), "created_at": stamp.at}
    connection.execute(s.checkpoints.insert().values(values))


def drop_checkpoint(connection: Connection, name: str, job: str | None) -> None:
    """Forget where a task's training stands, unless it is that of another job than the one that ends."""
    if not is_held(connection, name, job):
        connection.execute(_DROP_CHECKPOINT, {"task": task_id(connection, name)})


def admit(
    connection: Connection,
    candidate: Candidate,
    decision: Decision,
    reason: str,
    expected_epoch: int,
    stamp: Stamp,
) -> VersionRecord:
    """Store a candidate with its evidence, and publish, hold or reject it.

    Raises ConflictError when a pointer moved since `expected_epoch`, with nothing written.
    """
    found = epoch(connection)
    if found != expected_epoch:
        raise ConflictError(
            f"{candidate.task.name}: another prompt was published meanwhile (epoch {found}, expected {expected_epoch})."
        )
    identity = task_id(connection, candidate.task.name)
    standing = _standing(connection, identity)
    number = standing.highest + 1
    trained = () if candidate.run is None else candidate.training_data or ()
    snapshots = _snapshots(connection, candidate.data, trained, stamp)
    version_id = _insert_version(connection, identity, number, candidate, snapshots, reason, stamp)
    snapshot_id = snapshots[candidate.data.fingerprint]
    if evaluation_with_key(connection, key_digest(candidate.hard.key), candidate.task.name) is None:
        _evaluation(connection, identity, None, snapshot_id, candidate.hard, stamp)
    watched = canaries(candidate.data, candidate.soft.predictions)
    baseline_id = _evaluation(connection, identity, version_id, snapshot_id, candidate.soft, stamp, watched)
    _insert_edges(connection, version_id, candidate.parents)
    if candidate.run is not None:
        drop_checkpoint(connection, candidate.task.name, candidate.job)
    if decision == "hold":
        _set(connection, version_id, baseline_id=baseline_id)
        event(connection, BELOW_FLOOR, identity, None, number, reason, stamp)
    elif decision == "keep":
        _set(connection, version_id, baseline_id=baseline_id)
        event(connection, "held", identity, None, number, reason, stamp)
    elif decision == "publish" and standing.guarded:
        _set(connection, version_id, baseline_id=baseline_id)
        event(connection, "held", identity, None, number, f"the task is guarded; {reason}", stamp)
    elif decision == "publish":
        _publish(connection, standing, version_id, number, reason, stamp, baseline_id=baseline_id)
    else:
        _set(connection, version_id, state="rejected", baseline_id=baseline_id)
        event(connection, "rejected", identity, None, number, reason, stamp)
    return version_by_id(connection, version_id)


def move(
    connection: Connection,
    name: str,
    number: int | None,
    kind: PointerMove,
    reason: str,
    force: bool,
    stamp: Stamp,
    replaces: int | None = None,
) -> VersionRecord:
    """Publish a candidate that was held, or roll back to a retired version, by default the newest of these.

    Raises StateError when there is none, when the task is guarded or the version did not learn and `force` or a reason
    is missing, or when another version is published than the one that it `replaces`.
    """
    state = _MOVES_FROM[kind]
    identity = task_id(connection, name)
    if number is None:
        versions = s.prompt_versions.c
        query = (
            select(versions.number)
            .where(versions.task_id == identity, versions.state == state)
            .order_by(versions.retired_at.desc(), versions.number.desc())
        )
        number = connection.execute(query.limit(1)).scalar()
        if number is None:
            raise StateError(f"task {name!r} has no {state} version to {_TO[kind]}.")
    target = version(connection, name, number)
    if target.state != state:
        raise StateError(
            f"{target.label} is {target.state}; publish takes a candidate, and rollback takes a retired version."
        )
    standing = _standing(connection, identity)
    if replaces is not None and standing.old != replaces:
        raise StateError(f"{name}@{standing.old} was published meanwhile, so {name}@{replaces} is not replaced.")
    forced = force and reason.strip()
    if standing.guarded and not forced:
        raise StateError(f"task {name!r} is guarded: what is published moves only with --force and a --reason.")
    if not forced and is_below_floor(connection, target):
        raise StateError(f"{target.label} {target.reason}; it is published only with --force and a --reason.")
    _publish(connection, standing, target.id, target.number, reason or "asked for", stamp, kind)
    return version_by_id(connection, target.id)


def save_evaluation(
    connection: Connection,
    version: VersionRecord,
    split: Split,
    evaluation: Evaluation,
    stamp: Stamp,
    watched: Sequence[Canary] = (),
) -> int:
    """Store a score of a version on any rows. Gives its id."""
    snapshots = _snapshots(connection, split, (), stamp)
    task = task_id(connection, version.task)
    return _evaluation(connection, task, version.id, snapshots[split.fingerprint], evaluation, stamp, watched)


def event(
    connection: Connection,
    kind: str,
    task: int | None,
    from_version: int | None,
    to_version: int | None,
    reason: str,
    stamp: Stamp,
) -> None:
    insert(
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


def _standing(connection: Connection, task: int) -> Row[Any]:
    """A task's id, whether it is `guarded`, its `highest` version number, and what is published: `old_id`, `old`."""
    return connection.execute(_STANDING, {"task": task}).one()


def _index_text(connection: Connection, task: int) -> None:
    """Bring what `matches` finds a task by to what the task and its notes are now."""
    connection.execute(s.task_texts.delete().where(s.task_texts.c.task_id == task))
    connection.execute(s.task_texts.insert().values(task_id=task, words=text(connection, task)))


def _publish(
    connection: Connection,
    standing: Row[Any],
    version_id: int,
    number: int,
    reason: str,
    stamp: Stamp,
    kind: PointerMove = "published",
    **values: Any,
) -> None:
    """Publish a version, and set other `values` of it."""
    if standing.old_id is not None:
        _set(connection, standing.old_id, state="retired", retired_at=stamp.at)
    _set(connection, version_id, state="published", published_at=stamp.at, retired_at=None, **values)
    connection.execute(_NEXT_EPOCH)
    event(connection, kind, standing.id, standing.old, number, reason, stamp)


def _insert_version(
    connection: Connection,
    identity: int,
    number: int,
    candidate: Candidate,
    snapshots: Mapping[str, int],
    reason: str,
    stamp: Stamp,
) -> int:
    state: VersionState = "candidate"
    adapter, run = candidate.adapter, candidate.run
    files = {"adapter-config": adapter.config, "adapter-weights": adapter.weights}
    if adapter.encoder is not None:
        files["prompt-encoder"] = adapter.encoder
    digests = artifacts(connection, files, stamp)
    return insert(
        connection,
        s.prompt_versions,
        task_id=identity,
        number=number,
        state=state,
        method=candidate.method,
        num_virtual_tokens=candidate.num_virtual_tokens,
        base_model_id=_base_model(connection, candidate.base_model, stamp),
        task_file_id=task_file(connection, identity, candidate.task, stamp),
        run_id=None if run is None else _run(connection, identity, candidate, run, snapshots, stamp),
        config_sha256=digests["adapter-config"],
        weights_sha256=digests["adapter-weights"],
        encoder_sha256=digests.get("prompt-encoder"),
        digest=digest(adapter),
        reason=reason,
        created_at=stamp.at,
    )


def _run(
    connection: Connection,
    identity: int,
    candidate: Candidate,
    run: Run,
    snapshots: Mapping[str, int],
    stamp: Stamp,
) -> int:
    assert candidate.training_data is not None, "a run has training data"
    training, validation = candidate.training_data
    return insert(
        connection,
        s.runs,
        task_id=identity,
        training_snapshot_id=snapshots[training.fingerprint],
        validation_snapshot_id=snapshots[validation.fingerprint],
        settings=run.settings,
        environment=run.environment,
        losses=list(run.losses),
        validations=[list(validation) for validation in run.validations],
        best_step=run.best_step,
        truncated=run.truncated,
        seconds=run.seconds,
        job=candidate.job,
        created_at=stamp.at,
    )


def _base_model(connection: Connection, record: BaseModelRecord, stamp: Stamp) -> int:
    identity = {
        "weights": record.weights,
        "tokenizer": record.tokenizer,
        "config": record.config,
        "dtype": record.dtype,
    }
    found = connection.execute(_BASE_MODEL, identity).scalar()
    if found is not None:
        return int(found)
    return insert(
        connection,
        s.base_models,
        name=record.name,
        source=record.source,
        revision=record.revision,
        architecture=record.architecture,
        created_at=stamp.at,
        **identity,
    )


def task_file(connection: Connection, identity: int, task: Task, stamp: Stamp) -> int:
    wanted = {"task_id": identity, "source": task.source, "folder": str(task.folder)}
    found = connection.execute(_TASK_FILE, wanted).scalar()
    if found is not None:
        return int(found)
    file_id = insert(
        connection,
        s.task_files,
        **wanted,
        fingerprint=task.fingerprint,
        description=task.description.source.strip(),
        metric=task.metrics[0].name,
        tags=list(task.tags),
        created_at=stamp.at,
    )
    tags = [{"task_file_id": file_id, "tag": tag} for tag in dict.fromkeys(task.tags)]
    if tags:
        connection.execute(s.task_tags.insert(), tags)
    return file_id


def _snapshots(connection: Connection, data: Split, trained: Sequence[Split], stamp: Stamp) -> dict[str, int]:
    """The ids of data by fingerprint; of these, the rows that something was scored on are kept."""
    splits = {split.fingerprint: split for split in (*trained, data)}
    known = {row.fingerprint: row for row in connection.execute(_SNAPSHOTS, {"fingerprints": list(splits)})}
    ids = {fingerprint: int(row.id) for fingerprint, row in known.items()}
    kept = data.fingerprint in known and known[data.fingerprint].sha256 is not None
    sha256 = None if kept else artifacts(connection, {"rows": data.pack()}, stamp)["rows"]
    for fingerprint, split in splits.items():
        if fingerprint not in known:
            ids[fingerprint] = insert(
                connection,
                s.data_snapshots,
                fingerprint=fingerprint,
                split=split.name,
                rows=len(split.rows),
                sha256=sha256 if split is data else None,
                created_at=stamp.at,
            )
        elif split is data and not kept:
            update = s.data_snapshots.update().where(s.data_snapshots.c.id == ids[fingerprint])
            connection.execute(update.values(sha256=sha256))
    return ids


def _evaluation(
    connection: Connection,
    task: int,
    version_id: int | None,
    snapshot_id: int,
    evaluation: Evaluation,
    stamp: Stamp,
    watched: Sequence[Canary] = (),
) -> int:
    identity = insert(
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
        rows=evaluation.rows,
        truncated=evaluation.truncated,
        seconds=evaluation.seconds,
        created_at=stamp.at,
    )
    results = {"predictions": list(evaluation.predictions), "references": list(evaluation.references)}
    stored = {"evaluation_id": identity, "results": _packed(results), "canaries": None}
    if watched:
        stored["canaries"] = _packed([asdict(canary) for canary in watched])
    connection.execute(s.evaluation_results.insert(), stored)
    scores = [
        {"evaluation_id": identity, "metric": metric, "score": score} for metric, score in evaluation.metrics.items()
    ]
    connection.execute(s.evaluation_scores.insert(), scores)
    return identity


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, ensure_ascii=False, default=str).encode())


def _insert_edges(connection: Connection, child_id: int, parents: Sequence[Parent]) -> None:
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


def artifacts(connection: Connection, files: Mapping[str, bytes], stamp: Stamp) -> dict[str, str]:
    """Store files, by their kinds, that are not stored yet. Gives their digests."""
    digests = {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()}
    known = set(connection.scalars(_STORED, {"digests": list(digests.values())}))
    rows = {
        sha256: {"sha256": sha256, "kind": kind, "data": files[kind], "created_at": stamp.at}
        for kind, sha256 in digests.items()
        if sha256 not in known
    }
    if rows:
        connection.execute(s.artifacts.insert(), list(rows.values()))
    return digests


def _set(connection: Connection, version_id: int, **values: Any) -> None:
    connection.execute(_SET_VERSION, {"version": version_id, **values})


def insert(connection: Connection, table: Table, **values: Any) -> int:
    result = connection.execute(table.insert(), values)
    key: Sequence[Any] | None = result.inserted_primary_key
    assert key is not None
    return int(key[0])
