"""The query language: random queries against a model of it in Python, and what a wrong one is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.query import page
from multiprompt.catalog.query.listings import EVENT_KINDS
from multiprompt.errors import QueryError
from multiprompt.records import TaskRecord
from tests.catalog.databases import by, contents
from tests.catalog.samples import AT, a_task, an_evaluation, learn, new_catalog

# name: (score of its published version, tags, metric results)
TASKS: dict[str, tuple[float | None, tuple[str, ...], dict[str, float]]] = {
    "colour": (0.5, ("nlp", "team:nlp", "my_team:a"), {"acc": 0.5, "macro_f1": 0.4}),
    "shape": (0.9, ("vision", "team:vision", "Team:nlp"), {"acc": 0.9}),
    "size": (None, ("nlp", "myxteam:a"), {}),
    "it's": (0.7, (), {"acc": 0.7, "macro_f1": 0.7}),
    "100%": (0.1, ("team:", "steam:nlp", "team:a:b"), {"bleu": 0.1}),
    "sst_2": (1.0, ("nlp", "team:nlp", "team:core"), {"acc": 1.0}),
}


def moment(name: str) -> datetime:
    return AT + timedelta(hours=30 * list(TASKS).index(name))


def fill(catalog: Catalog) -> Catalog:
    for name, (score, tags, results) in TASKS.items():
        task = a_task(name, tag=list(tags), description=f"About {name}.")
        if score is None:
            by(catalog, "tester", moment(name)).tasks.add(task)
        else:
            soft = an_evaluation(name, score, metrics=results, metric=next(iter(results)))
            learn(catalog, score=score, task=task, at=moment(name), soft=soft)
    learn(catalog, "shape", task=a_task("shape", tag=list(TASKS["shape"][1])), score=0.3, publish=False)
    return catalog


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Iterator[Catalog]:
    made = fill(new_catalog(tmp_path_factory.mktemp("query")))
    before = contents(made)
    yield made
    assert contents(made) == before


def names(catalog: Catalog, query: str) -> list[str]:
    return [task.name for task in catalog.tasks.find(query)]


def refusal(catalog: Catalog, query: str) -> str:
    with pytest.raises(QueryError) as caught:
        catalog.tasks.find(query)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", list(TASKS)),
        ("   ", list(TASKS)),
        ("name = 'it''s'", ["it's"]),
        ("name != 'colour' and score > 0.6", ["shape", "it's", "sst_2"]),
        ("score >= 0.7 and score <= 0.9", ["shape", "it's"]),
        ("score < 5e-1", ["100%"]),
        ("score > -1 and score < 0.2", ["100%"]),
        ("score is null", ["size"]),
        ("published is not null and not score > 0.5", ["colour", "100%"]),
        ("published = 1 and score in (0.5, 0.9)", ["colour", "shape"]),
        ("name not in ('colour', 'shape', 'size')", ["it's", "100%", "sst_2"]),
        ("name like 's%'", ["shape", "size", "sst_2"]),
        ("name like 'S_ze'", ["size"]),
        ("description = 'About size.'", ["size"]),
        ("metric = 'acc' and name = 'size'", ["size"]),
        ("tag = 'nlp'", ["colour", "size", "sst_2"]),
        ("tag.team = 'nlp'", ["colour", "sst_2"]),
        ("tag = 'team:nlp'", ["colour", "sst_2"]),
        ("tag.team != 'nlp'", ["shape", "100%", "sst_2"]),
        ("not tag.team = 'nlp'", ["shape", "size", "it's", "100%"]),
        ("tag.team = 'a:b'", ["100%"]),
        ("tag.team = ''", ["100%"]),
        ("tag.team in ('core', 'vision')", ["shape", "sst_2"]),
        ("tag.team not in ('core', 'vision')", ["colour", "size", "it's", "100%"]),
        ("tag.my_team is not null", ["colour"]),
        ("tag.Team in ('nlp', 'vision')", ["shape"]),
        ("tag.TEAM is not null", []),
        ("tag.team is null", ["size", "it's"]),
        ("tag is null", ["it's"]),
        ("tag like 'vis%'", ["shape"]),
        ("score.acc > 0.6", ["shape", "it's", "sst_2"]),
        ("score.macro_f1 is null", ["shape", "size", "100%", "sst_2"]),
        ("score.bleu <= 0.1", ["100%"]),
        ("score.unknown > 0", []),
        ("created_at < '2026-01-02'", ["colour"]),
        ("created_at = '2026-01-01'", ["colour"]),
        ("published_at >= '2026-01-02T06:00' and published_at < '2026-01-05'", ["shape", "it's"]),
        ("published_at > '2026-01-06T01:00+02:00'", ["100%", "sst_2"]),
        ("created_at = '2026-01-02T08:00+02:00'", ["shape"]),
        ("created_at in ('2026-01-01', '2026-01-02T06:00')", ["colour", "shape"]),
        ("published_at is null", ["size"]),
        ("order by name", ["100%", "colour", "it's", "shape", "size", "sst_2"]),
        ("order by score desc limit 2", ["sst_2", "shape"]),
        ("score is not null order by score asc limit 2", ["100%", "colour"]),
        ("order by metric", list(TASKS)),
        ("order by metric desc", list(TASKS)[::-1]),
        ("order by score", ["100%", "colour", "it's", "shape", "sst_2", "size"]),
        ("order by score desc", ["sst_2", "shape", "it's", "colour", "100%", "size"]),
        ("order by score.acc desc limit 1", ["sst_2"]),
        ("limit 0", []),
        ("limit 2", ["colour", "shape"]),
        ("limit 999999999", list(TASKS)),
        ("name = 'size' OR tag = 'vision' Order By name Desc LIMIT 1", ["size"]),
    ],
)
def test_a_query_finds_its_tasks_in_order(catalog: Catalog, query: str, expected: list[str]) -> None:
    assert names(catalog, query) == expected


def test_and_binds_more_than_or_and_not_more_than_and(catalog: Catalog) -> None:
    assert names(catalog, "name = 'colour' or name = 'shape' and score > 5") == ["colour"]
    assert names(catalog, "(name = 'colour' or name = 'shape') and score > 5") == []
    assert names(catalog, "not name = 'colour' and score < 0.6") == ["100%"]
    assert names(catalog, "not (name = 'colour' and score < 0.6)") == [name for name in TASKS if name != "colour"]
    assert names(catalog, "not not name = 'size'") == ["size"]


def test_nothing_is_said_about_a_score_that_is_not_there(catalog: Catalog) -> None:
    assert "size" not in names(catalog, "score > 0.5") + names(catalog, "not score > 0.5")
    assert "size" in names(catalog, "score > 0.5 or name = 'size'")


def test_versions_evaluations_and_events_have_queries_too(catalog: Catalog) -> None:
    def labels(query: str) -> list[str]:
        return [version.label for version in catalog.versions.find(query)]

    assert labels("state = 'rejected'") == ["shape@2"]
    assert labels("task = 'shape' order by number desc") == ["shape@2", "shape@1"]
    assert labels("score.macro_f1 > 0.5 and tokens = 4 and base = 'tiny'") == ["it's@1"]
    assert labels("tag.team = 'vision' and published_at is not null") == ["shape@1"]
    assert labels("reason = 'worse' and method like 'prompt%'") == ["shape@2"]
    assert labels(f"digest = '{catalog.versions.get('colour').digest}'") == ["colour@1"]
    kinds = [(e.task, e.kind) for e in catalog.evaluations.find("kind = 'soft' and rows = 2 and score > 0.8")]
    assert kinds == [("shape", "soft"), ("sst_2", "soft")]
    assert [e.score for e in catalog.evaluations.find("task = 'shape' and version = 2")] == [0.3]
    assert len(catalog.evaluations.find("version is null")) == 5, "a hard prompt's score is stored once"
    events = catalog.events.find("kind = 'rejected' or kind = 'published' and task like 's%' order by at desc")
    assert [(event.task, event.kind, event.to_version) for event in events] == [
        ("shape", "rejected", 2),
        ("sst_2", "published", 1),
        ("shape", "published", 1),
    ]
    assert [event.actor for event in catalog.events.find("actor = 'tester' and from_version is null limit 1")] == [
        "tester"
    ]


# A model of the language: an expression is (text, level, meaning); level is 0 for `or`, 1 for `and`, 2 for a term.
Meaning = Callable[[TaskRecord], bool | None]
Expression = tuple[str, int, Meaning]

FIELDS: dict[str, Callable[[TaskRecord], Any]] = {
    "name": lambda task: task.name,
    "description": lambda task: task.description,
    "published": lambda task: task.published,
    "score": lambda task: task.score,
    "score.acc": lambda task: TASKS[task.name][2].get("acc"),
    "score.macro_f1": lambda task: TASKS[task.name][2].get("macro_f1"),
    "created_at": lambda task: task.created_at,
    "published_at": lambda task: task.published_at,
    "tag": lambda task: list(task.tags),
    "tag.team": lambda task: [tag.removeprefix("team:") for tag in task.tags if tag.startswith("team:")],
    "tag.Team": lambda task: [tag.removeprefix("Team:") for tag in task.tags if tag.startswith("Team:")],
}
TEXTS = ["colour", "it's", "nlp", "team:nlp", "vision", "core", "", "100%", "s%", "%", "_____", "About size.", "%'%"]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def like(text: str, pattern: str) -> bool:
    expression = "".join({"%": ".*", "_": "."}.get(sign, re.escape(sign)) for sign in pattern)
    return re.fullmatch(expression, text, re.DOTALL | re.IGNORECASE) is not None


def about(field: str, holds: Callable[[Any], bool]) -> Meaning:
    """A comparison's meaning: any of a field's values may fit; of a value that is not there nothing is known."""

    def meaning(task: TaskRecord) -> bool | None:
        value = FIELDS[field](task)
        if isinstance(value, list):
            return any(map(holds, value))
        return None if value is None else holds(value)

    return meaning


def negation(inner: Meaning) -> Meaning:
    def meaning(task: TaskRecord) -> bool | None:
        value = inner(task)
        return None if value is None else not value

    return meaning


def quoted(value: Any) -> str:
    if isinstance(value, datetime):
        return f"'{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def values(field: str) -> st.SearchStrategy[Any]:
    if field.endswith("_at"):
        return st.sampled_from([moment(name) for name in TASKS] + [datetime(2026, 1, 3, tzinfo=UTC)])
    if field.startswith("score") or field == "published":
        return st.sampled_from([0, 1, 0.4, 0.5, 0.7, -1.5, 1e-3, 2])
    return st.sampled_from(TEXTS)


@st.composite
def comparisons(draw: st.DrawFn) -> Expression:
    field = draw(st.sampled_from(list(FIELDS)))
    is_text = field in ("name", "description") or field.startswith("tag")
    sort = draw(st.sampled_from(["compare", "in", "null", *(["like"] if is_text else [])]))
    negated = draw(st.booleans())
    if sort == "null":
        text = f"{field} is {'not ' if negated else ''}null"
        return text, 2, lambda task: (FIELDS[field](task) not in (None, [])) == negated
    if sort == "in":
        listed = draw(st.lists(values(field), min_size=1, max_size=3))
        inside = about(field, lambda value: value in listed)
        text = f"{field} {'not ' if negated else ''}in ({', '.join(map(quoted, listed))})"
        return text, 2, negation(inside) if negated else inside
    value = draw(values(field))
    if sort == "like":
        return f"{field} like {quoted(value)}", 2, about(field, lambda found: like(found, value))
    sign = draw(st.sampled_from(list(COMPARE)))
    return f"{field}{sign}{quoted(value)}", 2, about(field, lambda found: COMPARE[sign](found, value))


def in_parentheses(expression: Expression, level: int) -> str:
    return expression[0] if expression[1] >= level else f"({expression[0]})"


def conjunction(parts: list[Expression]) -> Expression:
    def meaning(task: TaskRecord) -> bool | None:
        found = [part[2](task) for part in parts]
        return False if False in found else None if None in found else True

    return " and ".join(in_parentheses(part, 2) for part in parts), 1, meaning


def disjunction(parts: list[Expression]) -> Expression:
    def meaning(task: TaskRecord) -> bool | None:
        found = [part[2](task) for part in parts]
        return True if True in found else None if None in found else False

    return " OR ".join(in_parentheses(part, 1) for part in parts), 0, meaning


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(conjunction),
        st.lists(inner, min_size=2, max_size=3).map(disjunction),
        inner.map(lambda part: (f"not {in_parentheses(part, 2)}", 2, negation(part[2]))),
        inner.map(lambda part: (f"( {part[0]})", 2, part[2])),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
@settings(deadline=None, database=None, max_examples=80)
def test_any_query_finds_what_its_words_mean(catalog: Catalog, expression: Expression) -> None:
    text, _, meaning = expression
    assert names(catalog, text) == [task.name for task in catalog.tasks.find() if meaning(task)]


@given(EXPRESSIONS, st.integers(0, 3), st.integers(0, 4))
@settings(deadline=None, database=None, max_examples=80)
def test_a_page_is_the_same_whether_an_index_finds_little_or_much(
    catalog: Catalog, expression: Expression, limit: int, little: int
) -> None:
    text, _, meaning = expression
    expected = [task.name for task in catalog.tasks.find() if meaning(task)]
    with patch.object(page, "_FEW", little):
        assert names(catalog, f"{text} limit {limit}") == expected[:limit]
        found = names(catalog, f"{text} order by score desc limit 100")
        assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "table"),
    [
        ("score.macro_f1 > 0.5", "evaluation_scores"),
        ("(score.macro_f1 > 0.5) and rows = 2", "evaluation_scores"),
        ("rows = 2 and ((score > 0.5) and kind = 'soft')", "evaluations"),
        ("not score.macro_f1 > 0.5", None),
        ("score.macro_f1 > 0.5 or rows = 2", None),
    ],
)
def test_what_an_index_finds_is_looked_up_where_it_must_hold(catalog: Catalog, query: str, table: str | None) -> None:
    asked: list[str] = []
    record = lambda *given: asked.append(given[2])  # noqa: E731
    event.listen(catalog.engine, "before_cursor_execute", record)
    try:
        found = catalog.evaluations.find(f"{query} limit 100")
    finally:
        event.remove(catalog.engine, "before_cursor_execute", record)
    lookups = [statement for statement in asked if statement.startswith("SELECT") and "JOIN" not in statement]
    assert [f"FROM {table} " in " ".join(statement.split()) for statement in lookups] == [True] * (table is not None)
    assert [one.id for one in found] == [one.id for one in catalog.evaluations.find(query)]


@given(st.sampled_from(["name", "score", "created_at", "published_at", "score.acc"]), st.booleans(), st.integers(0, 7))
@settings(deadline=None, database=None, max_examples=25)
def test_any_order_is_total_and_the_limit_cuts_it(catalog: Catalog, field: str, down: bool, limit: int) -> None:
    found = catalog.tasks.find(f"order by {field} {'desc' if down else 'asc'} limit {limit}")
    tasks = catalog.tasks.find()
    known = sorted((task for task in tasks if FIELDS[field](task) is not None), key=FIELDS[field], reverse=down)
    ordered = [*known, *(task for task in tasks if FIELDS[field](task) is None)]
    assert [FIELDS[field](task) for task in found] == [FIELDS[field](task) for task in ordered[:limit]]


@given(st.text(alphabet=st.sampled_from("name'= ()<>!,.;-\"%01ortagscdlimby\\\n\x00é"), max_size=40))
@settings(deadline=None, database=None, max_examples=60)
def test_any_text_is_a_query_or_a_query_error(catalog: Catalog, text: str) -> None:
    try:
        catalog.tasks.find(text)
    except QueryError as error:
        assert "\n" not in str(error)


INJECTIONS = [
    "'; DROP TABLE tasks; --",
    "x' OR '1'='1",
    "' UNION SELECT * FROM artifacts --",
    "\\' OR 1=1 --",
    '"; DELETE FROM events; --',
    "%' ESCAPE '%",
]


@pytest.mark.parametrize("attempt", INJECTIONS)
def test_an_injection_inside_quotes_is_a_text_like_any_other(catalog: Catalog, attempt: str) -> None:
    text = attempt.replace("'", "''")
    for query in ("name = '{}'", "tag = '{}'", "tag.team = '{}'", "name in ('{}')", "description like '{}'"):
        assert names(catalog, query.format(text)) == []
    assert names(catalog, f"name != '{text}'") == list(TASKS)


@pytest.mark.parametrize(
    "query",
    [
        "name = 'colour'; DROP TABLE tasks",
        "name = 'colour' --",
        "name = 'colour' /* */",
        "1 = 1",
        "name = name",
        "name = (select name)",
        "score > 0.5 union select 1",
        "order by (select 1)",
        "order by name, score",
        "limit 1 offset 1",
        "limit -1",
        "limit 1.5",
        "limit 1e3",
        "limit 'x'",
        'score.acc" > 1',
        "tag.team' = 'x'",
        "tasks.name = 'colour'",
        'name = "colour"',
        "name = `colour`",
        "name = ?",
        "name = :param",
        "name || 'x' = 'y'",
    ],
)
def test_an_injection_outside_quotes_is_no_query(catalog: Catalog, query: str) -> None:
    assert refusal(catalog, query).startswith("query, column ")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("scor > 1", "query, column 1, at 'scor': unknown field 'scor'; did you mean 'score'?"),
        ("name = 'a' and  nmae = 'b'", "query, column 17, at 'nmae': unknown field 'nmae'; did you mean 'name'?"),
        ("zzz = 1", "query, column 1, at 'zzz': unknown field 'zzz'; known: "),
        ("name =", "query, column 7, at the end: expected a text in single quotes"),
        ("name = 5", "query, column 8, at '5': expected a text in single quotes"),
        ("score > 'high'", "query, column 10, at 'high': expected a number"),
        ("score > high", "query, column 9, at 'high': expected a number"),
        ("created_at > 'monday'", "query, column 15, at 'monday': expected a time such as '2026-11-01'"),
        ("created_at > 2026-11-01", "query, column 14, at '2026': expected a time"),
        ("name 'a'", "query, column 7, at 'a': expected a comparison"),
        ("name", "query, column 5, at the end: expected a comparison"),
        ("name not like 'a'", "query, column 10, at 'like': expected 'in'"),
        ("name is 'a'", "query, column 10, at 'a': expected 'null'"),
        ("name in 'a'", "query, column 10, at 'a': expected '('"),
        ("name in ()", "query, column 10, at ')': expected a text"),
        ("(name = 'a'", "query, column 12, at the end: expected ')'"),
        ("name = 'a')", "query, column 11, at ')': expected 'and', 'or', 'order by', 'limit' or the end"),
        ("name = 'a' name = 'b'", "query, column 12, at 'name': expected 'and'"),
        ("name = 'a' and", "query, column 15, at the end: expected a field"),
        ("name = 'open", "query, column 8, at \"'open\": the quote is not closed; write '' for a quote within a text"),
        ("name = 'it's'", 'query, column 13, at "\'": the quote is not closed'),
        ('name = "a"', "query, column 8, at '\"a\"': cannot be read; a text stands in single quotes"),
        ("order name", "query, column 7, at 'name': expected 'by'"),
        ("limit", "query, column 6, at the end: expected a whole number after 'limit'"),
        ("limit 9999999999", "query, column 7, at '9999999999': expected a whole number"),
        ("limit 1 order by name", "query, column 9, at 'order': expected"),
    ],
)
def test_an_error_names_column_word_and_way_out(catalog: Catalog, query: str, says: str) -> None:
    assert refusal(catalog, query).startswith(says)


def test_a_state_or_kind_that_nothing_can_have_is_no_empty_answer(catalog: Catalog) -> None:
    for listing, query, says in (
        (
            catalog.versions.find,
            "state = 'held'",
            "value; known: candidate, published, rejected, retired",
        ),
        (
            catalog.versions.find,
            "state in ('published', 'retierd')",
            "value; did you mean 'retired'?",
        ),
        (catalog.versions.find, "state != 'Published'", "value; did you mean 'published'?"),
        (catalog.evaluations.find, "kind = 'prompt'", "value; known: hard, soft"),
        (catalog.events.find, "kind = 'rollback'", "value; did you mean 'rolled-back'?"),
    ):
        with pytest.raises(QueryError, match=re.escape(says)):
            listing(query)
    assert catalog.versions.find("state like 'held%'") == []
    assert {event.kind for event in catalog.events.find()} <= set(EVENT_KINDS)


def test_each_listing_names_its_own_fields(catalog: Catalog) -> None:
    for listing, word, hint in (
        (catalog.versions.find, "numbr", "did you mean 'number'?"),
        (catalog.evaluations.find, "row", "did you mean 'rows'?"),
        (catalog.events.find, "actr", "did you mean 'actor'?"),
    ):
        with pytest.raises(QueryError, match=re.escape(f"unknown field {word!r}; {hint}")):
            listing(f"{word} = 1")


@pytest.mark.parametrize(
    "query",
    [
        "(" * 60 + "name = 'a'" + ")" * 60,
        "not " * 60 + "name = 'a'",
        "name = '" + "a" * 10_000 + "'",
        "tag=''or " * 1100 + "tag=''",
    ],
    ids=["parentheses", "nots", "long", "ors"],
)
def test_a_query_too_large_for_the_database_is_refused(catalog: Catalog, query: str) -> None:
    refusal(catalog, query)


def test_a_long_list_of_values_is_no_problem(catalog: Catalog) -> None:
    listed = ", ".join(["'x'"] * 1900)
    assert names(catalog, f"name in ('size', {listed})") == ["size"]


@pytest.mark.parametrize("query", ["order by tag", "order by tag.team"])
def test_a_field_of_many_values_is_no_order(catalog: Catalog, query: str) -> None:
    refusal(catalog, query)


@pytest.mark.parametrize("query", ["created_at like '2026-01-01'", "score like 1"])
def test_only_texts_are_like_a_pattern(catalog: Catalog, query: str) -> None:
    refusal(catalog, query)


@pytest.mark.parametrize("query", ["created_at > '0001-01-01T00:00+14:00'", "created_at < '9999-12-31T23:59-12:00'"])
def test_a_time_at_the_end_of_the_calendar_is_a_query_or_an_error_of_one(catalog: Catalog, query: str) -> None:
    try:
        assert names(catalog, query) == list(TASKS)
    except QueryError as error:
        assert "expected a time" in str(error)


def test_a_number_is_no_time(catalog: Catalog) -> None:
    assert "expected a time" in refusal(catalog, "created_at > 20250101")
