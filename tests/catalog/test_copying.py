"""A whole catalog moved to another database, copied while others work in it, and cleaned of what nobody uses."""

from __future__ import annotations

import hashlib
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError as ConstraintError

from multiprompt.catalog import copying
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.checkpoints import sealed
from multiprompt.catalog.lineage import Parent
from multiprompt.errors import CatalogError, IntegrityError, QueryError
from multiprompt.records import Adapter, Run, SqlResult
from tests.catalog.databases import DATABASES, by, contents, damage, execute, new_database
from tests.catalog.samples import AT, ROWS, a_task, learn, new_catalog

RUN = Run({"steps": 2}, {"torch": "2"}, ROWS.fingerprint, ROWS.fingerprint, (1.5, 0.5), ((2, 0.5, 0.5),), 2, 0, 1.0)


def filled(folder: Path) -> Catalog:
    """A catalog with something in every table but the trash."""
    return DATABASES.filled("everything", fill, folder)


def fill(catalog: Catalog) -> None:
    first = learn(catalog, "a", 0.5, run=RUN, training_data=(ROWS, ROWS))
    second = learn(catalog, "a", 0.7, parents=(Parent("retrained-from", first.label, first),))
    learn(catalog, "ü", publish=False, adapter=Adapter(b"{}", bytes(range(256)), b"encoder"))
    by(catalog, "tester", AT).pointers.roll_back("a", 1, "")
    by(catalog, "tester", AT).checkpoints.save("a", "key", b"\x00\xff" * 1000)
    by(catalog, "tester", AT).tasks.note("a", "naïve annotators")
    by(catalog, "tester", AT).tasks.guard("a", True, "in a contract")
    assert second.label == "a@2"


def another_place(folder: Path, kind: str) -> str:
    return str(folder / "copy.db") if kind == "sqlite" else new_database()


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_a_copied_catalog_holds_every_row_and_goes_on(tmp_path: Path, to: str) -> None:
    catalog = filled(tmp_path)
    copied = catalog.copy_to(another_place(tmp_path, to))
    assert contents(copied) == contents(catalog)
    assert copied.verify() == []
    assert copied.versions.digests() == catalog.versions.digests()
    assert [task.name for task in copied.tasks.find("matches('annotator naive')")] == ["a"]
    assert learn(copied, "new").label == "new@1"
    with pytest.raises(ConstraintError):
        execute(copied, "UPDATE prompt_versions SET method = 'x'")


