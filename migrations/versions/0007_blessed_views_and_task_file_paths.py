"""Views that show the baseline that a version was blessed with last, and where each task's file lies."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PUBLISHED_WITH = "v.baseline_id"
_HELD_AGAINST = """coalesce(
            (SELECT b.evaluation_id FROM baselines b WHERE b.version_id = v.id ORDER BY b.id DESC LIMIT 1),
            v.baseline_id)"""
_VIEWS = {
    "v_tasks": """
        SELECT t.name, f.description, f.tags, f.metric, t.guarded, v.number AS published, v.published_at, e.score,
            t.created_at
        FROM tasks t
        JOIN task_files f ON f.id = t.task_file_id
        LEFT JOIN prompt_versions v ON v.task_id = t.id AND v.state = 'published'
        LEFT JOIN evaluations e ON e.id = {0}""",
    "v_versions": """
        SELECT t.name || '@' || v.number AS version, t.name AS task, v.number, v.state, v.method,
            v.num_virtual_tokens, b.name AS base_model, b.weights AS base_weights, v.digest, e.metric, e.score,
            v.reason, v.created_at, v.published_at, v.retired_at
        FROM prompt_versions v
        JOIN tasks t ON t.id = v.task_id
        JOIN base_models b ON b.id = v.base_model_id
        LEFT JOIN evaluations e ON e.id = {0}""",
    "v_lineage": """
        SELECT t.name || '@' || v.number AS child, l.relation, l.parent_label AS parent
        FROM lineage l JOIN prompt_versions v ON v.id = l.child_id JOIN tasks t ON t.id = v.task_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'runs-on', b.weights
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN base_models b ON b.id = v.base_model_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'trained-on', d.fingerprint
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN runs r ON r.id = v.run_id
        JOIN data_snapshots d ON d.id = r.training_snapshot_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'validated-on', d.fingerprint
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN runs r ON r.id = v.run_id
        JOIN data_snapshots d ON d.id = r.validation_snapshot_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'evaluated-on', d.fingerprint
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN evaluations e ON e.id = {0}
        JOIN data_snapshots d ON d.id = e.snapshot_id""",
}


def upgrade() -> None:
    op.add_column("tasks", sa.Column("file", sa.Text(), nullable=True))
    _make_views(_HELD_AGAINST)


def downgrade() -> None:
    _make_views(_PUBLISHED_WITH)
    op.drop_column("tasks", "file")


def _make_views(baseline: str) -> None:
    """Make the views anew; {0} in them is the evaluation that a version is held against."""
    for name, query in _VIEWS.items():
        op.execute(f"DROP VIEW {name}")
        op.execute(f"CREATE VIEW {name} AS {query.format(baseline)}")
