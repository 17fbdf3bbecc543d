"""The catalog: what goes in comes out, publishing is one step, and history explains the state."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConflictError, NotFoundError, StateError
from multiprompt.records import CheckReport, Event
from tests.catalog.databases import DATABASES, by
from tests.catalog.samples import AT, a_candidate, a_task, learn, new_catalog


def test_records_are_frozen_and_detached(catalog: Catalog) -> None:
    version, task = learn(catalog), catalog.tasks.get("colour")
    for record in (version, task, catalog.events.find()[0], catalog.evaluations.find()[0]):
        with pytest.raises(FrozenInstanceError):
            record.task = "other"
    learn(catalog)
    assert (version.state, task.published, version.base_model.name) == ("published", 1, "tiny")


def test_changing_what_a_record_holds_changes_nothing_stored(catalog: Catalog) -> None:
    learn(catalog)
    before = catalog.evaluations.find()[1]
    catalog.evaluations.find()[1].metrics.clear()
    assert catalog.evaluations.find()[1] == before
    assert before.metrics == {"acc": 0.5, "macro_f1": 0.25}


def test_a_second_catalog_object_sees_what_the_first_wrote(catalog: Catalog) -> None:
    other = Catalog.open(catalog.engine.url.render_as_string(hide_password=False))
    version = learn(catalog)
    assert other.versions.get("colour") == version
    learn(other)
    assert catalog.versions.get("colour").number == 2


def replayed(events: Sequence[Event]) -> dict[str, str]:
    """The state of each version, from events alone."""
    states: dict[str, str] = {}
    for event in events:
        if event.kind in ("published", "rolled-back"):
            if event.from_version is not None:
                assert states[f"{event.task}@{event.from_version}"] == "published"
                states[f"{event.task}@{event.from_version}"] = "retired"
            states[f"{event.task}@{event.to_version}"] = "published"
        elif event.kind == "rejected":
            states[f"{event.task}@{event.to_version}"] = "rejected"
    return states


class CatalogMachine(RuleBasedStateMachine):
    """Any order of publishing, rejecting, late publishing and rolling back, against a model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.catalog = new_catalog(self.folder)
        self.states: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.seconds = 0

    def teardown(self) -> None:
        assert self.catalog.verify() == []
        shutil.rmtree(self.folder)

    def now(self) -> datetime:
        self.seconds += 1
        return AT + timedelta(seconds=self.seconds)

    def publish(self, label: str) -> None:
        task = label.partition("@")[0]
        for other, state in self.states.items():
            if other.partition("@")[0] == task and state == "published":
                self.states[other] = "retired"
        self.states[label] = "published"

    @rule(task=st.sampled_from("ab"), score=st.floats(0, 1), publish=st.booleans())
    def admit(self, task: str, score: float, publish: bool) -> None:
        version = learn(self.catalog, task, score, publish=publish, at=self.now())
        self.digests[version.label] = version.digest
        if publish:
            self.publish(version.label)
        else:
            self.states[version.label] = "rejected"

    @precondition(lambda self: "published" in self.states.values())
    @rule(task=st.sampled_from("ab"))
    def admit_too_late(self, task: str) -> None:
        candidate = a_candidate(a_task(task), seed=1000)
        late = self.catalog.versions.published()[0] - 1
        with pytest.raises((ConflictError, NotFoundError)):
            by(self.catalog, "late", self.now()).candidates.admit(
                candidate, CheckReport((), 0.0), decision="publish", reason="", epoch=late
            )

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.states)))
        task, _, number = label.partition("@")
        if self.states[label] == "retired":
            by(self.catalog, "tester", self.now()).pointers.roll_back(task, int(number), "")
            self.publish(label)
        else:
            with pytest.raises(StateError):
                by(self.catalog, "tester", self.now()).pointers.roll_back(task, int(number), "")

    @invariant()
    def the_catalog_is_what_happened(self) -> None:
        versions = self.catalog.versions.find()
        assert {version.label: version.state for version in versions} == self.states
        assert {version.label: version.digest for version in versions} == self.digests
        published = [version for version in versions if version.state == "published"]
        assert len({version.task for version in published}) == len(published)
        assert self.catalog.versions.digests() == {version.label: version.digest for version in published}

    @invariant()
    def events_replay_to_the_state(self) -> None:
        assert replayed(self.catalog.events.find()) == self.states


def test_any_order_of_moves_is_what_the_catalog_says() -> None:
    examples = 8 if DATABASES.kind == "sqlite" else 3
    limits = settings(deadline=None, database=None, max_examples=examples, stateful_step_count=8)
    run_state_machine_as_test(CatalogMachine, settings=limits)