def test_copying_to_and_fro_gives_the_same_catalog(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    there = catalog.copy_to(another_place(tmp_path, "postgresql"))
    back = there.copy_to(str(tmp_path / "back.db"))
    assert contents(back) == contents(catalog)


def test_a_database_that_sorts_texts_otherwise_holds_the_same(tmp_path: Path, on_sqlite: None) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog, task=a_task("colour", tag=["nlp", "Vision"]))
    execute(
        catalog,
        "CREATE TABLE other (task_file_id INTEGER REFERENCES task_files (id), tag TEXT COLLATE NOCASE,"
        " PRIMARY KEY (task_file_id, tag))",
        "INSERT INTO other SELECT * FROM task_tags",
        "DROP TABLE task_tags",
        "ALTER TABLE other RENAME TO task_tags",
    )
    there = catalog.copy_to(another_place(tmp_path, "postgresql"))
    assert there.tasks.get("colour").tags == ("nlp", "Vision")
    assert there.verify() == []


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_nothing_is_copied_over_a_catalog(tmp_path: Path, to: str) -> None:
    catalog = filled(tmp_path)
    place = another_place(tmp_path, to)
    there = Catalog.open(place, create=True)
    learn(there, "kept")
    before = contents(there)
    with pytest.raises(CatalogError, match="holds a catalog already: choose another place, nothing was written"):
        catalog.copy_to(place)
    assert contents(there) == before


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
def test_a_copy_that_differs_is_not_kept(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = filled(tmp_path)
    place = another_place(tmp_path, to)
    monkeypatch.setattr(copying, "_close_circles", lambda *_: None)
    with pytest.raises(IntegrityError, match="came out with other rows"):
        catalog.copy_to(place)
    monkeypatch.undo()
    assert contents(catalog.copy_to(place)) == contents(catalog)


@pytest.mark.parametrize("losses", ["[]", '["x", 1, 2]', "{}"])
def test_verify_finds_a_loss_curve_that_is_none(tmp_path: Path, losses: str) -> None:
    catalog = filled(tmp_path)
    assert catalog.verify() == []
    damage(catalog, f"UPDATE runs SET losses = '{losses}'")
    assert [problem.where for problem in catalog.verify()] == ["run 1"]


def test_verify_reads_values_that_it_holds_against_nothing(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    damage(catalog, "UPDATE tasks SET created_at = 'x'" if DATABASES.kind == "sqlite" else "DELETE FROM events")
    assert catalog.verify() != []


def test_a_backup_is_a_catalog_of_its_own(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    catalog.backup(tmp_path / "backup.db")
    kept = Catalog.open(str(tmp_path / "backup.db"))
    assert contents(kept) == contents(catalog)
    assert kept.verify() == []
    learn(catalog, "later")
    assert "later" not in [task.name for task in kept.tasks.find()]
    before = (tmp_path / "backup.db").read_bytes()
    with pytest.raises(CatalogError, match="exists: choose another name, nothing was written"):
        catalog.backup(tmp_path / "backup.db")
    assert (tmp_path / "backup.db").read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("place", ["/proc/backup.db", f"/tmp/{'b' * 250}", f"/tmp/{'b' * 300}", "/proc/version/b.db"])
def test_a_backup_that_cannot_be_written_is_one_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(CatalogError, match="could not be copied|cannot be written|: the folder|does not exist"):
        filled(tmp_path).backup(Path(place))


def test_of_two_backups_to_one_name_one_is_written_whole(tmp_path: Path) -> None:
    catalog, place = filled(tmp_path), tmp_path / "backup.db"
    done: list[str] = []

    def second(what: str, _: int, __: int) -> None:
        """Another backup to the same name, which begins when the first has copied something."""
        if not done:
            done.append(what)
            catalog.backup(place)
            done.append("second")

    with pytest.raises(CatalogError, match="another process meanwhile"):
        catalog.backup(place, second)
    assert done[-1] == "second"
    assert contents(Catalog.open(str(place))) == contents(catalog)
    assert not list(tmp_path.glob("*.partial*"))


def test_a_backup_does_not_disturb_a_writer(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    stop = threading.Event()
    written: list[str] = []

    def write() -> None:
        while not stop.is_set():
            by(catalog, "tester", AT).tasks.note("a", f"note {len(written)}")
            written.append("")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            catalog.backup(tmp_path / f"{number}.db")
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        assert Catalog.open(str(tmp_path / f"{number}.db")).verify() == []
    assert len(catalog.events.find("kind = 'noted'")) == len(written) + 1


def test_garbage_lies_in_the_trash_before_it_is_deleted(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    execute(
        catalog,
        "INSERT INTO artifacts (sha256, kind, data, created_at) VALUES ('lost', 'rows', 'abc', '2026-01-01 00:00:00')",
    )
    day, week = timedelta(days=1), timedelta(days=7)
    assert (by(catalog, "tester", AT).garbage(week).unused, by(catalog, "tester", AT).garbage(week).deleted) == (1, 0)
    before = contents(catalog)
    assert by(catalog, "tester", AT).collect_garbage(week).deleted == 0
    assert by(catalog, "tester", AT + day).collect_garbage(week).deleted == 0
    assert contents(catalog)["artifacts"] == before["artifacts"]
    found = by(catalog, "tester", AT + week).collect_garbage(week)
    assert (found.deleted, found.deleted_bytes) == (2, 3 + len(sealed(bytes(2000))))
    assert next(row for row in before["artifacts"] if row not in contents(catalog)["artifacts"])[0] == "lost"
    assert contents(catalog)["checkpoints"] == contents(catalog)["trash"] == []
    assert catalog.verify() == []


def test_what_is_used_again_leaves_the_trash(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    adapter = Adapter(b"{}", b"weights of a later version")
    sha256, week = hashlib.sha256(adapter.weights).hexdigest(), timedelta(days=7)
    stored = adapter.weights.hex()
    data = f"x'{stored}'" if DATABASES.kind == "sqlite" else f"decode('{stored}', 'hex')"
    execute(
        catalog,
        "INSERT INTO artifacts (sha256, kind, data, created_at) VALUES"
        f" ('{sha256}', 'adapter-weights', {data}, '2026-01-01 00:00:00')",
    )
    by(catalog, "tester", AT).collect_garbage(week)
    assert [row[0] for row in contents(catalog)["trash"]] == [sha256]
    learn(catalog, "b", adapter=adapter)
    assert by(catalog, "tester", AT + timedelta(days=30)).collect_garbage(week).unused == 0
    assert contents(catalog)["trash"] == []
    assert catalog.versions.adapter(catalog.versions.get("b")) == adapter


WRITES = [
    "DELETE FROM events",
    "UPDATE tasks SET name = 'x'",
    "INSERT INTO trash VALUES ('x', '2026-01-01')",
    "DROP TABLE trash",
    "CREATE TABLE x (y INTEGER)",
    "SELECT 1; DELETE FROM events",
    "WITH gone AS (DELETE FROM trash RETURNING *) SELECT * FROM gone",
    "ATTACH DATABASE 'other.db' AS other",
    "PRAGMA writable_schema = 1",
    "VACUUM INTO 'copy.db'",
    "COPY tasks TO '/tmp/stolen'",
    "SELECT load_extension('x')",
    "",
    "nonsense",
    "SELECT * FROM nowhere",
    "SELECT 1; COMMIT; UPDATE settings SET policy = 'warn'",
    "(SELECT 1); COMMIT; DROP TABLE task_texts",
    "SELECT 1) AS found; DROP TABLE events; SELECT * FROM (SELECT 1",
    "COMMIT",
    "SET TRANSACTION READ WRITE",
    "DO $$ BEGIN DELETE FROM events; END $$",
    "COPY (SELECT 1) TO PROGRAM 'touch copied'",
    "SELECT 1 INTO copied",
    "SELECT fts3_tokenizer('simple')",
    "SELECT * FROM pragma_journal_mode('delete')",
    "SELECT 'half \ud800'",
    "SELECT 'nul \0'",
]
ACTS = [
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    'SELECT "pg_sleep"(1)',
    "SELECT 1 WHERE EXISTS (SELECT pg_advisory_lock(7))",
    "WITH read AS (SELECT pg_read_file('PG_VERSION') AS text) SELECT text FROM read",
    "SELECT * FROM lo_import('/etc/hostname')",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT nextval(pg_get_serial_sequence('events', 'id'))",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "SELECT * FROM pg_hba_file_rules",
]
ENDLESS = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r)"
TOO_LARGE = {
    "sqlite": ["SELECT zeroblob(900000000)", f"{ENDLESS} SELECT zeroblob(1000000) FROM r"],
    "postgresql": ["SELECT repeat('x', 20000000)", f"{ENDLESS} SELECT repeat('x', 1000000) FROM r"],
}


@pytest.mark.parametrize("statement", WRITES)
def test_sql_changes_nothing(tmp_path: Path, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = filled(tmp_path)
    before, files = contents(catalog), set(tmp_path.iterdir())
    with pytest.raises(QueryError, match="^SQL: .*[.]$"):
        catalog.sql(statement)
    assert contents(catalog) == before
    assert set(tmp_path.iterdir()) == files


@pytest.mark.parametrize("statement", ACTS)
def test_sql_calls_no_function_that_acts(tmp_path: Path, statement: str) -> None:
    with pytest.raises(QueryError, match="^SQL: .*[.]$"):
        filled(tmp_path).sql(statement)


@pytest.mark.parametrize("select", ["SELECT count(*) FROM r", "SELECT n FROM r ORDER BY n"])
def test_sql_ends_in_time(tmp_path: Path, select: str) -> None:
    with pytest.raises(QueryError, match="not done after 0.3 s"):
        filled(tmp_path).sql(f"{ENDLESS} {select}", seconds=0.3)


def test_sql_ends_one_call_of_an_sqlite_function_in_time(tmp_path: Path, on_sqlite: None) -> None:
    with pytest.raises(QueryError, match="not done after 0.3 s"):
        filled(tmp_path).sql("SELECT instr(zeroblob(60000000), zeroblob(30000000) || 'x')", seconds=0.3)


@pytest.mark.parametrize("number", [0, 1])
def test_sql_takes_no_more_memory_than_it_may(tmp_path: Path, number: int) -> None:
    with pytest.raises(QueryError, match="bytes|too big"):
        filled(tmp_path).sql(TOO_LARGE[DATABASES.kind][number], limit=1000)


@pytest.mark.parametrize(("limit", "seconds"), [(0, 1.0), (10**9, 1.0), (1, 0.0), (1, float("nan")), (1, 1e9)])
def test_sql_has_limits_of_its_limits(tmp_path: Path, limit: int, seconds: float) -> None:
    with pytest.raises(QueryError, match="SQL: a limit of"):
        filled(tmp_path).sql("SELECT 1", limit=limit, seconds=seconds)


def test_sql_may_be_any_select(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    for statement in (
        "SELECT 1 AS a, 2 AS a;",
        "SELECT 1, 2 -- a note",
        "VALUES (1, 2)",
        "WITH x AS (SELECT 1, 2) TABLE x",
    ):
        if not statement.endswith("TABLE x") or DATABASES.kind == "postgresql":
            assert catalog.sql(statement).rows == ((1, 2),)
    assert catalog.sql(f"{ENDLESS} SELECT n FROM r", limit=3).rows == ((1,), (2,), (3,))
    assert catalog.sql("SELECT random() IS NULL").rows[0][0] in (0, False)
    assert catalog.sql("SELECT name FROM v_tasks LIMIT 0") == SqlResult(("name",), (), False)


def test_sql_reads_every_view(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    versions = catalog.sql("SELECT version, state, score FROM v_versions ORDER BY version")
    assert versions.columns == ("version", "state", "score")
    assert [row[:2] for row in versions.rows] == [("a@1", "published"), ("a@2", "retired"), ("ü@1", "rejected")]
    assert catalog.sql("SELECT name, published FROM v_tasks WHERE guarded = 1").rows == (("a", 1),)
    edges = catalog.sql("SELECT relation, parent FROM v_lineage WHERE child = 'a@2' AND relation LIKE '%from'").rows
    assert edges == (("retrained-from", "a@1"),)
    assert catalog.sql("SELECT count(*) FROM v_evaluations").rows == ((5,),)
    assert catalog.sql("SELECT kind FROM v_events ORDER BY id DESC", limit=2).rows == (("guarded",), ("noted",))
    assert catalog.sql("SELECT kind FROM v_events", limit=2).cut
    assert not versions.cut


def test_sql_may_hold_colons_and_percent_signs(tmp_path: Path) -> None:
    catalog = filled(tmp_path)
    found = catalog.sql("SELECT ':x' AS a, '50%' AS b, name FROM v_tasks WHERE name LIKE 'a%'")
    assert found.rows == ((":x", "50%", "a"),)
    if DATABASES.kind == "postgresql":
        assert catalog.sql("SELECT 1::text AS n").rows == (("1",),)
