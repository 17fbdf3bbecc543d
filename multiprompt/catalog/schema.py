"""The catalog's tables. Migrations create them; the models here must equal what the migrations make."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from multiprompt.errors import IntegrityError

# The newest migration in migrations/versions; a catalog of another revision is refused or upgraded.
REVISION = "0007"

# What the migrations make beside the tables; without it a published prompt could be changed, or a task not be found.
_REFUSALS = (
    "artifacts_frozen",
    "artifacts_kept",
    "artifacts_not_replaced",
    "baselines_frozen",
    "baselines_kept",
    "baselines_not_replaced",
    "base_models_frozen",
    "base_models_kept",
    "base_models_not_replaced",
    "data_snapshots_frozen",
    "data_snapshots_kept",
    "data_snapshots_not_replaced",
    "evaluations_frozen",
    "evaluations_kept",
    "evaluations_not_replaced",
    "events_frozen",
    "events_kept",
    "events_not_replaced",
    "lineage_frozen",
    "lineage_kept",
    "lineage_not_replaced",
    "results_frozen",
    "results_kept",
    "results_not_replaced",
    "scores_frozen",
    "scores_kept",
    "scores_not_replaced",
    "task_files_frozen",
    "task_files_kept",
    "task_files_not_replaced",
    "tasks_frozen",
    "tasks_kept",
    "tasks_not_replaced",
    "versions_baseline_kept",
    "versions_frozen",
    "versions_kept",
    "versions_moves",
    "versions_not_replaced",
    "versions_one_published",
    "versions_times_kept",
)
# The tables that they protect, which PostgreSQL could empty at once.
PROTECTED = (
    "artifacts",
    "base_models",
    "baselines",
    "data_snapshots",
    "evaluation_results",
    "evaluation_scores",
    "evaluations",
    "events",
    "lineage",
    "prompt_versions",
    "task_files",
    "tasks",
)
TRIGGERS = {
    "sqlite": frozenset((*_REFUSALS, "task_texts_added", "task_texts_changed", "task_texts_removed")),
    "postgresql": frozenset((*_REFUSALS, *(f"{table}_not_emptied" for table in PROTECTED))),
}

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING)


class _Checked(TypeDecorator[Any]):
    """What is stored as text in SQLite, where anything may stand in a damaged file."""

    __abstract__ = True

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        read = super().result_processor(dialect, coltype)

        def checked(value: Any) -> Any:
            try:
                return value if read is None else read(value)
            except (ValueError, TypeError):
                kind = type(self.impl).__name__
                raise IntegrityError(
                    f"a stored value is no {kind}: the catalog is damaged; restore a backup."
                ) from None

        return checked


class Json(_Checked):
    """Plain data."""

    impl = JSON
    cache_ok = True


class UtcDateTime(_Checked):
    """Stores times as UTC and gives aware times back, on every database; a time without a zone is in UTC.

    What UTC has no year for becomes the first or the last time that it has.
    """

    impl = DateTime
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value
        try:
            return value.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            return datetime.min if value.year == 1 else datetime.max

    def process_result_value(self, value: datetime | None, _dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _at(name: str = "created_at", nullable: bool = False, index: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable, index=index)


def _to(name: str, target: str, nullable: bool = False, cyclic: bool = False) -> Column[int]:
    return Column(name, ForeignKey(f"{target}.id", use_alter=cyclic), nullable=nullable, index=True)


base_models = Table(
    "base_models",
    metadata,
    _id(),
    Column("name", String(500), nullable=False),
    Column("source", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("dtype", String(20), nullable=False),
    Column("weights", String(80), nullable=False),
    Column("tokenizer", String(80), nullable=False),
    Column("config", String(80), nullable=False),
    _at(),
    UniqueConstraint("weights", "tokenizer", "config", "dtype"),
)

# One row: what the catalog is bound to and how it is run (`forward` says why it is not packed), the count of pointer
# moves that publishing compares and sets, and what a regression does where a task file does not say.
settings = Table(
    "settings",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single"), primary_key=True),
    Column("base_model_id", ForeignKey("base_models.id"), nullable=True),
    Column("base_model_source", Text, nullable=True),
    Column("dtype", String(20), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("forward", Text, nullable=True),
    Column("policy", String(20), nullable=False, server_default="block"),
)

# `file` is the path that the task file was read from: empty where there is none, null where an older release added it.
tasks = Table(
    "tasks",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    _to("task_file_id", "task_files", nullable=True, cyclic=True),
    Column("guarded", Integer, nullable=False, server_default="0"),
    _at(),
    Column("file", Text, nullable=True),
)

# What `search` finds a task by: the words of its name, description, tags and notes.
task_texts = Table(
    "task_texts",
    metadata,
    Column("task_id", ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("words", Text, nullable=False),
)

task_files = Table(
    "task_files",
    metadata,
    _id(),
    _to("task_id", "tasks"),
    Column("fingerprint", String(80), nullable=False),
    Column("source", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("metric", String(200), nullable=False),
    Column("tags", Json, nullable=False),
    _at(),
)

# The tags of `task_files.tags`, to be found by.
task_tags = Table(
    "task_tags",
    metadata,
    Column("task_file_id", ForeignKey("task_files.id"), primary_key=True, autoincrement=False),
    Column("tag", Text, primary_key=True),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("data", LargeBinary, nullable=False),
    _at(),
)

# Artifacts that nothing referred to when `gc` looked; it deletes what lies here for long enough.
trash = Table(
    "trash",
    metadata,
    Column("sha256", ForeignKey("artifacts.sha256"), primary_key=True),
    _at("since"),
)

# Rows that scores are taken on are kept (`sha256`), so that a check runs wherever the catalog is. Training rows are
# kept for tasks of rows in memory alone.
data_snapshots = Table(
    "data_snapshots",
    metadata,
    _id(),
    Column("fingerprint", String(80), nullable=False, unique=True),
    Column("split", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("sha256", ForeignKey("artifacts.sha256"), nullable=True, index=True),
    _at(),
)

runs = Table(
    "runs",
    metadata,
    _id(),
    _to("task_id", "tasks"),
    _to("training_snapshot_id", "data_snapshots"),
    _to("validation_snapshot_id", "data_snapshots"),
    Column("settings", Json, nullable=False),
    Column("environment", Json, nullable=False),
    Column("losses", Json, nullable=False),
    Column("validations", Json, nullable=False),
    Column("best_step", Integer, nullable=False),
    Column("truncated", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("job", Text, nullable=True),
    _at(),
)

# Where a task's training stands, until its version is stored; `key` is a digest of all that the training depends on.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("task_id", ForeignKey("tasks.id"), primary_key=True),
    Column("key", String(80), nullable=False),
    Column("data", LargeBinary, nullable=False),
    _at(),
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    _id(),
    _to("task_id", "tasks"),
    Column("number", Integer, nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("method", String(40), nullable=False),
    Column("num_virtual_tokens", Integer, nullable=False),
    _to("base_model_id", "base_models"),
    _to("task_file_id", "task_files"),
    _to("run_id", "runs", nullable=True),
    Column("config_sha256", ForeignKey("artifacts.sha256"), nullable=False, index=True),
    Column("weights_sha256", ForeignKey("artifacts.sha256"), nullable=False, index=True),
    Column("encoder_sha256", ForeignKey("artifacts.sha256"), nullable=True, index=True),
    Column("digest", String(80), nullable=False),
    _to("baseline_id", "evaluations", nullable=True, cyclic=True),
    Column("reason", Text, nullable=False),
    _at(index=True),
    _at("published_at", nullable=True, index=True),
    _at("retired_at", nullable=True),
    UniqueConstraint("task_id", "number"),
    CheckConstraint("state in ('candidate', 'published', 'retired', 'rejected')", name="state"),
    CheckConstraint("state in ('candidate', 'rejected') or baseline_id is not null", name="baseline"),
)
Index("uq_prompt_versions_published", prompt_versions.c.task_id, unique=True, sqlite_where=text("state = 'published'"))

lineage = Table(
    "lineage",
    metadata,
    _id(),
    _to("child_id", "prompt_versions"),
    Column("relation", String(30), nullable=False),
    _to("parent_id", "prompt_versions", nullable=True),
    Column("parent_label", Text, nullable=False),
    CheckConstraint(
        "relation in ('retrained-from', 'initialised-from', 'transferred-from', 'composed-of', 'imported-from')",
        name="relation",
    ),
)

# `key` is a digest of `key_parts`.
evaluations = Table(
    "evaluations",
    metadata,
    _id(),
    _to("task_id", "tasks"),
    _to("version_id", "prompt_versions", nullable=True),
    _to("snapshot_id", "data_snapshots"),
    Column("kind", String(10), nullable=False),
    Column("metric", String(200), nullable=False),
    Column("score", Float, nullable=False, index=True),
    Column("higher_is_better", Integer, nullable=False),
    Column("metrics", Json, nullable=False),
    Column("key", String(80), nullable=False, index=True),
    Column("key_parts", Json, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("truncated", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    _at(index=True),
    CheckConstraint("kind in ('soft', 'hard')", name="kind"),
)

# Predictions and references of each row, and of a baseline some rows to look at first, as compressed JSON; apart, so
# that a million evaluations are quick to go through.
evaluation_results = Table(
    "evaluation_results",
    metadata,
    Column("evaluation_id", ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    Column("results", LargeBinary, nullable=False),
    Column("canaries", LargeBinary, nullable=True),
)

# The scores of `evaluations.metrics`, to be found by.
evaluation_scores = Table(
    "evaluation_scores",
    metadata,
    Column("evaluation_id", ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    Column("metric", String(200), primary_key=True),
    Column("score", Float, nullable=False),
    Index("ix_evaluation_scores_metric_score", "metric", "score"),
)

# What a version is held against since it was blessed; before that, against the evaluation that it was published with.
baselines = Table(
    "baselines",
    metadata,
    _id(),
    _to("version_id", "prompt_versions"),
    _to("evaluation_id", "evaluations"),
    _to("task_file_id", "task_files"),
    _at(),
)

# What came of comparing a baseline with a score of another `key` (a digest), to be used again.
comparisons = Table(
    "comparisons",
    metadata,
    Column("baseline_id", ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    Column("key", String(80), primary_key=True),
    _to("evaluation_id", "evaluations", nullable=True),
    Column("result", Json, nullable=False),
    _at(),
)

# The rows that data files of this digest hold, so that they need not be read again to know.
data_sources = Table(
    "data_sources",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("fingerprint", String(80), nullable=False),
)

checks = Table(
    "checks",
    metadata,
    _id(),
    _to("version_id", "prompt_versions", nullable=True),
    Column("passed", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("job", Text, nullable=True),
    Column("evaluated", Integer, nullable=False, server_default="0"),
    Column("canaries", Integer, nullable=False, server_default="0"),
    Column("reused", Integer, nullable=False, server_default="0"),
    _at(),
)

# Of a check, what came out other than identical, or was measured; a version that is not here had its baseline's score.
check_results = Table(
    "check_results",
    metadata,
    _id(),
    _to("check_id", "checks"),
    _to("version_id", "prompt_versions"),
    _to("evaluation_id", "evaluations", nullable=True),
    Column("baseline", Float, nullable=False),
    Column("score", Float, nullable=True),
    Column("max_drop", Float, nullable=False),
    Column("verdict", String(20), nullable=False, index=True),
    Column("cause", Text, nullable=False),
    Column("evidence", Json, nullable=True),
)

events = Table(
    "events",
    metadata,
    _id(),
    _at("at", index=True),
    Column("actor", Text, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("task_id", ForeignKey("tasks.id"), nullable=True),
    Column("from_version", Integer, nullable=True),
    Column("to_version", Integer, nullable=True),
    Column("reason", Text, nullable=False),
    Index("ix_events_task_id_at_kind", "task_id", "at", "kind"),
)

# Who works on this catalog. A worker whose `beats` stand still is dead or asleep.
workers = Table(
    "workers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("beats", Integer, nullable=False),
    _at("started_at"),
    _at("beat_at"),
)

# Who has a job and how far it is; what writes for a job holds the `owner` that is here, or writes nothing.
job_claims = Table(
    "job_claims",
    metadata,
    Column("job", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    _at("updated_at"),
)

# What the steps of a job came to, until it ends; then only its outcome.
job_results = Table(
    "job_results",
    metadata,
    Column("job", Text, primary_key=True),
    Column("step", String(20), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

job_logs = Table(
    "job_logs",
    metadata,
    _id(),
    Column("job", Text, nullable=False, index=True),
    _at("at"),
    Column("level", String(10), nullable=False),
    Column("worker", Text, nullable=False),
    Column("message", Text, nullable=False),
)

# When jobs are submitted: by one of `cron`, `every_seconds` and `watch`. `seen` is what the watch saw last.
schedules = Table(
    "schedules",
    metadata,
    Column("name", String(300), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("task", ForeignKey("tasks.name"), nullable=True),
    Column("cron", Text, nullable=True),
    Column("every_seconds", Float, nullable=True),
    Column("watch", String(20), nullable=True),
    Column("timezone", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("active", Integer, nullable=False),
    Column("seen", Text, nullable=False),
    _at("next_at", nullable=True, index=True),
    _at("last_at", nullable=True),
    Column("last_job", Text, nullable=True),
    _at(),
)
