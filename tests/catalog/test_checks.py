"""Checks: regressions that stand."""

from __future__ import annotations

from dataclasses import replace

from multiprompt.catalog.catalog import Catalog
from multiprompt.records import CheckReport
from tests.catalog.databases import by
from tests.catalog.samples import AT, a_check, learn


def test_a_regression_stands_while_the_newest_check_of_that_version_found_it(catalog: Catalog) -> None:
    learn(catalog, "colour", 0.9)
    learn(catalog, "shape", 0.4)
    assert catalog.checks.found_worse("colour@1") is None
    lost = replace(a_check("colour@1", 0.9, 0.5), verdict="regressed")
    by(catalog, "tester", AT).checks.save(CheckReport((lost,), 1.0))
    assert catalog.checks.found_worse("colour@1") is not None
    assert catalog.checks.found_worse("shape@1") is None
    learn(catalog, "colour", 0.3, publish=False)
    assert catalog.checks.found_worse("colour@1") is not None, "a candidate of its own task checked the others alone"
    same = replace(lost, verdict="identical", reused=True)
    by(catalog, "tester", AT).checks.save(CheckReport((same,), 1.0))
    assert catalog.checks.found_worse("colour@1") is None
    learn(catalog, "shape", 0.5, checked=[replace(lost, verdict="failed", score=None)])
    assert catalog.checks.found_worse("colour@1") is not None
