"""Lineage: the parents of a version."""

from __future__ import annotations

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.lineage import Parent
from multiprompt.errors import IntegrityError
from multiprompt.records import Edge
from tests.catalog.databases import by, contents
from tests.catalog.samples import AT, BASE, ROWS, a_task, learn
from tests.conftest import between_versions


def test_lineage_names_what_each_version_came_from(catalog: Catalog) -> None:
    first = learn(catalog, "a", parents=(Parent("imported-from", "a folder"),))
    learn(catalog, "b", parents=(Parent("transferred-from", first.label, first),))
    second = learn(catalog, "a", parents=(Parent("retrained-from", first.label, first),))
    edges = [
        Edge("a@1", "imported-from", "a folder"),
        Edge("b@1", "transferred-from", "a@1"),
        Edge("a@2", "retrained-from", "a@1"),
    ]
    assert between_versions(catalog.lineage.of("a")) == edges
    assert between_versions(catalog.lineage.of("a", 2)) == [edges[0], edges[2]]
    assert between_versions(catalog.lineage.of("b", 1)) == edges[:2]
    made_of = {(e.relation, e.parent) for e in catalog.lineage.of("b", 1) if e.child == "b@1"} - set(edges)
    assert {("runs-on", BASE.weights), ("evaluated-on", ROWS.fingerprint)} <= made_of
    assert second.label == "a@2"


def test_an_unknown_relation_is_refused_and_nothing_is_written(catalog: Catalog) -> None:
    by(catalog, "tester", AT).base_models.bind(BASE)
    by(catalog, "tester", AT).tasks.add(a_task())
    before = contents(catalog)
    with pytest.raises(IntegrityError, match="refuses the change"):
        learn(catalog, parents=(Parent("inspired-by", "a friend"),))
    assert contents(catalog) == before
