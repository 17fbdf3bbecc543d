"""What only PostgreSQL has: URLs with passwords, roles, locks that are waited for, a server that goes away."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from click.testing import CliRunner
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import IntegrityError as ConstraintError
from sqlalchemy.pool import NullPool

from multiprompt.catalog import candidates, database, migration, schema, triggers
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.settings import epoch
from multiprompt.catalog.versions import published_versions
from multiprompt.cli.main import cli
from multiprompt.errors import CatalogError, IntegrityError, MultipromptError, QueryError, SchemaError
from tests.catalog.databases import by, contents, execute, new_database
from tests.catalog.samples import AT, a_task, learn, new_catalog
from tests.catalog.test_migration import RACE, config

ROOT = Path(__file__).parents[2]
SECRET = "s3cret/pass"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    made = new_catalog(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Catalog:
    """A catalog that holds colour@1, and goes on doing so."""
    made = new_catalog(tmp_path_factory.mktemp("learned"))
    learn(made)
    return made


def url_of(catalog: Catalog, **parts: Any) -> str:
    """The catalog's URL, with other parts."""
    return catalog.engine.url.set(**parts).render_as_string(hide_password=False)


def refusal(url: str, error: type[MultipromptError] = CatalogError, *, create: bool = False) -> str:
    with pytest.raises(error) as caught:
        Catalog.open(url, create=create)
    return one_line(caught.value)


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    assert SECRET not in message
    return message


