"""Full text, tags, guarded tasks, trash, results beside evaluations, and the views that are the SQL interface."""

import json
from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

from multiprompt.catalog.query.search import words
from multiprompt.catalog.triggers import Refusal, allow_truncation, refuse_truncation

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_RESULTS = (
    Refusal("results_frozen", "UPDATE", "evaluation_results", "1", "results cannot be changed"),
    Refusal(
        "results_kept",
        "DELETE",
        "evaluation_results",
        "EXISTS (SELECT 1 FROM prompt_versions v WHERE v.baseline_id = OLD.evaluation_id)",
        "the results of a baseline cannot be deleted",
    ),
    Refusal(
        "results_not_replaced",
        "INSERT",
        "evaluation_results",
        "EXISTS (SELECT 1 FROM evaluation_results WHERE evaluation_id = NEW.evaluation_id)",
        "results cannot be replaced",
    ),
)
_EVALUATIONS_FROZEN = Refusal("evaluations_frozen", "UPDATE", "evaluations", "1", "an evaluation cannot be changed")
# The full-text index of SQLite follows the table that holds the words.
_SEARCH = (
    "CREATE VIRTUAL TABLE task_search USING fts5(words, content='task_texts', content_rowid='task_id')",
    "CREATE TRIGGER task_texts_added AFTER INSERT ON task_texts"
    " BEGIN INSERT INTO task_search (rowid, words) VALUES (NEW.task_id, NEW.words); END",
    "CREATE TRIGGER task_texts_removed AFTER DELETE ON task_texts"
    " BEGIN INSERT INTO task_search (task_search, rowid, words) VALUES ('delete', OLD.task_id, OLD.words); END",
    "CREATE TRIGGER task_texts_changed AFTER UPDATE ON task_texts"
    " BEGIN INSERT INTO task_search (task_search, rowid, words) VALUES ('delete', OLD.task_id, OLD.words);"
    " INSERT INTO task_search (rowid, words) VALUES (NEW.task_id, NEW.words); END",
)
_NOTES = sa.text("SELECT reason FROM events WHERE task_id = :task AND kind = 'noted' ORDER BY id")
_INDEXES = (
    ("ix_events_task_id_at_kind", "events", ["task_id", "at", "kind"]),
    ("ix_events_at", "events", ["at"]),
    ("ix_check_results_verdict", "check_results", ["verdict"]),
    ("ix_prompt_versions_state", "prompt_versions", ["state"]),
    ("ix_prompt_versions_created_at", "prompt_versions", ["created_at"]),
    ("ix_prompt_versions_published_at", "prompt_versions", ["published_at"]),
    ("ix_evaluations_created_at", "evaluations", ["created_at"]),
    ("ix_evaluations_score", "evaluations", ["score"]),
)
_VIEWS = {
    "v_tasks": """
        SELECT t.name, f.description, f.tags, f.metric, t.guarded, v.number AS published, v.published_at, e.score,
            t.created_at
        FROM tasks t
        JOIN task_files f ON f.id = t.task_file_id
        LEFT JOIN prompt_versions v ON v.task_id = t.id AND v.state = 'published'
        LEFT JOIN evaluations e ON e.id = v.baseline_id""",
    "v_versions": """
        SELECT t.name || '@' || v.number AS version, t.name AS task, v.number, v.state, v.method,
            v.num_virtual_tokens, b.name AS base_model, b.weights AS base_weights, v.digest, e.metric, e.score,
            v.reason, v.created_at, v.published_at, v.retired_at
        FROM prompt_versions v
        JOIN tasks t ON t.id = v.task_id
        JOIN base_models b ON b.id = v.base_model_id
        LEFT JOIN evaluations e ON e.id = v.baseline_id""",
    "v_evaluations": """
        SELECT e.id, t.name AS task, t.name || '@' || v.number AS version, e.kind, e.metric, e.score, e.metrics,
            e.rows, e.truncated, e.seconds, d.fingerprint AS data, e.key, e.created_at
        FROM evaluations e
        JOIN tasks t ON t.id = e.task_id
        JOIN data_snapshots d ON d.id = e.snapshot_id
        LEFT JOIN prompt_versions v ON v.id = e.version_id""",
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
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN evaluations e ON e.id = v.baseline_id
        JOIN data_snapshots d ON d.id = e.snapshot_id""",
    "v_events": """
        SELECT e.id, e.at, e.actor, e.kind, t.name AS task, e.from_version, e.to_version, e.reason
        FROM events e LEFT JOIN tasks t ON t.id = e.task_id""",
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.add_column("tasks", sa.Column("guarded", sa.Integer(), server_default="0", nullable=False))
    op.add_column("runs", sa.Column("job", sa.Text(), nullable=True))
    op.drop_index(op.f("ix_events_task_id"), "events")
    for name, table, columns in _INDEXES:
        op.create_index(name, table, columns)
    op.create_table(
        "trash",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["artifacts.sha256"], name=op.f("fk_trash_sha256")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_trash")),
    )
    _split_results(dialect)
    _index_texts(dialect)
    _index_tags()
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for name in _VIEWS:
        op.execute(f"DROP VIEW {name}")
    if dialect == "sqlite":
        op.execute("DROP TABLE task_search")
    op.drop_table("task_texts")
    op.drop_table("task_tags")
    _join_results(dialect)
    op.drop_table("trash")
    for name, table, _ in _INDEXES:
        op.drop_index(name, table)
    op.create_index(op.f("ix_events_task_id"), "events", ["task_id"])
    op.drop_column("runs", "job")
    op.drop_column("tasks", "guarded")


def _split_results(dialect: str) -> None:
    op.create_table(
        "evaluation_results",
        sa.Column("evaluation_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("results", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name=op.f("fk_evaluation_results_evaluation_id")
        ),
        sa.PrimaryKeyConstraint("evaluation_id", name=op.f("pk_evaluation_results")),
    )
    op.execute("INSERT INTO evaluation_results SELECT id, results FROM evaluations")
    op.drop_column("evaluations", "results")
    for refusal in _RESULTS:
        _run(refusal.create(dialect))
    if dialect == "postgresql":
        _run(refuse_truncation("evaluation_results"))


def _join_results(dialect: str) -> None:
    if dialect == "postgresql":
        _run(allow_truncation("evaluation_results"))
    for refusal in (*_RESULTS, _EVALUATIONS_FROZEN):
        _run(refusal.drop(dialect))
    op.add_column("evaluations", sa.Column("results", sa.LargeBinary(), server_default="", nullable=False))
    op.execute(
        "UPDATE evaluations SET results = (SELECT r.results FROM evaluation_results r WHERE r.evaluation_id = id)"
    )
    _run(_EVALUATIONS_FROZEN.create(dialect))
    op.drop_table("evaluation_results")


def _index_texts(dialect: str) -> None:
    op.create_table(
        "task_texts",
        sa.Column("task_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_texts_task_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_texts")),
    )
    if dialect == "postgresql":
        op.execute("CREATE INDEX task_search ON task_texts USING gin (array_to_tsvector(string_to_array(words, ' ')))")
    else:
        _run(_SEARCH)
    texts = sa.table("task_texts", sa.column("task_id"), sa.column("words"))
    known = "SELECT t.id, t.name, f.description, f.tags FROM tasks t JOIN task_files f ON f.id = t.task_file_id"
    for row in op.get_bind().execute(sa.text(known)).all():
        notes = op.get_bind().scalars(_NOTES, {"task": row.id}).all()
        found = " ".join(words([row.name, row.description, *_tags(row.tags), *notes]))
        op.execute(texts.insert().values(task_id=row.id, words=found))


def _index_tags() -> None:
    op.create_table(
        "task_tags",
        sa.Column("task_file_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["task_file_id"], ["task_files.id"], name=op.f("fk_task_tags_task_file_id")),
        sa.PrimaryKeyConstraint("task_file_id", "tag", name=op.f("pk_task_tags")),
    )
    tags = sa.table("task_tags", sa.column("task_file_id"), sa.column("tag"))
    for row in op.get_bind().execute(sa.text("SELECT id, tags FROM task_files")).all():
        for tag in dict.fromkeys(_tags(row.tags)):
            op.execute(tags.insert().values(task_file_id=row.id, tag=tag))


def _tags(stored: object) -> list[str]:
    """PostgreSQL reads its JSON, SQLite gives the text."""
    return list(json.loads(stored)) if isinstance(stored, str) else list(stored)  # type: ignore[call-overload]


def _run(statements: Iterable[str]) -> None:
    for statement in statements:
        op.execute(statement)
