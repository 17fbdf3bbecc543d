"""Tables of evaluations, baselines, checks and events."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from multiprompt.catalog.schema.columns import id_column, metadata, reference, time_column
from multiprompt.catalog.schema.types import Json

# `key` is a digest of `key_parts`.
evaluations = Table(
    "evaluations",
    metadata,
    id_column(),
    reference("task_id", "tasks"),
    reference("version_id", "prompt_versions", nullable=True),
    reference("snapshot_id", "data_snapshots"),
    Column("kind", Text, nullable=False),
    Column("metric", String(200), nullable=False),
    Column("score", Float, nullable=False, index=True),
    Column("higher_is_better", Integer, nullable=False),
    Column("metrics", Json, nullable=False),
    Column("key", String(80), nullable=False, index=True),
    Column("key_parts", Json, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("truncated", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    time_column(index=True),
)

# Predictions, references and canaries, as compressed JSON. They lie apart from `evaluations`, so that a million of
# those are quick to read.
evaluation_results = Table(
    "evaluation_results",
    metadata,
    Column("evaluation_id", ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    Column("results", LargeBinary, nullable=False),
    Column("canaries", LargeBinary, nullable=True),
)

# The scores of `evaluations.metrics`, one a row, for queries.
evaluation_scores = Table(
    "evaluation_scores",
    metadata,
    Column("evaluation_id", ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    Column("metric", String(200), primary_key=True),
    Column("score", Float, nullable=False),
    Index("ix_evaluation_scores_metric_score", "metric", "score"),
)

# The blessings: the newest evaluation here is the baseline of a version, in place of `prompt_versions.baseline_id`.
baselines = Table(
    "baselines",
    metadata,
    id_column(),
    reference("version_id", "prompt_versions"),
    reference("evaluation_id", "evaluations"),
    reference("task_file_id", "task_files"),
    time_column(),
)

# The results of comparing a baseline with a score of another `key` (a digest), to be used again.
comparisons = Table(
    "comparisons",
    metadata,
    Column("baseline_id", ForeignKey("evaluations.id"), primary_key=True, autoincrement=False),
    Column("key", String(80), primary_key=True),
    reference("evaluation_id", "evaluations", nullable=True),
    Column("result", Json, nullable=False),
    time_column(),
)

# The fingerprint of the rows in data files of this digest, so that unchanged files are not read again.
data_sources = Table(
    "data_sources",
    metadata,
    Column("digest", String(80), primary_key=True),
    Column("fingerprint", String(80), nullable=False),
)

checks = Table(
    "checks",
    metadata,
    id_column(),
    reference("version_id", "prompt_versions", nullable=True),
    Column("passed", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("job", Text, nullable=True),
    Column("evaluated", Integer, nullable=False, server_default="0"),
    Column("canaries", Integer, nullable=False, server_default="0"),
    Column("reused", Integer, nullable=False, server_default="0"),
    time_column(),
)

# The results of a check that were measured or differ. A version without a row here kept its baseline's score.
check_results = Table(
    "check_results",
    metadata,
    id_column(),
    reference("check_id", "checks"),
    reference("version_id", "prompt_versions"),
    reference("evaluation_id", "evaluations", nullable=True),
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
    id_column(),
    time_column("at", index=True),
    Column("actor", Text, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("task_id", ForeignKey("tasks.id"), nullable=True),
    Column("from_version", Integer, nullable=True),
    Column("to_version", Integer, nullable=True),
    Column("reason", Text, nullable=False),
    Index("ix_events_task_id_at_kind", "task_id", "at", "kind"),
)
