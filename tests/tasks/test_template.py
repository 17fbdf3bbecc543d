"""Templates: what they render, what they cannot reach, and how much they can produce."""

from __future__ import annotations

import tracemalloc
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.errors import TemplateError
from multiprompt.tasks.template import MAX_RENDERED_CHARACTERS, Column, NullFieldError, Template, template

ROW: dict[str, Any] = {"x": "aaaaaaaa", "long": "a" * 8000, "words": ["one", "two"], "n": 3}


def rendered(source: str, **row: Any) -> str:
    return Template(source, "doc_to_text").render(ROW | row)


def refusal(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        rendered(source)
    message = str(caught.value)
    assert message.startswith("doc_to_text ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{x}}\nAnswer:\n", "aaaaaaaa\nAnswer:\n"),
        ("{{ words | join(', ') }}", "one, two"),
        ("{% for w in words %}{{ loop.index }}={{ w }};{% endfor %}", "1=one;2=two;"),
        ("{% if n > 2 %}many{% else %}few{% endif %}", "many"),
        ("{{ x[:2] ~ (n * 2 + 1) }}", "aa7"),
        ("{{ words[0].upper() | trim }}", "ONE"),
        ("{{ n % 2 }}", "1"),
        ("<b>{{ '&' }}</b>", "<b>&</b>"),
    ],
)
def test_templates_of_the_harness_render_as_jinja_does(source: str, text: str) -> None:
    assert rendered(source) == text
    assert jinja2.Template(source, keep_trailing_newline=True).render(ROW) == text


def test_braces_in_a_row_are_not_a_template() -> None:
    assert rendered("{{x}}", x="{{ 1 + 1 }}") == "{{ 1 + 1 }}"


@pytest.mark.parametrize(
    ("source", "fields", "head"),
    [
        ("Hello {{a}}!", {"a"}, "Hello "),
        ("{{a}}{{b}}", {"a", "b"}, ""),
        ("no field", set(), "no field"),
        ("{# note #}Hello\n{{a.b}}", {"a"}, "Hello\n"),
        ("Hello  {{- a }}", {"a"}, "Hello"),
        ("One {% if a %}two{% endif %}", {"a"}, "One "),
        ("{% set b = a %}Hello {{b}}", {"a"}, ""),
        ("{% for w in a %}{{w}}{% endfor %}", {"a"}, ""),
        ("", set(), ""),
    ],
)
def test_fields_and_the_text_before_the_first(source: str, fields: set[str], head: str) -> None:
    template = Template(source, "doc_to_text")
    assert template.fields == fields
    assert template.constant_head == head


PIECES = st.lists(
    st.sampled_from(
        [
            "Hello ",
            "\n",
            "  ",
            "{{ a }}",
            "{{- a -}}",
            "{{ b }}",
            "{# c #}",
            "{{ 'constant' }}",
            "{% if a %}yes{% else %}no{% endif %}",
            "{% set z = a %}",
            "{% for w in a %}{{ w }}{% endfor %}",
            "{% raw %}{{{% endraw %}",
        ]
    ),
    max_size=8,
)


@given(PIECES, st.text(max_size=5), st.text(max_size=5))
@settings(deadline=None, database=None)
def test_every_rendering_starts_with_the_constant_head(pieces: list[str], a: str, b: str) -> None:
    template = Template("".join(pieces), "doc_to_text")
    assert template.fields <= {"a", "b"}
    assert template.render({"a": a, "b": b}).startswith(template.constant_head)


@pytest.mark.parametrize(
    "source",
    [
        "{{ x",
        "{% if %}",
        "{% endif %}",
        "{% for %}",
        "{{ x | nothing }}",
        "{{ x | attr('__class__') }}",
        "{% debug %}",
        "{{ }}",
    ],
)
def test_a_template_that_does_not_parse_is_refused(source: str) -> None:
    assert "is not a valid template" in refusal(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "1" * 5000 + " }}",
        "{% for i in words %}" * 25 + "{% endfor %}" * 25,
        "{{ " + "not " * 10_000 + "x }}",
    ],
    ids=["parentheses", "digits", "loops", "nots"],
)
def test_a_template_too_deep_for_its_parser_is_refused(source: str) -> None:
    assert "is not a valid template" in refusal(source)


def test_an_oversized_template_is_refused() -> None:
    assert "the limit is 65536" in refusal("a" * 65_537)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ x.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(x) }}",
        "{{ '{x.__class__}'.format_map({'x': x}) }}",
        "{{ self._TemplateReference__context }}",
        "{{ (words | first).__class__ }}",
        "{{ words.append('three') }}",
        "{{ {}.update({'a': 1}) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    assert "tried to leave the sandbox" in refusal(source)


