"""Events: actor, time and reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from multiprompt.catalog.catalog import Catalog
from multiprompt.records import Event
from tests.catalog.databases import by
from tests.catalog.samples import AT, BASE, a_task, learn


def test_events_say_who_did_what_when_and_why(catalog: Catalog) -> None:
    by(catalog, "me", AT).base_models.bind(BASE)
    by(catalog, "me", AT).tasks.add(a_task())
    learn(catalog)
    learn(catalog, publish=False)
    assert [replace(event, id=0) for event in catalog.events.find()] == [
        Event(0, AT, "me", "base-model-bound", None, None, None, str(BASE)),
        Event(0, AT, "me", "task-added", "colour", None, None, a_task().fingerprint),
        Event(0, AT, "tester", "published", "colour", None, 1, "better"),
        Event(0, AT, "tester", "rejected", "colour", None, 2, "worse"),
    ]


def test_times_of_other_zones_come_back_as_the_same_moment(catalog: Catalog) -> None:
    at = datetime(2026, 6, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    version = learn(catalog, at=at)
    assert version.created_at == at
    assert version.created_at.tzinfo == UTC
