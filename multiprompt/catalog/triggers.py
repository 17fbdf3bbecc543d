"""Triggers that refuse a change, in the SQL of SQLite and of PostgreSQL. Migrations create and drop them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# The triggers that the migrations make; without them a published prompt could be changed, or a task not be found.
_REFUSALS = (
    "artifacts_frozen",
    "artifacts_kept",
    "artifacts_not_replaced",
    "baselines_frozen",
    "baselines_kept",
    "baselines_not_replaced",
    "base_models_frozen",
    "base_models_kept",
    "base_models_not_replaced",
    "data_snapshots_frozen",
    "data_snapshots_kept",
    "data_snapshots_not_replaced",
    "evaluations_frozen",
    "evaluations_kept",
    "evaluations_not_replaced",
    "events_frozen",
    "events_kept",
    "events_not_replaced",
    "lineage_frozen",
    "lineage_kept",
    "lineage_not_replaced",
    "results_frozen",
    "results_kept",
    "results_not_replaced",
    "scores_frozen",
    "scores_kept",
    "scores_not_replaced",
    "task_files_frozen",
    "task_files_kept",
    "task_files_not_replaced",
    "tasks_frozen",
    "tasks_kept",
    "tasks_not_replaced",
    "versions_baseline_kept",
    "versions_frozen",
    "versions_kept",
    "versions_moves",
    "versions_not_replaced",
    "versions_one_published",
    "versions_times_kept",
)
# The protected tables, which PostgreSQL could empty at once.
PROTECTED = (
    "artifacts",
    "base_models",
    "baselines",
    "data_snapshots",
    "evaluation_results",
    "evaluation_scores",
    "evaluations",
    "events",
    "lineage",
    "prompt_versions",
    "task_files",
    "tasks",
)
TRIGGERS = {
    "sqlite": frozenset((*_REFUSALS, "task_texts_added", "task_texts_changed", "task_texts_removed")),
    "postgresql": frozenset((*_REFUSALS, *(f"{table}_not_emptied" for table in PROTECTED))),
}


@dataclass(frozen=True)
class Refusal:
    """Refuses an `event` ("INSERT", "UPDATE" or "DELETE") on a table when a condition over OLD and NEW holds.

    The condition is SQLite's, where `IS NOT` compares any two values and `1` is true.
    """

    name: str
    event: str
    table: str
    when: str
    message: str

    def create(self, dialect: str) -> Iterator[str]:
        """The statements that make it."""
        if dialect != "postgresql":
            yield (
                f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table} FOR EACH ROW WHEN {self.when}"
                f" BEGIN SELECT RAISE(ABORT, '{self.message}'); END"
            )
            return
        when = self.when.replace(" IS NOT OLD.", " IS DISTINCT FROM OLD.")
        row = "OLD" if self.event == "DELETE" else "NEW"
        yield (
            f"CREATE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {'true' if when == '1' else when} THEN RAISE EXCEPTION '{self.message}'"
            f" USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN {row}; END $$"
        )
        yield (
            f"CREATE TRIGGER {self.name} BEFORE {self.event} ON {self.table}"
            f" FOR EACH ROW EXECUTE FUNCTION {self.name}()"
        )

    def drop(self, dialect: str) -> Iterator[str]:
        if dialect != "postgresql":
            yield f"DROP TRIGGER {self.name}"
            return
        yield f"DROP TRIGGER {self.name} ON {self.table}"
        yield f"DROP FUNCTION {self.name}()"


def refuse_truncation(table: str) -> Iterator[str]:
    """PostgreSQL empties a table with TRUNCATE without firing row triggers."""
    name = f"{table}_not_emptied"
    yield (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION '{table} cannot be emptied' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    yield f"CREATE TRIGGER {name} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"


def allow_truncation(table: str) -> Iterator[str]:
    yield f"DROP TRIGGER {table}_not_emptied ON {table}"
    yield f"DROP FUNCTION {table}_not_emptied()"