def ask(catalog: Catalog, query: str) -> list[Any]:
    engine = create_engine(catalog.engine.url, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def hang_up(catalog: Catalog) -> int:
    """End every connection to the catalog. Says how many there were."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    return len(ask(catalog, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}"))


# URLs


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_a_catalog_is_made_and_opened_by_url(driver: str) -> None:
    url = make_url(new_database()).set(drivername=driver).render_as_string(hide_password=False)
    assert url.startswith(f"{driver}://")
    version = learn(Catalog.open(url, create=True))
    for other in ("postgresql", "postgresql+psycopg"):
        again = Catalog.open(url.replace(driver, other, 1))
        assert again.versions.find() == [version]
        assert again.verify() == []
    assert Catalog.open(url, create=True).versions.find() == [version]


def test_the_location_is_the_url_without_the_password(learned: Catalog) -> None:
    opened = Catalog.open(url_of(learned, password=SECRET))
    assert SECRET not in opened.location
    assert "***" in opened.location
    assert str(learned.engine.url.database) in opened.location
    assert [task.name for task in opened.tasks.find()] == ["colour"]


def test_a_password_among_the_parameters_of_a_url_is_not_shown_either(catalog: Catalog) -> None:
    url = url_of(catalog, query={**catalog.engine.url.query, "password": SECRET})
    opened = Catalog.open(url)
    assert SECRET not in make_url(opened.location).query.values()
    message = refusal(make_url(url).set(database="nowhere").render_as_string(hide_password=False))
    assert SECRET not in make_url(message.partition(": ")[0]).query.values()
    assert SECRET not in opened.engine.url.render_as_string()
    for parameter in ("sslpassword", "passfile", "options", "sslkey"):
        url = url_of(catalog, query={**catalog.engine.url.query, parameter: "s3cret"})
        assert "s3cret" not in database.location(database.database_engine(url))


def test_no_error_shows_the_password(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Catalog.open(url_of(catalog, password=SECRET))
    learn(opened)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    errors: list[MultipromptError] = []

    def failing(act: Any) -> None:
        with pytest.raises(MultipromptError) as caught:
            act()
        errors.append(caught.value)

    failing(lambda: Catalog.open(url_of(catalog, password=SECRET, database="nowhere")))
    failing(lambda: Catalog.open(url_of(catalog, password=SECRET, database="nowhere"), create=True))
    failing(lambda: Catalog.open(url_of(catalog, password=SECRET, username="nobody")))
    failing(lambda: Catalog.open(url_of(catalog, password=SECRET, port=1)))
    failing(lambda: Catalog.open(url_of(catalog, password=SECRET, database="template1")))
    failing(lambda: learn(opened, score=float("inf") - float("inf")))
    with database.writing(catalog.engine):
        failing(lambda: by(opened, "tester", AT).tasks.add(a_task("shape")))
    execute(catalog, "UPDATE alembic_version SET version_num = '9999'")
    failing(lambda: Catalog.open(url_of(catalog, password=SECRET)))
    execute(catalog, "DROP TABLE task_texts")
    failing(lambda: opened.tasks.find("matches('x')"))
    for error in errors:
        one_line(error)
        while error is not None:
            assert SECRET not in str(error)
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql-psycopg://user:{SECRET}@localhost/db",
        f"postgres ql://user:{SECRET}@localhost/db",
        f"postgresql://user:{SECRET}@localhost:port/db",
        f"postgres://user:{SECRET}@localhost/db",
        f"postgresql+nothing://user:{SECRET}@localhost:1/db",
        f"postgresql://user:{SECRET}@localhost:1/db?nonsense=1",
        f"postgresql://user:{SECRET}@localhost:99999/db",
        f"postgresql:user:{SECRET}@localhost/db",
        f"postgresql:/user:{SECRET}@localhost/db",
        f"postgresql://user:x@{SECRET}@localhost/db",
        f"postgresql://user:x@{SECRET}/x@localhost/db",
        f"postgresql://user:x@y/{SECRET}@localhost/db",
        f"postgresql://user:x@y?{SECRET}@localhost/db",
        f"mysql://user@localhost/db?password={SECRET}",
    ],
)
def test_a_mistyped_url_is_one_line_without_the_password(url: str) -> None:
    refusal(url.replace(SECRET, "s3cret%2Fpass"))
    assert "s3cret" not in refusal(url.replace(SECRET, "s3cret"))


# Where no catalog is


@pytest.mark.parametrize("create", [True, False])
def test_a_missing_database_is_named_with_the_cure(learned: Catalog, create: bool) -> None:
    message = refusal(url_of(learned, database="nowhere"), create=create)
    assert "/nowhere" in message
    assert "the server has no such database or user: create it, or check the URL" in message


def test_a_missing_user_is_told_as_one(learned: Catalog) -> None:
    message = refusal(url_of(learned, username="nobody"))
    assert "the server has no such database or user: create it, or check the URL" in message


def test_a_server_that_is_not_there_is_told_as_one(learned: Catalog) -> None:
    for url in (
        url_of(learned, port=1),
        url_of(learned, query={"host": "/nowhere"}),
        "postgresql://someone@localhost:1/db",
        "postgresql://someone@127.0.0.1:1/db",
    ):
        assert "the server cannot be reached: check the URL and that it runs" in refusal(url)


@pytest.mark.parametrize("name", ["readonly", "password", "locked", "malformed", "no space left"])
def test_a_name_that_sounds_like_an_error_is_not_taken_for_one(learned: Catalog, name: str) -> None:
    message = refusal(url_of(learned, database=name))
    assert "the server has no such database or user" in message


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("table", ["songs", "alembic_version", "prompt_versions"])
def test_another_program_s_database_is_refused_and_kept(create: bool, table: str) -> None:
    url = new_database()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table} (version_num TEXT)")
    assert "is a database, but no multiprompt catalog" in refusal(url, SchemaError, create=create)
    with engine.connect() as connection:
        listed = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        assert connection.exec_driver_sql(listed).all() == [(table,)]


def test_an_empty_database_holds_no_catalog_until_one_is_made_in_it() -> None:
    url = new_database()
    assert "holds no catalog: create one with `mp.open()`" in refusal(url, SchemaError)
    assert Catalog.open(url, create=True).tasks.find() == []


@pytest.mark.parametrize(("revision", "says"), [("9999", "install a newer release"), ("0002", "`multiprompt upgrade`")])
def test_another_schema_revision_is_refused_with_the_cure(catalog: Catalog, revision: str, says: str) -> None:
    execute(catalog, f"UPDATE alembic_version SET version_num = '{revision}'")
    assert says in refusal(url_of(catalog), SchemaError)


def test_processes_that_create_one_catalog_at_once_all_succeed() -> None:
    url = new_database()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, url],
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
    made = Catalog.open(url)
    assert contents(made)["settings"] == [(1, None, None, "auto", 0, None, "block")]
    assert made.verify() == []


# Locks and snapshots


def test_a_writer_waits_for_another_one(catalog: Catalog) -> None:
    added: list[Any] = []
    writer = threading.Thread(target=lambda: added.append(by(catalog, "tester", AT).tasks.add(a_task())))
    with database.writing(catalog.engine) as connection:
        writer.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        assert any(connection.exec_driver_sql(waiting).scalar() for _ in range(100_000))
        assert added == []
    writer.join()
    assert added == [catalog.tasks.get("colour")]


def test_a_writer_in_another_catalog_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    one, other = new_catalog(tmp_path), new_catalog(tmp_path)
    with database.writing(one.engine):
        assert by(other, "tester", AT).tasks.add(a_task()).name == "colour"


@pytest.mark.parametrize("lock", ["SELECT pg_advisory_xact_lock(28016)", "LOCK TABLE tasks IN EXCLUSIVE MODE"])
def test_a_held_lock_is_one_clear_line_after_the_timeout(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    version = learn(catalog)
    before = contents(catalog)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_SECONDS", 0.05)
    engine = create_engine(catalog.engine.url, poolclass=NullPool)
    with engine.connect() as other:
        other.exec_driver_sql(lock)
        with pytest.raises(
            CatalogError, match="another process held the catalog for .* s: wait for it and try"
        ) as caught:
            by(catalog, "tester", AT).tasks.add(a_task("shape"))
        assert one_line(caught.value).startswith(catalog.location)
        assert catalog.versions.find() == [version]
        assert catalog.settings.epoch() == 1
        other.rollback()
    assert contents(catalog) == before
    assert by(catalog, "tester", AT).tasks.add(a_task("shape")).name == "shape"


def rows_of(connection: Connection, table: str) -> list[Any]:
    return list(connection.execute(schema.metadata.tables[table].select().order_by("id")))


def test_a_reader_keeps_its_view_while_another_writes(catalog: Catalog) -> None:
    learn(catalog)
    with database.reading(catalog.engine) as connection:
        before = epoch(connection), rows_of(connection, "tasks"), rows_of(connection, "events")
        learn(catalog)
        learn(catalog, "shape")
        assert (epoch(connection), rows_of(connection, "tasks"), rows_of(connection, "events")) == before
        assert [version.label for version in published_versions(connection)] == ["colour@1"]
    assert [version.label for version in catalog.versions.published()[1]] == ["colour@2", "shape@1"]


def test_the_epoch_and_what_is_published_in_it_are_of_one_moment(catalog: Catalog) -> None:
    for _ in range(2):
        learn(catalog)
    done = threading.Event()

    def move() -> None:
        for _ in range(25):
            by(catalog, "tester", AT).pointers.roll_back("colour", None, "")
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    seen = set()
    while not done.is_set():
        epoch, (version,) = catalog.versions.published()
        assert version.number == (2 if epoch % 2 == 0 else 1)
        seen.add(epoch)
    mover.join()
    assert len(seen) > 2
    assert catalog.versions.published()[0] == 27


def test_a_read_transaction_writes_nothing(learned: Catalog) -> None:
    with pytest.raises(CatalogError) as caught, database.reading(learned.engine) as connection:
        connection.exec_driver_sql("INSERT INTO checks (passed, seconds, created_at) VALUES (1, 1, now())")
    assert "read-only" in one_line(caught.value)


# Roles


def test_a_role_that_may_only_read_reads_and_cannot_write(catalog: Catalog) -> None:
    version = learn(catalog)
    learn(catalog, "shape")
    before = contents(catalog)
    role = f"reader_{catalog.engine.url.database}"
    execute(catalog, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    reader = Catalog.open(url_of(catalog, username=role))
    assert reader.versions.get("colour") == version
    assert reader.versions.adapter(version) == catalog.versions.adapter(version)
    assert [task.name for task in reader.tasks.find("matches('which') and score > 0 order by name")] == [
        "colour",
        "shape",
    ]
    assert reader.settings.epoch() == 2
    assert reader.verify() == []
    assert ask(reader, "SELECT version FROM v_versions ORDER BY version") == [("colour@1",), ("shape@1",)]
    for write in (
        lambda: by(reader, "tester", AT).tasks.add(a_task("size")),
        lambda: learn(reader),
        lambda: by(reader, "tester", AT).tasks.note("colour", "hello"),
        lambda: by(reader, "tester", AT).tasks.guard("colour", True, ""),
        lambda: by(reader, "tester", AT).checkpoints.save("colour", "key", b"data"),
    ):
        with pytest.raises(CatalogError) as caught:
            write()
        assert "permission denied" in one_line(caught.value)
    reader.close()
    assert contents(catalog) == before


def test_sql_needs_no_more_than_the_right_to_read(catalog: Catalog) -> None:
    learn(catalog)
    name = str(catalog.engine.url.database)
    role = f"asker_{name}"
    execute(
        catalog,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
        f"ALTER ROLE {role} SET default_transaction_read_only = on",
        "CREATE VIEW naps AS SELECT pg_sleep(1)::text AS nap",
        f"GRANT SELECT ON naps TO {role}",
    )
    reader = Catalog.open(url_of(catalog, username=role))
    assert reader.sql("SELECT version, ':funcid 2096' AS text FROM v_versions").rows == (("colour@1", ":funcid 2096"),)
    for statement in ("SELECT * FROM naps", "SELECT pg_advisory_lock(1)", "SELECT 1 ORDER BY pg_sleep(1)::text"):
        with pytest.raises(QueryError, match="may do more than read"):
            reader.sql(statement)
    for statement in ("SELECT $1", "SELECT 'open", "SELECT 1) AS found; (SELECT 2"):
        with pytest.raises(QueryError, match="^SQL: .*[.]$"):
            reader.sql(statement)


def test_a_role_that_may_not_even_read_is_told_so(catalog: Catalog) -> None:
    role = f"stranger_{catalog.engine.url.database}"
    execute(catalog, f"CREATE ROLE {role} LOGIN")
    assert "permission denied" in refusal(url_of(catalog, username=role))


def test_a_role_that_may_not_create_tables_is_told_so() -> None:
    url = make_url(new_database()).set(drivername="postgresql+psycopg")
    role = f"poor_{url.database}"
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
    message = refusal(url.set(username=role).render_as_string(hide_password=False), create=True)
    assert "permission denied for schema public" in message


# The schema


def definitions(catalog: Catalog) -> dict[str, list[Any]]:
    """Everything in the database that the migrations make."""
    return {
        "columns": ask(
            catalog,
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, column_name",
        ),
        "indexes": ask(catalog, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
        "constraints": ask(
            catalog,
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
        ),
        "triggers": ask(
            catalog, "SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
        ),
        "functions": ask(
            catalog, "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
        ),
        "views": ask(catalog, "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1"),
    }


def test_downgrading_to_nothing_and_upgrading_again_gives_the_same_schema(catalog: Catalog) -> None:
    before = definitions(catalog)
    assert {name for (name, *_) in before["views"]} >= {"v_tasks", "v_versions", "v_evaluations", "v_events"}
    with database.writing(catalog.engine) as connection:
        command.downgrade(config(connection), "base")
    left = definitions(catalog)
    assert {name for name, *_ in left["columns"]} == {"alembic_version"}
    assert (left["triggers"], left["functions"], left["views"]) == ([], [], [])
    with database.writing(catalog.engine) as connection:
        command.upgrade(config(connection), "head")
    assert definitions(catalog) == before


def test_downgrading_a_filled_catalog_and_upgrading_it_again_keeps_what_it_holds(catalog: Catalog) -> None:
    learn(catalog)
    learn(catalog, score=0.9)
    before = contents(catalog)
    with database.writing(catalog.engine) as connection:
        command.downgrade(config(connection), "0002")
    assert "run `multiprompt upgrade`" in refusal(url_of(catalog), SchemaError)
    assert migration.upgrade(catalog.engine) == ("0002", schema.REVISION, None)
    after = contents(catalog)
    assert after.pop("evaluation_results") == [(*row[:2], None) for row in before.pop("evaluation_results")]
    assert after.pop("tasks") == [(*row[:-1], None) for row in before.pop("tasks")]
    assert after == before
    assert catalog.verify() == []
    assert learn(catalog).label == "colour@3"


def test_a_failed_upgrade_leaves_the_catalog_as_it_was(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(catalog)
    with database.writing(catalog.engine) as connection:
        command.downgrade(config(connection), "0002")
    before = definitions(catalog), ask(catalog, "SELECT * FROM prompt_versions")
    run = migration.run_migrations

    def broken(connection: Any) -> None:
        run(connection)
        raise RuntimeError("the power went")

    monkeypatch.setattr(migration, "run_migrations", broken)
    with pytest.raises(RuntimeError):
        migration.upgrade(catalog.engine)
    assert (definitions(catalog), ask(catalog, "SELECT * FROM prompt_versions")) == before


# What protects


@pytest.mark.parametrize(
    "statement",
    [
        *(f"TRUNCATE {table} CASCADE" for table in triggers.PROTECTED),
        "TRUNCATE runs CASCADE",
        "TRUNCATE ONLY events",
        "TRUNCATE events RESTART IDENTITY",
        "TRUNCATE checks, lineage CASCADE",
    ],
)
def test_a_table_that_history_rests_on_cannot_be_emptied(learned: Catalog, statement: str) -> None:
    before = contents(learned)
    with pytest.raises(ConstraintError, match="cannot be emptied"):
        execute(learned, statement)
    assert contents(learned) == before


@pytest.mark.parametrize(
    ("statement", "trigger"),
    [
        ("ALTER TABLE prompt_versions DISABLE TRIGGER versions_frozen", "versions_frozen"),
        ("ALTER TABLE artifacts DISABLE TRIGGER artifacts_kept", "artifacts_kept"),
        ("ALTER TABLE events DISABLE TRIGGER USER", "events_frozen"),
        ("ALTER TABLE lineage DISABLE TRIGGER ALL", "lineage_not_replaced"),
        ("ALTER TABLE tasks DISABLE TRIGGER tasks_not_emptied", "tasks_not_emptied"),
        ("ALTER TABLE tasks ENABLE REPLICA TRIGGER tasks_kept", "tasks_kept"),
        ("DROP TRIGGER evaluations_kept ON evaluations", "evaluations_kept"),
        ("DROP FUNCTION evaluations_frozen() CASCADE", "evaluations_frozen"),
    ],
)
def test_a_disabled_trigger_is_found(catalog: Catalog, statement: str, trigger: str) -> None:
    assert catalog.verify() == []
    execute(catalog, statement)
    problems = catalog.verify()
    assert any(trigger in problem.what and "missing or disabled" in problem.what for problem in problems)
    assert {problem.where for problem in problems} == {"database"}


def test_a_trigger_of_another_table_s_name_does_not_stand_for_one(catalog: Catalog) -> None:
    execute(
        catalog,
        "CREATE SCHEMA elsewhere",
        "CREATE TABLE elsewhere.other (id INTEGER)",
        "CREATE TRIGGER versions_kept BEFORE DELETE ON elsewhere.other FOR EACH ROW EXECUTE FUNCTION versions_kept()",
        "DROP TRIGGER versions_kept ON prompt_versions",
    )
    assert any("versions_kept" in problem.what for problem in catalog.verify())


def test_a_trigger_that_always_fires_is_none_that_is_missing(catalog: Catalog) -> None:
    execute(catalog, "ALTER TABLE events ENABLE ALWAYS TRIGGER events_frozen")
    assert catalog.verify() == []


# A server that goes away


def test_a_catalog_is_usable_after_its_connections_were_ended(catalog: Catalog) -> None:
    version = learn(catalog)
    assert catalog.settings.epoch() == 1
    assert hang_up(catalog) == 1
    assert catalog.settings.epoch() == 1
    assert catalog.versions.find() == [version]
    hang_up(catalog)
    assert learn(catalog).label == "colour@2"
    assert catalog.settings.epoch() == 2


def test_a_connection_is_kept_for_the_next_transaction_without_what_the_last_one_held(catalog: Catalog) -> None:
    learn(catalog)
    with pytest.raises(QueryError):
        catalog.sql("SELECT no_such_column FROM v_tasks")
    catalog.settings.epoch()
    ours = "datname = current_database() AND pid <> pg_backend_pid()"
    assert ask(catalog, f"SELECT count(*), min(state) FROM pg_stat_activity WHERE {ours}") == [(1, "idle")]
    assert ask(catalog, f"SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {ours}") == [(0,)]
    catalog.close()
    assert hang_up(catalog) == 0


FORK = """
import os, sys
from multiprompt.catalog.catalog import Catalog

catalog = Catalog.open(sys.argv[1])
child = os.fork()
if child != 0:
    assert os.waitpid(child, 0)[1] == 0
with catalog.engine.connect() as connection:
    print(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar(), flush=True)
if child == 0:
    os._exit(0)
"""


def test_a_forked_process_leaves_the_connections_to_the_one_that_opened_them(learned: Catalog) -> None:
    run = subprocess.run([sys.executable, "-c", FORK, url_of(learned)], capture_output=True, text=True, cwd=ROOT)
    assert run.stderr == ""
    of_child, of_parent = run.stdout.split()
    assert of_child != of_parent


def test_a_connection_that_ends_in_the_middle_of_writing_leaves_nothing(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(catalog)
    before = contents(catalog)
    publish = candidates.point_at

    def ended(connection: Any, *arguments: Any, **values: Any) -> None:
        assert hang_up(catalog) == 1
        publish(connection, *arguments, **values)

    monkeypatch.setattr(candidates, "point_at", ended)
    with pytest.raises(CatalogError) as caught:
        learn(catalog)
    one_line(caught.value)
    assert not isinstance(caught.value, IntegrityError)
    monkeypatch.undo()
    assert contents(catalog) == before
    assert learn(catalog).label == "colour@2"


@pytest.fixture(scope="module")
def server(database_kind: str) -> Iterator[Any]:
    """A server of one's own, which asks the role `guest` for its password."""
    if database_kind != "postgresql":
        pytest.skip("about the server")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgserver

        made = pgserver.get_server(tempfile.mkdtemp(prefix="pg"))
    rules = made.pgdata / "pg_hba.conf"
    rules.write_text("local all guest scram-sha-256\n" + rules.read_text())
    made.psql(f"CREATE ROLE guest SUPERUSER LOGIN PASSWORD '{SECRET}';")
    stop(made)
    made.ensure_postgres_running()
    yield made
    made.cleanup()


def stop(server: Any) -> None:
    from pgserver._commands import pg_ctl

    pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)


