"""Candidates: admitted whole, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from multiprompt.catalog import candidates
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConflictError, NotFoundError
from multiprompt.records import CheckReport
from tests.catalog.databases import by, contents
from tests.catalog.samples import AT, ROWS, a_candidate, a_task, learn


def test_a_candidate_for_an_unknown_task_is_refused(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        by(catalog, "tester", AT).candidates.admit(
            a_candidate(a_task()), CheckReport((), 0.0), decision="publish", reason="", epoch=0
        )
    assert catalog.versions.find() == []


def test_a_rejected_candidate_is_kept_with_its_evidence(catalog: Catalog) -> None:
    published = learn(catalog, score=0.9)
    rejected = learn(catalog, score=0.4, publish=False)
    assert (rejected.state, rejected.reason, rejected.score, rejected.published_at) == ("rejected", "worse", 0.4, None)
    assert catalog.versions.get("colour") == published
    assert catalog.baselines.evaluation_of(rejected).score == 0.4
    assert catalog.evaluations.rows(rejected) == ROWS


def test_publishing_since_the_epoch_was_read_is_a_conflict_that_writes_nothing(catalog: Catalog) -> None:
    learn(catalog, "colour")
    learn(catalog, "shape", publish=False)
    epoch, _ = catalog.versions.published()
    learn(catalog, "shape")
    before = contents(catalog)
    with pytest.raises(ConflictError, match="colour: another prompt was published meanwhile"):
        by(catalog, "tester", AT).candidates.admit(
            a_candidate(a_task(), 0.9, seed=99), CheckReport((), 0.0), decision="publish", reason="late", epoch=epoch
        )
    assert contents(catalog) == before


def test_an_error_in_the_middle_of_admitting_leaves_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(catalog)
    before = contents(catalog)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(candidates, "point_at", broken)
    with pytest.raises(RuntimeError):
        learn(catalog)
    assert contents(catalog) == before
