"""Pointers: publishing and rolling back."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import NotFoundError, StateError
from multiprompt.records import CheckReport
from tests.catalog.databases import by, contents
from tests.catalog.samples import AT, a_candidate, a_task, learn


def test_publishing_retires_the_version_before_it(catalog: Catalog) -> None:
    learn(catalog, at=AT)
    learn(catalog, at=AT + timedelta(days=1))
    first, second = catalog.versions.of("colour")
    assert (first.state, first.retired_at) == ("retired", AT + timedelta(days=1))
    assert (second.state, second.published_at) == ("published", AT + timedelta(days=1))
    assert catalog.versions.get("colour") == second
    assert [version.label for version in catalog.versions.published()[1]] == ["colour@2"]


def test_only_moved_pointers_move_the_epoch(catalog: Catalog) -> None:
    epochs = [catalog.versions.published()[0]]
    for act in (
        lambda: by(catalog, "tester", AT).tasks.add(a_task()),
        lambda: learn(catalog, publish=False),
        lambda: learn(catalog),
        lambda: learn(catalog),
        lambda: by(catalog, "tester", AT).pointers.roll_back("colour", 2, "why"),
    ):
        act()
        epochs.append(catalog.versions.published()[0])
    assert [later - earlier for earlier, later in itertools.pairwise(epochs)] == [0, 0, 1, 1, 1]


def test_rolling_back_publishes_the_version_retired_last(catalog: Catalog) -> None:
    for day in range(3):
        learn(catalog, at=AT + timedelta(days=day))
    back = by(catalog, "someone", AT + timedelta(days=9)).pointers.roll_back("colour", None, "complaints")
    assert (back.number, back.state, back.retired_at) == (2, "published", None)
    assert [version.state for version in catalog.versions.of("colour")] == ["retired", "published", "retired"]
    event = catalog.events.find()[-1]
    assert (event.kind, event.from_version, event.to_version) == ("rolled-back", 3, 2)
    assert (event.reason, event.actor) == ("complaints", "someone")


def test_rolling_back_twice_goes_forth_again(catalog: Catalog) -> None:
    for day in range(2):
        learn(catalog, at=AT + timedelta(days=day))
    numbers = [
        by(catalog, "tester", AT + timedelta(days=day)).pointers.roll_back("colour", None, "").number
        for day in range(2, 5)
    ]
    assert numbers == [1, 2, 1]


def test_only_a_retired_version_can_be_rolled_back_to(catalog: Catalog) -> None:
    learn(catalog)
    learn(catalog, publish=False)
    before = contents(catalog)
    for number, says in ((1, "colour@1 is published"), (2, "colour@2 is rejected"), (None, "has no retired version")):
        with pytest.raises(StateError, match=says):
            by(catalog, "tester", AT).pointers.roll_back("colour", number, "")
    with pytest.raises(NotFoundError, match="no version 7"):
        by(catalog, "tester", AT).pointers.roll_back("colour", 7, "")
    assert contents(catalog) == before


def test_rolling_back_keeps_bytes_baseline_and_digest(catalog: Catalog) -> None:
    first = learn(catalog, score=0.8)
    kept = catalog.versions.adapter(first), catalog.baselines.evaluation_of(first), catalog.evaluations.rows(first)
    learn(catalog, score=0.9)
    back = by(catalog, "tester", AT).pointers.roll_back("colour", 1, "")
    assert back.digest == first.digest
    assert (
        catalog.versions.adapter(back),
        catalog.baselines.evaluation_of(back),
        catalog.evaluations.rows(back),
    ) == kept


def test_a_candidate_below_its_floor_is_published_by_force_and_with_a_reason(catalog: Catalog) -> None:
    by(catalog, "tester", AT).tasks.add(a_task())
    epoch = catalog.settings.epoch()
    version = by(catalog, "tester", AT).candidates.admit(
        a_candidate(a_task()), CheckReport((), 0.0), decision="hold", reason="did not learn", epoch=epoch
    )
    assert (version.state, catalog.versions.is_below_floor(version)) == ("candidate", True)
    assert catalog.events.find()[-1].kind == "below-floor"
    for force, reason in ((False, "for now"), (True, " ")):
        with pytest.raises(StateError, match="colour@1 did not learn; it is published only with `force=True`"):
            by(catalog, "tester", AT).pointers.publish("colour", 1, reason, force=force)
    assert by(catalog, "tester", AT).pointers.publish("colour", 1, "for now", force=True).state == "published"
