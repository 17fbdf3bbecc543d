"""The first schema."""

from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import load_python_file

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_refusals_file = load_python_file(Path(__file__).parents[1], "refusals.py")
Refusal = _refusals_file.Refusal
allow_truncation = _refusals_file.allow_truncation
refuse_truncation = _refusals_file.refuse_truncation


# A published version is never touched: only its state moves, along candidate → published ⇄ retired or candidate → rejected.
_FROZEN = (
    "id",
    "task_id",
    "number",
    "method",
    "num_virtual_tokens",
    "base_model_id",
    "task_file_id",
    "run_id",
    "config_sha256",
    "weights_sha256",
    "digest",
    "created_at",
)
_MOVES = (
    "(OLD.state = 'candidate' AND NEW.state IN ('candidate', 'published', 'rejected'))"
    " OR (OLD.state = 'published' AND NEW.state IN ('published', 'retired'))"
    " OR (OLD.state = 'retired' AND NEW.state IN ('retired', 'published'))"
    " OR (OLD.state = 'rejected' AND NEW.state = 'rejected')"
)
_USED = (
    "EXISTS (SELECT 1 FROM prompt_versions v WHERE v.state IN ('published', 'retired')"
    " AND OLD.sha256 IN (v.config_sha256, v.weights_sha256))"
    " OR EXISTS (SELECT 1 FROM data_snapshots s WHERE s.sha256 = OLD.sha256)"
)


_CYCLIC = (("tasks", "task_file_id", "task_files"), ("prompt_versions", "baseline_id", "evaluations"))
_PROTECTED = (
    "prompt_versions",
    "artifacts",
    "lineage",
    "evaluations",
    "events",
    "base_models",
    "task_files",
    "data_snapshots",
    "tasks",
)


def _changed(*columns: str) -> str:
    return " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in columns)


def _same_key(table: str, key: str) -> str:
    # INSERT OR REPLACE deletes the old row without firing its DELETE trigger.
    return f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"


_SAME_ROWID = _same_key("artifacts", "rowid")

# name: (event, when, message)
_TRIGGERS = {
    "versions_frozen": ("UPDATE ON prompt_versions", _changed(*_FROZEN), "a prompt version cannot be changed"),
    "versions_baseline_kept": (
        "UPDATE ON prompt_versions",
        "OLD.state IN ('published', 'retired') AND (" + _changed("baseline_id", "reason") + ")",
        "the baseline of a published version cannot be changed",
    ),
    "versions_moves": ("UPDATE ON prompt_versions", f"NOT ({_MOVES})", "this change of state is not allowed"),
    "versions_one_published": (
        "UPDATE ON prompt_versions",
        "NEW.state = 'published' AND EXISTS (SELECT 1 FROM prompt_versions v WHERE v.task_id = NEW.task_id"
        " AND v.state = 'published' AND v.id <> OLD.id)",
        "the task has a published version already",
    ),
    "versions_times_kept": (
        "UPDATE ON prompt_versions",
        "OLD.state = NEW.state AND OLD.state <> 'candidate' AND (" + _changed("published_at", "retired_at") + ")",
        "the times of a prompt version move with its state only",
    ),
    "versions_kept": (
        "DELETE ON prompt_versions",
        "OLD.state IN ('published', 'retired')",
        "a published prompt version cannot be deleted",
    ),
    "versions_not_replaced": (
        "INSERT ON prompt_versions",
        _same_key("prompt_versions", "id")
        + " OR EXISTS (SELECT 1 FROM prompt_versions WHERE task_id = NEW.task_id AND number = NEW.number)"
        + " OR NEW.state <> 'candidate'",
        "a prompt version starts as a candidate with a number of its own",
    ),
    "artifacts_frozen": ("UPDATE ON artifacts", "1", "an artifact cannot be changed"),
    "artifacts_kept": ("DELETE ON artifacts", _USED, "an artifact of a published version cannot be deleted"),
    "artifacts_not_replaced": (
        "INSERT ON artifacts",
        _same_key("artifacts", "sha256") + f" OR {_SAME_ROWID}",
        "an artifact cannot be replaced",
    ),
    "lineage_frozen": ("UPDATE ON lineage", "1", "lineage cannot be changed"),
    "lineage_kept": ("DELETE ON lineage", "1", "lineage cannot be deleted"),
    "lineage_not_replaced": ("INSERT ON lineage", _same_key("lineage", "id"), "lineage cannot be replaced"),
    "evaluations_frozen": ("UPDATE ON evaluations", "1", "an evaluation cannot be changed"),
    "evaluations_kept": (
        "DELETE ON evaluations",
        "EXISTS (SELECT 1 FROM prompt_versions v WHERE v.baseline_id = OLD.id)",
        "a baseline cannot be deleted",
    ),
    "evaluations_not_replaced": (
        "INSERT ON evaluations",
        _same_key("evaluations", "id"),
        "an evaluation cannot be replaced",
    ),
    "events_frozen": ("UPDATE ON events", "1", "events cannot be changed"),
    "events_kept": ("DELETE ON events", "1", "events cannot be deleted"),
    "events_not_replaced": ("INSERT ON events", _same_key("events", "id"), "events cannot be replaced"),
}

