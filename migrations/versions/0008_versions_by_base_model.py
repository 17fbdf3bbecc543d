"""One published version a task and base model; versions of any kind; evaluations of any kind."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from alembic.util import load_python_file

revision = "0008"
down_revision = "0007"
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
    "encoder_sha256",
)
_OTHER = "SELECT 1 FROM prompt_versions v{joined} WHERE v.task_id = NEW.task_id AND v.state = 'published' AND v.id <> OLD.id{same}"
_ONE_A_TASK = _OTHER.format(joined="", same="")
_ONE_A_BASE = _OTHER.format(
    joined=" JOIN base_models b ON b.id = v.base_model_id JOIN base_models n ON n.id = NEW.base_model_id",
    same=" AND coalesce(b.renews_id, b.id) = coalesce(n.renews_id, n.id)",
)
_HELD_AGAINST = """coalesce(
            (SELECT b.evaluation_id FROM baselines b WHERE b.version_id = v.id ORDER BY b.id DESC LIMIT 1),
            v.baseline_id)"""
_SERVING = """
            AND v.base_model_id IN (
                SELECT b.id FROM settings s
                JOIN base_models n ON n.id = s.base_model_id
                JOIN base_models b ON coalesce(b.renews_id, b.id) = coalesce(n.renews_id, n.id))"""
_TASKS = """
        SELECT t.name, f.description, f.tags, f.metric, t.guarded, v.number AS published, v.published_at, e.score,
            t.created_at
        FROM tasks t
        JOIN task_files f ON f.id = t.task_file_id
        LEFT JOIN prompt_versions v ON v.task_id = t.id AND v.state = 'published'{serving}
        LEFT JOIN evaluations e ON e.id = {baseline}"""
_VERSIONS = """
        SELECT t.name || '@' || v.number AS version, t.name AS task, v.number, v.state, v.method,
            v.num_virtual_tokens, b.name AS base_model, b.weights AS base_weights, v.digest, e.metric, e.score,
            v.reason, v.created_at, v.published_at, v.retired_at{more}
        FROM prompt_versions v
        JOIN tasks t ON t.id = v.task_id
        JOIN base_models b ON b.id = v.base_model_id
        LEFT JOIN evaluations e ON e.id = {baseline}"""
_EVALUATIONS = """
        SELECT e.id, t.name AS task, t.name || '@' || v.number AS version, e.kind, e.metric, e.score, e.metrics,
            e.rows, e.truncated, e.seconds, d.fingerprint AS data, e.key, e.created_at
        FROM evaluations e
        JOIN tasks t ON t.id = e.task_id
        JOIN data_snapshots d ON d.id = e.snapshot_id
        LEFT JOIN prompt_versions v ON v.id = e.version_id"""
_TOKENS = ("num_virtual_tokens INTEGER NOT NULL", "num_virtual_tokens INTEGER")
_KIND = ("kind VARCHAR(10) NOT NULL", "kind TEXT NOT NULL")
_KINDS = "kind in ('soft', 'hard')"
_BASE_MODELS = Refusal("base_models_frozen", "UPDATE", "base_models", "1", "a row of base_models cannot be changed")


def upgrade() -> None:
    for view in ("v_tasks", "v_versions", "v_evaluations"):
        op.execute(f"DROP VIEW {view}")
    _link_base_models()
    _open_versions()
    _open_evaluations()
    _make_views(
        _TASKS.format(serving=_SERVING, baseline=_HELD_AGAINST),
        _VERSIONS.format(more=", v.kind, v.settings", baseline=_HELD_AGAINST),
    )


def downgrade() -> None:
    _require_one_kind()
    for view in ("v_tasks", "v_versions", "v_evaluations"):
        op.execute(f"DROP VIEW {view}")
    _close_evaluations()
    _close_versions()
    op.execute("ALTER TABLE base_models DROP COLUMN renews_id")
    _make_views(_TASKS.format(serving="", baseline=_HELD_AGAINST), _VERSIONS.format(more="", baseline=_HELD_AGAINST))


def _link_base_models() -> None:
    """All records of an older catalog are of one base model, in the fingerprints of one release after another."""
    dialect = op.get_bind().dialect.name
    op.execute(
        "ALTER TABLE base_models ADD COLUMN renews_id INTEGER"
        " CONSTRAINT fk_base_models_renews_id REFERENCES base_models (id)"
    )
    _run(_BASE_MODELS.drop(dialect))
    op.execute(
        "UPDATE base_models SET renews_id = (SELECT min(id) FROM base_models)"
        " WHERE id > (SELECT min(id) FROM base_models)"
    )
    _run(_BASE_MODELS.create(dialect))
    op.execute(
        "UPDATE settings SET base_model_id = (SELECT max(base_model_id) FROM prompt_versions) WHERE base_model_id IS NULL"
    )


def _open_versions() -> None:
    dialect = op.get_bind().dialect.name
    op.execute("ALTER TABLE prompt_versions ADD COLUMN kind TEXT DEFAULT 'soft-prompt' NOT NULL")
    op.execute("ALTER TABLE prompt_versions ADD COLUMN settings JSON DEFAULT '{}' NOT NULL")
    if dialect == "postgresql":
        op.alter_column("prompt_versions", "num_virtual_tokens", nullable=True)
    else:
        _edit("prompt_versions", *_TOKENS)
    frozen = _frozen(_FROZEN)
    _run(frozen.drop(dialect))
    build = "json_build_object" if dialect == "postgresql" else "json_object"
    op.execute(
        f"UPDATE prompt_versions SET settings = {build}('method', method, 'num_virtual_tokens', num_virtual_tokens)"
    )
    _run(_frozen((*_FROZEN, "kind")).create(dialect))
    _index_published("task_id", "base_model_id")
    _replace_one_published(_ONE_A_BASE, "the task has a published version on this base model already")


def _close_versions() -> None:
    dialect = op.get_bind().dialect.name
    _replace_one_published(_ONE_A_TASK, "the task has a published version already")
    _index_published("task_id")
    _run(_frozen((*_FROZEN, "kind")).drop(dialect))
    for column in ("settings", "kind"):
        op.execute(f"ALTER TABLE prompt_versions DROP COLUMN {column}")
    if dialect == "postgresql":
        op.alter_column("prompt_versions", "num_virtual_tokens", nullable=False)
    else:
        _edit("prompt_versions", *reversed(_TOKENS))
    _run(_frozen(_FROZEN).create(dialect))


def _open_evaluations() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(op.f("ck_evaluations_kind"), "evaluations", type_="check")
        op.alter_column("evaluations", "kind", type_=sa.Text())
    else:
        _edit("evaluations", *_KIND)
        _edit("evaluations", f"CONSTRAINT ck_evaluations_kind CHECK ({_KINDS}), \n\t", "")


def _close_evaluations() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("evaluations", "kind", type_=sa.String(10))
        op.create_check_constraint(op.f("ck_evaluations_kind"), "evaluations", _KINDS)
    else:
        _edit("evaluations", *reversed(_KIND))
        first = "CONSTRAINT fk_evaluations_snapshot_id"
        _edit("evaluations", first, f"CONSTRAINT ck_evaluations_kind CHECK ({_KINDS}), \n\t{first}")


def _require_one_kind() -> None:
    """An older schema has no place for other kinds, nor for a task that two base models serve."""
    bind = op.get_bind()
    other = "SELECT count(*) FROM prompt_versions WHERE kind <> 'soft-prompt' OR num_virtual_tokens IS NULL"
    scored = f"SELECT count(*) FROM evaluations WHERE NOT ({_KINDS})"
    twice = "SELECT count(*) FROM (SELECT 1 FROM prompt_versions WHERE state = 'published' GROUP BY task_id HAVING count(*) > 1) t"
    counts = [bind.execute(sa.text(query)).scalar_one() for query in (other, scored, twice)]
    if any(counts):
        raise ValueError(
            f"schema 0007 cannot hold {counts[0]} versions and {counts[1]} evaluations of newer kinds, "
            f"and {counts[2]} tasks with two published versions."
        )


def _frozen(columns: tuple[str, ...]) -> Refusal:  # type: ignore[valid-type]
    """The settings (JSON, which PostgreSQL does not compare) are compared as text."""
    changed = [f"NEW.{column} IS NOT OLD.{column}" for column in columns]
    if "kind" in columns:
        changed.append("CAST(NEW.settings AS TEXT) <> CAST(OLD.settings AS TEXT)")
    return Refusal(
        "versions_frozen", "UPDATE", "prompt_versions", " OR ".join(changed), "a prompt version cannot be changed"
    )


def _index_published(*columns: str) -> None:
    published = sa.text("state = 'published'")
    op.drop_index("uq_prompt_versions_published", "prompt_versions")
    op.create_index(
        "uq_prompt_versions_published",
        "prompt_versions",
        list(columns),
        unique=True,
        sqlite_where=published,
        postgresql_where=published,
    )


def _replace_one_published(other: str, message: str) -> None:
    dialect = op.get_bind().dialect.name
    when = f"NEW.state = 'published' AND EXISTS ({other})"
    refusal = Refusal("versions_one_published", "UPDATE", "prompt_versions", when, message)
    _run((*refusal.drop(dialect), *refusal.create(dialect)))


def _make_views(tasks: str, versions: str) -> None:
    for name, query in (("v_tasks", tasks), ("v_versions", versions), ("v_evaluations", _EVALUATIONS)):
        op.execute(f"CREATE VIEW {name} AS {query}")


def _edit(table: str, before: str, after: str) -> None:
    """Change a table's constraints in SQLite's stored definition (https://sqlite.org/lang_altertable.html, section 7).

    Rebuilding the table instead would drop its triggers, and rows of other tables refer to it.
    """
    bind = op.get_bind()
    stored = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table")
    definition = bind.execute(stored, {"table": table}).scalar_one()
    if definition.count(before) != 1:
        raise ValueError(f"the definition of {table} is not that of schema 0007 or 0008: restore a backup.")
    number = bind.exec_driver_sql("PRAGMA schema_version").scalar_one()
    bind.exec_driver_sql("PRAGMA writable_schema = ON")
    changed = sa.text("UPDATE sqlite_master SET sql = :sql WHERE type = 'table' AND name = :table")
    bind.execute(changed, {"sql": definition.replace(before, after), "table": table})
    bind.exec_driver_sql(f"PRAGMA schema_version = {number + 1}")
    bind.exec_driver_sql("PRAGMA writable_schema = OFF")


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)