def test_a_filter_over_many_values_cannot_leave_the_sandbox_either() -> None:
    assert "class" not in rendered("{{ [x] | map(attribute='__class__') | list }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ cycler('a', 'b') }}",
        "{{ lipsum() }}",
        "{{ joiner() }}",
        "{{ namespace() }}",
        "{% for i in range(1000000000) %}a{% endfor %}",
        "{% include 'other' %}",
        "{% import 'os' as os %}",
        "{% extends 'other' %}",
    ],
)
def test_a_template_has_no_functions_and_no_other_templates(source: str) -> None:
    refusal(source)


def test_a_field_that_the_row_lacks_is_an_error() -> None:
    assert "'missing' is undefined" in refusal("{{ missing }}")
    assert "'dict object' has no attribute" in refusal("{{ {}.missing }}")


def test_a_failure_inside_a_template_names_it() -> None:
    assert "ZeroDivisionError" in refusal("{{ n / 0 + n }}")
    assert "TypeError" in refusal("{{ n + x }}")


def test_a_template_renders_the_same_text_every_time() -> None:
    refusal("{{ words | random }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * 1000000000 }}",
        "{{ words * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ '%1000000000d' % n }}",
        "{{ x.center(1000000000) }}",
        "{{ x.ljust(1000000000) }}",
        "{{ x.zfill(1000000000) }}",
        "{{ x | center(1000000000) }}",
        "{{ x | indent(1000000000) }}",
        "{{ '%1000000000d' | format(n) }}",
        "{{ x | wordwrap(1) }}",
        "{{ x | pprint }}",
        "{% for a in long %}{{ long }}{% endfor %}",
        "{{ long.replace('a', long) }}",
        "{% set b = x" + " ~ x" * 7 + " %}" + "{% set b = b ~ b %}" * 20 + "{{ b }}",
        "{% set b = x %}" + "{% set b = b + b %}" * 23 + "{{ b }}",
        "{{ x" + " | replace('a', 'aaaaaaaaaa')" * 7 + " }}",
        "{{ long | list | join(long) }}",
        "{{ long.translate({97: long}) }}",
        "{{ words | tojson(indent=20000000) }}",
        "{{ words | batch(1000000, x) | list | length }}",
        "{% set b %}{% for i in long %}{% for j in x %}{{ x }}{{ x }}{% endfor %}{% endfor %}{% endset %}{{ b }}",
    ],
)
def test_an_amplifying_template_is_refused_before_it_fills_the_memory(source: str) -> None:
    tracemalloc.start()
    try:
        refusal(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32_000_000


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in long %}{% for j in long[:400] %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(13) }}",
    ],
    ids=["loops", "macro"],
)
def test_a_template_that_loops_without_producing_text_is_stopped(source: str) -> None:
    refusal(source)


def test_a_rendering_may_be_long_but_not_endless() -> None:
    assert len(rendered("{{ x }}", x="a" * 1_000_000)) == 1_000_000
    with pytest.raises(TemplateError, match=f"renders to more than {MAX_RENDERED_CHARACTERS} characters"):
        rendered("{{ x }}", x="a" * (MAX_RENDERED_CHARACTERS + 1))


NULL_ROWS: list[tuple[str, str]] = [
    ("{% if note %}({{ note }}){% else %}no{% endif %}", "no"),
    ("{% if note is none %}no{% endif %}", "no"),
    ("{% if note is sameas none %}no{% endif %}", "no"),
    ("{% if note is not none %}{{ note }}{% else %}no{% endif %}", "no"),
    ("{% if note == none %}no{% endif %}", "no"),
    ("{% if note != None %}{{ note }}{% else %}no{% endif %}", "no"),
    ("{{ note or 'no' }}", "no"),
    ("{{ note | default('no', true) }}", "no"),
    ("{% if not deep.inner %}no{% endif %}", "no"),
    ("{{ 'no' if listed[0] is none }}", "no"),
    ("{{ x }}", "aaaaaaaa"),
]