# What a version refers to is as fixed as the version; a task moves to a new task file, and a snapshot gets its rows later.
for _table, _changes in {
    "base_models": "1",
    "task_files": "1",
    "data_snapshots": "OLD.sha256 IS NOT NULL OR " + _changed("id", "fingerprint", "split", "rows", "created_at"),
    "tasks": _changed("id", "name", "created_at"),
}.items():
    _TRIGGERS |= {
        f"{_table}_frozen": (f"UPDATE ON {_table}", _changes, f"a row of {_table} cannot be changed"),
        f"{_table}_kept": (f"DELETE ON {_table}", "1", f"a row of {_table} cannot be deleted"),
        f"{_table}_not_replaced": (
            f"INSERT ON {_table}",
            _same_key(_table, "id"),
            f"a row of {_table} cannot be replaced",
        ),
    }


def _refusals(dialect: str) -> list[Refusal]:
    found = [Refusal(name, *event.split(" ON "), when, message) for name, (event, when, message) in _TRIGGERS.items()]
    if dialect == "postgresql":
        found = [replace(refusal, when=refusal.when.replace(f" OR {_SAME_ROWID}", "")) for refusal in found]
    return found


def _create_triggers(dialect: str) -> None:
    for refusal in _refusals(dialect):
        for statement in refusal.create(dialect):
            op.execute(statement)
    if dialect == "postgresql":
        for table in _PROTECTED:
            for statement in refuse_truncation(table):
                op.execute(statement)


