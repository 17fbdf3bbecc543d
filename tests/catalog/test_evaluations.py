"""Evaluations: rows, keys and damage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import CatalogError, IntegrityError
from tests.catalog.databases import contents
from tests.catalog.samples import an_evaluation, learn
from tests.catalog.test_verification import damaged


def test_evaluations_come_back_equal_with_every_row(catalog: Catalog) -> None:
    soft = an_evaluation(
        "colour",
        0.5,
        predictions=("blau\n", "zwölf", "", "'\u2028\x00"),
        references=(3, "x", "", "𝄞"),
        metric="exact_match",
        metrics={"exact_match": 0.5, "bleu": 1e-9},
        higher_is_better=False,
    )
    hard = replace(soft, kind="hard", score=0.25, metrics={"exact_match": 0.25, "bleu": 0.0}, key={"prompt": "hard"})
    version = learn(catalog, soft=soft, hard=hard)
    assert [catalog.evaluations.get(record.id) for record in catalog.evaluations.find()] == [hard, soft]
    assert catalog.baselines.evaluation_of(version) == soft
    assert catalog.evaluations.with_key(soft.key) == soft
    assert soft.rows == 4


def test_a_score_is_found_by_all_of_its_key_or_not_at_all(catalog: Catalog) -> None:
    learn(catalog, soft=an_evaluation("colour", 0.5, key={"prompt": "p", "weights": "w"}))
    assert catalog.evaluations.with_key({"weights": "w", "prompt": "p"}) is not None
    for key in ({"prompt": "p"}, {"prompt": "p", "weights": "v"}, {"prompt": "p", "weights": "w", "more": ""}):
        assert catalog.evaluations.with_key(key) is None


def test_the_newest_of_equal_keys_is_found(catalog: Catalog) -> None:
    for score in (0.5, 0.6):
        learn(catalog, soft=an_evaluation("colour", score, key={"prompt": "same"}))
    found = catalog.evaluations.with_key({"prompt": "same"})
    assert found is not None
    assert found.score == 0.6


def test_a_score_that_is_no_number_is_not_stored(catalog: Catalog) -> None:
    learn(catalog)
    before = contents(catalog)
    with pytest.raises(CatalogError):
        learn(catalog, score=float("nan"))
    assert contents(catalog) == before


@pytest.mark.parametrize("kind", ["a flipped byte in the evaluation rows", "another fingerprint of the rows"])
def test_damaged_evaluation_rows_are_never_scored(tmp_path: Path, kind: str) -> None:
    catalog = damaged(tmp_path, kind)
    version = catalog.versions.get("colour")
    with pytest.raises(IntegrityError, match="colour@1"):
        catalog.evaluations.rows(version)


def test_damaged_results_are_never_compared(tmp_path: Path) -> None:
    catalog = damaged(tmp_path, "damaged results")
    version = catalog.versions.get("colour")
    with pytest.raises(IntegrityError, match="an evaluation of colour cannot be read"):
        catalog.baselines.evaluation_of(version)
