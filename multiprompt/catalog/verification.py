"""Verification: every digest, reference and invariant of a catalog, recomputed from what is stored."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Set
from typing import TypeVar

from sqlalchemy import Connection, ForeignKey, LargeBinary, exists, or_, select, text

from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import digest_of, read_artifact
from multiprompt.catalog.checkpoints import SEAL, unsealed
from multiprompt.catalog.copying import Advance, count
from multiprompt.catalog.database import is_sqlite
from multiprompt.catalog.evaluations import evaluation_query, key_digest, read_evaluation
from multiprompt.catalog.events import POINTER_MOVES, event_query, event_record
from multiprompt.catalog.query.joins import first_record
from multiprompt.catalog.storage import misplaced
from multiprompt.catalog.tasks import task_words
from multiprompt.catalog.triggers import TRIGGERS
from multiprompt.errors import IntegrityError
from multiprompt.records import Problem
from multiprompt.tasks.data import Split

T = TypeVar("T")
# Rows between two words on how far it is.
_STEP = 1000


def problems(connection: Connection, advance: Advance = lambda what, done, total: None) -> Iterator[Problem]:
    """The faults of a catalog, one after another; none when all is well."""
    yield from _structure(connection, advance)
    damage = misplaced(connection) if is_sqlite(connection) else []
    yield from damage
    if damage:  # what of the rest can be read says little
        return
    yield from _unreadable(connection)
    yield from _whole("runs", _runs(connection))
    artifacts = _artifacts(connection, advance)
    yield from (Problem("artifacts", wrong) for wrong in artifacts.values() if wrong)
    intact = {sha256 for sha256, wrong in artifacts.items() if not wrong}
    yield from _whole("checkpoints", _checkpoints(connection))
    yield from _whole("versions", _versions(connection, intact))
    yield from _whole("data", _snapshots(connection, advance))
    yield from _whole("evaluations", _evaluations(connection, advance))
    yield from _whole("scores", _scores(connection, advance))
    yield from _whole("events", _events(connection))
    yield from _whole("task files", _texts(connection))


def _whole(where: str, found: Iterator[Problem]) -> Iterator[Problem]:
    """The findings of one part; a row of it that cannot even be read is the last of them."""
    try:
        yield from found
    except IntegrityError as error:
        yield Problem(where, str(error))


def _watched(rows: Iterable[T], total: int, what: str, advance: Advance) -> Iterator[T]:
    for done, row in enumerate(rows):
        if done % _STEP == 0:
            advance(f"verifying {what}", done, total)
        yield row
    advance(f"verifying {what}", total, total)


def _structure(connection: Connection, advance: Advance) -> Iterator[Problem]:
    advance("verifying structure", 0, 1)
    if is_sqlite(connection):
        for line in connection.execute(text("PRAGMA integrity_check")).scalars():
            if line != "ok":
                yield Problem("database", str(line))
        for table, row, target, _ in connection.execute(text("PRAGMA foreign_key_check")):
            yield Problem(f"table {table}", f"row {row} refers to a missing row of {target}")
    else:
        for key in (key for table in s.metadata.tables.values() for key in table.foreign_keys):
            yield from _dangling(connection, key)
    for name in sorted(TRIGGERS[connection.dialect.name] - triggers(connection)):
        yield Problem("database", f"the trigger {name}, which protects published prompts, is missing or disabled")
    advance("verifying structure", 1, 1)


def _unreadable(connection: Connection) -> Iterator[Problem]:
    """The tables with a value that cannot be read; stored bytes have digests of their own."""
    for table in s.metadata.sorted_tables:
        columns = [column for column in table.c if not isinstance(column.type, LargeBinary)]
        try:
            for _ in connection.execute(select(*columns)):
                pass
        except IntegrityError as error:
            yield Problem(f"table {table.name}", str(error))


def _runs(connection: Connection) -> Iterator[Problem]:
    """The loss curve of a training must be numbers, at least up to its best step."""
    runs = s.runs.c
    for row in connection.execute(select(runs.id, runs.losses, runs.best_step)):
        losses = row.losses if isinstance(row.losses, list) else []
        if len(losses) < row.best_step or not all(isinstance(loss, int | float) for loss in losses):
            yield Problem(f"run {row.id}", f"its losses are no numbers up to its best step, {row.best_step}")


def _dangling(connection: Connection, key: ForeignKey) -> Iterator[Problem]:
    """PostgreSQL cannot be asked to check its foreign keys again."""
    child, parent = key.parent, key.column
    target = parent.table.alias("target")
    there = exists().where(target.c[parent.name] == child)
    for row in connection.execute(select(*child.table.primary_key.columns).where(child.is_not(None), ~there)):
        yield Problem(f"table {child.table.name}", f"row {row[0]} refers to a missing row of {parent.table.name}")


def triggers(connection: Connection) -> set[str]:
    """The names of the triggers that the database fires."""
    if is_sqlite(connection):
        return set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")))
    of_catalog = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgrelid IN"
    tables = "(SELECT oid FROM pg_class WHERE relnamespace = CURRENT_SCHEMA()::regnamespace)"
    return set(connection.scalars(text(f"{of_catalog} {tables}".replace(":", r"\:"))))


def _texts(connection: Connection) -> Iterator[Problem]:
    known = {row.task_id: row.words for row in connection.execute(select(s.task_texts))}
    for task_id, name in connection.execute(select(s.tasks.c.id, s.tasks.c.name)).all():
        if known.get(task_id) != task_words(connection, task_id):
            yield Problem(f"task {name}", "the words that a search finds it by are not the task's")
    tags: dict[int, set[str]] = {}
    for row in connection.execute(select(s.task_tags)):
        tags.setdefault(row.task_file_id, set()).add(row.tag)
    for row in connection.execute(select(s.task_files.c.id, s.task_files.c.tags)):
        if set(row.tags) != tags.get(row.id, set()):
            yield Problem(f"task file {row.id}", "the tags that it is found by are not its own")


def _artifacts(connection: Connection, advance: Advance) -> dict[str, str]:
    """The fault of each artifact; empty where its bytes have its digest."""
    digests = connection.scalars(select(s.artifacts.c.sha256)).all()
    found = dict.fromkeys(digests, "")
    for sha256 in _watched(digests, len(digests), "artifacts", advance):
        try:
            read_artifact(connection, sha256, f"artifact {sha256[:15]}…")
        except IntegrityError as error:
            found[sha256] = str(error)
    return found


def _checkpoints(connection: Connection) -> Iterator[Problem]:
    query = select(s.tasks.c.name, s.checkpoints.c.data).join_from(s.checkpoints, s.tasks)
    for name, stored in connection.execute(query):
        if not stored.startswith(SEAL):  # saved by a version before there were digests
            continue
        try:
            unsealed(stored, "its checkpoint")
        except IntegrityError as error:
            yield Problem(f"task {name}", f"{error}; the next training starts from its beginning")


def _versions(connection: Connection, intact: Set[str]) -> Iterator[Problem]:
    versions = s.prompt_versions
    files = select(
        s.tasks.c.name,
        versions.c.number,
        versions.c.digest,
        versions.c.config_sha256,
        versions.c.weights_sha256,
        versions.c.encoder_sha256,
    )
    files = files.join_from(versions, s.tasks, versions.c.task_id == s.tasks.c.id).order_by(versions.c.id)
    for row in connection.execute(files):
        label = f"{row.name}@{row.number}"
        if not {row.config_sha256, row.weights_sha256, row.encoder_sha256} - {None} <= intact:
            yield Problem(label, "its adapter cannot be read")
        elif digest_of(row.config_sha256, row.weights_sha256) != row.digest:
            yield Problem(label, f"its files do not have the digest {row.digest}")


def _snapshots(connection: Connection, advance: Advance) -> Iterator[Problem]:
    scored = select(s.evaluations.c.snapshot_id)
    kept = or_(s.data_snapshots.c.id.in_(scored), s.data_snapshots.c.sha256.is_not(None))
    found = connection.execute(select(s.data_snapshots).where(kept)).all()
    for row in _watched(found, len(found), "data", advance):
        where = f"split {row.split} ({row.fingerprint[:15]}…)"
        if row.sha256 is None:
            yield Problem(where, "the rows that a score was taken on are not stored")
            continue
        try:
            if Split.unpack(row.split, read_artifact(connection, row.sha256, where)).fingerprint != row.fingerprint:
                yield Problem(where, "the stored rows do not have its fingerprint")
        except IntegrityError as error:
            yield Problem(where, str(error))


def _evaluations(connection: Connection, advance: Advance) -> Iterator[Problem]:
    there = select(s.evaluation_results.c.evaluation_id)
    for evaluation_id in connection.scalars(select(s.evaluations.c.id).where(s.evaluations.c.id.not_in(there))):
        yield Problem(f"evaluation {evaluation_id}", "its results are missing")
    rows, total = connection.execute(evaluation_query()), count(connection, s.evaluations)
    for row in _watched(rows, total, "evaluations", advance):
        where = f"evaluation {row.id} of {row.name}"
        if key_digest(row.key_parts) != row.key:
            yield Problem(where, "its key is not the digest of the key's parts")
        try:
            if read_evaluation(row).rows != row.rows:
                yield Problem(where, f"it holds the results of other than {row.rows} rows")
        except IntegrityError as error:
            yield Problem(where, str(error))


def _scores(connection: Connection, advance: Advance) -> Iterator[Problem]:
    evaluations, scores = s.evaluations.c, s.evaluation_scores.c
    main = evaluations.metric.label("main"), evaluations.score.label("main_score")
    found = (
        select(evaluations.id, evaluations.metrics, *main, scores.metric, scores.score)
        .outerjoin_from(s.evaluations, s.evaluation_scores)
        .order_by(evaluations.id)
    )
    total = count(connection, s.evaluation_scores)
    rows = _watched(connection.execute(found), total, "scores", advance)
    for evaluation_id, group in itertools.groupby(rows, key=operator.attrgetter("id")):
        (first, *others) = group
        measured = {row.metric: row.score for row in (first, *others)}
        if measured != first.metrics or measured.get(first.main) != first.main_score:
            yield Problem(f"evaluation {evaluation_id}", "the scores that it is found by are not its own")


# Each version with the first record of its base model.
_MODELS = select(
    s.tasks.c.name,
    s.prompt_versions.c.number,
    s.prompt_versions.c.state,
    first_record(s.base_models).label("model_id"),
).select_from(
    s.prompt_versions.join(s.tasks, s.tasks.c.id == s.prompt_versions.c.task_id).join(
        s.base_models, s.base_models.c.id == s.prompt_versions.c.base_model_id
    )
)


def _events(connection: Connection) -> Iterator[Problem]:
    """The events, replayed, must end where the pointers are."""
    versions = connection.execute(_MODELS).all()
    models = {(row.name, row.number): row.model_id for row in versions}
    pointers = {(row.name, row.model_id): row.number for row in versions if row.state == "published"}
    replayed: dict[tuple[str, int | None], int] = {}
    for row in connection.execute(event_query().order_by(s.events.c.id)):
        event = event_record(row)
        if event.task is not None and event.kind in POINTER_MOVES and event.to_version is not None:
            replayed[event.task, models.get((event.task, event.to_version))] = event.to_version
    for pointer in replayed.keys() | pointers.keys():
        if replayed.get(pointer) != pointers.get(pointer):
            found, told = pointers.get(pointer, "none"), replayed.get(pointer, "none")
            yield Problem(f"task {pointer[0]}", f"version {found} is published, but the events tell of {told}")
