"""The catalog's tables. Migrations create them; the models here must equal what the migrations make."""

from multiprompt.catalog.schema.columns import metadata
from multiprompt.catalog.schema.evidence import (
    baselines,
    check_results,
    checks,
    comparisons,
    data_sources,
    evaluation_results,
    evaluation_scores,
    evaluations,
    events,
)
from multiprompt.catalog.schema.jobs import job_claims, job_logs, job_results, schedules, workers
from multiprompt.catalog.schema.prompts import (
    artifacts,
    base_models,
    checkpoints,
    data_snapshots,
    lineage,
    prompt_versions,
    runs,
    settings,
    task_files,
    task_tags,
    task_texts,
    tasks,
    trash,
)
from multiprompt.catalog.schema.types import Json, UtcDateTime

# The newest migration in migrations/versions; a catalog of another revision is refused or upgraded.
REVISION = "0008"

__all__ = [
    "REVISION",
    "Json",
    "UtcDateTime",
    "artifacts",
    "base_models",
    "baselines",
    "check_results",
    "checkpoints",
    "checks",
    "comparisons",
    "data_snapshots",
    "data_sources",
    "evaluation_results",
    "evaluation_scores",
    "evaluations",
    "events",
    "job_claims",
    "job_logs",
    "job_results",
    "lineage",
    "metadata",
    "prompt_versions",
    "runs",
    "schedules",
    "settings",
    "task_files",
    "task_tags",
    "task_texts",
    "tasks",
    "trash",
    "workers",
]
