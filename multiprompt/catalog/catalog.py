"""The catalog: one object, one transaction a method, frozen records out."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine

from multiprompt.catalog import (
    ancestry,
    baselines,
    checks,
    copying,
    garbage,
    kept_rows,
    matrix,
    migration,
    reading,
    sql,
    verification,
    writing,
)
from multiprompt.catalog import schema as s
from multiprompt.catalog.copying import Advance
from multiprompt.catalog.database import (
    database_engine,
    database_path,
    file_identity,
    is_sqlite,
    location,
    watching_engine,
)
from multiprompt.catalog.database import reading as read_transaction
from multiprompt.catalog.database import writing as write_transaction
from multiprompt.catalog.garbage import LiveJobs
from multiprompt.catalog.jobs import Ledger, end, is_held, note_checkpoint, require_claim
from multiprompt.catalog.labels import parse_label
from multiprompt.catalog.sql import Attached
from multiprompt.catalog.writing import Candidate, Decision, Stamp
from multiprompt.errors import ConfigError, IntegrityError, StateError
from multiprompt.records import (
    Adapter,
    Baseline,
    BaseModelRecord,
    Canary,
    CheckReport,
    CheckResult,
    Claim,
    Edge,
    Evaluation,
    EvaluationRecord,
    Event,
    Garbage,
    Impact,
    Listing,
    Matrix,
    Outcome,
    Problem,
    Rollback,
    Run,
    SqlResult,
    TaskRecord,
    VersionRecord,
)
from multiprompt.tasks.data import Split

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task

Clock = Callable[[], datetime]

# What a job says of the version that it ended with.
_ENDED = {
    ("publish", "published"): "published",
    ("publish", "candidate"): "held, as its task is guarded",
    ("keep", "candidate"): "stays a candidate",
    ("hold", "candidate"): "stays a candidate",
    ("reject", "rejected"): "rejected",
}


def _now() -> datetime:
    return datetime.now(UTC)


class Catalog:
    """Tasks, prompt versions and evaluations in one SQLite file.

    A published version, its artifacts and its lineage cannot be changed: triggers of the database refuse it.
    """

    def __init__(self, engine: Engine, actor: str = "unknown", clock: Clock = _now) -> None:
        self._engine = engine
        self._actor = actor
        self._clock = clock
        self._claim: Claim | None = None
        self._watched: tuple[int, int] | None = None
        weakref.finalize(self, engine.dispose)

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Catalog:
        """Open a catalog; with `create` a missing one is made. Raises SchemaError when it is none, or of another."""
        catalog = cls(database_engine(url))
        if create:
            migration.create(catalog._engine)
        else:
            migration.require_file(catalog._engine)
        migration.require_current(catalog._engine)
        return catalog

    @classmethod
    def exists(cls, url: str) -> bool:
        """Whether there is a catalog. Raises SchemaError when there is something else."""
        engine = database_engine(url)
        try:
            return migration.exists(engine)
        finally:
            engine.dispose()

    def claimed_by(self, claim: Claim) -> Catalog:
        """The same catalog for a job, for which nothing is written once the claim is no longer the newest on it.

        Then every writing method raises SupersededError. What ends the job (`admit`, `save_check`, `save_evaluation`)
        keeps its outcome in the same transaction.
        """
        return self._copy(_claim=claim)

    def signed_by(self, actor: str, clock: Clock) -> Catalog:
        """The same catalog, whose writes carry this actor and the time of this clock."""
        return self._copy(_actor=actor, _clock=clock)

    def _copy(self, **changes: Any) -> Catalog:
        """This catalog with other attributes; it keeps this one, whose end closes the connections."""
        made = copy(self)
        vars(made).update(_original=self, **changes)
        return made

    @property
    def actor(self) -> str:
        """The name that its writes carry."""
        return self._actor

    def now(self) -> datetime:
        """The time that its writes carry. Raises ConfigError where the clock gives one without a zone."""
        time = self._clock()
        if time.utcoffset() is None:
            raise ConfigError(f"the clock gave {time.isoformat()} without a zone: give one like datetime.now(UTC).")
        return time

    @property
    def job(self) -> str | None:
        """The job that writes here."""
        return None if self._claim is None else self._claim.job

    @cached_property
    def ledger(self) -> Ledger:
        """The scheduler's side of the catalog."""
        return Ledger(self._engine)

    @contextmanager
    def _write(self) -> Iterator[tuple[Connection, Stamp]]:
        """A write transaction, and who writes when: never before what was written last, whatever the clock says."""
        with write_transaction(self._engine) as connection:
            if self._claim is not None:
                require_claim(connection, self._claim)
            at = self.now()
            yield connection, Stamp(self._actor, max(at, reading.last_event(connection) or at))

    @cached_property
    def _watching(self) -> Engine:
        return watching_engine(self._engine)

    def close(self) -> None:
        """Close the connections that are kept open; the next call opens new ones."""
        self._watching.dispose()

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def location(self) -> str:
        """Its path, or its URL without the password."""
        return location(self._engine)

    @property
    def is_file(self) -> bool:
        """Whether it is on SQLite."""
        return is_sqlite(self._engine)

    @property
    def path(self) -> Path:
        """The file of a catalog on SQLite."""
        return database_path(self._engine)

    def base_model(self) -> tuple[str | None, str, BaseModelRecord | None]:
        """(reference to load it by, dtype, record); the record is None until the model was loaded once."""
        with read_transaction(self._engine) as connection:
            return reading.base_model(connection)

    def name_base_model(self, reference: str) -> None:
        """Keep what base model the catalog is meant for, as long as it is bound to none."""
        known, _, bound = self.base_model()
        if bound is None and known != reference:
            with write_transaction(self._engine) as connection:
                writing.name_base_model(connection, reference)

    def move_base_model(self, reference: str) -> None:
        """Keep another place of the base model that the catalog is bound to."""
        if self.base_model()[0] != reference:
            with self._write() as (connection, stamp):
                writing.move_base_model(connection, reference, stamp)

    def bind_base_model(self, record: BaseModelRecord, former: BaseModelRecord | None = None) -> None:
        """Bind the catalog to its base model, or bind it anew where `former` is the same model in older fingerprints.

        Versions keep the record that they were made with. Raises StateError when it is bound to another one.
        """
        with self._write() as (connection, stamp):
            _, _, bound = reading.base_model(connection)
            if bound is None or (former is not None and bound.identity == former.identity):
                writing.bind_base_model(connection, record, former, stamp)
            elif bound.identity != record.identity:
                raise StateError(f"{self.location} is bound to {bound} already.")

    def forward(self) -> str | None:
        """Why the base model is not run by the packed forward; empty if it is, None before it was loaded."""
        with read_transaction(self._engine) as connection:
            return reading.forward(connection)

    def set_forward(self, fallback: str) -> None:
        if self.forward() != fallback:
            with self._write() as (connection, stamp):
                writing.set_forward(connection, fallback, stamp)

    def checkpoint(self, task: str, key: str) -> bytes | None:
        """Where a training stood that depends on the same things, see `engine.learning`.

        Raises IntegrityError when its bytes changed.
        """
        with read_transaction(self._engine) as connection:
            return reading.checkpoint(connection, task, key)

    def save_checkpoint(self, task: str, key: str, data: bytes) -> None:
        """Keep where a training of a task stands; one by hand leaves that of a job that has not ended."""
        with self._write() as (connection, stamp):
            if self._claim is None and is_held(connection, task, None):
                return
            writing.save_checkpoint(connection, task, key, data, stamp)
            if self._claim is not None:
                note_checkpoint(connection, self._claim, task, key)

    def end_training(self, known: VersionRecord, outcome: str) -> None:
        """Drop a task's checkpoint, as its training gave a known version; a job ends with this outcome.

        It is no success where that version did not learn and still waits for somebody to publish it.
        """
        with self._write() as (connection, stamp):
            writing.drop_checkpoint(connection, known.task, self.job)
            good = known.state != "candidate" or not reading.is_below_floor(connection, known)
            self._end(connection, good, outcome, stamp)

    def epoch(self) -> int:
        """How many pointers have moved so far; quick enough to ask before each answer."""
        return self.epoch_and_file()[0]

    def epoch_and_file(self) -> tuple[int, object]:
        """The epoch, and the identity of the file that it is read from; another file may take the place of this one."""
        file = file_identity(self._engine)
        if file is not None and file != self._watched:
            # The connections that are kept open still read a file that another one took the place of.
            self._watching.dispose()
            self._watched = file
        with read_transaction(self._watching) as connection:
            return reading.epoch(connection), self._watched

    def add_task(self, task: Task) -> TaskRecord:
        """Keep a task file, and the rows of a task that has them in memory."""
        from multiprompt.tasks.reading import read_snapshot

        kept = [read_snapshot(task, split) for split in task.data.snapshots]
        with self._write() as (connection, stamp):
            if kept:
                kept_rows.keep_snapshots(connection, kept, stamp)
            writing.add_task(connection, task, stamp)
            return reading.task(connection, task.name)

    def tasks(
        self, query: str = "", *, after: str | None = None, limit: int | None = None, as_of: datetime | None = None
    ) -> Listing[TaskRecord]:
        """A page of tasks; `as_of` shows those that there were then, with what was published."""
        with read_transaction(self._engine) as connection:
            return reading.tasks(connection, query, after=after, limit=limit, as_of=as_of)

    def task(self, name: str) -> TaskRecord:
        with read_transaction(self._engine) as connection:
            return reading.task(connection, name)

    def versions(
        self, query: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Listing[VersionRecord]:
        with read_transaction(self._engine) as connection:
            return reading.versions(connection, query, after=after, limit=limit)

    def versions_of(self, task: str) -> list[VersionRecord]:
        with read_transaction(self._engine) as connection:
            return reading.versions_of(connection, task)

    def version(self, task: str, number: int | None = None) -> VersionRecord:
        """A version by number, or the published one."""
        with read_transaction(self._engine) as connection:
            return reading.version(connection, task, number)

    def version_labelled(self, label: str) -> VersionRecord:
        """The version of `sst2@2`, or the published one of `sst2`. Raises NotFoundError."""
        return self.version(*parse_label(label))

    def published(self) -> tuple[int, list[VersionRecord]]:
        """The epoch, and what is published in it; one consistent view."""
        with read_transaction(self._engine) as connection:
            return reading.epoch(connection), reading.published(connection)

    def served_since_blessed(self, task: str) -> list[VersionRecord]:
        """The versions that a task published since its last blessing or roll-back, with the one that this left."""
        with read_transaction(self._engine) as connection:
            return reading.served_since_blessed(connection, task)

    def found_worse(self, label: str) -> CheckResult | None:
        """How the newest stored check of a version found it regressed, or why it could not measure it."""
        with read_transaction(self._engine) as connection:
            return reading.found_worse(connection, label)

    def is_below_floor(self, version: VersionRecord) -> bool:
        """Whether a version did not beat its task's floor when it was admitted."""
        with read_transaction(self._engine) as connection:
            return reading.is_below_floor(connection, version)

    def adapter(self, version: VersionRecord) -> Adapter:
        """A version's files. Raises IntegrityError when a stored byte changed."""
        with read_transaction(self._engine) as connection:
            return reading.adapter(connection, version)

    def digests(self) -> dict[str, str]:
        """Each published version's digest, recomputed from its stored bytes."""
        with read_transaction(self._engine) as connection:
            return {
                version.label: writing.digest(reading.adapter(connection, version))
                for version in reading.published(connection)
            }

    def baseline(self, version: VersionRecord) -> Evaluation:
        with read_transaction(self._engine) as connection:
            return reading.baseline(connection, version)

    def published_baselines(self) -> tuple[int, list[tuple[VersionRecord, Baseline]]]:
        """The epoch, and the published versions in it with their baselines; one consistent view."""
        with read_transaction(self._engine) as connection:
            held = baselines.baselines(connection, s.prompt_versions.c.state == "published")
            return reading.epoch(connection), [(version, held[version.id]) for version in reading.published(connection)]

    def baseline_of(self, version: VersionRecord) -> Baseline:
        """A version's baseline."""
        with read_transaction(self._engine) as connection:
            return baselines.baselines(connection, s.prompt_versions.c.id == version.id)[version.id]

    def canaries(self, evaluation: int) -> tuple[Canary, ...] | None:
        """The rows of a baseline that are looked at first; None for one of before there were such."""
        with read_transaction(self._engine) as connection:
            return baselines.canaries(connection, evaluation)

    def comparison(self, baseline: int, key: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The CheckResult, as JSON, of comparing a baseline with a score of this key; None where that was not done."""
        with read_transaction(self._engine) as connection:
            return baselines.comparison(connection, baseline, reading.key_digest(key))

    def save_comparison(
        self,
        version: VersionRecord,
        baseline: int,
        key: Mapping[str, str],
        result: CheckResult,
        split: Split | None,
        evaluation: Evaluation | None,
    ) -> None:
        """Keep what came of a comparison, and the evaluation, with its rows, where it is new."""
        with self._write() as (connection, stamp):
            checks.save_comparison(connection, version, baseline, key, result, split, evaluation, stamp)

    def bless(
        self,
        version: VersionRecord,
        task: Task,
        split: Split,
        evaluation: Evaluation,
        reason: str,
    ) -> None:
        """Hold a version against another evaluation, of the task that it is served with, from now on; as an event."""
        with self._write() as (connection, stamp):
            checks.bless(connection, version, task, split, evaluation, reason, stamp)

    def policy(self) -> str:
        """What a regression does where a task file does not say: block, warn or rollback."""
        with read_transaction(self._engine) as connection:
            return baselines.policy(connection)

    def set_policy(self, policy: str, reason: str) -> None:
        with self._write() as (connection, stamp):
            checks.set_policy(connection, policy, reason, stamp)

    def source_fingerprint(self, digest: str) -> str | None:
        """The fingerprint of the rows that data files of a digest hold, where they were read before."""
        with read_transaction(self._engine) as connection:
            return baselines.source_fingerprint(connection, digest)

    def save_source(self, digest: str, fingerprint: str) -> None:
        with self._write() as (connection, _):
            checks.save_source(connection, digest, fingerprint)

    def evaluation_rows(self, version: VersionRecord, evaluation: int | None = None) -> Split:
        """The rows that a version's baseline, or another evaluation of it, was taken on."""
        with read_transaction(self._engine) as connection:
            name, fingerprint, packed = reading.snapshot(connection, version, evaluation)
        split = Split.unpack(name, packed)
        if split.fingerprint != fingerprint:
            raise IntegrityError(f"{version.label}: the stored rows of split {name} do not have their fingerprint.")
        return split

    def task_file(self, version: VersionRecord) -> Task:
        """The task as it was when the version was made."""
        from multiprompt.tasks.task import Task

        with read_transaction(self._engine) as connection:
            source, folder = reading.task_file(connection, version)
        return self.with_rows(Task.from_source(source, Path(folder), where=version.label))

    def with_rows(self, task: Task) -> Task:
        """The same task; where it names rows that a catalog keeps, they are read from this one."""
        return replace(task, read_snapshot=self.snapshot) if task.data.snapshots else task

    def snapshot(self, fingerprint: str) -> Split:
        """Kept rows by their fingerprint. Raises NotFoundError, and IntegrityError when a stored byte changed."""
        with read_transaction(self._engine) as connection:
            return kept_rows.snapshot(connection, fingerprint)

    def run(self, version: VersionRecord) -> Run | None:
        """The training that a version came from, None for an imported one."""
        with read_transaction(self._engine) as connection:
            return reading.run(connection, version)

    def evaluations(
        self, query: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Listing[EvaluationRecord]:
        with read_transaction(self._engine) as connection:
            return reading.evaluations(connection, query, after=after, limit=limit)

    def evaluation(self, identity: int) -> Evaluation:
        """An evaluation with what each row got."""
        with read_transaction(self._engine) as connection:
            return reading.evaluation_by_id(connection, identity)

    def evaluation_with_key(self, key: Mapping[str, str], task: str | None = None) -> Evaluation | None:
        """The newest score, of a task or of any, whose every influence is the same."""
        with read_transaction(self._engine) as connection:
            return reading.evaluation_with_key(connection, reading.key_digest(key), task)

    def lineage(self, task: str, number: int | None = None) -> list[Edge]:
        """The edges above and below a version, all of a task's without a number, and what each was made of."""
        with read_transaction(self._engine) as connection:
            return ancestry.lineage(connection, ancestry.of_label(connection, task, number))

    def versions_labelled(self, labels: Collection[str]) -> list[VersionRecord]:
        """The versions of these labels; what is no version's label is passed over."""
        with read_transaction(self._engine) as connection:
            return reading.versions_labelled(connection, labels)

    def impact_of_base(self, name: str) -> list[Impact]:
        """The published prompts that a change of a base model would touch. Raises NotFoundError."""
        with read_transaction(self._engine) as connection:
            return ancestry.impact_of_base(connection, name)

    def impact_of_data(self, fingerprint: str) -> list[Impact]:
        """The published prompts that a change of data would touch. Raises NotFoundError or QueryError."""
        with read_transaction(self._engine) as connection:
            return ancestry.impact_of_data(connection, fingerprint)

    def events(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Event]:
        with read_transaction(self._engine) as connection:
            return reading.events(connection, query, after=after, limit=limit)

    def notes(self, task: str) -> list[Event]:
        """The notes on a task, oldest first. Raises NotFoundError."""
        quoted = self.task(task).name.replace("'", "''")
        return list(self.events(f"kind = 'noted' and task = '{quoted}'"))

    def regressions(self, task: str | None) -> set[str]:
        """The published versions of a task, or of any, that the newest checks found regressed or failed.

        Each is named by its label and the key of the score that was too low, so that another drop has another name.
        """
        with read_transaction(self._engine) as connection:
            return checks.regressions(connection, task)

    def has_version_of(self, job: str) -> bool:
        """Whether a job came to a version, whatever its state."""
        with read_transaction(self._engine) as connection:
            return reading.has_version_of(connection, job)

    def job_seconds(self, kind: str, task: str | None) -> float | None:
        """What a job of a kind took when it ran last, by the parts that were measured; None if it never did."""
        with read_transaction(self._engine) as connection:
            return reading.job_seconds(connection, kind, task)

    def matrix(self) -> Matrix:
        with read_transaction(self._engine) as connection:
            return matrix.matrix(connection)

    def admit(
        self,
        candidate: Candidate,
        check: CheckReport,
        *,
        decision: Decision,
        reason: str,
        epoch: int,
    ) -> VersionRecord:
        """Store a candidate with its evidence and publish, hold or reject it, in one transaction.

        Raises ConflictError when another prompt was published since `epoch` was read.
        """
        with self._write() as (connection, stamp):
            version = writing.admit(connection, candidate, decision, reason, epoch, stamp)
            checks.save_check(connection, check, version.id, stamp)
            ended = f"{version.label} {_ENDED[decision, version.state]}: {reason}"
            self._end(connection, decision == "publish", ended, stamp)
            return version

    def save_check(self, check: CheckReport, rollbacks: Collection[Rollback] = ()) -> list[str]:
        """Store a check with the rollbacks that it asks for, in one transaction. Gives a line for each of these."""
        with self._write() as (connection, stamp):
            told = [checks.roll_back(connection, rollback, stamp) for rollback in rollbacks]
            checks.save_check(connection, check, None, stamp, self.job)
            self._end(connection, check.passed, check.summary, stamp)
            return told

    def save_evaluation(self, version: VersionRecord, split: Split, evaluation: Evaluation) -> None:
        """Store a score of a version on rows that need not be those of its baseline."""
        with self._write() as (connection, stamp):
            writing.save_evaluation(connection, version, split, evaluation, stamp)
            self._end(connection, True, f"{version.label}: {evaluation.metric} {evaluation.score:.4f}", stamp)

    def conclude(self, good: bool, text: str) -> None:
        """End the job that writes here, which stores nothing else; without a job nothing is written."""
        if self._claim is not None:
            with self._write() as (connection, stamp):
                self._end(connection, good, text, stamp)

    def _end(self, connection: Connection, good: bool, text: str, stamp: Stamp) -> None:
        if self._claim is not None:
            end(connection, self._claim.job, Outcome(good, text), stamp.at)

    def roll_back(
        self,
        task: str,
        number: int | None,
        reason: str,
        *,
        force: bool = False,
        replaces: int | None = None,
    ) -> VersionRecord:
        """Publish a retired version again, in place of any other or only of the version `replaces`.

        Raises StateError for a guarded task without `force` and a reason.
        """
        with self._write() as (connection, stamp):
            return writing.move(connection, task, number, "rolled-back", reason, force, stamp, replaces)

    def publish(self, task: str, number: int | None, reason: str, *, force: bool = False) -> VersionRecord:
        """Publish a candidate that was held because its task is guarded. Raises StateError as `roll_back` does."""
        with self._write() as (connection, stamp):
            return writing.move(connection, task, number, "published", reason, force, stamp)

    def guard(self, task: str, guarded: bool, reason: str) -> None:
        """Make what a task publishes move by force alone, or as others' again."""
        with self._write() as (connection, stamp):
            writing.guard(connection, task, guarded, reason, stamp)

    def note(self, task: str, text: str) -> None:
        """Keep a note on a task among its events."""
        with self._write() as (connection, stamp):
            writing.note(connection, task, text, stamp)

    def verify(self, advance: Advance = lambda what, done, total: None) -> list[Problem]:
        """Recompute digests, foreign keys and invariants; an empty list means that all is well."""
        with read_transaction(self._engine) as connection:
            return list(verification.problems(connection, advance))

    def backup(self, file: Path, advance: Advance = lambda what, done, total: None) -> None:
        """Copy the catalog into a new SQLite file while others work in it. Raises CatalogError."""
        copying.backup(self._engine, file, advance)

    def copy_to(self, url: str, advance: Advance = lambda what, done, total: None) -> Catalog:
        """Copy the catalog into a new one on any database, and give that one. Raises CatalogError or IntegrityError."""
        target = Catalog(database_engine(url))
        copying.copy_catalog(self._engine, target._engine, advance)
        migration.require_current(target._engine)
        return target

    def garbage(self, keep: timedelta, live: LiveJobs = dict) -> Garbage:
        """What `collect_garbage` would delete."""
        alive = live()
        with read_transaction(self._engine) as connection:
            return garbage.look(connection, self.now(), keep, alive)

    def collect_garbage(self, keep: timedelta, live: LiveJobs = dict) -> Garbage:
        """Delete stored files that nothing has referred to for `keep`, and as old checkpoints and notes on jobs.

        `live` gives the jobs that wait or run, with their tasks; nothing of these is deleted.
        """
        with read_transaction(self._engine) as connection:
            quiet = garbage.quiet_jobs(connection, self.now() - keep)
        # Asked after: a job that has ended by now never runs again.
        alive = live()
        with self._write() as (connection, stamp):
            return garbage.collect(connection, stamp.at, keep, quiet, alive)

    def sql(
        self, statement: str, limit: int = 1000, attached: Attached | None = None, *, seconds: float = 30.0
    ) -> SqlResult:
        """The first rows of a SELECT over the views (v_tasks, v_versions, …). Raises QueryError."""
        return sql.select_rows(self._engine, statement, limit, seconds, attached)
