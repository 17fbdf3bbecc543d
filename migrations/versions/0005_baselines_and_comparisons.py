"""Blessed baselines, comparisons to use again, canaries, and what a check cost."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import load_python_file

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_refusals_file = load_python_file(Path(__file__).parents[1], "refusals.py")
Refusal = _refusals_file.Refusal
allow_truncation = _refusals_file.allow_truncation
refuse_truncation = _refusals_file.refuse_truncation

_BASELINES = (
    Refusal("baselines_frozen", "UPDATE", "baselines", "1", "a baseline cannot be changed"),
    Refusal("baselines_kept", "DELETE", "baselines", "1", "a baseline cannot be deleted"),
    Refusal(
        "baselines_not_replaced",
        "INSERT",
        "baselines",
        "EXISTS (SELECT 1 FROM baselines WHERE id = NEW.id)",
        "a baseline cannot be replaced",
    ),
)
_COUNTS = ("evaluated", "canaries", "reused")


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.add_column("settings", sa.Column("policy", sa.String(length=20), server_default="block", nullable=False))
    op.add_column("evaluation_results", sa.Column("canaries", sa.LargeBinary(), nullable=True))
    for name in _COUNTS:
        op.add_column("checks", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.add_column("check_results", sa.Column("evidence", sa.JSON(), nullable=True))
    op.create_table(
        "baselines",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("task_file_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["prompt_versions.id"], name=op.f("fk_baselines_version_id")),
        sa.ForeignKeyConstraint(["task_file_id"], ["task_files.id"], name=op.f("fk_baselines_task_file_id")),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name=op.f("fk_baselines_evaluation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_baselines")),
    )
    op.create_index(op.f("ix_baselines_version_id"), "baselines", ["version_id"])
    op.create_index(op.f("ix_baselines_evaluation_id"), "baselines", ["evaluation_id"])
    op.create_index(op.f("ix_baselines_task_file_id"), "baselines", ["task_file_id"])
    op.create_table(
        "comparisons",
        sa.Column("baseline_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["baseline_id"], ["evaluations.id"], name=op.f("fk_comparisons_baseline_id")),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name=op.f("fk_comparisons_evaluation_id")),
        sa.PrimaryKeyConstraint("baseline_id", "key", name=op.f("pk_comparisons")),
    )
    op.create_index(op.f("ix_comparisons_evaluation_id"), "comparisons", ["evaluation_id"])
    op.create_table(
        "data_sources",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("fingerprint", sa.String(length=80), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_data_sources")),
    )
    for refusal in _BASELINES:
        for statement in refusal.create(dialect):
            op.execute(statement)
    if dialect == "postgresql":
        for statement in refuse_truncation("baselines"):
            op.execute(statement)


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for refusal in _BASELINES:
        for statement in refusal.drop(dialect):
            op.execute(statement)
    if dialect == "postgresql":
        for statement in allow_truncation("baselines"):
            op.execute(statement)
    for table in ("data_sources", "comparisons", "baselines"):
        op.drop_table(table)
    op.drop_column("check_results", "evidence")
    for name in _COUNTS:
        op.drop_column("checks", name)
    op.drop_column("evaluation_results", "canaries")
    op.drop_column("settings", "policy")