@pytest.mark.parametrize(("source", "text"), NULL_ROWS)
def test_a_template_may_test_for_null_as_in_jinja(source: str, text: str) -> None:
    nulls: dict[str, Any] = {"note": None, "deep": {"inner": None}, "listed": [None]}
    assert rendered(source, **nulls) == text
    assert jinja2.Template(source).render(ROW | nulls) == text


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ("{{ note }}", "note"),
        ("{{ deep.inner }}", "deep.inner"),
        ("{{ 'a' ~ note }}", "note"),
        ("{{ listed | join(', ') }}", "listed"),
        ("{{ listed }}", "listed"),
        ("{{ deep }}", "deep.inner"),
        ("{{ note | string }}", "note"),
        ("{{ note | trim }}", "note"),
        ("{{ x.replace('a', note) }}", "note"),
        ("{{ [note] }}", "note"),
        ("{{ note + 'a' }}", "note"),
        ("{{ note | length }}", "note"),
        ("{{ note[0] }}", "note"),
        ("{{ deep.inner.text }}", "deep.inner"),
        ("{{ note.strip() }}", "note"),
        ("{% for word in note %}{{ word }}{% endfor %}", "note"),
        ("{% if note > 1 %}many{% endif %}", "note"),
        ("{{ note | int }}", "note"),
        ("{{ note | float }}", "note"),
        ("{{ pair }}", "pair"),
        ("{{ pair[1] }}", "pair"),
    ],
)
def test_a_null_never_becomes_text(source: str, field: str) -> None:
    with pytest.raises(NullFieldError) as caught:
        rendered(source, note=None, deep={"inner": None}, listed=[None], pair=("a", None))
    assert str(caught.value.args[0]) == field


def test_regex_replace_and_range_are_those_of_the_harness() -> None:
    assert rendered("{{ 'a1b22' | regex_replace('[0-9]+', '-') }}") == "a-b-"
    assert rendered("{{ 'a1b22' | regex_replace('([0-9])', '<\\\\1>', 2) }}") == "a<1>b<2>2"
    assert rendered("{% for i in range(n) %}{{ 'ABC'[i] }}{% endfor %}") == "ABC"


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(100001) | list | length }}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{{ ('a' ~ long) | regex_replace('a', long) }}",
        "{{ x | regex_replace('(', 'b') }}",
        "{{ x | regex_replace('a', '\\\\9') }}",
        "{{ n | regex_replace('a', 'b') }}",
        "{{ range }}{{ range.__class__ }}",
    ],
)
def test_ranges_and_replacements_are_bounded(source: str) -> None:
    refusal(source)


def test_a_column_may_have_the_name_of_the_one_function() -> None:
    read = Template("{{ range }}{% for i in range(2) %}, {{ i }}{% endfor %}", "doc_to_text")
    assert read.fields == {"range"}
    assert read.render({"range": "0-5"}) == "0-5, 0, 1"
    assert rendered("{{ range(*[1, 3]) | list }}") == "[1, 2]"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ x.lower }}", "lower is a method; write lower()"),
        ("{{ x['lower'] }}", "lower is a method; write lower()"),
        ("{{ [x.lower] }}", "lower is a method; write lower()"),
        ("{{ 'a' ~ x.lower }}", "lower is a method; write lower()"),
        ("{{ {'a': 1}.get('b') }}", "writes out a null"),
        ("{{ 'a' ~ {'a': 1}.get('b') }}", "writes out a null"),
        ("{{ self }}", "self and super are names of jinja"),
    ],
)
def test_what_is_no_text_of_the_row_is_not_written_out(source: str, says: str) -> None:
    assert says in refusal(source)


def test_a_row_s_key_comes_before_a_method_of_a_mapping() -> None:
    row = {"items": "i", "keys": ["k"], "index": 2, "get": {"values": "v"}}
    assert rendered("{{ r.items }}{{ r.keys[0] }}{{ r.index }}{{ r.get.values }}", r=row) == "ik2v"
    assert rendered("{% for key, value in r.items() %}{{ key }};{% endfor %}", r=row) == "items;keys;index;get;"
    assert rendered("{{ r.get('index') }}{{ r['items'] }}", r=row) == "2i"
    assert rendered("{{ words.index('two') }}") == "1"


@pytest.mark.parametrize(
    ("source", "row", "text"),
    [
        ("Review Text", {"Review Text": "fine"}, "fine"),
        ("text", {"text": "fine"}, "fine"),
        ("q1: title", {"q1: title": "fine"}, "fine"),
        ("prompt-1", {"prompt-1": "fine"}, "fine"),
        ("Texte français", {"Texte français": "fine"}, "fine"),
        ("a } b", {"a } b": "fine"}, "fine"),
        ("Is it so?", {"text": "fine"}, "Is it so?"),
        ("n", {"n": 3}, "3"),
    ],
)
def test_a_bare_text_is_the_column_of_that_name_or_else_itself(source: str, row: dict[str, Any], text: str) -> None:
    read = template(source, "doc_to_text")
    assert isinstance(read, Column)
    assert (read.render(row), str(read.value(row))) == (text, text)
    assert read.read_by(row) == ({source} if source in row else set())
    assert read.constant_head == ""


