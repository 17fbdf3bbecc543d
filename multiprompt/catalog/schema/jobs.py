"""Tables of workers, jobs and schedules."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from multiprompt.catalog.schema.columns import id_column, metadata, time_column

# The running workers. A worker whose `beats` stand still is dead or asleep.
workers = Table(
    "workers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("beats", Integer, nullable=False),
    time_column("started_at"),
    time_column("beat_at"),
)

# The owner of each job and its progress. A write for a job needs the `owner` of this row.
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
    time_column("updated_at"),
)

# The results of the steps of a job, until it ends; then only its outcome.
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
    id_column(),
    Column("job", Text, nullable=False, index=True),
    time_column("at"),
    Column("level", String(10), nullable=False),
    Column("worker", Text, nullable=False),
    Column("message", Text, nullable=False),
)

# A schedule submits jobs by one of `cron`, `every_seconds` and `watch`. `seen` is the last value of the watch.
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
    time_column("next_at", nullable=True, index=True),
    time_column("last_at", nullable=True),
    Column("last_job", Text, nullable=True),
    time_column(),
)
