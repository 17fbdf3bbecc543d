"""The catalog's file: what is no catalog, what cannot be written, and what is left after a broken write."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from multiprompt.catalog import database
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import CatalogError, MultipromptError, SchemaError
from multiprompt.records import Adapter
from tests.catalog.databases import by, contents, damage, execute
from tests.catalog.samples import AT, a_task, learn, new_catalog

ROOT = Path(__file__).parents[2]


def refusal(url: str | Path, error: type[MultipromptError] = CatalogError, *, create: bool = False) -> str:
    with pytest.raises(error) as caught:
        Catalog.open(str(url), create=create)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_catalog_is_opened_by_path_and_by_url(tmp_path: Path) -> None:
    made = Catalog.open(str(tmp_path / "catalog.db"), create=True)
    version = learn(made)
    assert made.path == tmp_path.resolve() / "catalog.db"
    for url in (f"sqlite:///{made.path}", f"sqlite:///file:{made.path}?mode=ro&uri=true"):
        assert Catalog.open(url).versions.find() == [version]


def test_opening_an_existing_catalog_with_create_keeps_it(tmp_path: Path) -> None:
    version = learn(Catalog.open(str(tmp_path / "catalog.db"), create=True))
    assert Catalog.open(str(tmp_path / "catalog.db"), create=True).versions.find() == [version]


def test_a_missing_catalog_is_not_made_by_looking(tmp_path: Path) -> None:
    message = refusal(tmp_path / "catalog.db")
    assert message.startswith(f"there is no catalog at {tmp_path.resolve() / 'catalog.db'}: ")
    assert "`mp.open()`" in message
    assert "MULTIPROMPT_CATALOG" in message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no" / "catalog.db", create=True).startswith(
        f"{tmp_path.resolve() / 'no'} does not exist: create the folder"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_is_no_catalog(tmp_path: Path, create: bool) -> None:
    assert refusal(tmp_path, create=create).startswith(str(tmp_path.resolve()))


@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam,\n" * 100)
    assert "is no catalog: it is not an SQLite file" in refusal(path, SchemaError, create=create)
    assert path.read_text() == "Dear Sir or Madam,\n" * 100


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("table", ["songs", "alembic_version", "prompt_versions"])
def test_another_program_s_database_is_refused_and_kept(tmp_path: Path, create: bool, table: str) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as raw:
        raw.execute(f"CREATE TABLE {table} (version_num TEXT)")
    raw.close()
    before = path.read_bytes()
    assert "is an SQLite file, but no multiprompt catalog" in refusal(path, SchemaError, create=create)
    assert path.read_bytes() == before


def test_a_catalog_without_a_revision_is_refused(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    with sqlite3.connect(catalog.path) as raw:
        raw.execute("DELETE FROM alembic_version")
    raw.close()
    assert str(catalog.path) in refusal(catalog.path, SchemaError)


def test_an_empty_file_holds_no_catalog_until_one_is_made_in_it(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert refusal(path, SchemaError) == f"{path.resolve()} holds no catalog: create one with `mp.open()`."
    assert Catalog.open(str(path), create=True).tasks.find() == []


@pytest.mark.parametrize(
    ("revision", "says"),
    [("9999", "has schema 9999, but this release of multiprompt knows"), ("0000", "has schema 0000, but this release")],
)
@pytest.mark.parametrize("create", [True, False])
def test_another_schema_revision_is_refused_with_the_cure(
    tmp_path: Path, revision: str, says: str, create: bool
) -> None:
    catalog = new_catalog(tmp_path)
    with sqlite3.connect(catalog.path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    raw.close()
    message = refusal(catalog.path, SchemaError, create=create)
    assert says in message
    assert message.endswith("install a newer release." if revision == "9999" else "run `multiprompt upgrade`.")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql+pymysql://user:secret@host/db", "mysql+pymysql://user:***@host/db is neither SQLite nor PostgreSQL"),
        ("postgresql://user:secret@localhost:1/db", "the server cannot be reached: check the URL and that it runs"),
        ("sqlite://", "a catalog is a file"),
        ("sqlite:///:memory:", "a catalog is a file"),
        ("", "a catalog is a file"),
        ("://nothing", "'://nothing' is no catalog: give a path"),
    ],
)
def test_a_database_that_holds_no_catalog_is_refused(url: str, says: str) -> None:
    message = refusal(url, create=True)
    assert says in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "name", ["a b.db", "ü.db", "a#b.db", "a@b:c.db", "100%.db", "100%41.db", "what?.db", "a&b=c.db"]
)
def test_a_path_means_the_file_of_that_name(tmp_path: Path, name: str) -> None:
    made = Catalog.open(str(tmp_path / name), create=True)
    assert made.path == tmp_path.resolve() / name
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_read_only_catalog_is_read_but_not_written(tmp_path: Path) -> None:
    made = new_catalog(tmp_path)
    version = learn(made)
    before = made.path.read_bytes()
    reader = Catalog.open(f"sqlite:///file:{made.path}?mode=ro&uri=true")
    assert reader.versions.find() == [version]
    assert reader.verify() == []
    with pytest.raises(CatalogError, match="read-only: give the user write permission, or copy the catalog elsewhere"):
        by(reader, "tester", AT).tasks.add(a_task("shape"))
    assert made.path.read_bytes() == before


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)


def test_a_locked_catalog_is_an_error_after_the_timeout(tmp_path: Path, impatient: None) -> None:
    catalog = new_catalog(tmp_path)
    version = learn(catalog)
    other = sqlite3.connect(catalog.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogError, match="another process held the catalog for .* s: wait for it and try again"):
        by(catalog, "tester", AT).tasks.add(a_task("shape"))
    assert catalog.versions.find() == [version]
    other.execute("ROLLBACK")
    other.close()
    assert by(catalog, "tester", AT).tasks.add(a_task("shape")).name == "shape"


def test_a_writer_waits_for_another_one(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    other = sqlite3.connect(catalog.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    added: list[Any] = []
    writer = threading.Thread(target=lambda: added.append(by(catalog, "tester", AT).tasks.add(a_task())))
    writer.start()
    time.sleep(0.2)
    assert added == []
    other.execute("COMMIT")
    other.close()
    writer.join()
    assert added == [catalog.tasks.get("colour")]


def test_a_reader_keeps_its_view_while_another_writes(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    with database.reading(catalog.engine) as connection:
        count = "SELECT count(*) FROM prompt_versions"
        assert connection.exec_driver_sql(count).scalar() == 1
        learn(Catalog.open(str(catalog.path)))
        assert connection.exec_driver_sql(count).scalar() == 1
    assert len(catalog.versions.find()) == 2


def test_the_file_alone_holds_what_was_published_also_while_others_have_it_open(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    catalog.settings.epoch()
    version = learn(catalog)
    copy = tmp_path / "copy.db"
    copy.write_bytes(catalog.path.read_bytes())
    assert catalog.path.with_name("catalog.db-wal").exists()
    assert Catalog.open(str(copy)).versions.find() == [version]
    catalog.close()


def test_writers_in_many_threads_lose_nothing(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    threads = [threading.Thread(target=catalog.tasks.add, args=(a_task(f"task{number}"),)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(task.name for task in catalog.tasks.find()) == sorted(f"task{number}" for number in range(12))
    assert len(catalog.events.find()) == 12


@pytest.mark.parametrize("pages", [0, 1, 5, 40])
def test_a_full_disk_in_the_middle_of_admitting_leaves_the_catalog_as_it_was(tmp_path: Path, pages: int) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    before = contents(catalog)
    limit = catalog.path.stat().st_size // 4096 + pages

    def fill_disk(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit}")

    event.listen(catalog.engine, "connect", fill_disk)
    with pytest.raises(CatalogError, match="the disk is full: free some space; nothing was written"):
        learn(catalog, adapter=Adapter(b"{}", b"w" * 4096 * 50))
    event.remove(catalog.engine, "connect", fill_disk)
    assert contents(catalog) == before
    assert catalog.verify() == []
    assert learn(catalog).label == "colour@2"


KILLED = """
import os, signal, sys
from sqlalchemy import event
from multiprompt.catalog.catalog import Catalog

