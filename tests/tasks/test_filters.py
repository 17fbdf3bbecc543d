"""Filter pipelines and patterns: what they make of a text, as the harness does."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from multiprompt.errors import DataError, TaskFileError
from multiprompt.tasks import pattern as patterns
from multiprompt.tasks.filters import check_order, read_pipelines
from multiprompt.tasks.pattern import pattern


def extracted(text: str, **settings: Any) -> str:
    (line,) = read_pipelines([{"name": "n", "filter": [{"function": "regex", **settings}]}])
    return line.apply(text)


@pytest.mark.parametrize(
    ("settings", "text", "found"),
    [
        ({}, "so #### 1,200.5 it is", "1,200.5"),
        ({}, "no number", "[invalid]"),
        ({"regex_pattern": r"\d+", "group_select": -1}, "1 and 22", "22"),
        ({"regex_pattern": r"\d+", "group_select": 2}, "1 and 22", "[invalid]"),
        ({"regex_pattern": r"\d+", "group_select": -3, "fallback": "none"}, "1 and 22", "none"),
        ({"regex_pattern": r"(\$[0-9]+)|(-?[0-9]+)", "group_select": -1}, "$5, then 6", "6"),
        ({"regex_pattern": r"(a?)(b?)c", "fallback": "f"}, "c", "f"),
        ({"regex_pattern": r" b "}, "a b c", "b"),
    ],
)
def test_the_regex_filter_takes_the_match_that_the_harness_takes(settings: Any, text: str, found: str) -> None:
    assert extracted(text, **settings) == found


def test_each_pipeline_applies_its_filters_in_order() -> None:
    steps = [["lowercase", "remove_whitespace", "take_first"], ["uppercase"]]
    lines = read_pipelines([{"name": str(n), "filter": [{"function": f} for f in fs]} for n, fs in enumerate(steps)])
    assert [(line.apply(" Ab "), line.takes_first) for line in lines] == [("ab", True), (" AB ", False)]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "filter_list must hold pipelines of different names"),
        ("lowercase", "it must hold pipelines"),
        ([{"name": "n", "filter": "lowercase"}], "it must hold pipelines"),
        ([{"name": "n", "filter": [{"function": "regexp"}]}], "did you mean 'regex'?"),
        ([{"name": "n", "filter": [{"function": "lowercase", "x": 1}]}], "the filter lowercase has no setting 'x'"),
        ([{"name": "n", "filter": [{"function": "regex", "group_select": True}]}], "group_select: True"),
        ([{"name": "n", "filter": [{"function": "regex", "regex_pattern": "("}]}], "the pattern '(' is not valid"),
        ([{"name": "n", "filter": [{"function": "regex", "regex_pattern": "a" * 10_001}]}], "the limit is 10000"),
    ],
)
def test_a_pipeline_that_cannot_be_read_is_refused(value: Any, says: str) -> None:
    with pytest.raises(TaskFileError) as caught:
        read_pipelines(value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("output_type", "functions", "says"),
    [
        ("multiple_choice", ["lowercase", "take_first"], "multiple_choice has no text to filter"),
        ("generate_until", ["take_first", "lowercase"], "'take_first' must come last"),
    ],
)
def test_filters_that_the_harness_applies_in_another_way_are_refused(
    output_type: str, functions: list[str], says: str
) -> None:
    lines = read_pipelines([{"name": "n", "filter": [{"function": name} for name in functions]}])
    with pytest.raises(TaskFileError, match=says):
        check_order(lines, output_type)


@pytest.mark.parametrize("source", ["(a+)+$", "(a|a)*$", r"(\w+\s?)*$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_pattern_that_would_run_for_ever_is_stopped(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(patterns, "MAX_SECONDS", 0.05)
    try:
        assert extracted("a" * 5000 + "!", regex_pattern=source) == "[invalid]"
    except DataError as error:
        assert "took more than 0.05 seconds on one text" in str(error)


@pytest.mark.parametrize(
    "source",
    [
        r"\d+",
        r"(?i)ANSWER:\s*(\w)",
        "[^a-z]",
        r"\bx*",
        "(?<=a)b|^",
        r"a{1,2}",
        r"\$\{x\}",
        "{e}",
        "[[:x]",
        "(?i)[a-z]+",
        r"\w+",
        r"\b\w",
        r"[^\w\s]",
        r"\s",
        r"(a)|(b)?",
    ],
)
def test_a_pattern_finds_and_replaces_as_pythons_re(source: str) -> None:
    for text in ("Answer: b 12 aab", "", "aaa\nxx $ab ${x}", "Größe 3", "हिन्दी की बात", "ısı İş", "a\x1cb {e} [:"):
        assert pattern(source).findall(text) == re.findall(source, text)
        for count in (0, 1):
            assert pattern(source).sub(r"<\g<0>>", text, count) == re.sub(source, r"<\g<0>>", text, count=count)


def test_a_stopped_pattern_leaves_the_next_one_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_SECONDS", 0.05)
    for _ in range(2):
        with pytest.raises(DataError, match="took more than"):
            extracted("a" * 5000 + "!", regex_pattern="(a+)+$")
        assert extracted("a 7", regex_pattern=r"\d") == "7"


def test_threads_get_their_own_answers() -> None:
    numbers = list(range(200))
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda number: extracted(f"x {number} y", regex_pattern=r"\d+"), numbers)
        assert list(found) == [str(number) for number in numbers]
