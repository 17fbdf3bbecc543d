"""The catalog: one object with its nouns as attributes. Each method is one transaction and gives frozen records."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine

from multiprompt.catalog import copying, garbage, migration, sql, verification
from multiprompt.catalog.base_models import BaseModels
from multiprompt.catalog.baselines import Baselines
from multiprompt.catalog.candidates import Candidates
from multiprompt.catalog.checkpoints import Checkpoints
from multiprompt.catalog.checks import Checks
from multiprompt.catalog.copying import Advance
from multiprompt.catalog.database import database_engine, database_path, is_sqlite, location
from multiprompt.catalog.evaluations import Evaluations
from multiprompt.catalog.events import Events
from multiprompt.catalog.garbage import LiveJobs
from multiprompt.catalog.jobs import Ledger
from multiprompt.catalog.lineage import Lineage
from multiprompt.catalog.matrix import AccuracyMatrix
from multiprompt.catalog.pointers import Pointers
from multiprompt.catalog.runs import Runs
from multiprompt.catalog.settings import Settings
from multiprompt.catalog.snapshots import Snapshots
from multiprompt.catalog.sql import Attached
from multiprompt.catalog.store import Clock, Database, Store
from multiprompt.catalog.tasks import Tasks
from multiprompt.catalog.versions import Versions
from multiprompt.records import Claim, Garbage, Problem, SqlResult


class Catalog:
    """Tasks, prompt versions and evaluations in one database, by noun.

    A published version, its artifacts and its lineage cannot be changed: triggers of the database refuse it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.tasks = Tasks(store)
        self.versions = Versions(store)
        self.candidates = Candidates(store)
        self.pointers = Pointers(store)
        self.evaluations = Evaluations(store)
        self.baselines = Baselines(store)
        self.checks = Checks(store)
        self.checkpoints = Checkpoints(store)
        self.runs = Runs(store)
        self.snapshots = Snapshots(store)
        self.lineage = Lineage(store)
        self.matrix = AccuracyMatrix(store)
        self.events = Events(store)
        self.base_models = BaseModels(store)
        self.settings = Settings(store)

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Catalog:
        """Open a catalog; with `create` a missing one is made. Raises SchemaError for none, or of another schema."""
        store = Store(Database(database_engine(url)))
        if create:
            migration.create(store.engine)
        else:
            migration.require_file(store.engine)
        migration.require_current(store.engine)
        return cls(store)

    @classmethod
    def exists(cls, url: str) -> bool:
        """Whether there is a catalog. Raises SchemaError when there is something else."""
        engine = database_engine(url)
        try:
            return migration.exists(engine)
        finally:
            engine.dispose()

    def claimed_by(self, claim: Claim) -> Catalog:
        """The same catalog for a job. Its writes raise SupersededError once the claim is not the newest on the job.

        The write that ends the job keeps its outcome in the same transaction.
        """
        return Catalog(replace(self._store, claim=claim))

    def signed_by(self, actor: str, clock: Clock) -> Catalog:
        """The same catalog, whose writes carry this actor and the time of this clock."""
        return Catalog(replace(self._store, actor=actor, clock=clock))

    def close(self) -> None:
        """Close the connections that stay open; the next call opens new ones."""
        self._store.database.close()

    @property
    def engine(self) -> Engine:
        return self._store.engine

    @property
    def location(self) -> str:
        """Its path, or its URL without the password."""
        return location(self.engine)

    @property
    def is_file(self) -> bool:
        """Whether it is on SQLite."""
        return is_sqlite(self.engine)

    @property
    def path(self) -> Path:
        """The file of a catalog on SQLite."""
        return database_path(self.engine)

    @property
    def actor(self) -> str:
        """The name that its writes carry."""
        return self._store.actor

    @property
    def job(self) -> str | None:
        """The job that writes here."""
        return self._store.job

    def now(self) -> datetime:
        """The time that its writes carry. Raises ConfigError for a clock that gives a time without a zone."""
        return self._store.now()

    @cached_property
    def ledger(self) -> Ledger:
        """The scheduler's side of the catalog."""
        return Ledger(self.engine)

    def conclude(self, good: bool, text: str) -> None:
        """End the job that writes here, which stores nothing else; without a job nothing is written."""
        if self.job is not None:
            with self._store.write() as (connection, stamp):
                self._store.end_job(connection, good, text, stamp)

    def verify(self, advance: Advance = lambda what, done, total: None) -> list[Problem]:
        """Recompute digests, foreign keys and invariants; an empty list means that all is well."""
        with self._store.read() as connection:
            return list(verification.problems(connection, advance))

    def backup(self, file: Path, advance: Advance = lambda what, done, total: None) -> None:
        """Copy the catalog into a new SQLite file while others work in it. Raises CatalogError."""
        copying.backup(self.engine, file, advance)

    def copy_to(self, url: str, advance: Advance = lambda what, done, total: None) -> Catalog:
        """Copy the catalog into a new one on any database, and give that one. Raises CatalogError or IntegrityError."""
        target = Catalog(Store(Database(database_engine(url))))
        copying.copy_catalog(self.engine, target.engine, advance)
        migration.require_current(target.engine)
        return target

    def garbage(self, keep: timedelta, live: LiveJobs = dict) -> Garbage:
        """The amount that `collect_garbage` would delete."""
        alive = live()
        with self._store.read() as connection:
            return garbage.look(connection, self.now(), keep, alive)

    def collect_garbage(self, keep: timedelta, live: LiveJobs = dict) -> Garbage:
        """Delete stored files that nothing has referred to for `keep`, and as old checkpoints and notes on jobs.

        `live` gives the jobs that wait or run, with their tasks; nothing of these is deleted.
        """
        with self._store.read() as connection:
            quiet = garbage.quiet_jobs(connection, self.now() - keep)
        # Asked after: a job that has ended by now never runs again.
        alive = live()
        with self._store.write() as (connection, stamp):
            return garbage.collect(connection, stamp.at, keep, quiet, alive)

    def sql(
        self, statement: str, limit: int = 1000, attached: Attached | None = None, *, seconds: float = 30.0
    ) -> SqlResult:
        """The first rows of a SELECT over the views (v_tasks, v_versions, …). Raises QueryError."""
        return sql.select_rows(self.engine, statement, limit, seconds, attached)
