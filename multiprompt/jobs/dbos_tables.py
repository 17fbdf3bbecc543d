"""DBOS's table of workflows as a listing of jobs, so that jobs are asked for like everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Integer,
    Row,
    Select,
    String,
    TableClause,
    TypeDecorator,
    Update,
    bindparam,
    case,
    column,
    func,
    select,
    table,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal

from multiprompt.catalog.query.fields import Field, Fields
from multiprompt.catalog.sql import Attached
from multiprompt.jobs.kinds import STEPS
from multiprompt.records import Claim, Job, JobState

APPLICATION, QUEUE, WORKFLOW = "multiprompt", "jobs", "multiprompt.job"
# Fixed, so that an upgrade of multiprompt does not strand the jobs that wait.
VERSION = "1"
# The condition of DBOS's index of what has not ended, word for word, without which SQLite goes through all jobs.
_IN_FLIGHT = ("ENQUEUED", "PENDING")
# The view of the jobs in SQL; on SQLite their file is attached to the catalog under the second name.
VIEW, _ATTACHED = "v_jobs", "jobs"
_STATES: Mapping[str, JobState] = {
    "ENQUEUED": "queued", "DELAYED": "queued", "PENDING": "running", "SUCCESS": "done", "ERROR": "failed",
    "CANCELLED": "cancelled", "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "parked",
}  # fmt: skip


def jobs_file(catalog: Path) -> Path:
    """The file of the jobs of a catalog on SQLite; DBOS and the catalog deadlock in one file."""
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


class _Plain(ColumnElement[str]):
    """A piece of the JSON in a column, as text, NULL where it holds none; `path` are keys and positions."""

    inherit_cache = True
    type = String()
    _traverse_internals = [  # noqa: RUF012  (SQLAlchemy's own form)
        ("column", InternalTraversal.dp_clauseelement),
        ("path", InternalTraversal.dp_plain_obj),
    ]

    def __init__(self, column: ColumnElement[Any], *path: str) -> None:
        self.column = column
        self.path = path


@compiles(_Plain)
def _on_sqlite(element: _Plain, compiler: SQLCompiler, **options: Any) -> str:
    path = "".join(f"[{key}]" if key.isdigit() else f'."{key}"' for key in element.path)
    column = compiler.process(element.column, **options)
    return f"CASE WHEN json_valid({column}) THEN json_extract({column}, '${path}') END"


@compiles(_Plain, "postgresql")
def _on_postgresql(element: _Plain, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.column, **options)
    knows = (getattr(compiler.dialect, "server_version_info", None) or (0,)) >= (16,)
    valid = "IS JSON" if knows else "~ '^[[{\"]'"
    return f"CASE WHEN {column} {valid} THEN CAST({column} AS jsonb) #>> '{{{','.join(element.path)}}}' END"


class _Time(ColumnElement[datetime]):
    """DBOS's milliseconds as a time in UTC, as other views show times."""

    inherit_cache = True
    type = DateTime()
    _traverse_internals = [("column", InternalTraversal.dp_clauseelement)]  # noqa: RUF012  (as above)

    def __init__(self, column: ColumnElement[Any]) -> None:
        self.column = column


@compiles(_Time)
def _time_on_sqlite(element: _Time, compiler: SQLCompiler, **options: Any) -> str:
    return f"datetime({compiler.process(element.column, **options)} / 1000, 'unixepoch')"


@compiles(_Time, "postgresql")
def _time_on_postgresql(element: _Time, compiler: SQLCompiler, **options: Any) -> str:
    return f"(to_timestamp({compiler.process(element.column, **options)} / 1000.0) AT TIME ZONE 'UTC')"


def _literally(values: Sequence[str]) -> BindParameter[Any]:
    """Values as a part of the statement's text."""
    return bindparam(None, list(values), expanding=True, literal_execute=True)


def _tables(schema: str | None) -> tuple[TableClause, TableClause, TableClause]:
    workflows = table(
        "workflow_status",
        column("workflow_uuid", String),
        column("name", String),
        column("status", String),
        column("queue_name", String),
        column("priority", Integer),
        column("executor_id", String),
        column("owner_xid", String),
        column("started_at_epoch_ms", BigInteger),
        column("recovery_attempts", BigInteger),
        column("created_at", Milliseconds),
        column("updated_at", Milliseconds),
        schema=schema,
    )
    inputs = table("workflow_input", column("workflow_uuid", String), column("inputs", String), schema=schema)
    outputs = table(
        "workflow_output",
        column("workflow_uuid", String),
        column("output", String),
        column("error", String),
        schema=schema,
    )
    return workflows, inputs, outputs


