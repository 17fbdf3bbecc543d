"""DBOS's table of workflows as a listing of jobs, so that jobs are asked for like everything else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    String,
    TypeDecorator,
    case,
    column,
    func,
    literal_column,
    select,
    table,
)

from multiprompt.catalog.query import Field, Fields
from multiprompt.records import Job, JobState

WORKFLOW = "multiprompt.job"
_STATES: Mapping[str, JobState] = {
    "ENQUEUED": "queued", "DELAYED": "queued", "PENDING": "running", "SUCCESS": "done", "ERROR": "failed",
    "CANCELLED": "cancelled", "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
}  # fmt: skip


# What `v_jobs` shows to SQL.
VIEW = """
    SELECT w.workflow_uuid AS id,
        json_extract(i.inputs, '$.args[0]') AS kind,
        json_extract(i.inputs, '$.args[1]') AS task,
        CASE w.status WHEN 'ENQUEUED' THEN 'queued' WHEN 'DELAYED' THEN 'queued' WHEN 'PENDING' THEN 'running'
            WHEN 'SUCCESS' THEN 'done' WHEN 'CANCELLED' THEN 'cancelled' ELSE 'failed' END AS state,
        datetime(w.created_at / 1000, 'unixepoch') AS created_at,
        datetime(w.updated_at / 1000, 'unixepoch') AS updated_at,
        coalesce(json_extract(o.error, '$."$error"'), json_extract(o.output, '$'), '') AS outcome
    FROM jobs.workflow_status w JOIN jobs.workflow_input i USING (workflow_uuid)
    LEFT JOIN jobs.workflow_output o USING (workflow_uuid) WHERE w.name = 'multiprompt.job'"""


def jobs_file(catalog: Path) -> Path:
    """Where the jobs of a catalog on SQLite lie; DBOS and the catalog deadlock in one file."""
    return catalog.with_name(f"{catalog.name}.jobs")


class Milliseconds(TypeDecorator[datetime]):
    """Times as DBOS stores them, in milliseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> int | None:
        return None if value is None else int(value.timestamp() * 1000)

    def process_result_value(self, value: int | None, _dialect: Any) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value / 1000, UTC)


_workflows = table(
    "workflow_status",
    column("workflow_uuid", String),
    column("name", String),
    column("status", String),
    column("created_at", Milliseconds),
    column("updated_at", Milliseconds),
)
_inputs = table("workflow_input", column("workflow_uuid", String), column("inputs", String))
_outputs = table("workflow_output", column("workflow_uuid", String), column("output", String), column("error", String))
KEY: ColumnElement[int] = literal_column("workflow_status.rowid", Integer)
_COLUMNS: dict[str, ColumnElement[Any]] = {
    "id": _workflows.c.workflow_uuid,
    "kind": func.json_extract(_inputs.c.inputs, "$.args[0]", type_=String),
    "task": func.json_extract(_inputs.c.inputs, "$.args[1]", type_=String),
    "state": case(dict(_STATES), value=_workflows.c.status, else_=_workflows.c.status),
    "created_at": _workflows.c.created_at,
    "updated_at": _workflows.c.updated_at,
    "outcome": func.coalesce(
        func.json_extract(_outputs.c.error, '$."$error"'), func.json_extract(_outputs.c.output, "$"), "", type_=String
    ),
}
JOBS = Fields("jobs", {name: Field(expression) for name, expression in _COLUMNS.items()}, {})


def jobs() -> Select[Any]:
    """Every job; workflows of other kinds are left out."""
    uuid = _workflows.c.workflow_uuid
    joined = _workflows.join(_inputs, _inputs.c.workflow_uuid == uuid).outerjoin(
        _outputs, _outputs.c.workflow_uuid == uuid
    )
    columns = (expression.label(name) for name, expression in _COLUMNS.items())
    return select(*columns).select_from(joined).where(_workflows.c.name == WORKFLOW)


def job(row: Row[Any]) -> Job:
    return Job(row.id, row.kind, row.task, row.state, row.created_at, row.updated_at, row.outcome)
