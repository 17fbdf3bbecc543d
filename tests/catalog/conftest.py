"""The catalog's tests run on both databases, but for those about one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multiprompt.catalog.catalog import Catalog
from tests.catalog.databases import DATABASES, KINDS, drop_databases
from tests.catalog.samples import new_catalog

KINDS_OF = {"test_database": ("sqlite",), "test_migration": ("sqlite",), "test_postgresql": ("postgresql",)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    module = metafunc.module.__name__.rpartition(".")[2]
    if "database_kind" in metafunc.fixturenames:
        metafunc.parametrize("database_kind", KINDS_OF.get(module, KINDS), indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def database_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    DATABASES.kind = request.param
    yield request.param
    DATABASES.kind = "sqlite"
    drop_databases()


@pytest.fixture
def on_sqlite(database_kind: str) -> None:
    if database_kind != "sqlite":
        pytest.skip("about the file")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog, which must be sound after the test too."""
    made = new_catalog(tmp_path)
    yield made
    assert made.verify() == []