class JobTable:
    """DBOS's tables in a file of their own, or in the schema of PostgreSQL that DBOS makes."""

    def __init__(self, schema: str | None) -> None:
        self._workflows, self._inputs, self._outputs = workflows, inputs, outputs = _tables(schema)
        c = workflows.c
        # Ids begin with the time of their submission.
        self.key: ColumnElement[Any] = c.workflow_uuid
        self._columns: dict[str, ColumnElement[Any]] = {
            "id": c.workflow_uuid,
            "kind": func.coalesce(_Plain(inputs.c.inputs, "args", "0"), "", type_=String),
            "task": func.coalesce(_Plain(inputs.c.inputs, "args", "1"), "", type_=String),
            "state": case(dict(_STATES), value=c.status, else_=c.status),
            "priority": c.priority,
            "created_at": c.created_at,
            "updated_at": c.updated_at,
            "outcome": func.coalesce(_Plain(outputs.c.error, "$error"), _Plain(outputs.c.output), "", type_=String),
        }
        known = {"kind": tuple(STEPS), "state": tuple(dict.fromkeys(_STATES.values()))}
        fields = {name: Field(column, values=known.get(name, ())) for name, column in self._columns.items()}
        self.fields = Fields("jobs", fields, {})

    def jobs(self) -> Select[Any]:
        """Every job; workflows of other kinds are left out."""
        return self._select(self._columns)

    def view(self, dialect: Dialect) -> str:
        """The SELECT of the view `v_jobs`."""
        c = self._workflows.c
        shown = {**self._columns, "created_at": _Time(c.created_at), "updated_at": _Time(c.updated_at)}
        return str(self._select(shown).compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    def _select(self, columns: Mapping[str, ColumnElement[Any]]) -> Select[Any]:
        uuid = self._workflows.c.workflow_uuid
        joined = self._workflows.join(self._inputs, self._inputs.c.workflow_uuid == uuid).outerjoin(
            self._outputs, self._outputs.c.workflow_uuid == uuid
        )
        labelled = (expression.label(name) for name, expression in columns.items())
        return select(*labelled).select_from(joined).where(self._workflows.c.name == WORKFLOW)

    def live(self, *states: JobState) -> Select[Any]:
        """(job, worker) of the jobs that wait or run, as `states` say; however many have ended, an index finds them."""
        c = self._workflows.c
        among = [status for status, state in _STATES.items() if state in states and status in _IN_FLIGHT]
        return select(c.workflow_uuid, c.executor_id).where(
            c.queue_name == QUEUE, c.status.in_(_literally(_IN_FLIGHT)), c.status.in_(_literally(among))
        )

    def has(self, connection: Connection, claim: Claim) -> bool:
        """Whether a job is still its claim's: neither cancelled nor taken over."""
        c = self._workflows.c
        owner = connection.execute(select(c.owner_xid).where(c.workflow_uuid == claim.job)).scalar()
        return bool(owner == claim.owner)

    def hand_back(self, worker: str, *jobs: str) -> Update:
        """Let what a worker runs, or of that these jobs, wait again as if it had not begun."""
        c = self._workflows.c
        return (
            update(self._workflows)
            .where(c.name == WORKFLOW, c.status == "PENDING", c.executor_id == worker)
            .where(*([c.workflow_uuid.in_(jobs)] if jobs else []))
            .values(
                status="ENQUEUED", owner_xid=None, started_at_epoch_ms=None, recovery_attempts=c.recovery_attempts - 1
            )
        )

    def hurry(self, job: str, priority: int) -> Update:
        """Let a job that waits have this priority."""
        c = self._workflows.c
        return update(self._workflows).where(c.workflow_uuid == job, c.status == "ENQUEUED").values(priority=priority)

    def forgive(self, job: str) -> Update:
        """Let the last attempt that broke off not count."""
        c = self._workflows.c
        counted = c.recovery_attempts - 1
        return (
            update(self._workflows)
            .where(c.workflow_uuid == job, c.status == "PENDING")
            .values(recovery_attempts=counted)
        )

    def got_on(self, job: str) -> Update:
        """Forget the attempts that broke off before a job got on: only those in a row count."""
        c = self._workflows.c
        return update(self._workflows).where(c.workflow_uuid == job, c.status == "PENDING").values(recovery_attempts=1)


def job(row: Row[Any]) -> Job:
    """A row of `JobTable.jobs`, whose first columns are these fields; ten thousand are read at once."""
    return Job(*tuple(row)[:8])


def attached(catalog: Path) -> Attached:
    """The jobs of a catalog on SQLite, to be read beside it."""
    return Attached(jobs_file(catalog), _ATTACHED, VIEW, JobTable(_ATTACHED).view(sqlite.dialect()))
