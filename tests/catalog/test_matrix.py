"""The accuracy matrix from history."""

from __future__ import annotations

from dataclasses import replace

from multiprompt.catalog.catalog import Catalog
from multiprompt.records import Matrix
from tests.catalog.databases import by
from tests.catalog.samples import AT, a_check, learn


def test_the_matrix_is_what_was_measured_when_each_task_was_learned(catalog: Catalog) -> None:
    learn(catalog, "a", 0.9)
    learn(catalog, "b", 0.8, checked=[a_check("a@1", 0.9, 0.85)])
    learn(catalog, "c", 0.3, publish=False, checked=[a_check("a@1", 0.9, 0.1), a_check("b@1", 0.8, 0.1)])
    learn(catalog, "a", 0.95, checked=[a_check("b@1", 0.8, 0.2)])
    learn(catalog, "c", 0.7, checked=[a_check("a@2", 0.95, 0.93), a_check("b@1", 0.8, None)])
    by(catalog, "tester", AT).pointers.roll_back("a", 1, "")
    scores = ((0.9, None, None), (0.85, 0.8, None), (0.93, None, 0.7))
    assert catalog.matrix.get() == Matrix(("a", "b", "c"), scores, (0.1,) * 3, (True,) * 3)


def test_a_version_that_a_check_did_not_run_again_had_the_score_of_its_baseline(catalog: Catalog) -> None:
    learn(catalog, "a", 0.9)
    learn(catalog, "b", 0.8, checked=[replace(a_check("a@1", 0.9, 0.9), verdict="identical", reused=True)])
    learn(catalog, "a", 0.95)
    learn(catalog, "c", 0.7)
    by(catalog, "tester", AT).pointers.roll_back("a", 1, "")
    learn(catalog, "d", 0.6)
    assert catalog.matrix.get().scores == (
        (0.9, None, None, None),
        (0.9, 0.8, None, None),
        (0.95, 0.8, 0.7, None),
        (0.9, 0.8, 0.7, 0.6),
    )
    with catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM check_results").scalar() == 0


def test_a_catalog_without_published_versions_has_an_empty_matrix(catalog: Catalog) -> None:
    learn(catalog, publish=False)
    assert catalog.matrix.get() == Matrix((), ())
