"""Verification: damage is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import CatalogError
from tests.catalog.databases import DATABASES, damage, execute
from tests.catalog.samples import catalog_of_one_version, learn, new_catalog

# What is done, and where it is found; in PostgreSQL's words where they differ.
DAMAGE = {
    "a flipped byte in the weights": (
        "UPDATE artifacts SET data = CAST('W' || substr(data, 2) AS BLOB) WHERE kind = 'adapter-weights'",
        "artifacts",
        "UPDATE artifacts SET data = set_byte(data, 0, 87) WHERE kind = 'adapter-weights'",
    ),
    "a flipped byte in the config": (
        "UPDATE artifacts SET data = CAST('[' || substr(data, 2) AS BLOB) WHERE kind = 'adapter-config'",
        "colour@1",
        "UPDATE artifacts SET data = set_byte(data, 0, 91) WHERE kind = 'adapter-config'",
    ),
    "a flipped byte in the evaluation rows": (
        "UPDATE artifacts SET data = x'00' WHERE kind = 'rows'",
        "artifacts",
        "UPDATE artifacts SET data = set_byte(data, 5, 1 - get_byte(data, 5)) WHERE kind = 'rows'",
    ),
    "missing weights": ("DELETE FROM artifacts WHERE kind = 'adapter-weights'", "colour@1"),
    "missing evaluation rows": ("DELETE FROM artifacts WHERE kind = 'rows'", "table data_snapshots"),
    "another digest": ("UPDATE prompt_versions SET digest = 'sha256:0'", "colour@1"),
    "swapped files": (
        "UPDATE prompt_versions SET config_sha256 = weights_sha256, weights_sha256 = config_sha256",
        "colour@1",
    ),
    "a missing task": ("DELETE FROM tasks", "table prompt_versions"),
    "a missing baseline": ("DELETE FROM evaluations WHERE kind = 'soft'", "table prompt_versions"),
    "damaged results": (
        "UPDATE evaluation_results SET results = x'00'",
        "",
        "UPDATE evaluation_results SET results = set_byte(results, 0, 0)",
    ),
    "missing results": ("DELETE FROM evaluation_results WHERE evaluation_id = 1", "evaluation 1"),
    "another score": ("UPDATE evaluation_scores SET score = 0.123", ""),
    "a better score": ("UPDATE evaluations SET score = 0.99", ""),
    "another main metric": ("UPDATE evaluations SET metric = 'other'", ""),
    "missing scores": ("DELETE FROM evaluation_scores", ""),
    "another key than its parts": ("UPDATE evaluations SET key = 'sha256:0'", ""),
    "another fingerprint of the rows": ("UPDATE data_snapshots SET fingerprint = 'sha256:0'", ""),
    "no evaluation rows": ("UPDATE data_snapshots SET sha256 = NULL", ""),
    "a lost event": ("DELETE FROM events WHERE kind = 'published'", ""),
    "another text than the task's": ("UPDATE task_texts SET words = 'nothing'", "task colour"),
}


def damaged(folder: Path, kind: str) -> Catalog:
    catalog = catalog_of_one_version(folder)
    here, _, *there = DAMAGE[kind]
    damage(catalog, there[0] if there and DATABASES.kind == "postgresql" else here)
    return catalog


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_finds_damage(tmp_path: Path, kind: str) -> None:
    assert catalog_of_one_version(tmp_path).verify() == []
    problems = damaged(tmp_path, kind).verify()
    assert problems != []
    where = DAMAGE[kind][1]
    assert not where or where in {problem.where for problem in problems}


def test_verify_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    catalog_of_one_version(tmp_path).verify(lambda what, done, total: told.append((what, done, total)))
    assert {("verifying artifacts", 3, 3), ("verifying evaluations", 2, 2)} <= set(told)
    for what in {what for what, _, _ in told}:
        done = [done / total for said, done, total in told if said == what]
        assert done == sorted(done)
        assert done[-1] == 1


def test_verify_finds_a_dropped_trigger(tmp_path: Path) -> None:
    catalog = catalog_of_one_version(tmp_path)
    on_table = "" if DATABASES.kind == "sqlite" else " ON prompt_versions"
    execute(catalog, f"DROP TRIGGER versions_kept{on_table}")
    assert any("versions_kept" in problem.what for problem in catalog.verify())


def test_verify_finds_damaged_pages(tmp_path: Path, on_sqlite: None) -> None:
    catalog = new_catalog(tmp_path)
    for _ in range(3):
        learn(catalog)
    whole = catalog.path.read_bytes()
    found = 0
    for page in range(1, len(whole) // 4096):
        catalog.path.write_bytes(whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :])
        try:
            found += catalog.verify() != []
        except CatalogError as error:
            assert "\n" not in str(error)
            found += 1
    assert found == len(whole) // 4096 - 1
