"""History: events tell what was at any moment, whatever the clock did, and guarded tasks move by force alone."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConflictError, MultipromptError, NotFoundError, QueryError, StateError
from multiprompt.records import CheckReport, Event
from multiprompt.tasks.task import Task
from tests.catalog.databases import by, contents
from tests.catalog.samples import AT, a_candidate, a_task, learn, new_catalog

ROOT = Path(__file__).parents[2]
MOMENT = timedelta(microseconds=1)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog, which must be sound after the test too."""
    made = new_catalog(tmp_path)
    yield made
    made.close()
    assert made.verify() == []


@dataclass(frozen=True)
class Serving:
    """What serves a task: the version, its score, since when, and what its task file says."""

    number: int
    score: float
    since: datetime
    description: str
    tags: tuple[str, ...]


View = dict[str, Serving | None]


class Past:
    """A catalog, and in Python what it held after each step."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.now = datetime.min.replace(tzinfo=UTC)
        self.files = itertools.count()
        self.versions: dict[str, list[Serving | None]] = {}
        self.view: View = {}
        self.views: list[tuple[datetime, View]] = []

    def step(self, clock: datetime, **changed: Serving | None) -> None:
        """Something was written when the clock said so; no event is before the one before it."""
        self.now = max(self.now, clock)
        self.view = self.view | {
            name: None if serving is None else replace(serving, since=self.now) for name, serving in changed.items()
        }
        self.views.append((self.now, self.view))

    def task(self, name: str) -> Task:
        """The task with a file that no other has."""
        number = next(self.files)
        return a_task(name, description=f"File {number} of {name}.\n", tag=[f"file:{number}", "nlp"])

    def add(self, name: str, clock: datetime) -> None:
        by(self.catalog, "tester", clock).tasks.add(self.task(name))
        self.step(clock, **({} if name in self.view else {name: None}))

    def learn(self, name: str, clock: datetime, publish: bool) -> None:
        task = self.task(name)
        versions = self.versions.setdefault(name, [])
        score = len(versions) / 8
        learn(self.catalog, name, score, task=task, publish=publish, at=clock)
        made = Serving(len(versions) + 1, score, AT, task.description.source.strip(), task.tags)
        versions.append(made if publish else None)
        self.step(clock, **({name: made} if publish else {} if name in self.view else {name: None}))

    def roll_back(self, name: str, clock: datetime, pick: int) -> None:
        serving = self.view.get(name)
        retired = [one for one in self.versions.get(name, []) if one and serving and one.number != serving.number]
        if retired:
            target = retired[pick % len(retired)]
            by(self.catalog, "tester", clock).pointers.roll_back(name, target.number, "")
            self.step(clock, **{name: target})

    def at(self, moment: datetime) -> View:
        return next((view for when, view in reversed(self.views) if when <= moment), {})

    def check(self, moment: datetime) -> None:
        found = {record.name: record for record in self.catalog.tasks.find(as_of=moment)}
        expected = self.at(moment)
        assert found.keys() == expected.keys()
        for name, serving in expected.items():
            record = found[name]
            if serving is None:
                assert (record.published, record.score, record.published_at) == (None, None, None)
            else:
                assert Serving(serving.number, serving.score, serving.since, serving.description, serving.tags) == (
                    Serving(record.published or 0, record.score or 0.0, record.published_at or AT, *told(record))
                )


def told(record: Any) -> tuple[str, tuple[str, ...]]:
    return record.description, record.tags


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "learn", "learn", "reject", "roll back", "roll back"]),
        st.sampled_from("ab"),
        st.integers(-5, 5),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=6, deadline=None, database=None)
@given(STEPS)
def test_any_moment_is_shown_as_it_was_whatever_the_clock_did(steps: list[tuple[str, str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        past = Past(new_catalog(Path(folder)))
        clock = AT
        for kind, name, hours, pick in steps:
            clock += timedelta(hours=hours)
            if kind == "add":
                past.add(name, clock)
            elif kind == "roll back":
                past.roll_back(name, clock, pick)
            else:
                past.learn(name, clock, publish=kind == "learn")
        for moment in {when for when, _ in past.views}:
            for nearby in (moment - MOMENT, moment, moment + MOMENT):
                past.check(nearby)
        past.check(AT - timedelta(days=9))
        past.check(AT + timedelta(days=999))
        moments = [event.at for event in past.catalog.events.find()]
        assert moments == sorted(moments)
        assert past.catalog.verify() == []


def test_before_anything_there_was_nothing(catalog: Catalog) -> None:
    learn(catalog)
    assert catalog.tasks.find(as_of=AT - MOMENT) == []
    assert catalog.tasks.find(as_of=datetime(1, 1, 2, tzinfo=UTC)) == []
    assert [task.published for task in catalog.tasks.find(as_of=AT)] == [1]
    assert [task.published for task in catalog.tasks.find(as_of=datetime(9999, 12, 30, tzinfo=UTC))] == [1]
    for hours in (-14, 0, 14):
        zone = timezone(timedelta(hours=hours))
        assert catalog.tasks.find(as_of=datetime.min.replace(tzinfo=zone)) == []
        assert [task.published for task in catalog.tasks.find(as_of=datetime.max.replace(tzinfo=zone))] == [1]
    assert catalog.tasks.find(as_of=datetime.min) == []


def test_a_moment_is_the_same_in_every_time_zone(catalog: Catalog) -> None:
    learn(catalog, at=AT)
    learn(catalog, at=AT + timedelta(hours=1))
    zone = timezone(timedelta(hours=5, minutes=30))
    for moment, number in ((AT, 1), (AT + timedelta(hours=1) - MOMENT, 1), (AT + timedelta(hours=1), 2)):
        assert [task.published for task in catalog.tasks.find(as_of=moment.astimezone(zone))] == [number]
        assert [task.published for task in catalog.tasks.find(as_of=moment.replace(tzinfo=None))] == [number]


def test_a_query_of_the_past_asks_for_what_was_then(catalog: Catalog) -> None:
    for day, score in enumerate((0.9, 0.2, 0.5)):
        learn(catalog, "colour", score, at=AT + timedelta(days=day), task=a_task(tag=[f"day:{day}"]))
        if day == 1:
            learn(catalog, "shape", 0.3, at=AT + timedelta(days=1))
    by(catalog, "tester", AT + timedelta(days=5)).pointers.roll_back("colour", 1, "")

    def names(query: str, days: int) -> list[str]:
        return [task.name for task in catalog.tasks.find(query, as_of=AT + timedelta(days=days))]

    assert names("score > 0.8", 0) == ["colour"]
    assert names("score > 0.8", 1) == []
    assert names("score.acc < 0.4", 1) == ["colour", "shape"]
    assert names("score > 0.8", 5) == ["colour"]
    assert names("order by score desc", 1) == ["shape", "colour"]
    assert names("order by score desc", 2) == ["colour", "shape"]
    assert names("published = 2", 1) == ["colour"]
    assert names("published_at = '2026-01-01'", 0) == ["colour"]
    assert names("published_at = '2026-01-01'", 5) == []
    assert names("published_at = '2026-01-06'", 5) == ["colour"]
    assert names("tag.day = '1'", 1) == ["colour"]
    assert names("tag.day = '1'", 2) == []
    assert names("name = 'shape'", 0) == []


def test_the_past_of_now_is_what_is_published_now(catalog: Catalog) -> None:
    learn(catalog, "a", 0.5)
    learn(catalog, "b", 0.25, at=AT + timedelta(days=1))
    learn(catalog, "a", 0.75, at=AT + timedelta(days=2))
    learn(catalog, "a", 0.1, publish=False, at=AT + timedelta(days=3))
    by(catalog, "tester", AT + timedelta(days=4)).pointers.roll_back("a", 1, "")
    assert catalog.tasks.find(as_of=AT + timedelta(days=4)) == catalog.tasks.find()


def test_a_task_that_had_no_published_version_is_shown_with_the_file_it_had_then(catalog: Catalog) -> None:
    old, new = a_task(tag=["old"]), a_task(description="What colour?\n", tag=["new"])
    by(catalog, "tester", AT).tasks.add(old)
    by(catalog, "tester", AT + timedelta(days=1)).tasks.add(new)
    (then,) = catalog.tasks.find(as_of=AT)
    assert (then.description, then.tags, then.fingerprint) == ("Which colour?", ("old",), old.fingerprint)


def test_a_task_is_shown_as_guarded_only_from_when_it_was(catalog: Catalog) -> None:
    learn(catalog)
    by(catalog, "tester", AT + timedelta(days=1)).tasks.guard("colour", True, "in a contract")
    by(catalog, "tester", AT + timedelta(days=2)).tasks.guard("colour", False, "it ended")
    shown = [catalog.tasks.find(as_of=AT + timedelta(days=day))[0].guarded for day in range(3)]
    assert shown == [False, True, False]


def test_a_clock_that_jumps_back_keeps_events_in_order(catalog: Catalog) -> None:
    learn(catalog, at=AT + timedelta(days=10))
    learn(catalog, at=AT)
    by(catalog, "tester", AT - timedelta(days=400)).pointers.roll_back("colour", 1, "")
    by(catalog, "tester", AT + timedelta(days=10) - MOMENT).tasks.note("colour", "late")
    assert {event.at for event in catalog.events.find()} == {AT + timedelta(days=10)}
    first, second = catalog.versions.of("colour")
    assert (first.published_at, second.retired_at) == (AT + timedelta(days=10),) * 2
    assert catalog.tasks.find(as_of=AT) == []
    assert [task.published for task in catalog.tasks.find(as_of=AT + timedelta(days=10))] == [1]
    assert catalog.events.find("order by at desc") == catalog.events.find()[::-1]
    learn(catalog, at=AT + timedelta(days=11))
    assert catalog.events.find()[-1].at == AT + timedelta(days=11)


def test_retiring_and_rolling_back_under_a_stopped_clock_finds_the_version_before(catalog: Catalog) -> None:
    for _ in range(3):
        learn(catalog, at=AT)
    assert by(catalog, "tester", AT - timedelta(days=1)).pointers.roll_back("colour", None, "").number == 2


# Guarded tasks


def events(catalog: Catalog, query: str = "") -> list[tuple[str, str, int | None, int | None, str]]:
    return [(one.kind, one.actor, one.from_version, one.to_version, one.reason) for one in catalog.events.find(query)]


def guarded(catalog: Catalog) -> Catalog:
    """A guarded task with one version published, one retired, and one held."""
    learn(catalog, score=0.5, at=AT)
    learn(catalog, score=0.6, at=AT)
    by(catalog, "Ann", AT).tasks.guard("colour", True, "in a contract")
    learn(catalog, score=0.9, at=AT)
    return catalog


def test_a_guarded_task_holds_what_it_learns(catalog: Catalog) -> None:
    guarded(catalog)
    assert [version.state for version in catalog.versions.of("colour")] == ["retired", "published", "candidate"]
    assert catalog.versions.get("colour").number == 2
    epoch, published = catalog.versions.published()
    assert (epoch, [version.label for version in published]) == (2, ["colour@2"])
    held = catalog.versions.get("colour", 3)
    assert (held.score, held.published_at, held.retired_at) == (0.9, None, None)
    assert catalog.baselines.evaluation_of(held).score == 0.9
    kind, actor, before, after, reason = events(catalog)[-1]
    assert (kind, actor, before, after) == ("held", "tester", None, 3)
    assert "guarded" in reason
    assert "better" in reason
    assert catalog.tasks.get("colour").guarded
    for query in ("guarded = 1", "guarded = true", "guarded != False", "guarded in (TRUE)", "not guarded = false"):
        for as_of in (None, AT):
            assert [task.name for task in catalog.tasks.find(query, as_of=as_of)] == ["colour"]
        assert list(catalog.tasks.find(f"not ({query})")) == []
    with pytest.raises(QueryError, match="column 12, at 'yes': expected true or false"):
        catalog.tasks.find("guarded = 'yes'")
    assert [task.published for task in catalog.tasks.find(as_of=AT)] == [2]


def test_a_worse_candidate_of_a_guarded_task_is_rejected_as_ever(catalog: Catalog) -> None:
    guarded(catalog)
    assert learn(catalog, publish=False).state == "rejected"
    assert events(catalog)[-1][0] == "rejected"


@pytest.mark.parametrize(("force", "reason"), [(False, ""), (True, ""), (False, "please")])
def test_a_guarded_task_moves_neither_without_force_nor_without_a_reason(
    catalog: Catalog, force: bool, reason: str
) -> None:
    guarded(catalog)
    before = contents(catalog)
    for number in (3, None):
        with pytest.raises(StateError, match="'colour' is guarded: .*force=True.*reason"):
            by(catalog, "Bob", AT).pointers.publish("colour", number, reason, force=force)
    for number in (1, None):
        with pytest.raises(StateError, match="'colour' is guarded: .*force=True.*reason"):
            by(catalog, "Bob", AT).pointers.roll_back("colour", number, reason, force=force)
    assert contents(catalog) == before


def test_a_reason_of_blanks_is_none(catalog: Catalog) -> None:
    guarded(catalog)
    with pytest.raises(StateError, match="is guarded"):
        by(catalog, "Bob", AT).pointers.publish("colour", 3, " \n", force=True)


def test_a_guarded_task_moves_by_force_with_a_reason_and_events_tell_it(catalog: Catalog) -> None:
    guarded(catalog)
    later = AT + timedelta(days=1)
    published = by(catalog, "Bob", later).pointers.publish("colour", None, "agreed with legal", force=True)
    assert (published.number, published.state, published.published_at) == (3, "published", later)
    assert catalog.versions.get("colour", 2).state == "retired"
    back = by(catalog, "Cid", later).pointers.roll_back("colour", 1, "they took it back", force=True)
    assert (back.number, back.state) == (1, "published")
    assert events(catalog)[-2:] == [
        ("published", "Bob", 2, 3, "agreed with legal"),
        ("rolled-back", "Cid", 3, 1, "they took it back"),
    ]
    assert catalog.versions.published()[0] == 4
    assert catalog.tasks.get("colour").guarded


def test_a_candidate_that_was_held_is_published_by_force_alone_also_when_the_guard_is_off(catalog: Catalog) -> None:
    """A better version may have been published since, which the gate did not hold it against."""
    guarded(catalog)
    by(catalog, "Ann", AT).tasks.guard("colour", False, "the contract ended")
    assert learn(catalog).state == "published"
    before = contents(catalog)
    for force, reason in ((False, ""), (True, " "), (False, "why not")):
        with pytest.raises(StateError, match="colour@3 was held, and the gate does not judge it again: .*force=True"):
            by(catalog, "Bob", AT).pointers.publish("colour", None, reason, force=force)
    assert contents(catalog) == before
    assert by(catalog, "Bob", AT).pointers.publish("colour", None, "why not", force=True).number == 3


def test_a_task_whose_guard_is_off_again_moves_as_others(catalog: Catalog) -> None:
    guarded(catalog)
    by(catalog, "Ann", AT).tasks.guard("colour", False, "the contract ended")
    assert not catalog.tasks.get("colour").guarded
    assert events(catalog)[-1] == ("unguarded", "Ann", None, None, "the contract ended")
    assert by(catalog, "Bob", AT).pointers.roll_back("colour", None, "").number == 1
    assert by(catalog, "Bob", AT).pointers.publish("colour", 3, "agreed", force=True).state == "published"
    assert learn(catalog).state == "published"


def test_guarding_twice_is_one_event_and_other_tasks_are_not_guarded(catalog: Catalog) -> None:
    learn(catalog)
    learn(catalog, "shape")
    for guard in (True, True, False, False):
        by(catalog, "Ann", AT).tasks.guard("colour", guard, "why")
    told = events(catalog, "kind in ('guarded', 'unguarded')")
    assert told == [("guarded", "Ann", None, None, "why"), ("unguarded", "Ann", None, None, "why")]
    by(catalog, "Ann", AT).tasks.guard("colour", True, "why")
    assert learn(catalog, "shape").state == "published"
    assert [task.guarded for task in catalog.tasks.find()] == [True, False]
    with pytest.raises(NotFoundError, match="did you mean 'colour'"):
        by(catalog, "Ann", AT).tasks.guard("color", True, "")


def test_only_a_held_candidate_can_be_published(catalog: Catalog) -> None:
    guarded(catalog)
    before = contents(catalog)
    for number, says in ((1, "colour@1 is retired"), (2, "colour@2 is published")):
        with pytest.raises(StateError, match=says):
            by(catalog, "Bob", AT).pointers.publish("colour", number, "why", force=True)
    with pytest.raises(NotFoundError, match="no version 9"):
        by(catalog, "Bob", AT).pointers.publish("colour", 9, "why", force=True)
    with pytest.raises(StateError, match="colour@3 is candidate"):
        by(catalog, "Bob", AT).pointers.roll_back("colour", 3, "why", force=True)
    assert contents(catalog) == before
    learn(catalog, "shape")
    with pytest.raises(StateError, match="'shape' has no candidate version to publish"):
        by(catalog, "Bob", AT).pointers.publish("shape", None, "why", force=True)


def test_the_newest_of_several_held_candidates_is_published_by_default(catalog: Catalog) -> None:
    guarded(catalog)
    learn(catalog, at=AT)
    assert by(catalog, "Bob", AT).pointers.publish("colour", None, "why", force=True).number == 4
    assert by(catalog, "Bob", AT).pointers.publish("colour", None, "why", force=True).number == 3


def test_what_was_guarded_first_can_be_a_task_s_first_version(catalog: Catalog) -> None:
    by(catalog, "tester", AT).tasks.add(a_task())
    by(catalog, "Ann", AT).tasks.guard("colour", True, "")
    assert learn(catalog).state == "candidate"
    assert catalog.versions.published() == (0, [])
    assert by(catalog, "Ann", AT).pointers.publish("colour", 1, "checked by hand", force=True).state == "published"
    assert events(catalog)[-1] == ("published", "Ann", None, 1, "checked by hand")


# Notes


def test_notes_are_kept_among_the_events_in_order(catalog: Catalog) -> None:
    learn(catalog)
    said = ["annotators changed in May", "…", "'quoted' -- \"text\"\nof two lines 🙂"]
    for text in said:
        by(catalog, "Zoë", AT).tasks.note("colour", text)
    found = catalog.events.find("kind = 'noted'")
    assert [(event.reason, event.actor, event.task) for event in found] == [(text, "Zoë", "colour") for text in said]
    assert catalog.versions.published()[0] == 1
    with pytest.raises(NotFoundError, match="did you mean 'colour'"):
        by(catalog, "Zoë", AT).tasks.note("color", "x")


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_note_says_something(catalog: Catalog, text: str) -> None:
    learn(catalog)
    before = contents(catalog)
    with pytest.raises(StateError, match="the note is empty; write what it says"):
        by(catalog, "Ann", AT).tasks.note("colour", text)
    assert contents(catalog) == before


@pytest.mark.parametrize("text", ["a\0b", "half \ud800"])
def test_a_note_that_no_database_holds_is_refused_or_kept(catalog: Catalog, text: str) -> None:
    learn(catalog)
    before = contents(catalog)
    try:
        by(catalog, "tester", AT).tasks.note("colour", text)
    except Exception as error:
        assert isinstance(error, MultipromptError), repr(error)
        assert "\n" not in str(error)
        assert contents(catalog) == before
    else:
        assert catalog.events.find()[-1].reason == text


def test_a_query_of_events_says_what_it_has(catalog: Catalog) -> None:
    learn(catalog)
    by(catalog, "Zoë", AT + timedelta(days=2)).tasks.note("colour", "kept")
    assert [event.kind for event in catalog.events.find("actor = 'Zoë' and at > '2026-01-02'")] == ["noted"]
    with pytest.raises(QueryError, match="unknown function 'matches'"):
        catalog.events.find("matches('kept')")


# Writers at once


def chained(moves: list[Event]) -> None:
    """Each move starts where the one before it ended, so that none was lost."""
    for earlier, later in itertools.pairwise(moves):
        assert later.from_version == earlier.to_version


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each act gave or raised, all started together."""
    barrier = threading.Barrier(len(acts))
    results: list[Any] = [None] * len(acts)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = acts[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_that_publish_at_once_lose_no_move(catalog: Catalog) -> None:
    learn(catalog)
    learn(catalog)

    def moves() -> None:
        for _ in range(6):
            by(catalog, "tester", AT).pointers.roll_back("colour", None, "")

    assert at_once(moves, moves, moves) == [None, None, None]
    told = catalog.events.find("kind in ('published', 'rolled-back')")
    assert len(told) == 2 + 18
    chained(told)
    assert catalog.versions.published()[0] == catalog.settings.epoch() == 20
    assert catalog.versions.get("colour").number == told[-1].to_version


def test_of_threads_that_publish_from_one_epoch_one_does(catalog: Catalog) -> None:
    learn(catalog)
    epoch = catalog.settings.epoch()

    def publish(seed: int) -> Callable[[], Any]:
        candidate = a_candidate(a_task(), seed=seed)
        return lambda: by(catalog, f"{seed}", AT).candidates.admit(
            candidate, CheckReport((), 0.0), decision="publish", reason="", epoch=epoch
        )

    results = at_once(*(publish(seed) for seed in range(100, 105)))
    assert sorted(type(result).__name__ for result in results) == ["ConflictError"] * 4 + ["VersionRecord"]
    assert all(isinstance(result, ConflictError) or result.label == "colour@2" for result in results)
    assert catalog.settings.epoch() == epoch + 1
    chained(catalog.events.find("kind = 'published'"))


PUBLISHER = """
import sys
from datetime import UTC, datetime
from multiprompt.catalog.catalog import Catalog

catalog = Catalog.open(sys.argv[1]).signed_by(sys.argv[2], lambda: datetime(2026, 1, 1, tzinfo=UTC))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(8):
    catalog.pointers.roll_back("colour", None, sys.argv[2])
"""


def test_processes_that_publish_at_once_lose_no_move(catalog: Catalog) -> None:
    for _ in range(3):
        learn(catalog)
    url = catalog.engine.url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, url, name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    told = catalog.events.find("kind in ('published', 'rolled-back')")
    assert len(told) == 3 + 16
    assert [sum(event.actor == name for event in told) for name in ("one", "two")] == [8, 8]
    chained(told)
    assert catalog.settings.epoch() == len(told)


def test_tasks_added_at_once_are_each_added_once(catalog: Catalog) -> None:
    results = at_once(*(lambda: by(catalog, "tester", AT).tasks.add(a_task()) for _ in range(6)))
    assert results == [catalog.tasks.get("colour")] * 6
    assert [event.kind for event in catalog.events.find()] == ["task-added"]