def test_a_wrong_password_is_told_as_one(server: Any) -> None:
    url = make_url(server.get_uri()).set(username="guest", password=SECRET)
    made = Catalog.open(url.render_as_string(hide_password=False), create=True)
    assert made.tasks.find() == []
    assert SECRET not in made.location
    for password in ("wrong", ""):
        message = refusal(url.set(password=password).render_as_string(hide_password=False))
        assert "the server refuses the user or the password: check the URL" in message
        assert "wrong" not in message


def test_a_catalog_is_usable_after_its_server_was_restarted(server: Any) -> None:
    made = Catalog.open(server.get_uri(), create=True)
    version = learn(made, "restarted")
    epoch = made.settings.epoch()
    stop(server)
    try:
        for call in (
            made.settings.epoch,
            made.versions.find,
            lambda: by(made, "tester", AT).tasks.add(a_task("shape")),
            lambda: Catalog.open(server.get_uri()),
        ):
            with pytest.raises(CatalogError) as caught:
                call()
            assert "the server cannot be reached: check the URL and that it runs" in one_line(caught.value)
    finally:
        server.ensure_postgres_running()
    assert made.settings.epoch() == epoch
    assert made.versions.get("restarted") == version
    assert made.versions.adapter(version).weights == b"weights of restarted 0"
    assert learn(made, "restarted").number == 2
    assert made.verify() == []
    made.close()


def test_every_error_names_where_the_catalog_is(catalog: Catalog) -> None:
    place = re.escape(catalog.location)
    execute(catalog, "DROP TABLE task_texts")
    for act in (
        lambda: catalog.tasks.find("matches('x')"),
        lambda: by(catalog, "tester", AT).tasks.add(a_task()),
        catalog.verify,
    ):
        with pytest.raises(CatalogError) as caught:
            act()
        assert re.match(place, one_line(caught.value))
        assert "database or user" not in str(caught.value)


def test_upgrading_says_what_it_did(catalog: Catalog) -> None:
    learn(catalog)
    url = url_of(catalog)
    with database.writing(catalog.engine) as connection:
        command.downgrade(config(connection), "0002")
    for said in (f"schema 0002 → {schema.REVISION}", f"schema {schema.REVISION} already, nothing to do"):
        done = CliRunner().invoke(cli, ["upgrade", "--catalog", url])
        assert done.output.strip() == said
