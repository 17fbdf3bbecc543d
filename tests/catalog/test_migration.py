"""Migrations make what the models describe, once, whoever tries."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.pool import NullPool

from multiprompt.catalog import migration, schema, triggers
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.database import database_engine, database_path, making, reading, writing
from multiprompt.errors import SchemaError
from tests.catalog.databases import by, contents, execute
from tests.catalog.samples import AT, learn, new_catalog

ROOT = Path(__file__).parents[2]
# A dump of a catalog as each earlier schema left it, with two versions of a task.
RELEASED = Path(__file__).parent / "released"


def config(connection: Any = None) -> Config:
    made = Config()
    made.set_main_option("script_location", str(migration.migrations_folder()))
    made.attributes["connection"] = connection
    return made


def created(folder: Path) -> Engine:
    folder.mkdir(exist_ok=True)
    engine = database_engine(str(folder / "catalog.db"))
    migration.create(engine)
    return engine


def definitions(path: Path) -> dict[str, str]:
    """The SQL of every table, index and trigger."""
    with sqlite3.connect(path) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    raw.close()
    return {name: re.sub(r"\s+", " ", sql) for name, sql in rows}


def dump(path: Path) -> list[str]:
    with sqlite3.connect(path) as raw:
        lines = list(raw.iterdump())
    raw.close()
    return lines


def test_the_models_are_what_the_migrations_make(tmp_path: Path) -> None:
    with reading(created(tmp_path)) as connection:
        # The full-text index brings tables of its own.
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or not name.startswith("task_search"),
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_checks_and_partial_indexes_are_what_the_models_say(tmp_path: Path) -> None:
    modelled = create_engine(f"sqlite:///{tmp_path / 'models.db'}", poolclass=NullPool)
    schema.metadata.create_all(modelled)

    def rules(engine: Engine) -> set[str]:
        seen = inspect(engine)
        checks = {
            f"{table}: {check['name']} is {check['sqltext']}"
            for table in schema.metadata.tables
            for check in seen.get_check_constraints(table)
        }
        return checks | {
            f"{table}: {index['name']} where {index['dialect_options'].get('sqlite_where')}"
            for table in schema.metadata.tables
            for index in seen.get_indexes(table)
        }

    assert rules(created(tmp_path)) == rules(modelled)


def test_verification_knows_the_triggers_that_the_migrations_make(tmp_path: Path) -> None:
    with reading(created(tmp_path)) as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars()
        assert set(names) == triggers.TRIGGERS["sqlite"]


def test_the_release_knows_the_newest_migration(tmp_path: Path) -> None:
    script = ScriptDirectory.from_config(config())
    assert script.get_heads() == [schema.REVISION]
    assert migration.revision(created(tmp_path)) == schema.REVISION


def test_downgrading_to_nothing_and_upgrading_again_gives_the_same_schema(tmp_path: Path) -> None:
    engine = created(tmp_path)
    path = tmp_path / "catalog.db"
    before = definitions(path)
    with writing(engine) as connection:
        command.downgrade(config(connection), "base")
    assert set(definitions(path)) == {"alembic_version"}
    with writing(engine) as connection:
        command.upgrade(config(connection), "head")
    assert definitions(path) == before


def test_migrations_import_nothing_of_the_package() -> None:
    folder = migration.migrations_folder()
    for file in (folder / "refusals.py", *folder.glob("versions/*.py")):
        assert "multiprompt" not in re.sub('""".*?"""', "", file.read_text(encoding="utf-8"), flags=re.DOTALL), file


def test_a_renewed_base_model_and_its_versions_stay_one_base_model(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    with sqlite3.connect(path) as raw:
        raw.executescript((RELEASED / "0007.sql").read_text(encoding="utf-8"))
    raw.close()
    migration.upgrade(database_engine(str(path)))
    with sqlite3.connect(path) as raw:
        records = raw.execute("SELECT id, renews_id FROM base_models").fetchall()
        kinds = raw.execute("SELECT kind, json_extract(settings, '$.num_virtual_tokens') FROM prompt_versions")
        assert records == [(1, None), (2, 1)]
        assert kinds.fetchall() == [("soft-prompt", 4)] * 2
    raw.close()


def test_an_older_schema_refuses_versions_that_it_cannot_hold(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    execute(catalog, "DROP TRIGGER versions_frozen")
    execute(catalog, "UPDATE prompt_versions SET kind = 'universal'")
    before = contents(catalog)
    with pytest.raises(ValueError, match="cannot hold 1 versions"), writing(catalog.engine) as connection:
        command.downgrade(config(connection), "0007")
    assert contents(catalog) == before


def test_going_back_a_schema_and_forward_again_keeps_what_is_searched_and_scored(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    by(catalog, "tester", AT).tasks.note("colour", "naïve annotators")
    before = contents(catalog)
    with writing(catalog.engine) as connection:
        command.downgrade(config(connection), "0002")
    with writing(catalog.engine) as connection:
        command.upgrade(config(connection), "head")
    after = contents(catalog)
    # An older schema has no canaries; they are rows of the baseline, and found there.
    results = "evaluation_results"
    assert after.pop(results) == [(*row[:2], None) for row in before.pop(results)]
    # Nor does it know where a task's file lies.
    assert after.pop("tasks") == [(*row[:-1], None) for row in before.pop("tasks")]
    assert after == before
    assert catalog.verify() == []


def test_upgrading_a_current_catalog_does_nothing(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    before, files = contents(catalog), set(tmp_path.iterdir())
    assert migration.upgrade(catalog.engine) == (schema.REVISION, schema.REVISION, None)
    assert contents(catalog) == before
    assert set(tmp_path.iterdir()) == files


def test_upgrading_what_is_no_catalog_or_a_newer_one_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(SchemaError, match="holds no catalog"):
        migration.upgrade(database_engine(str(empty)))
    catalog = new_catalog(tmp_path)
    with sqlite3.connect(catalog.path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(SchemaError, match="install a newer release"):
        migration.upgrade(catalog.engine)


@pytest.mark.parametrize("released", sorted(RELEASED.glob("*.sql")), ids=lambda path: path.stem)
def test_a_catalog_of_an_older_release_is_upgraded_after_a_copy(tmp_path: Path, released: Path) -> None:
    path = tmp_path / "catalog.db"
    with sqlite3.connect(path) as raw:
        raw.executescript(released.read_text(encoding="utf-8"))
    raw.close()
    path.chmod(0o600)
    before = dump(path)
    with pytest.raises(SchemaError, match=f"schema {released.stem}.*run `multiprompt upgrade`"):
        Catalog.open(str(path))

    old, new, copy = migration.upgrade(database_engine(str(path)))

    assert (old, new) == (released.stem, schema.REVISION)
    assert copy is not None
    assert copy.stat().st_mode & 0o777 == 0o600
    assert dump(copy) == before
    catalog = Catalog.open(str(path))
    assert [(v.label, v.state) for v in catalog.versions.find()] == [("colour@1", "retired"), ("colour@2", "published")]
    assert catalog.verify() == []
    assert definitions(path) == definitions(database_path(created(tmp_path / "new")))
    assert catalog.versions.get("colour").score == catalog.baselines.evaluation_of(catalog.versions.get("colour")).score
    assert catalog.tasks.get("colour").file == ("" if released.stem >= "0007" else None)
    assert learn(catalog).label == "colour@3"
    assert catalog.tasks.get("colour").file == ""


def test_a_failed_upgrade_leaves_the_catalog_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    with sqlite3.connect(catalog.path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0000'")
    raw.close()
    before, tables = contents(catalog), definitions(catalog.path)

    def migrate(connection: Any) -> None:
        connection.exec_driver_sql("DROP TABLE check_results")
        raise RuntimeError("the power went")

    monkeypatch.setattr(migration, "run_migrations", migrate)
    with pytest.raises(RuntimeError):
        migration.upgrade(catalog.engine)
    assert (contents(catalog), definitions(catalog.path)) == (before, tables)


def test_a_creation_that_broke_off_can_be_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalog.db"
    run = migration.run_migrations

    def broken(connection: Any) -> None:
        run(connection)
        raise RuntimeError("the power went")

    monkeypatch.setattr(migration, "run_migrations", broken)
    with pytest.raises(RuntimeError):
        Catalog.open(str(path), create=True)
    assert definitions(path) == {}
    monkeypatch.setattr(migration, "run_migrations", run)
    assert learn(Catalog.open(str(path), create=True)).label == "colour@1"


RACE = """
import pathlib, sys
import alembic.command
from multiprompt.catalog.catalog import Catalog

print("ready", flush=True)
sys.stdin.readline()
Catalog.open(sys.argv[1], create=True)
"""


def test_processes_that_create_one_catalog_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        _, errors = racer.communicate()
        assert racer.returncode == 0, errors
    assert contents(Catalog.open(str(path)))["settings"] == [(1, None, None, "auto", 0, None, "block")]
    assert Catalog.open(str(path)).verify() == []


def test_a_file_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    other = threading.Thread(target=Catalog.open, args=(str(path),), kwargs={"create": True})
    with making(path):
        other.start()
        other.join(0.5)
        assert not path.exists()
    other.join()
    assert Catalog.open(str(path)).verify() == []


def test_a_new_catalog_writes_ahead_so_that_readers_never_wait(tmp_path: Path) -> None:
    created(tmp_path)
    with sqlite3.connect(tmp_path / "catalog.db") as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
