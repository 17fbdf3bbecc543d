"""Encoders of prompts, checkpoints of trainings, and how the base model is run."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import load_python_file

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_refusals_file = load_python_file(Path(__file__).parents[1], "refusals.py")
Refusal = _refusals_file.Refusal

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


def upgrade() -> None:
    # Rebuilding the table, as a batch would, drops its triggers.
    op.execute(
        "ALTER TABLE prompt_versions ADD COLUMN encoder_sha256 VARCHAR(64)"
        " CONSTRAINT fk_prompt_versions_encoder_sha256 REFERENCES artifacts (sha256)"
    )
    op.create_index(op.f("ix_prompt_versions_encoder_sha256"), "prompt_versions", ["encoder_sha256"])
    op.add_column("settings", sa.Column("forward", sa.Text(), nullable=True))
    op.create_table(
        "checkpoints",
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_checkpoints_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_checkpoints")),
    )
    _replace_triggers((*_FROZEN, "encoder_sha256"), ("v.config_sha256", "v.weights_sha256", "v.encoder_sha256"))


def downgrade() -> None:
    _replace_triggers(_FROZEN, ("v.config_sha256", "v.weights_sha256"))
    op.drop_table("checkpoints")
    op.execute("ALTER TABLE settings DROP COLUMN forward")
    op.drop_index(op.f("ix_prompt_versions_encoder_sha256"), "prompt_versions")
    op.execute("ALTER TABLE prompt_versions DROP COLUMN encoder_sha256")


def _replace_triggers(frozen: tuple[str, ...], used: tuple[str, ...]) -> None:
    dialect = op.get_bind().dialect.name
    changed = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in frozen)
    in_use = (
        "EXISTS (SELECT 1 FROM prompt_versions v WHERE v.state IN ('published', 'retired')"
        f" AND OLD.sha256 IN ({', '.join(used)}))"
        " OR EXISTS (SELECT 1 FROM data_snapshots s WHERE s.sha256 = OLD.sha256)"
    )
    for refusal in (
        Refusal("versions_frozen", "UPDATE", "prompt_versions", changed, "a prompt version cannot be changed"),
        Refusal(
            "artifacts_kept", "DELETE", "artifacts", in_use, "an artifact of a published version cannot be deleted"
        ),
    ):
        for statement in (*refusal.drop(dialect), *refusal.create(dialect)):
            op.execute(statement)
