"""Triggers that refuse a change, in the SQL of SQLite and of PostgreSQL. Migrations load this file, and nothing else does."""

from collections.abc import Iterator
from dataclasses import dataclass


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
