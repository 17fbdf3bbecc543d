"""What `matches` finds, and the functions over lineage, data and checks; against models of them in Python."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.lineage import Parent
from multiprompt.errors import QueryError
from multiprompt.records import CheckReport, Run, VersionRecord
from multiprompt.tasks.data import Split
from tests.catalog.databases import DATABASES, by, contents
from tests.catalog.samples import AT, a_check, a_task, learn, new_catalog

LIMITS = settings(max_examples=15, deadline=None, database=None)
_names = itertools.count()


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def found(catalog: Catalog, text: str) -> list[str]:
    return names(catalog, f"matches({quoted(text)})")


def names(catalog: Catalog, query: str) -> list[str]:
    return [task.name for task in catalog.tasks.find(query)]


def labels(catalog: Catalog, query: str) -> set[str]:
    return {version.label for version in catalog.versions.find(query)}


def refusal(listing: Callable[[str], Any], query: str) -> str:
    with pytest.raises(QueryError) as caught:
        listing(query)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Full text

# name: (description, tags, notes)
TEXTS: dict[str, tuple[str, list[str], list[str]]] = {
    "sst2": ("Is the film review positive or negative?", ["sentiment", "team:nlp"], ["annotators changed in May"]),
    "café menü": ("Größe und Straße: ÄRGER.", ["naïve", "lang:de"], []),
    "trec_questions": ("What type of answer does the question ask for?", ["Team:Core"], ["NEAR miss; AND not more"]),
    "it's": ('He said "stop-gap" (twice), 3.14 * 2^8 = 804?', ["c++", "a-b"], ["it was 50% off", "don't"]),
    "日本語 задача": ("Привет, МИР! ἀρχή", ["ελληνικός"], ["тест"]),
    "empty": ("", [], []),
}


def fill(catalog: Catalog) -> None:
    for name, (description, tags, notes) in TEXTS.items():
        task = a_task(name, description=description, tag=tags)
        if name == "sst2":
            learn(catalog, name, task=task)
        else:
            by(catalog, "tester", AT).tasks.add(task)
        for note in notes:
            by(catalog, "tester", AT).tasks.note(name, note)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Iterator[Catalog]:
    """What is read only."""
    made = DATABASES.filled("texts", fill, tmp_path_factory.mktemp("texts"))
    before = contents(made)
    yield made
    assert contents(made) == before


@pytest.fixture
def changed(tmp_path: Path) -> Iterator[Catalog]:
    """The same, to be written to; it must be sound after the test too."""
    made = DATABASES.filled("texts", fill, tmp_path)
    yield made
    assert made.verify() == []


FOUND = {
    "a word of the description": ("film", ["sst2"]),
    "a word of the name": ("sst2", ["sst2"]),
    "a part of a name": ("questions", ["trec_questions"]),
    "a name with an underline": ("trec_questions", ["trec_questions"]),
    "a tag": ("sentiment", ["sst2"]),
    "a tag with its key": ("team:nlp", ["sst2"]),
    "the key of a tag": ("team", ["sst2", "trec_questions"]),
    "a note": ("annotators", ["sst2"]),
    "an older note": ("50", ["it's"]),
    "words of several places": ("may review sentiment sst2", ["sst2"]),
    "words in any order": ("negative film", ["sst2"]),
    "words of two tasks": ("film question", []),
    "the same word twice": ("film film", ["sst2"]),
    "capitals": ("FiLM Review", ["sst2"]),
    "capitals in the text": ("ärger", ["café menü"]),
    "without accents": ("cafe menu naive", ["café menü"]),
    "with accents that the text has not": ("fílm", ["sst2"]),
    "composed another way": (unicodedata.normalize("NFD", "café"), ["café menü"]),
    "sharp s": ("strasse", ["café menü"]),
    "sharp s in the query": ("STRAẞE", ["café menü"]),
    "a prefix": ("annot", ["sst2"]),
    "prefixes of several words": ("ann chan", ["sst2"]),
    "one letter": ("f", ["sst2", "trec_questions"]),
    "not from within a word": ("ilm", []),
    "longer than the word": ("films", []),
    "an apostrophe": ("it's", ["it's"]),
    "an apostrophe within": ("don't", ["it's"]),
    "quotes": ('"stop-gap"', ["it's"]),
    "an open quote": ('"stop', ["it's"]),
    "a hyphen": ("stop-gap", ["it's"]),
    "a hyphen in front": ("-stop", ["it's"]),
    "a star": ("twi*", ["it's"]),
    "a star in front": ("*film", ["sst2"]),
    "a caret": ("^film", ["sst2"]),
    "a caret within": ("2^8", ["it's"]),
    "a colon": ("words:film", []),
    "a column filter": ("words : film", []),
    "a bracket": ("(film", ["sst2"]),
    "brackets": ("{film} [review] (positive)", ["sst2"]),
    "a plus": ("film + review", ["sst2"]),
    "c plus plus": ("c++", ["sst2", "café menü", "trec_questions", "it's"]),
    "a decimal": ("3.14", ["it's"]),
    "a percent": ("50%", ["it's"]),
    "a percent alone is no pattern": ("fi%ew", []),
    "the word AND": ("film AND review", []),
    "the word AND where it is": ("AND not", ["trec_questions"]),
    "the word OR": ("film OR question", []),
    "the word OR where it is": ("positive OR negative", ["sst2"]),
    "the word NOT": ("question NOT film", []),
    "the word NEAR": ("NEAR(film review, 5)", []),
    "the word NEAR where it is": ("NEAR miss", ["trec_questions"]),
    "operators of tsquery": ("film & review | !question", []),
    "distance of tsquery": ("film <-> review", ["sst2"]),
    "a weight of tsquery": ("film:A", ["sst2"]),
    "a prefix of tsquery": ("fil:*", ["sst2"]),
    "a backslash": ("\\film\\", ["sst2"]),
    "a semicolon": ("film; DROP TABLE tasks", []),
    "a comment": ("film -- review", ["sst2"]),
    "cyrillic": ("привет мир", ["日本語 задача"]),
    "a final sigma": ("ελληνικοσ", ["日本語 задача"]),
    "breathings": ("αρχη", ["日本語 задача"]),
    "ideographs": ("日本語", ["日本語 задача"]),
    "the first ideograph": ("日", ["日本語 задача"]),
    "full width": ("ｆｉｌｍ", ["sst2"]),
    "blanks": ("  film \t\n review ", ["sst2"]),
    "a zero-width joiner": ("film\u200dreview", ["sst2"]),
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_text_is_found_by_its_words(texts: Catalog, kind: str) -> None:
    text, expected = FOUND[kind]
    assert found(texts, text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", "'", '"', "*", "-", "...", "()", "_", "__", ":*", "!&|", "🙂", "\u0301"]
)
def test_a_text_without_words_is_refused_at_its_column(texts: Catalog, text: str) -> None:
    message = refusal(texts.tasks.find, f"name = 'x' or  matches({quoted(text)})")
    assert message.startswith("query, column 25, at ")
    assert message.endswith("expected 1 to 20 words, got 0")


def test_twenty_words_are_a_search_and_more_are_refused(texts: Catalog) -> None:
    assert found(texts, " ".join(["film"] * 20)) == ["sst2"]
    assert found(texts, "film-" * 20) == ["sst2"]
    many = " ".join(f"w{number}" for number in range(4000))
    for text, count in (
        (many[: many.index(" w21")], 21),
        ("a.b.c-d.e.f.g.h.i.j.k.l.m.n.o_p/q,r;s t u", 21),
        (many[:9000], 1685),
    ):
        message = refusal(texts.tasks.find, f"matches({quoted(text)})")
        assert message.startswith("query, column 10, at ")
        assert message.endswith(f"expected 1 to 20 words, got {count}")


@pytest.mark.parametrize("length", [200, 2_046, 2_047, 9_000])
def test_a_very_long_word_is_a_word(changed: Catalog, length: int) -> None:
    assert found(changed, "x" * length) == []
    by(changed, "tester", AT).tasks.note("empty", "x" * length)
    assert found(changed, "x" * length) == ["empty"]
    assert found(changed, "x" * 100) == ["empty"]


def test_a_very_long_note_is_found_by_each_of_its_words(changed: Catalog) -> None:
    by(changed, "tester", AT).tasks.note("empty", " ".join(f"word{number}" for number in range(40_000)))
    for number in (0, 20_000, 39_999):
        assert found(changed, f"word{number} word1") == ["empty"]


def test_a_search_is_a_condition_like_any_other(texts: Catalog) -> None:
    assert names(texts, "matches('film') and tag.team = 'nlp'") == ["sst2"]
    assert names(texts, "matches('film') and not tag.team = 'nlp'") == []
    assert names(texts, "matches('film') or matches('question') or name = 'empty'") == [
        "sst2",
        "trec_questions",
        "empty",
    ]
    assert names(texts, "not matches('f')") == ["café menü", "it's", "日本語 задача", "empty"]
    assert names(texts, "not (matches('film') or matches('stop')) and not matches('question')") == [
        "café menü",
        "日本語 задача",
        "empty",
    ]
    assert names(texts, "matches('team') order by name desc limit 1") == ["trec_questions"]
    assert names(texts, "MATCHES ( 'film' )") == ["sst2"]


def test_versions_and_evaluations_are_found_by_their_task_s_text(changed: Catalog) -> None:
    learn(changed, "sst2", publish=False, task=a_task("sst2", description=TEXTS["sst2"][0], tag=TEXTS["sst2"][1]))
    learn(changed, "other")
    assert [version.label for version in changed.versions.find("matches('film')")] == ["sst2@1", "sst2@2"]
    assert {record.task for record in changed.evaluations.find("not matches('film')")} == {"other"}
    assert len(changed.evaluations.find("matches('film') and kind = 'hard'")) == 1


def test_a_changed_task_file_is_found_by_what_it_says_now(changed: Catalog) -> None:
    by(changed, "tester", AT).tasks.add(a_task("sst2", description="Judge the movie.", tag=["opinion"]))
    for text in ("film", "sentiment", "team:nlp", "positive"):
        assert found(changed, text) == []
    for text in ("movie", "opinion", "sst2", "annotators", "judge opinion may"):
        assert found(changed, text) == ["sst2"]
    by(changed, "tester", AT).tasks.add(a_task("sst2", description=TEXTS["sst2"][0], tag=TEXTS["sst2"][1]))
    assert found(changed, "film sentiment annotators") == ["sst2"]
    assert found(changed, "movie") == []


def test_a_task_and_a_note_are_found_as_soon_as_they_are_there(changed: Catalog) -> None:
    assert found(changed, "brandnew") == []
    by(changed, "tester", AT).tasks.add(a_task("brandnew"))
    assert found(changed, "brandnew") == ["brandnew"]
    by(changed, "tester", AT).tasks.note("brandnew", "zebra crossing")
    by(changed, "tester", AT).tasks.note("brandnew", "yak")
    assert found(changed, "zebra yak crossing brandnew") == ["brandnew"]
    assert names(changed, "matches('zebra') or matches('film')") == ["sst2", "brandnew"]


def test_what_others_say_of_a_task_is_no_text_of_it(changed: Catalog) -> None:
    learn(changed, "sst2", score=0.9)
    by(changed, "trombone", AT).pointers.roll_back("sst2", 1, "xylophone")
    by(changed, "trombone", AT).tasks.guard("sst2", True, "xylophone")
    assert found(changed, "xylophone") == []
    assert found(changed, "trombone") == []


def model_words(text: str) -> list[str]:
    """Maximal runs of letters and digits, without case and accents."""
    letters = "".join(one for one in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(one))
    return "".join(one if one.isalnum() else " " for one in letters).split()


def model_matches(text: str, query: str) -> bool:
    return all(any(word.startswith(wanted) for word in model_words(text)) for wanted in model_words(query))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Catalog:
    """A catalog that holds colour@1, to be read only."""
    return DATABASES.filled("one version", learn, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Catalog:
    return new_catalog(tmp_path_factory.mktemp("searched"))


def a_text_of(alphabet: str, words: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, max_size=4 * words)


ALPHABET = "aabbcÄäéEßſσςΣ01249 \t\n.,'\"*:^-+()|&!<>\\/@#%_eEжЖ日本ｂ²"


@LIMITS
@given(
    st.lists(a_text_of(ALPHABET, 5).filter(str.strip), min_size=1, max_size=3),
    st.lists(a_text_of(ALPHABET, 2), min_size=1, max_size=6),
)
def test_any_text_is_found_by_the_beginnings_of_its_words(
    searched: Catalog, notes: list[str], queries: list[str]
) -> None:
    name = f"№{next(_names)}"
    by(searched, "tester", AT).tasks.add(a_task(name, description="", tag=[]))
    for note in notes:
        by(searched, "tester", AT).tasks.note(name, note)
    text = " ".join([name, *notes])
    for query in [*queries, *notes]:
        if 0 < len(model_words(query)) <= 20:
            expected = [name] if model_matches(text, query) else []
            assert names(searched, f"name = {quoted(name)} and matches({quoted(query)})") == expected, (text, query)
        else:
            refusal(searched.tasks.find, f"matches({quoted(query)})")


@LIMITS
@given(st.data())
def test_any_word_of_letters_and_digits_is_found_by_each_of_its_beginnings(
    searched: Catalog, data: st.DataObject
) -> None:
    word = data.draw(st.text("abcxyz0123456789eE", min_size=1, max_size=8))
    name = f"№{next(_names)}"
    by(searched, "tester", AT).tasks.add(a_task(name, description=f"{word} end", tag=[]))
    for length in range(1, len(word) + 1):
        query = f"name = {quoted(name)} and matches({quoted(word[:length])})"
        assert names(searched, query) == [name], word[:length]
    assert names(searched, f"name = {quoted(name)} and matches({quoted(word + 'q')})") == []


@LIMITS
@given(st.text(min_size=1, max_size=12))
def test_any_text_of_any_script_is_found_by_itself(searched: Catalog, text: str) -> None:
    assume("\0" not in text)
    assume(0 < len(model_words(text)) <= 20)
    name = f"№{next(_names)}"
    by(searched, "tester", AT).tasks.add(a_task(name, description="", tag=[]))
    by(searched, "tester", AT).tasks.note(name, text)
    query = f"name = {quoted(name)} and matches({quoted(text)})"
    assert names(searched, query) == [name], model_words(text)


@pytest.mark.parametrize(
    "text",
    ["𞤀𞤣", "ꮳ", "Ꮳ", "𐄇", "㊀", "½", "Ⅷ", "ﬁn", "हिन्दी", "ภาษาไทย", "한국어", "עִבְרִית", "العَرَبِيَّة", "İstanbul", "ŉ", "𝒳"],
)
def test_a_word_of_another_script_is_found_and_others_are_not(searched: Catalog, text: str) -> None:
    one, other = (f"№{next(_names)}" for _ in range(2))
    by(searched, "tester", AT).tasks.add(a_task(one, description="", tag=[text]))
    by(searched, "tester", AT).tasks.add(a_task(other, description="", tag=["plain"]))
    listed = f"name in ({quoted(one)}, {quoted(other)})"
    assert names(searched, f"{listed} and matches({quoted(text)})") == [one]
    assert names(searched, f"{listed} and matches({quoted(text + ' plain')})") == []


@pytest.mark.parametrize("word", ["1e5x", "0x1fgh", "12ab34", "3e", "007", "1e10e10", "sha1e5cafe"])
def test_a_word_of_digits_and_letters_is_one_word(searched: Catalog, word: str) -> None:
    name = f"№{next(_names)}"
    by(searched, "tester", AT).tasks.add(a_task(name, description=word, tag=[]))
    listed = f"name = {quoted(name)} and matches"
    assert names(searched, f"{listed}('{word}')") == [name]
    for start in range(1, len(word)):
        if not word.startswith(word[start:]):
            assert names(searched, f"{listed}('{word[start:]}')") == [], word[start:]


@pytest.mark.parametrize("text", ["half \ud800", "a\udcffb"])
def test_a_text_that_no_database_holds_is_a_search_or_a_query_error(texts: Catalog, text: str) -> None:
    for query in (f"matches({quoted(text)})", f"descendant_of({quoted(text)})", f"name = {quoted(text)}"):
        try:
            assert names(texts, query) == []
        except QueryError as error:
            assert "\n" not in str(error)


# Lineage


# Chains, a diamond and several tasks: the parents of each version.
FAMILY: dict[str, list[str]] = {
    "a@1": [],
    "a@2": ["a@1"],
    "b@1": ["a@1"],
    "b@2": ["a@2", "b@1"],
    "c@1": ["b@2"],
    "c@2": [],
    "a@3": ["c@1"],
    "d@1": ["c@2", "a@3", "a@1"],
    "e@1": [],
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, database_kind: str) -> Catalog:
    """A catalog of these versions, of which b@2 was rejected, and of a task without any; to be read only."""
    made = new_catalog(tmp_path_factory.mktemp("family"))
    grow(made, FAMILY)
    by(made, "tester", AT).tasks.add(a_task("unpublished"))
    return made


def grow(catalog: Catalog, parents: dict[str, list[str]]) -> None:
    made: dict[str, VersionRecord] = {}
    for label, of in parents.items():
        edges = tuple(Parent("composed-of", one, made[one]) for one in of)
        made[label] = learn(catalog, label.partition("@")[0], publish=label != "b@2", parents=edges)
        assert made[label].label == label


def closure(parents: dict[str, list[str]], label: str) -> set[str]:
    """The ancestors of a version, or of all those of a task."""
    wanted = [one for one in parents if one == label or one.partition("@")[0] == label]
    above: set[str] = set()
    waiting = [parent for one in wanted for parent in parents[one]]
    while waiting:
        one = waiting.pop()
        if one not in above:
            above.add(one)
            waiting += parents[one]
    return above


def inverted(parents: dict[str, list[str]]) -> dict[str, list[str]]:
    return {one: [child for child, of in parents.items() if one in of] for one in parents}


def test_descendants_and_ancestors_go_over_any_number_of_edges(family: Catalog) -> None:
    children = inverted(FAMILY)
    assert closure(FAMILY, "c@1") == {"a@1", "a@2", "b@1", "b@2"}
    for label in [*FAMILY, *"abcde"]:
        assert labels(family, f"ancestor_of('{label}')") == closure(FAMILY, label), label
        assert labels(family, f"descendant_of('{label}')") == closure(children, label), label


GRAPHS = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 6), max_size=3, unique=True)), min_size=1, max_size=7
)


@settings(max_examples=4, deadline=None, database=None)
@given(GRAPHS)
def test_descendants_and_ancestors_are_those_of_any_graph(
    tmp_path_factory: pytest.TempPathFactory, graph: list[tuple[str, list[int]]]
) -> None:
    catalog = new_catalog(tmp_path_factory.mktemp("graph"))
    numbers = {name: itertools.count(1) for name in "ab"}
    named = [f"{name}@{next(numbers[name])}" for name, _ in graph]
    parents = {
        label: [named[one] for one in of if one < position]
        for position, (label, (_, of)) in enumerate(zip(named, graph, strict=True))
    }
    grow(catalog, parents)
    for label in [*parents, *{label.partition("@")[0] for label in parents}]:
        assert labels(catalog, f"ancestor_of('{label}')") == closure(parents, label)
        assert labels(catalog, f"descendant_of('{label}')") == closure(inverted(parents), label)


def test_a_task_is_a_descendant_by_what_it_has_published(family: Catalog) -> None:
    assert names(family, "descendant_of('a@1')") == ["a", "b", "d"]
    assert names(family, "descendant_of('b@2')") == ["a", "d"]
    assert names(family, "ancestor_of('d@1')") == ["a", "b", "c"]
    assert names(family, "ancestor_of('d') and score >= 0.5 and name != 'b'") == ["a", "c"]
    assert {record.version for record in family.evaluations.find("descendant_of('c@1')")} == {"a@3", "d@1"}


def test_what_is_no_descendant_is_all_the_others(family: Catalog) -> None:
    assert labels(family, "not descendant_of('b')") == FAMILY.keys() - closure(inverted(FAMILY), "b")
    assert labels(family, "not ancestor_of('b')") == FAMILY.keys() - closure(FAMILY, "b")
    # What is not published came from nothing, whether the version asked for has descendants or not.
    assert names(family, "not descendant_of('e@1')") == ["a", "b", "c", "d", "e", "unpublished"]
    assert names(family, "not descendant_of('c@2')") == ["a", "b", "c", "e", "unpublished"]
    assert len(family.evaluations.find("not descendant_of('e@1') and kind = 'hard'")) == len(
        {label[0] for label in FAMILY}
    )
    assert len(family.evaluations.find("not descendant_of('c@2') and kind = 'hard'")) == len(
        {label[0] for label in FAMILY}
    )


def test_functions_are_combined(family: Catalog) -> None:
    children = inverted(FAMILY)
    assert labels(family, "descendant_of('a@1') and ancestor_of('d@1')") == (
        closure(children, "a@1") & closure(FAMILY, "d@1")
    )
    assert labels(family, "descendant_of('b@1') or descendant_of('c@2')") == (
        closure(children, "b@1") | closure(children, "c@2")
    )
    assert labels(family, "descendant_of('a@2') and descendant_of('b@1')") == (
        closure(children, "a@2") & closure(children, "b@1")
    )
    assert labels(family, "ancestor_of('c@1') and not ancestor_of('a@2') and not matches('b')") == {"a@2"}


@pytest.mark.parametrize("function", ["descendant_of", "ancestor_of"])
def test_nothing_came_from_or_led_to_an_unknown_version(plain: Catalog, function: str) -> None:
    for label in ("nobody", "nobody@1", "colour@2", "colour@0", "colour@999999999", "COLOUR@1", "colo%", "a'b"):
        assert plain.versions.find(f"{function}({quoted(label)})") == []


@pytest.mark.parametrize("function", ["descendant_of", "ancestor_of"])
@pytest.mark.parametrize(
    "label", ["colour@", "colour@x", "colour@1@2", "colour@1.5", "colour@-1", "colour@ 1", "colour@1 ", "@", "colour@²"]
)
def test_a_malformed_label_is_refused_at_its_column(plain: Catalog, function: str, label: str) -> None:
    for listing, field in ((plain.tasks.find, "name"), (plain.versions.find, "task"), (plain.evaluations.find, "task")):
        query = f"{field} = 'x' or {function}({quoted(label)})"
        message = refusal(listing, query)
        assert message.startswith(f"query, column {query.index('(') + 3}, at {label!r}: ")
        assert "expected a version such as 'sst2@1', or a task" in message


@pytest.mark.parametrize("label", ["", "@1"])
def test_a_label_without_a_name_is_refused_at_its_column(plain: Catalog, label: str) -> None:
    assert "column 16" in refusal(plain.versions.find, f"descendant_of('{label}')")


# Data


def split(name: str, text: str) -> Split:
    return Split(name, ({"text": text, "label": "blue"},))


def learn_from(catalog: Catalog, name: str, training: Split, validation: Split) -> VersionRecord:
    run = Run({}, {}, training.fingerprint, validation.fingerprint, (1.0,), (), 1, 0, 1.0)
    return learn(catalog, name, run=run, training_data=(training, validation))


def test_versions_are_found_by_the_data_they_learned_from(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    one, two, three = split("train", "one"), split("train", "two"), split("validation", "three")
    learn_from(catalog, "a", one, three)
    learn_from(catalog, "b", two, three)
    learn_from(catalog, "a", two, split("validation", "four"))
    learn(catalog, "imported")
    by(catalog, "tester", AT).tasks.add(a_task("unpublished"))

    def learned(fingerprint: str) -> set[str]:
        return labels(catalog, f"learned_from('{fingerprint}')")

    assert one.fingerprint.startswith("sha256:")
    assert learned(one.fingerprint) == {"a@1"}
    assert learned(two.fingerprint) == {"a@2", "b@1"}
    assert learned(three.fingerprint) == {"a@1", "b@1"}
    for length in (8, 12, 63, 64):
        assert learned(one.fingerprint[: len("sha256:") + length]) == {"a@1"}
    assert learned("sha256:" + "0" * 64) == set()
    assert learned(one.fingerprint + "0") == set()
    assert learned("%" * 20) == set()
    assert learned(one.fingerprint.replace("s", "_")) == set()
    assert names(catalog, f"learned_from('{two.fingerprint}')") == ["a", "b"]
    assert names(catalog, f"learned_from('{one.fingerprint}')") == []
    assert labels(catalog, f"not learned_from('{two.fingerprint}')") == {"a@1", "imported@1"}
    assert labels(catalog, f"not learned_from('sha256:{'0' * 64}')") == {"a@1", "a@2", "b@1", "imported@1"}
    assert names(catalog, f"not learned_from('{two.fingerprint}')") == ["imported", "unpublished"]


def test_a_fingerprint_can_be_given_without_its_kind(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    one = split("train", "one")
    learn_from(catalog, "a", one, split("validation", "two"))
    for length in (8, 64):
        digits = one.fingerprint.removeprefix("sha256:")[:length]
        assert labels(catalog, f"learned_from('{digits}')") == {"a@1"}


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:1f2a30b", "1f2a30b", "sha256"])
def test_a_fingerprint_too_short_to_tell_is_refused_at_its_column(plain: Catalog, text: str) -> None:
    message = refusal(plain.versions.find, f"number = 1 and learned_from('{text}')")
    assert message.startswith(f"query, column 30, at {text!r}: expected at least 8 digits of a fingerprint")


# Checks


def test_versions_are_found_by_the_checks_that_found_them_worse(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    for name in ("a", "b", "c", "d"):
        learn(catalog, name, 0.9, at=AT)

    def check(days: int, **verdicts: str) -> None:
        results = tuple(replace(a_check(f"{name}@1", 0.9, 0.1), verdict=verdict) for name, verdict in verdicts.items())
        by(catalog, "tester", AT + timedelta(days=days)).checks.save(CheckReport(results, 1.0))

    check(1, a="regressed", b="unchanged", d="unchanged")
    check(3, b="failed", a="unchanged", d="improved")
    check(5, c="regressed")
    by(catalog, "tester", AT).tasks.add(a_task("unpublished"))
    for since, expected in (
        ("2026-01-01", "abc"),
        ("2026-01-02", "abc"),
        ("2026-01-02T00:00:00.000001", "bc"),
        ("2026-01-04T01:00+01:00", "bc"),
        ("2026-01-05", "c"),
        ("2026-01-06T00:00:01", ""),
        ("0001-01-01", "abc"),
        ("9999-12-31", ""),
    ):
        assert "".join(names(catalog, f"regressed_since('{since}')")) == expected
        assert labels(catalog, f"regressed_since('{since}')") == {f"{name}@1" for name in expected}
    assert names(catalog, "not regressed_since('2026-01-05')") == ["a", "b", "d", "unpublished"]
    assert names(catalog, "not regressed_since('2026-01-07')") == ["a", "b", "c", "d", "unpublished"]


def test_a_task_is_worse_by_its_published_version_alone(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    learn(catalog, "a", 0.9)
    result = replace(a_check("a@1", 0.9, 0.1), verdict="regressed")
    by(catalog, "tester", AT).checks.save(CheckReport((result,), 1.0))
    assert names(catalog, "regressed_since('2026-01-01')") == ["a"]
    learn(catalog, "a", 0.95)
    assert names(catalog, "regressed_since('2026-01-01')") == []
    assert labels(catalog, "regressed_since('2026-01-01')") == {"a@1"}


@pytest.mark.parametrize("text", ["", "monday", "2026-13-01", "20", "0001-01-01T00:00+14:00"])
def test_a_time_that_is_none_is_refused_at_its_column(plain: Catalog, text: str) -> None:
    message = refusal(plain.tasks.find, f"regressed_since('{text}')")
    assert message.startswith(f"query, column 18, at {text!r}: expected a time such as '2026-11-01'")


# Functions that are none


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("match('film')", "query, column 1, at 'match': unknown function 'match'; did you mean 'matches'?"),
        (
            "name = 'a' or decendant_of('a')",
            "query, column 15, at 'decendant_of': unknown function 'decendant_of'; did",
        ),
        ("regressed('2026')", "unknown function 'regressed'; did you mean 'regressed_since'?"),
        (
            "zzz('a')",
            "unknown function 'zzz'; known: ancestor_of, descendant_of, learned_from, matches, regressed_sinc",
        ),
        ("matches(film)", "query, column 9, at 'film': expected a text in single quotes"),
        ("matches(5)", "query, column 9, at '5': expected a text in single quotes"),
        ("matches()", "query, column 9, at ')': expected a text in single quotes"),
        ("matches('film'", "query, column 15, at the end: expected ')'"),
        ("matches('film', 'x')", "query, column 15, at ',': expected ')'"),
        ("matches(matches('x'))", "query, column 9, at 'matches': expected a text in single quotes"),
        ("matches('film') = 1", "query, column 17, at '=': expected 'and', 'or', 'order by', 'limit' or the end"),
        ("order by matches('film')", "query, column 10, at 'matches': unknown field 'matches'"),
        ("name(name)", "query, column 1, at 'name': unknown function 'name'"),
        ("pg_sleep('1')", "query, column 1, at 'pg_sleep': unknown function 'pg_sleep'"),
    ],
)
def test_what_is_no_function_is_told_the_nearest(texts: Catalog, query: str, says: str) -> None:
    assert says in refusal(texts.tasks.find, query)


def test_events_have_no_functions_and_say_so(texts: Catalog) -> None:
    message = refusal(texts.events.find, "matches('film')")
    assert message.startswith("query, column 1, at 'matches': unknown function 'matches'")
    assert not re.search("there are none yet", message)


def test_too_many_functions_are_too_many_comparisons(texts: Catalog) -> None:
    assert "more than 200 comparisons" in refusal(texts.tasks.find, " or ".join(["matches('x')"] * 201))
    assert names(texts, " or ".join(["matches('film')"] * 40)) == ["sst2"]
