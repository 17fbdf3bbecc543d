"""Tables of tasks, prompt versions, their files and their trainings."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from multiprompt.catalog.schema.columns import id_column, metadata, reference, time_column
from multiprompt.catalog.schema.types import Json

# `renews_id` is the first record of the same base model, whose fingerprints a later release took in another way.
base_models = Table(
    "base_models",
    metadata,
    id_column(),
    Column("name", String(500), nullable=False),
    Column("source", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("dtype", String(20), nullable=False),
    Column("weights", String(80), nullable=False),
    Column("tokenizer", String(80), nullable=False),
    Column("config", String(80), nullable=False),
    time_column(),
    Column("renews_id", ForeignKey("base_models.id"), nullable=True),
    UniqueConstraint("weights", "tokenizer", "config", "dtype"),
)

# One row: the base model, the reason why its forward is not packed (`forward`), the count of pointer moves (`epoch`),
# and the policy for regressions in tasks whose file names none.
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

# `file` is the path of the task file: empty for a task without one, null for a task of an older release.
tasks = Table(
    "tasks",
    metadata,
    id_column(),
    Column("name", String(200), nullable=False, unique=True),
    reference("task_file_id", "task_files", nullable=True, cyclic=True),
    Column("guarded", Integer, nullable=False, server_default="0"),
    time_column(),
    Column("file", Text, nullable=True),
)

# The words of a task's name, description, tags and notes, for `matches`.
task_texts = Table(
    "task_texts",
    metadata,
    Column("task_id", ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("words", Text, nullable=False),
)

task_files = Table(
    "task_files",
    metadata,
    id_column(),
    reference("task_id", "tasks"),
    Column("fingerprint", String(80), nullable=False),
    Column("source", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("metric", String(200), nullable=False),
    Column("tags", Json, nullable=False),
    time_column(),
)

# The tags of `task_files.tags`, one a row, for queries.
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
    time_column(),
)

# Artifacts that nothing referred to at the last `gc`; a later one deletes those that are old enough.
trash = Table(
    "trash",
    metadata,
    Column("sha256", ForeignKey("artifacts.sha256"), primary_key=True),
    time_column("since"),
)

# The rows of evaluations are stored (`sha256`), so that a check needs no files; training rows are not.
data_snapshots = Table(
    "data_snapshots",
    metadata,
    id_column(),
    Column("fingerprint", String(80), nullable=False, unique=True),
    Column("split", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("sha256", ForeignKey("artifacts.sha256"), nullable=True, index=True),
    time_column(),
)

runs = Table(
    "runs",
    metadata,
    id_column(),
    reference("task_id", "tasks"),
    reference("training_snapshot_id", "data_snapshots"),
    reference("validation_snapshot_id", "data_snapshots"),
    Column("settings", Json, nullable=False),
    Column("environment", Json, nullable=False),
    Column("losses", Json, nullable=False),
    Column("validations", Json, nullable=False),
    Column("best_step", Integer, nullable=False),
    Column("truncated", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("job", Text, nullable=True),
    time_column(),
)

# An unfinished training of a task, until its version is stored; `key` is a digest of all its inputs.
checkpoints = Table(
    "checkpoints",
    metadata,
    Column("task_id", ForeignKey("tasks.id"), primary_key=True),
    Column("key", String(80), nullable=False),
    Column("data", LargeBinary, nullable=False),
    time_column(),
)

prompt_versions = Table(
    "prompt_versions",
    metadata,
    id_column(),
    reference("task_id", "tasks"),
    Column("number", Integer, nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("method", String(40), nullable=False),
    Column("num_virtual_tokens", Integer, nullable=True),
    reference("base_model_id", "base_models"),
    reference("task_file_id", "task_files"),
    reference("run_id", "runs", nullable=True),
    Column("config_sha256", ForeignKey("artifacts.sha256"), nullable=False, index=True),
    Column("weights_sha256", ForeignKey("artifacts.sha256"), nullable=False, index=True),
    Column("encoder_sha256", ForeignKey("artifacts.sha256"), nullable=True, index=True),
    Column("digest", String(80), nullable=False),
    reference("baseline_id", "evaluations", nullable=True, cyclic=True),
    Column("reason", Text, nullable=False),
    time_column(index=True),
    time_column("published_at", nullable=True, index=True),
    time_column("retired_at", nullable=True),
    Column("kind", Text, nullable=False, server_default="soft-prompt"),
    Column("settings", Json, nullable=False, server_default="{}"),
    UniqueConstraint("task_id", "number"),
    CheckConstraint("state in ('candidate', 'published', 'retired', 'rejected')", name="state"),
    CheckConstraint("state in ('candidate', 'rejected') or baseline_id is not null", name="baseline"),
)
Index(
    "uq_prompt_versions_published",
    prompt_versions.c.task_id,
    prompt_versions.c.base_model_id,
    unique=True,
    sqlite_where=text("state = 'published'"),
)

lineage = Table(
    "lineage",
    metadata,
    id_column(),
    reference("child_id", "prompt_versions"),
    Column("relation", String(30), nullable=False),
    reference("parent_id", "prompt_versions", nullable=True),
    Column("parent_label", Text, nullable=False),
    CheckConstraint(
        "relation in ('retrained-from', 'initialised-from', 'transferred-from', 'composed-of', 'imported-from')",
        name="relation",
    ),
)