def test_a_null_column_is_named() -> None:
    with pytest.raises(NullFieldError, match="Review Text"):
        template("Review Text", "doc_to_text").render({"Review Text": None})


@pytest.mark.parametrize("source", ["{{text}}", "{% if a %}b{% endif %}", "a {# b #}", " ", ""])
def test_markup_names_no_column(source: str) -> None:
    assert not isinstance(template(source, "doc_to_text"), Column)


@pytest.mark.parametrize("source", ["{{self}}", "{{ super }} {{text}}", "{% if self %}a{% endif %}"])
def test_a_field_with_a_name_of_jinja_is_refused(source: str) -> None:
    with pytest.raises(TemplateError, match="self and super are names of jinja"):
        Template(source, "doc_to_text")
    assert template("self", "doc_to_text").render({"self": "a"}) == "a"


def test_a_field_may_have_the_name_of_the_count_of_loops() -> None:
    assert Template("{% for c in text %}{{c}}.{% endfor %}", "x").render({"text": "ab", "loop steps": "3"}) == "a.b."


TEN = "[" + "a," * 10 + "]"
MANY = "{% set a = range(99999) | list %}{% set a = a + a + a + a + a + a + a + a %}"
LONG = "{% set a = 'x' | string %}" + "{% set a = a ~ a %}" * 21


@pytest.mark.parametrize(
    "source",
    [
        "{% set a = 99999 %}" + "{% set a = a * a %}" * 40 + "{{ a % 7 }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ 5.5 | round(1000000000, 'ceil') }}",
        "{{ '{:>1000000000}'.format(x) }}",
        "{% set a = [x] %}" + f"{{% set a = {TEN} %}}" * 9 + "{{ a }}",
        "{% set a = [x] %}" + f"{{% set a = {TEN} %}}" * 9 + "{{ (a | string) | length }}",
        "{% set a = [1] %}{% set b = [1] %}"
        + f"{{% set a = {TEN} %}}{{% set b = {TEN.replace('a', 'b')} %}}" * 9
        + "{{ a == b }}",
        MANY + "{{ [" + "a," * 3000 + "] | sum(start=[]) | length }}",
        MANY + "{{ [" + "a[:]," * 3000 + "] | length }}",
        LONG + "{{ [" + "a," * 5000 + "] | map('upper') | list | length }}",
        LONG + "{{ [" + "a.split('x')," * 500 + "] | length }}",
        MANY + "{% for i in range(90000) if -1 in a %}{% endfor %}",
        "{% for i in range(90000) %}{{ range(100000) | sort | first }}{% endfor %}",
        "{% for i in range(90000) if range(100000) | select('eq', -1) | list %}{% endfor %}",
    ],
    ids=lambda source: source[-40:],
)
def test_what_a_template_makes_on_the_way_is_bounded(source: str) -> None:
    assert "tried to leave the sandbox" in refusal(source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ [[1], [2, 3]] | sum(start=[]) }}", "[1, 2, 3]"),
        ("{{ [{'a': [1]}, {'a': [2]}] | sum('a', []) }}", "[1, 2]"),
        ("{{ [1, 2] | sum }} {{ [{'a': 1}] | sum(attribute='a') }}", "3 1"),
        ("{{ 2.345 | round(2, 'floor') }} {{ 7 | round }}", "2.34 7"),
        ("{{ 1 < n < 5 and n not in [4] and x is string }}", "True"),
        ("{{ words | map('length') | map('string') | join('+') }}", "3+3"),
        ("{{ [3, 1, 2] | sort(reverse=true) | first }} {{ words | select('in', ['two']) | list }}", "3 ['two']"),
        ("{{ (words | map('upper') | list)[1:] }}", "['TWO']"),
    ],
)
def test_counting_changes_no_text(source: str, text: str) -> None:
    assert rendered(source) == text
    assert jinja2.Template(source).render(ROW) == text


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ x.upper }}", "upper is a method"),
        ("{{ words | map('upper') }}", "it writes out a"),
        ("{{ words | reverse }}", "it writes out a"),
    ],
)
def test_an_address_in_memory_is_no_text(source: str, says: str) -> None:
    assert says in refusal(source)


@pytest.mark.parametrize("source", ["{{ 'sky'.upper }}", "{{ {'a': 1}.items }}", "{% set f = 'a'.upper %}{{ f() }}"])
def test_a_method_that_is_not_called_never_becomes_text(source: str) -> None:
    assert "is a method; write" in refusal(source)


def test_of_what_a_row_lacks_a_template_may_ask_whether_it_is_there() -> None:
    assert rendered("{{ row.b is defined }}{{ row.b | default('d') }}", row={"a": 1}) == "Falsed"
