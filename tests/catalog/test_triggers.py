"""What was published is refused every change by the database itself, whoever opens the file."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from multiprompt.catalog import schema, triggers
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.lineage import Parent
from multiprompt.records import Adapter
from tests.catalog.databases import DATABASES, by, contents, execute
from tests.catalog.samples import AT, ROWS, a_task, an_evaluation, learn, new_catalog

STATES = ("candidate", "published", "retired", "rejected")
ALLOWED = {
    ("candidate", "published"),
    ("candidate", "rejected"),
    ("published", "retired"),
    ("retired", "published"),
    *((state, state) for state in STATES),
}
# Versions 1 to 4 of one task, in these states.
IDS = {"retired": 1, "published": 2, "rejected": 3, "candidate": 4}
COPIED = ", ".join(column.name for column in schema.prompt_versions.c if column.name not in ("id", "number", "state"))


def fill_with_every_state(catalog: Catalog) -> None:
    first = learn(catalog)
    learn(catalog, parents=(Parent("retrained-from", first.label, first),))
    learn(catalog, publish=False)
    copied = f"SELECT 4, 4, 'candidate', {COPIED} FROM prompt_versions WHERE id = 3"
    execute(catalog, f"INSERT INTO prompt_versions (id, number, state, {COPIED}) {copied}")
    assert {version.state: version.id for version in catalog.versions.find()} == IDS
    blessed = an_evaluation("colour", 0.6)
    by(catalog, "tester", AT).baselines.bless(
        catalog.versions.get("colour"), a_task("colour"), ROWS, blessed, "asked for"
    )


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """A catalog with a version in every state."""
    return DATABASES.filled("every state", fill_with_every_state, tmp_path)


def refused(catalog: Catalog, *statements: str) -> str:
    """The reason that the last statement is refused for, after which nothing has changed."""
    before = contents(catalog)
    engine = create_engine(catalog.engine.url, poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements[:-1]:
            connection.exec_driver_sql(statement)
        with pytest.raises(IntegrityError) as caught:
            connection.exec_driver_sql(statements[-1])
        if len(statements) == 1 and DATABASES.kind == "sqlite":
            connection.commit()
    assert contents(catalog) == before
    return str(caught.value.orig)


def accepted(catalog: Catalog, *statements: str) -> None:
    assert execute(catalog, *statements) == [1] * len(statements)


@pytest.mark.parametrize("state", ["published", "retired"])
@pytest.mark.parametrize(
    "column",
    [c.name for c in schema.prompt_versions.c if c.name not in ("state", "published_at", "retired_at")],
)
def test_no_column_of_a_published_version_can_be_changed(catalog: Catalog, state: str, column: str) -> None:
    values = {"settings": "'{}'"} | dict.fromkeys(("created_at",), "'1999-01-01'")
    value = values.get(column, "4711")
    message = refused(catalog, f"UPDATE prompt_versions SET {column} = {value} WHERE id = {IDS[state]}")
    assert "cannot be changed" in message


@pytest.mark.parametrize("state", ["published", "retired"])
@pytest.mark.parametrize("column", ["published_at", "retired_at"])
def test_the_times_of_a_version_move_only_with_its_state(catalog: Catalog, state: str, column: str) -> None:
    refused(catalog, f"UPDATE prompt_versions SET {column} = '1999-01-01' WHERE id = {IDS[state]}")


@pytest.mark.parametrize("column", ["digest", "weights_sha256", "config_sha256", "base_model_id", "number", "task_id"])
def test_not_even_a_candidate_changes_what_it_is(catalog: Catalog, column: str) -> None:
    refused(catalog, f"UPDATE prompt_versions SET {column} = 4711 WHERE id = {IDS['candidate']}")


@pytest.mark.parametrize(("old", "new"), list(itertools.product(STATES, STATES)))
def test_a_version_moves_only_along_its_states(catalog: Catalog, old: str, new: str) -> None:
    move = f"UPDATE prompt_versions SET state = '{new}' WHERE id = {IDS[old]}"
    make_way = [f"UPDATE prompt_versions SET state = 'retired' WHERE id = {IDS['published']}"]
    statements = [*(make_way if new == "published" != old else []), move]
    if (old, new) in ALLOWED:
        accepted(catalog, *statements)
    else:
        assert "this change of state is not allowed" in refused(catalog, *statements)


@pytest.mark.parametrize("state", ["candidate", "retired"])
def test_a_task_has_one_published_version(catalog: Catalog, state: str) -> None:
    refused(catalog, f"UPDATE prompt_versions SET state = 'published' WHERE id = {IDS[state]}")


@pytest.mark.parametrize("state", ["candidate", "retired"])
def test_publishing_another_version_cannot_replace_the_published_one(
    catalog: Catalog, state: str, on_sqlite: None
) -> None:
    refused(catalog, f"UPDATE OR REPLACE prompt_versions SET state = 'published' WHERE id = {IDS[state]}")


def test_a_version_without_a_baseline_is_never_published(catalog: Catalog) -> None:
    accepted(catalog, f"UPDATE prompt_versions SET baseline_id = NULL WHERE id = {IDS['candidate']}")
    retire = f"UPDATE prompt_versions SET state = 'retired' WHERE id = {IDS['published']}"
    publish = f"UPDATE prompt_versions SET state = 'published' WHERE id = {IDS['candidate']}"
    assert "ck_prompt_versions_baseline" in refused(catalog, retire, publish)


@pytest.mark.parametrize("state", ["published", "retired", "rejected"])
def test_a_version_starts_as_a_candidate(catalog: Catalog, state: str) -> None:
    message = refused(
        catalog,
        f"INSERT INTO prompt_versions (number, state, {COPIED}) SELECT 9, '{state}', {COPIED} FROM prompt_versions"
        " WHERE id = 1",
    )
    assert "a prompt version starts as a candidate" in message


@pytest.mark.parametrize("replace", ["INSERT OR REPLACE", "REPLACE"])
@pytest.mark.parametrize("values", ["2, 9", "9, 2", "2, 2", "1, 1"])
def test_a_version_cannot_be_replaced_by_id_or_number(
    catalog: Catalog, replace: str, values: str, on_sqlite: None
) -> None:
    refused(
        catalog,
        f"{replace} INTO prompt_versions (id, number, state, {COPIED})"
        f" SELECT {values}, 'candidate', {COPIED} FROM prompt_versions WHERE id = 3",
    )


@pytest.mark.parametrize("state", ["published", "retired"])
def test_a_published_version_cannot_be_deleted(catalog: Catalog, state: str) -> None:
    assert "cannot be deleted" in refused(catalog, f"DELETE FROM prompt_versions WHERE id = {IDS[state]}")
    refused(catalog, "DELETE FROM prompt_versions")


@pytest.mark.parametrize("state", ["candidate", "rejected"])
def test_what_was_never_published_can_be_deleted(catalog: Catalog, state: str, on_sqlite: None) -> None:
    accepted(catalog, f"DELETE FROM prompt_versions WHERE id = {IDS[state]}")


# [which of a] table: (a condition that finds rows which a published version rests on, a column to change)
FROZEN = {
    "artifacts": ("sha256 IN (SELECT weights_sha256 FROM prompt_versions WHERE id <= 2)", "kind = 'rows'"),
    "lineage": ("1 = 1", "parent_label = 'colour@9'"),
    "evaluations": ("id IN (SELECT baseline_id FROM prompt_versions)", "score = 1.0"),
    "evaluation_results": (
        "evaluation_id IN (SELECT baseline_id FROM prompt_versions)",
        "evaluation_id = 999",
    ),
    "evaluation_scores": ("evaluation_id IN (SELECT baseline_id FROM prompt_versions)", "score = 1.0"),
    "blessed evaluations": ("id IN (SELECT evaluation_id FROM baselines)", "score = 1.0"),
    "blessed evaluation_results": ("evaluation_id IN (SELECT evaluation_id FROM baselines)", "evaluation_id = 999"),
    "blessed evaluation_scores": ("evaluation_id IN (SELECT evaluation_id FROM baselines)", "score = 1.0"),
    "events": ("1 = 1", "reason = 'another'"),
    "baselines": ("1 = 1", "evaluation_id = 1"),
}
# The key of each, where it is not `id`.
KEYS = {
    "artifacts": "sha256",
    "evaluation_results": "evaluation_id",
    "evaluation_scores": "evaluation_id, metric",
}


@pytest.mark.parametrize("frozen", FROZEN)
def test_what_a_published_version_rests_on_cannot_be_changed(catalog: Catalog, frozen: str) -> None:
    table, (rows, change) = frozen.split()[-1], FROZEN[frozen]
    assert "cannot be changed" in refused(catalog, f"UPDATE {table} SET {change} WHERE {rows}")
    if DATABASES.kind == "sqlite":
        refused(catalog, f"UPDATE OR REPLACE {table} SET {change} WHERE {rows}")


@pytest.mark.parametrize("frozen", FROZEN)
def test_what_a_published_version_rests_on_cannot_be_deleted(catalog: Catalog, frozen: str) -> None:
    table, (rows, _) = frozen.split()[-1], FROZEN[frozen]
    assert "cannot be deleted" in refused(catalog, f"DELETE FROM {table} WHERE {rows}")
    refused(catalog, f"DELETE FROM {table}")


@pytest.mark.parametrize("frozen", FROZEN)
def test_what_a_published_version_rests_on_cannot_be_replaced(catalog: Catalog, frozen: str) -> None:
    table, (rows, change) = frozen.split()[-1], FROZEN[frozen]
    source = f"INTO {table} SELECT * FROM {table} WHERE {rows}"
    if DATABASES.kind == "sqlite":
        assert "cannot be replaced" in refused(catalog, f"INSERT OR REPLACE {source}")
        refused(catalog, f"REPLACE {source}")
    refused(catalog, f"INSERT {source} ON CONFLICT ({KEYS.get(table, 'id')}) DO UPDATE SET {change}")


@pytest.mark.parametrize("table", triggers.PROTECTED)
def test_no_protected_table_can_be_emptied_at_once(catalog: Catalog, table: str) -> None:
    emptied = f"DELETE FROM {table}" if DATABASES.kind == "sqlite" else f"TRUNCATE {table} CASCADE"
    refused(catalog, emptied)


@pytest.mark.parametrize("column", ["data = x'00'", "kind = 'rows'", "sha256 = 'x'", "rowid = 99"])
def test_no_column_of_an_artifact_can_be_changed(catalog: Catalog, column: str, on_sqlite: None) -> None:
    refused(catalog, f"UPDATE artifacts SET {column} WHERE rowid = 1")


def test_an_artifact_cannot_be_replaced_by_its_hidden_row_number(catalog: Catalog, on_sqlite: None) -> None:
    refused(
        catalog,
        "INSERT OR REPLACE INTO artifacts (rowid, sha256, kind, data, created_at)"
        " VALUES (1, 'x', 'rows', x'00', '2026-01-01')",
    )


def test_the_rows_that_a_score_was_taken_on_cannot_be_deleted(catalog: Catalog) -> None:
    assert "cannot be deleted" in refused(catalog, "DELETE FROM artifacts WHERE kind = 'rows'")


def test_the_weights_of_a_rejected_candidate_can_be_deleted(tmp_path: Path, on_sqlite: None) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog)
    learn(catalog, publish=False, adapter=Adapter(b"{}", b"bad weights"))
    accepted(catalog, f"DELETE FROM artifacts WHERE sha256 = '{hashlib.sha256(b'bad weights').hexdigest()}'")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE base_models SET weights = 'sha256:other'",
        "UPDATE task_files SET source = 'task: other'",
        "UPDATE data_snapshots SET sha256 = NULL",
        "UPDATE data_snapshots SET fingerprint = 'sha256:other'",
        "UPDATE tasks SET name = 'other'",
        "DELETE FROM base_models",
        "DELETE FROM task_files",
        "DELETE FROM data_snapshots",
        "DELETE FROM tasks",
        "INSERT INTO base_models SELECT * FROM base_models",
    ],
)
def test_what_a_published_version_refers_to_cannot_be_changed(catalog: Catalog, change: str) -> None:
    refused(catalog, change)