catalog = Catalog.open(sys.argv[1])

@event.listens_for(catalog.engine, "before_cursor_execute")
def stop(connection, cursor, statement, parameters, context, many):
    if statement.startswith(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

catalog.pointers.roll_back("colour", 1, "")
"""


@pytest.mark.parametrize("statement", ["UPDATE settings", "INSERT INTO events"])
def test_a_process_killed_while_publishing_leaves_the_catalog_as_it_was(tmp_path: Path, statement: str) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    learn(catalog)
    before = contents(catalog)
    command = [sys.executable, "-c", KILLED, str(catalog.path), statement]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert contents(catalog) == before
    assert catalog.verify() == []
    assert by(catalog, "tester", AT).pointers.roll_back("colour", 1, "").label == "colour@1"


def test_every_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "junk.db"
    path.write_bytes(b"junk" * 1000)
    for create in (True, False):
        assert re.match(re.escape(str(path.resolve())), refusal(path, create=create))


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://user:s3cret@host/catalog.db",
        "sqlite://catalog.db",
        "sqlite+pysqlcipher://:s3cret@/catalog.db",
        "sqlite+aiosqlite:///catalog.db",
        "sqlite+nothing:///catalog.db",
        "sqlite:///catalog.db?timeout=long",
        "sqlite:///catalog.db?password=s3cret",
        "sqlite:///%00",
    ],
)
def test_a_mistyped_url_of_sqlite_is_one_line_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(url, create=True)
    assert "is no catalog" in message or "a catalog is a file" in message
    assert "s3cret" not in message
    assert list(tmp_path.iterdir()) == []


DAMAGE = {
    "events": ("events", "at = 'x'"),
    "json": ("evaluations", "metrics = '{'"),
    "tags": ("task_files", "tags = cast(x'ff' AS TEXT)"),
    "text": ("events", "reason = cast(x'ff41' AS TEXT)"),
    "type": ("prompt_versions", "created_at = 7"),
}


@pytest.mark.parametrize("damaged", DAMAGE)
def test_a_damaged_value_is_one_error_and_found_by_verify(tmp_path: Path, damaged: str) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    table, change = DAMAGE[damaged]
    damage(catalog, f"UPDATE {table} SET {change}")
    read = {
        "events": catalog.events.find,
        "evaluations": catalog.evaluations.find,
        "prompt_versions": catalog.versions.find,
    }
    with pytest.raises(CatalogError, match="damaged.*restore a backup"):
        read.get(table, catalog.tasks.find)()
    try:
        assert any("damaged" in problem.what for problem in catalog.verify())
    except CatalogError as error:
        assert "the file is damaged" in str(error)
    with pytest.raises(CatalogError, match="damaged.*restore a backup"):
        catalog.copy_to(str(tmp_path / "copy.db"))


OTHER_TYPES = {
    "an adapter as text": ("artifacts", "data = 'abc'", lambda catalog: catalog.versions.digests()),
    "a task's file as text": ("tasks", "task_file_id = 'abc'", lambda catalog: catalog.tasks.get("colour")),
    "a pointer as bytes": ("prompt_versions", "baseline_id = x'ff'", lambda catalog: catalog.matrix.get()),
    "a description as bytes": (
        "task_files",
        "description = x'fffe'",
        lambda catalog: catalog.tasks.note("colour", "x"),
    ),
}


@pytest.mark.parametrize("stored", OTHER_TYPES)
def test_a_value_of_another_type_is_one_error_and_found_by_verify(tmp_path: Path, stored: str) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog, "colour")
    table, change, read = OTHER_TYPES[stored]
    damage(catalog, f"UPDATE {table} SET {change}")
    with pytest.raises(CatalogError, match="damaged"):
        read(catalog)
    assert any(problem.where == f"table {table}" and "another type" in problem.what for problem in catalog.verify())


def test_a_copy_is_as_private_as_its_catalog(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    catalog.path.chmod(0o600)
    catalog.backup(tmp_path / "backup.db")
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["DROP TABLE job_logs", "CREATE TABLE other (x)", "ALTER TABLE events ADD COLUMN x"])
def test_a_catalog_of_other_tables_than_its_schema_s_is_not_copied(tmp_path: Path, change: str) -> None:
    catalog = new_catalog(tmp_path)
    execute(catalog, change)
    with pytest.raises(CatalogError, match="other than its schema.*nothing was copied"):
        catalog.copy_to(str(tmp_path / "copy.db"))