def _drop_triggers(dialect: str) -> None:
    for refusal in _refusals(dialect):
        for statement in refusal.drop(dialect):
            op.execute(statement)
    if dialect == "postgresql":
        for table in _PROTECTED:
            for statement in allow_truncation(table):
                op.execute(statement)


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "base_models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("architecture", sa.Text(), nullable=False),
        sa.Column("dtype", sa.String(length=20), nullable=False),
        sa.Column("weights", sa.String(length=80), nullable=False),
        sa.Column("tokenizer", sa.String(length=80), nullable=False),
        sa.Column("config", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_base_models")),
        sa.UniqueConstraint(
            "weights", "tokenizer", "config", "dtype", name=op.f("uq_base_models_weights_tokenizer_config_dtype")
        ),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("task_file_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_file_id"], ["task_files.id"], name=op.f("fk_tasks_task_file_id"), use_alter=True
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("name", name=op.f("uq_tasks_name")),
    )
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tasks_task_file_id"), ["task_file_id"], unique=False)

    op.create_table(
        "data_snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=80), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["artifacts.sha256"], name=op.f("fk_data_snapshots_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_snapshots")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_data_snapshots_fingerprint")),
    )
    with op.batch_alter_table("data_snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_data_snapshots_sha256"), ["sha256"], unique=False)

    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("from_version", sa.Integer(), nullable=True),
        sa.Column("to_version", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_events_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_task_id"), ["task_id"], unique=False)

    op.create_table(
        "settings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("base_model_id", sa.Integer(), nullable=True),
        sa.Column("base_model_source", sa.Text(), nullable=True),
        sa.Column("dtype", sa.String(length=20), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["base_model_id"], ["base_models.id"], name=op.f("fk_settings_base_model_id")),
        sa.CheckConstraint("id = 1", name=op.f("ck_settings_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_settings")),
    )
    op.create_table(
        "task_files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(length=80), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("metric", sa.String(length=200), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_files_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_files")),
    )
    with op.batch_alter_table("task_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_task_files_task_id"), ["task_id"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("training_snapshot_id", sa.Integer(), nullable=False),
        sa.Column("validation_snapshot_id", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("losses", sa.JSON(), nullable=False),
        sa.Column("validations", sa.JSON(), nullable=False),
        sa.Column("best_step", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_runs_task_id")),
        sa.ForeignKeyConstraint(
            ["training_snapshot_id"], ["data_snapshots.id"], name=op.f("fk_runs_training_snapshot_id")
        ),
        sa.ForeignKeyConstraint(
            ["validation_snapshot_id"], ["data_snapshots.id"], name=op.f("fk_runs_validation_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_task_id"), ["task_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_training_snapshot_id"), ["training_snapshot_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_validation_snapshot_id"), ["validation_snapshot_id"], unique=False)

    op.create_table(
        "prompt_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("num_virtual_tokens", sa.Integer(), nullable=False),
        sa.Column("base_model_id", sa.Integer(), nullable=False),
        sa.Column("task_file_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("config_sha256", sa.String(length=64), nullable=False),
        sa.Column("weights_sha256", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("baseline_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("published_at", sa.DateTime(), nullable=True),
        sa.Column("retired_at", sa.DateTime(), nullable=True),
        sa.CheckConstraint(
            "state in ('candidate', 'published', 'retired', 'rejected')", name=op.f("ck_prompt_versions_state")
        ),
        sa.CheckConstraint(
            "state in ('candidate', 'rejected') or baseline_id is not null", name=op.f("ck_prompt_versions_baseline")
        ),
        sa.ForeignKeyConstraint(["base_model_id"], ["base_models.id"], name=op.f("fk_prompt_versions_base_model_id")),
        sa.ForeignKeyConstraint(
            ["baseline_id"], ["evaluations.id"], name=op.f("fk_prompt_versions_baseline_id"), use_alter=True
        ),
        sa.ForeignKeyConstraint(["config_sha256"], ["artifacts.sha256"], name=op.f("fk_prompt_versions_config_sha256")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_prompt_versions_run_id")),
        sa.ForeignKeyConstraint(["task_file_id"], ["task_files.id"], name=op.f("fk_prompt_versions_task_file_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_prompt_versions_task_id")),
        sa.ForeignKeyConstraint(
            ["weights_sha256"], ["artifacts.sha256"], name=op.f("fk_prompt_versions_weights_sha256")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_versions")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_prompt_versions_task_id_number")),
    )
    with op.batch_alter_table("prompt_versions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_prompt_versions_base_model_id"), ["base_model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_prompt_versions_baseline_id"), ["baseline_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_prompt_versions_config_sha256"), ["config_sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_prompt_versions_run_id"), ["run_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_prompt_versions_task_file_id"), ["task_file_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_prompt_versions_task_id"), ["task_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_prompt_versions_weights_sha256"), ["weights_sha256"], unique=False)
        batch_op.create_index(
            "uq_prompt_versions_published",
            ["task_id"],
            unique=True,
            sqlite_where=sa.text("state = 'published'"),
            postgresql_where=sa.text("state = 'published'"),
        )

    op.create_table(
        "checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("passed", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["prompt_versions.id"], name=op.f("fk_checks_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checks")),
    )
    with op.batch_alter_table("checks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_checks_version_id"), ["version_id"], unique=False)

    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=True),
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("metric", sa.String(length=200), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("higher_is_better", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("key_parts", sa.JSON(), nullable=False),
        sa.Column("results", sa.LargeBinary(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.CheckConstraint("kind in ('soft', 'hard')", name=op.f("ck_evaluations_kind")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["data_snapshots.id"], name=op.f("fk_evaluations_snapshot_id")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_evaluations_task_id")),
        sa.ForeignKeyConstraint(["version_id"], ["prompt_versions.id"], name=op.f("fk_evaluations_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_evaluations_key"), ["key"], unique=False)
        batch_op.create_index(batch_op.f("ix_evaluations_snapshot_id"), ["snapshot_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_evaluations_task_id"), ["task_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_evaluations_version_id"), ["version_id"], unique=False)

    op.create_table(
        "lineage",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("child_id", sa.Integer(), nullable=False),
        sa.Column("relation", sa.String(length=30), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("parent_label", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "relation in ('retrained-from', 'initialised-from', 'transferred-from', 'composed-of', 'imported-from')",
            name=op.f("ck_lineage_relation"),
        ),
        sa.ForeignKeyConstraint(["child_id"], ["prompt_versions.id"], name=op.f("fk_lineage_child_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["prompt_versions.id"], name=op.f("fk_lineage_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lineage")),
    )
    with op.batch_alter_table("lineage", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_lineage_child_id"), ["child_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_lineage_parent_id"), ["parent_id"], unique=False)

    op.create_table(
        "check_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("check_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=True),
        sa.Column("baseline", sa.Float(), nullable=False),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("max_drop", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["check_id"], ["checks.id"], name=op.f("fk_check_results_check_id")),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name=op.f("fk_check_results_evaluation_id")),
        sa.ForeignKeyConstraint(["version_id"], ["prompt_versions.id"], name=op.f("fk_check_results_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_check_results")),
    )
    with op.batch_alter_table("check_results", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_check_results_check_id"), ["check_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_check_results_evaluation_id"), ["evaluation_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_check_results_version_id"), ["version_id"], unique=False)
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        # SQLite, which cannot add a constraint to a table, has them from the start.
        for table, column, target in _CYCLIC:
            op.create_foreign_key(f"fk_{table}_{column}", table, target, [column], ["id"])
    _create_triggers(dialect)


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    _drop_triggers(dialect)
    if dialect == "postgresql":
        for table, column, _ in _CYCLIC:
            op.drop_constraint(f"fk_{table}_{column}", table, type_="foreignkey")
    with op.batch_alter_table("check_results", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_check_results_version_id"))
        batch_op.drop_index(batch_op.f("ix_check_results_evaluation_id"))
        batch_op.drop_index(batch_op.f("ix_check_results_check_id"))

    op.drop_table("check_results")
    with op.batch_alter_table("lineage", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_lineage_parent_id"))
        batch_op.drop_index(batch_op.f("ix_lineage_child_id"))

    op.drop_table("lineage")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_evaluations_version_id"))
        batch_op.drop_index(batch_op.f("ix_evaluations_task_id"))
        batch_op.drop_index(batch_op.f("ix_evaluations_snapshot_id"))
        batch_op.drop_index(batch_op.f("ix_evaluations_key"))

    op.drop_table("evaluations")
    with op.batch_alter_table("checks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_checks_version_id"))

    op.drop_table("checks")
    with op.batch_alter_table("prompt_versions", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_prompt_versions_published",
            sqlite_where=sa.text("state = 'published'"),
            postgresql_where=sa.text("state = 'published'"),
        )
        batch_op.drop_index(batch_op.f("ix_prompt_versions_weights_sha256"))
        batch_op.drop_index(batch_op.f("ix_prompt_versions_task_id"))
        batch_op.drop_index(batch_op.f("ix_prompt_versions_task_file_id"))
        batch_op.drop_index(batch_op.f("ix_prompt_versions_run_id"))
        batch_op.drop_index(batch_op.f("ix_prompt_versions_config_sha256"))
        batch_op.drop_index(batch_op.f("ix_prompt_versions_baseline_id"))
        batch_op.drop_index(batch_op.f("ix_prompt_versions_base_model_id"))

    op.drop_table("prompt_versions")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_runs_validation_snapshot_id"))
        batch_op.drop_index(batch_op.f("ix_runs_training_snapshot_id"))
        batch_op.drop_index(batch_op.f("ix_runs_task_id"))

    op.drop_table("runs")
    with op.batch_alter_table("task_files", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_task_files_task_id"))

    op.drop_table("task_files")
    op.drop_table("settings")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_task_id"))

    op.drop_table("events")
    with op.batch_alter_table("data_snapshots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_data_snapshots_sha256"))

    op.drop_table("data_snapshots")
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tasks_task_file_id"))

    op.drop_table("tasks")
    op.drop_table("base_models")
    op.drop_table("artifacts")
