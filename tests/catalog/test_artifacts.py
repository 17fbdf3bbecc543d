"""Artifacts: stored once, and never served damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import IntegrityError
from multiprompt.records import Adapter
from tests.catalog.databases import DATABASES, contents, damage
from tests.catalog.samples import catalog_of_one_version, learn
from tests.catalog.test_verification import damaged


def test_a_digest_identifies_the_two_files(catalog: Catalog) -> None:
    version = learn(catalog)
    adapter = catalog.versions.adapter(version)
    config, weights = (hashlib.sha256(part).hexdigest() for part in (adapter.config, adapter.weights))
    expected = "sha256:" + hashlib.sha256((config + weights).encode()).hexdigest()
    assert version.digest == expected
    assert catalog.versions.digests() == {"colour@1": expected}
    assert learn(catalog).digest != expected


def test_two_tasks_with_the_same_adapter_store_it_once(catalog: Catalog) -> None:
    same = Adapter(b"{}", b"shared")
    first, second = learn(catalog, "a", adapter=same), learn(catalog, "b", adapter=same)
    assert first.digest == second.digest
    assert catalog.versions.adapter(first) == catalog.versions.adapter(second) == same
    assert len(contents(catalog)["artifacts"]) == 3


def test_damaged_weights_are_never_served(tmp_path: Path) -> None:
    catalog = damaged(tmp_path, "a flipped byte in the weights")
    version = catalog.versions.get("colour")
    for read in (lambda: catalog.versions.adapter(version), catalog.versions.digests):
        with pytest.raises(
            IntegrityError, match="colour@1: stored as sha256 .*, but the bytes have .*restore a backup"
        ):
            read()


def test_every_flipped_byte_of_an_artifact_is_found_and_refused(tmp_path: Path) -> None:
    catalog = catalog_of_one_version(tmp_path)
    version = catalog.versions.get("colour")
    adapter = catalog.versions.adapter(version)
    for data in (adapter.config, adapter.weights):
        sha256 = hashlib.sha256(data).hexdigest()
        for place in range(len(data)):
            flipped = (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]).hex()
            store(catalog, sha256, flipped)
            with pytest.raises(IntegrityError):
                catalog.versions.adapter(version)
            assert "artifacts" in {problem.where for problem in catalog.verify()}
        store(catalog, sha256, data.hex())
    assert catalog.verify() == []


def store(catalog: Catalog, sha256: str, data: str) -> None:
    """Put other bytes, given in hexadecimal, into an artifact."""
    value = f"x'{data}'" if DATABASES.kind == "sqlite" else f"decode('{data}', 'hex')"
    damage(catalog, f"UPDATE artifacts SET data = {value} WHERE sha256 = '{sha256}'")


def test_missing_weights_are_said_to_be_missing(tmp_path: Path) -> None:
    catalog = damaged(tmp_path, "missing weights")
    version = catalog.versions.get("colour")
    with pytest.raises(IntegrityError, match="colour@1: the artifact .* is missing; restore a backup"):
        catalog.versions.adapter(version)
