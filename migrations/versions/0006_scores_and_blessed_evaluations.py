"""Scores that an index finds, and blessed evaluations as safe as those that versions were published with."""

import json
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import load_python_file

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_refusals_file = load_python_file(Path(__file__).parents[1], "refusals.py")
Refusal = _refusals_file.Refusal
allow_truncation = _refusals_file.allow_truncation
refuse_truncation = _refusals_file.refuse_truncation

_PUBLISHED_WITH = "EXISTS (SELECT 1 FROM prompt_versions v WHERE v.baseline_id = OLD.{0})"
_HELD_AGAINST = _PUBLISHED_WITH + " OR EXISTS (SELECT 1 FROM baselines b WHERE b.evaluation_id = OLD.{0})"
_SCORES = (
    Refusal("scores_frozen", "UPDATE", "evaluation_scores", "1", "scores cannot be changed"),
    Refusal(
        "scores_kept",
        "DELETE",
        "evaluation_scores",
        _HELD_AGAINST.format("evaluation_id"),
        "the scores of a baseline cannot be deleted",
    ),
    Refusal(
        "scores_not_replaced",
        "INSERT",
        "evaluation_scores",
        "EXISTS (SELECT 1 FROM evaluation_scores WHERE evaluation_id = NEW.evaluation_id AND metric = NEW.metric)",
        "scores cannot be replaced",
    ),
)
_BATCH = 10_000


def upgrade() -> None:
    _keep(_HELD_AGAINST)
    op.create_table(
        "evaluation_scores",
        sa.Column("evaluation_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("metric", sa.String(length=200), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name=op.f("fk_evaluation_scores_evaluation_id")),
        sa.PrimaryKeyConstraint("evaluation_id", "metric", name=op.f("pk_evaluation_scores")),
    )
    _copy_scores()
    op.create_index("ix_evaluation_scores_metric_score", "evaluation_scores", ["metric", "score"])
    dialect = op.get_bind().dialect.name
    for refusal in _SCORES:
        _run(refusal.create(dialect))
    if dialect == "postgresql":
        _run(refuse_truncation("evaluation_scores"))


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        _run(allow_truncation("evaluation_scores"))
    for refusal in _SCORES:
        _run(refusal.drop(dialect))
    op.drop_table("evaluation_scores")
    _keep(_PUBLISHED_WITH)


def _keep(condition: str) -> None:
    """Refuse to delete evaluations and their results where a condition holds; its {0} is the evaluation's id."""
    dialect = op.get_bind().dialect.name
    for refusal in (
        Refusal("evaluations_kept", "DELETE", "evaluations", condition.format("id"), "a baseline cannot be deleted"),
        Refusal(
            "results_kept",
            "DELETE",
            "evaluation_results",
            condition.format("evaluation_id"),
            "the results of a baseline cannot be deleted",
        ),
    ):
        _run((*refusal.drop(dialect), *refusal.create(dialect)))


def _copy_scores() -> None:
    """By way of Python, because SQLite reads some numbers in JSON a last digit off."""
    scores = sa.table("evaluation_scores", sa.column("evaluation_id"), sa.column("metric"), sa.column("score"))
    some = sa.text("SELECT id, metrics FROM evaluations WHERE id > :last ORDER BY id LIMIT :batch")
    last = 0
    while found := op.get_bind().execute(some, {"last": last, "batch": _BATCH}).all():
        op.get_bind().execute(
            scores.insert(),
            [
                {"evaluation_id": row.id, "metric": metric, "score": score}
                for row in found
                for metric, score in _metrics(row.metrics).items()
            ],
        )
        last = found[-1].id


def _metrics(stored: object) -> dict[str, float]:
    """PostgreSQL reads its JSON, SQLite gives the text."""
    return dict(json.loads(stored)) if isinstance(stored, str) else dict(stored)  # type: ignore[call-overload]


def _run(statements: Iterable[str]) -> None:
    for statement in statements:
        op.execute(statement)
