"""Pages: whatever the order and the size, walking them gives the whole listing, each record once."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import MultipromptError, QueryError
from multiprompt.records import BaseModelRecord, Listing
from tests.catalog.databases import by, contents
from tests.catalog.samples import AT, BASE, a_task, an_evaluation, learn, new_catalog

LISTINGS = ("tasks", "versions", "evaluations", "events")
ORDERS: dict[str, tuple[str, ...]] = {
    "tasks": (
        *("name", "description", "metric", "guarded", "published", "published_at", "created_at", "method", "tokens"),
        *("base", "score", "score.acc", "score.macro_f1", "score.unknown"),
    ),
    "versions": (
        *("task", "number", "state", "method", "tokens", "base", "digest", "reason", "created_at", "published_at"),
        *("retired_at", "metric", "score", "score.acc", "score.macro_f1"),
    ),
    "evaluations": ("task", "version", "kind", "metric", "score", "rows", "seconds", "created_at", "score.macro_f1"),
    "events": ("kind", "task", "actor", "at", "from_version", "to_version", "reason"),
}
EVERY_ORDER = [
    (listing, f"order by {field} {way}")
    for listing, names in ORDERS.items()
    for field in names
    for way in ("asc", "desc")
]
# name: (scores of its versions, the days on which they came), with ties, texts of other scripts, and tasks without any.
HISTORY: dict[str, tuple[tuple[float, int], ...]] = {
    "colour": ((0.5, 0), (0.5, 3), (0.75, 3)),
    "Colour": ((0.1 + 0.2, 0),),
    "it's": (),
    "größe": ((0.75, 1),),
    "日本": ((1 / 3, 1), (-2.5, 9)),
    'a "b"\\': (),
    "100%_": ((0.5, 2),),
    "🙂": (),
}


def fill(catalog: Catalog) -> None:
    by(catalog, "Zoë", AT).base_models.bind(BASE)
    for name, versions in HISTORY.items():
        by(catalog, "tester", AT + timedelta(seconds=len(name))).tasks.add(a_task(name))
        for score, day in versions:
            metrics = {"acc": score} | ({"macro_f1": score / 3} if day else {})
            learn(catalog, name, score, at=AT + timedelta(days=day), soft=an_evaluation(name, score, metrics=metrics))
    learn(catalog, "größe", 0.75, publish=False, at=AT + timedelta(days=10, microseconds=1))
    by(catalog, "someone", AT + timedelta(days=10, microseconds=2)).pointers.roll_back(
        "colour", 1, "complaints\n of 'some'"
    )
    by(catalog, "tester", AT + timedelta(days=11)).tasks.guard("日本", True, "")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Iterator[Catalog]:
    made = new_catalog(tmp_path_factory.mktemp("pages"))
    fill(made)
    before = contents(made)
    yield made
    assert contents(made) == before


def walk(listing: Callable[..., Listing[Any]], query: str, size: int, **more: Any) -> list[Any]:
    """All records, a page of `size` after another."""
    found: list[Any] = []
    after = None
    while True:
        page = listing(query, after=after, limit=size, **more)
        found += page
        if page.after is None:
            assert len(page) <= size
            return found
        assert len(page) == size
        after = page.after


def cursor(*parts: Any) -> str:
    """An `after` that nobody was given."""
    return packed(json.dumps(parts).encode())


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def refusal(listing: Callable[..., Listing[Any]], query: str, after: str) -> str:
    with pytest.raises(QueryError) as caught:
        listing(query, after=after, limit=2)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_without_a_limit_is_one_page_and_equals_a_plain_list(catalog: Catalog, listing: str) -> None:
    whole = getattr(catalog, listing).find()
    assert isinstance(whole, Listing)
    assert isinstance(whole, list)
    assert whole.after is None
    assert len(whole) >= len(HISTORY)
    assert whole == list(whole)
    page = getattr(catalog, listing).find(limit=3)
    assert page == list(whole)[:3]
    assert page.after is not None


@pytest.mark.parametrize("listing", LISTINGS)
def test_pages_of_any_size_make_up_the_listing(catalog: Catalog, listing: str) -> None:
    read = getattr(catalog, listing).find
    whole = read()
    for size in (1, 2, 3, len(whole) - 1, len(whole), len(whole) + 1, 1000):
        assert walk(read, "", size) == whole


@pytest.mark.parametrize(("listing", "order"), EVERY_ORDER)
def test_pages_of_every_order_make_up_the_listing(catalog: Catalog, listing: str, order: str) -> None:
    read = getattr(catalog, listing).find
    whole = read(order)
    everyone = read()
    assert sorted(map(repr, whole)) == sorted(map(repr, everyone))
    assert walk(read, order, 3) == whole


@settings(max_examples=20, deadline=None, database=None)
@given(
    of=st.sampled_from(EVERY_ORDER),
    size=st.integers(1, 12),
    where=st.sampled_from(["", "task", "not"]),
    word=st.sampled_from([*HISTORY, "nobody"]),
)
def test_pages_of_a_query_make_up_what_it_finds(
    catalog: Catalog, of: tuple[str, str], size: int, where: str, word: str
) -> None:
    listing, order = of
    field = "name" if listing == "tasks" else "task"
    quoted = word.replace("'", "''")
    condition = {"": "", "task": f"{field} = '{quoted}' ", "not": f"not {field} = '{quoted}' "}[where]
    read = getattr(catalog, listing).find
    assert walk(read, condition + order, size) == read(condition + order)


@pytest.mark.parametrize("field", ["published_at", "score", "score.acc", "published"])
def test_records_without_a_value_come_last_whichever_way(catalog: Catalog, field: str) -> None:
    def value(record: Any) -> Any:
        return getattr(record, {"score.acc": "score"}.get(field, field))

    for way in ("asc", "desc"):
        found = [value(record) for record in walk(catalog.tasks.find, f"order by {field} {way}", 2)]
        there = [one for one in found if one is not None]
        assert there == sorted(there, reverse=way == "desc")
        assert found == there + [None] * (len(found) - len(there))
        assert len(there) == 5


def test_pages_of_a_point_in_time_make_up_the_listing(catalog: Catalog) -> None:
    for order in ("", "order by published_at", "order by published_at desc", "order by score desc"):
        for days in (0, 1, 3, 20):
            as_of = AT + timedelta(days=days)
            whole = catalog.tasks.find(order, as_of=as_of)
            assert walk(catalog.tasks.find, order, 2, as_of=as_of) == whole


@pytest.mark.parametrize(
    ("listing", "order"),
    [
        ("tasks", ""),
        ("tasks", "order by created_at desc"),
        ("tasks", "order by score"),
        ("versions", "order by published_at desc"),
        ("evaluations", "order by created_at desc"),
        ("events", ""),
        ("events", "order by kind"),
    ],
)
def test_nothing_is_listed_twice_while_records_are_added(tmp_path: Path, listing: str, order: str) -> None:
    catalog = new_catalog(tmp_path)
    for number, score in enumerate((0.5, 0.5, None, 0.9)):
        if score is None:
            by(catalog, "tester", AT).tasks.add(a_task(f"old {number}"))
        else:
            learn(catalog, f"old {number}", score, at=AT + timedelta(days=number))
    read = getattr(catalog, listing).find
    before, found, after = read(order), [], None
    for number in itertools.count():
        page = read(order, after=after, limit=2)
        found += page
        if page.after is None:
            break
        after = page.after
        if number < 3:
            learn(catalog, f"{'anz'[number % 3]} new {number}", (0.5, 0.1, 0.95, 0.5)[number], at=AT)
            by(catalog, "tester", AT).tasks.add(a_task(f"unpublished {number}"))
    assert len(set(map(repr, found))) == len(found)
    known = [record for record in found if record in before]
    assert known == before
    last = read(order)
    assert found == [record for record in last if record in found]


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_place_in_another_order_is_refused(catalog: Catalog, listing: str) -> None:
    read = getattr(catalog, listing).find
    field, other = ORDERS[listing][:2]
    places = {
        order: read(order, limit=1).after
        for order in ("", f"order by {field}", f"order by {field} desc", f"order by {other}")
    }
    for one, another in itertools.permutations(places, 2):
        assert "ask for the same order" in refusal(read, another, places[one])
    assert read(f"order by {field} asc", after=places[f"order by {field}"]) == read(f"order by {field}")[1:]


@pytest.mark.parametrize("order", ["", "order by score"])
def test_a_place_in_another_listing_is_refused(catalog: Catalog, order: str) -> None:
    for one, another in itertools.permutations(("tasks", "versions", "evaluations"), 2):
        place = getattr(catalog, one).find(order, limit=1).after
        refusal(getattr(catalog, another).find, order, place)


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_place_that_was_cut_short_is_refused(catalog: Catalog, listing: str) -> None:
    read = getattr(catalog, listing).find
    order = f"order by {ORDERS[listing][0]}"
    place = read(order, limit=1).after
    for length in range(len(place)):
        assert "is no place in a listing" in refusal(read, order, place[:length])


HOSTILE = {
    "nothing": "",
    "a space": " ",
    "words": "the next page please",
    "sql": "0 OR 1=1; DROP TABLE tasks",
    "other letters": "größe",
    "half a character": "\ud800",
    "a nul": "\0",
    "padding": "====",
    "not base64 of JSON": packed(b"\xff\xfe\x00"),
    "a number": packed(b"5"),
    "null": packed(b"null"),
    "true": packed(b"true"),
    "a text": packed(b'"abc"'),
    "an object": packed(b'{"nothing": 1, "b": 2, "c": 3}'),
    "an empty list": packed(b"[]"),
    "too short a list": cursor("nothing", 1),
    "too long a list": cursor("nothing", 1, None, None),
    "a list in a list": cursor(["nothing"], [1], [None]),
    "an object as the value": cursor("score", 1, {"$gt": 0}),
    "a text as the key": cursor("nothing", "1 OR 1=1", None),
    "a fraction as the key": cursor("nothing", 1.5, None),
    "null as the key": cursor("nothing", None, None),
    "nested too deep": packed(b"[" * 100_000),
    "nested too deep inside": packed(b'["nothing", 1, ' + b"[" * 50_000),
    "oversized": "A" * 1_000_000,
    "an oversized text": cursor("name", 1, "a" * 1_000_000),
    "a number of too many digits": packed(b'["nothing", ' + b"9" * 5000 + b", null]"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_place_in_a_listing_is_refused(catalog: Catalog, kind: str) -> None:
    query = "order by score" if kind.startswith("an object as") else ""
    refusal(catalog.tasks.find, query, HOSTILE[kind])


# What has the form of a place, but names none that there could be.
FORGED = {
    "a key beyond the database's": ("", cursor("nothing", 10**30, None)),
    "a key far below": ("", cursor("nothing", -(10**30), None)),
    "a text for a score": ("order by score", cursor("score", 1, "high")),
    "a text for a number": ("order by published", cursor("published", 1, "one")),
    "a number for a text": ("order by name", cursor("name", 1, 5)),
    "a number for a time": ("order by created_at", cursor("created_at", 1, 5)),
    "a word for a time": ("order by created_at", cursor("created_at", 1, "monday")),
    "an empty text for a time": ("order by created_at", cursor("created_at", 1, "")),
    "a time before the calendar": ("order by created_at", cursor("created_at", 1, "0001-01-01T00:00:00+14:00")),
    "a time after the calendar": ("order by created_at desc", cursor("created_at desc", 1, "9999-12-31T23:59-14:00")),
    "a NUL in a text": ("order by name", cursor("name", 1, "a\0b")),
    "half a character": ("order by name", packed(b'["name", 1, "\\ud800"]')),
    "no number": ("order by score", packed(b'["score", 1, NaN]')),
    "a number beyond the database's": ("order by published", cursor("published", 1, 10**40)),
    "true as the value": ("order by score", cursor("score", 1, True)),
    "true as the key": ("", cursor("nothing", True, None)),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_place_is_refused_or_a_place_like_any_other(catalog: Catalog, kind: str) -> None:
    query, place = FORGED[kind]
    try:
        page = catalog.tasks.find(query, after=place, limit=2)
    except QueryError as error:
        assert "\n" not in str(error)
    else:
        assert all(record in catalog.tasks.find() for record in page)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=20, deadline=None, database=None)
@given(
    st.sampled_from(EVERY_ORDER),
    st.one_of(st.text(max_size=40), JSON.map(lambda value: packed(json.dumps(value).encode()))),
)
def test_any_text_is_a_place_or_a_query_error(catalog: Catalog, of: tuple[str, str], place: str) -> None:
    listing, order = of
    refusal(getattr(catalog, listing).find, order, place)


@settings(max_examples=25, deadline=None, database=None)
@given(st.sampled_from(EVERY_ORDER), JSON, JSON)
def test_any_forged_place_is_a_page_or_a_query_error(
    catalog: Catalog, of: tuple[str, str], key: Any, value: Any
) -> None:
    listing, order = of
    sorting = order.removeprefix("order by ").removesuffix(" asc")
    with contextlib.suppress(QueryError):
        getattr(catalog, listing).find(order, after=cursor(sorting, key, value), limit=2)


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_page_takes_as_many_statements_however_large_it_is(catalog: Catalog, listing: str) -> None:
    read = getattr(catalog, listing).find
    whole = read()
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(catalog.engine, "before_cursor_execute", note)
    counts = []
    try:
        for size in (1, 2, len(whole), 10_000):
            statements.clear()
            assert len(read(limit=size)) == min(size, len(whole))
            counts.append(len(statements))
    finally:
        event.remove(catalog.engine, "before_cursor_execute", note)
    assert len(set(counts)) == 1
    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 1


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_limit_in_the_query_goes_before_the_page_s(catalog: Catalog, listing: str) -> None:
    read = getattr(catalog, listing).find
    whole = read()
    page = read("limit 3", limit=1)
    assert page == whole[:3]
    assert read("limit 2", after=page.after) == whole[3:5]
    assert read("limit 1000") == whole
    assert read("limit 1000").after is None
    assert read(f"limit {len(whole)}").after is None


def test_a_page_of_nothing_is_empty_and_the_last(catalog: Catalog) -> None:
    for page in (
        catalog.tasks.find("name = 'nobody'", limit=5),
        catalog.tasks.find("name = 'nobody'"),
        catalog.versions.find("number > 99 order by score desc", limit=1),
        catalog.tasks.find(limit=0),
        catalog.tasks.find("limit 0"),
    ):
        assert page == []
        assert page.after is None


def test_behind_the_last_record_there_is_nothing(catalog: Catalog) -> None:
    page = catalog.tasks.find("name != 'colour'", limit=len(HISTORY) - 2)
    assert page.after is not None
    assert catalog.tasks.find("name = 'colour'", after=page.after) == []


@pytest.mark.parametrize("limit", [-1, -2, -1000, 2**63, 10**30])
def test_a_limit_that_counts_nothing_is_an_error_or_harmless(catalog: Catalog, limit: int) -> None:
    try:
        page = catalog.tasks.find(limit=limit)
    except (MultipromptError, ValueError) as error:
        assert "\n" not in str(error)
    else:
        assert page == (catalog.tasks.find() if limit > 0 else [])


@pytest.mark.parametrize("listing", LISTINGS)
def test_a_data_frame_has_a_row_a_record_and_a_column_a_field(catalog: Catalog, listing: str) -> None:
    page = getattr(catalog, listing).find(limit=5)
    frame = page.to_pandas()
    assert len(frame) == len(page) == 5
    plain = [field.name for field in fields(page[0]) if field.name not in ("base_model", "metrics")]
    assert set(plain) <= set(frame.columns)
    assert not {"base_model", "metrics"} & set(frame.columns)
    for name in ("name", "task", "score", "created_at", "kind", "at"):
        if name in plain:
            assert [None if value != value else value for value in frame[name]] == [getattr(one, name) for one in page]
    if listing == "versions":
        assert {f"base_model.{field.name}" for field in fields(BaseModelRecord)} <= set(frame.columns)
        assert list(frame["base_model.name"]) == ["tiny"] * 5
    if listing == "evaluations":
        assert list(frame["metrics.acc"]) == [one.metrics.get("acc") for one in page]


@pytest.mark.parametrize("listing", LISTINGS)
def test_the_data_frame_of_an_empty_page_has_no_row(catalog: Catalog, listing: str) -> None:
    field = "name" if listing == "tasks" else "task"
    assert len(getattr(catalog, listing).find(f"{field} = 'none such'").to_pandas()) == 0


def test_a_page_of_any_size_is_in_order(catalog: Catalog) -> None:
    for limit in (3, 1_000, 1_001, 40_000):
        found = catalog.tasks.find("order by name desc", limit=limit)
        assert [task.name for task in found] == sorted((task.name for task in catalog.tasks.find()), reverse=True)[
            :limit
        ]
