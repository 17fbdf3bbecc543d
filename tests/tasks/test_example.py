"""Examples: rows through templates, cut to fit, with their answers."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.errors import DataError
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Budget, Example, Query, constant_text, examples, predicted, query_of
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping


class Colour(IntEnum):
    RED = 1


WORDS = Budget(1000, lambda text: len(text.split()))
CHARACTERS = Budget(1000, len)
PAIR = {"description": "Same or not?\n", "doc_to_text": "A: {{first}}\nB: {{second}}\nAnswer:"}


def words(limit: int) -> Budget:
    return Budget(limit, WORDS.count)


def task(kind: str = "choice", **keys: Any) -> Task:
    return Task.from_mapping(task_mapping(kind=kind) | keys)


def made(task: Task, row: dict[str, Any], budget: Budget = WORDS) -> Example:
    (example,) = examples(task, Split("test", (row,)), budget)
    return example


def refusal(task: Task, row: dict[str, Any], budget: Budget = WORDS) -> str:
    fine = {"text": "sky", "label": "red", "options": ["red", "blue"], "first": "a", "second": "b"}
    with pytest.raises(DataError) as caught:
        examples(task, Split("test", (fine, row)), budget)
    message = str(caught.value)
    assert message.startswith("colour: row 1 of split 'test'")
    assert "\n" not in message
    return message


def test_a_row_becomes_what_the_harness_would_show() -> None:
    example = made(task(), {"text": "the sky", "label": "blue"})
    assert example.query.context == "Which colour?\nthe sky\nAnswer:"
    assert example.query.choices == ("red", "green", "blue", "yellow")
    assert (example.target, example.answer, example.query.truncated) == (2, "blue", False)


def test_a_generation_example_has_a_text_to_hit_and_no_choices() -> None:
    example = made(task("text"), {"text": "the sky", "label": "blue"})
    assert (example.query.choices, example.target, example.answer) == (None, "blue", "blue")


def test_without_the_description_the_text_stands_alone() -> None:
    bare = task(multiprompt={"keep_description": False})
    assert made(bare, {"text": "the sky", "label": "red"}).query.context == "the sky\nAnswer:"
    assert constant_text(bare) == ""


def test_the_description_may_read_the_row() -> None:
    example = made(task(description="On {{topic}}: "), {"text": "sky", "topic": "nature", "label": "red"})
    assert example.query.context == "On nature: sky\nAnswer:"


@pytest.mark.parametrize("label", [1, "1", "green"])
def test_a_label_is_an_index_or_a_choice(label: Any) -> None:
    assert made(task(), {"text": "sky", "label": label}).target == 1


def test_a_fixed_target_is_the_same_for_every_row() -> None:
    assert made(task(doc_to_target=3), {"text": "sky"}).answer == "yellow"


def test_an_index_stays_an_index_where_the_choices_are_numbers() -> None:
    stars = task(doc_to_choice=["1", "2", "3", "4", "5"])
    answers = [made(stars, {"text": "fine", "label": label}).answer for label in range(5)]
    assert answers == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("label", ["purple", "٣", 4, -1, "-1", "1.0", "", 1.0])
def test_a_label_outside_the_choices_names_the_row(label: Any) -> None:
    message = refusal(task(), {"text": "sky", "label": label})
    assert f"has the label {str(label)!r}, which is none of the choices: 'red', 'green', 'blue', 'yellow'." in message


def test_a_fixed_target_outside_the_choices_is_refused() -> None:
    for target in (4, -1):
        with pytest.raises(DataError, match=f"the label '{target}'"):
            made(task(doc_to_target=target), {"text": "sky"})


@pytest.mark.parametrize(
    ("row", "field"),
    [({"label": "red"}, "text"), ({"text": "sky"}, "label")],
)
def test_a_missing_field_names_row_split_and_field(row: dict[str, Any], field: str) -> None:
    message = refusal(task(), row)
    assert f"lacks the field {field!r}" in message
    assert message.endswith(f"it has: {', '.join(sorted(row))}.")


def test_a_field_of_the_choices_is_required_too() -> None:
    assert "lacks the field 'options'" in refusal(task(doc_to_choice="options"), {"text": "sky", "label": 0})


@pytest.mark.parametrize("template", ["options", "{{ options }}", "{{ [options[0], options[1]] }}"])
def test_choices_come_from_a_template_per_row(template: str) -> None:
    rows = (
        {"text": "a", "options": ["x", 'it\'s "y"'], "label": 1},
        {"text": "b", "options": ["u", "v"], "label": "u"},
    )
    first, second = examples(task(doc_to_choice=template), Split("test", rows), WORDS)
    assert (first.query.choices, first.answer) == (("x", 'it\'s "y"'), 'it\'s "y"')
    assert (second.query.choices, second.answer) == (("u", "v"), "u")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("__import__('os').getcwd()", "which is no list of texts"),
        ([1, 2], "'[1, 2]', which is no list of texts"),
        ("['a', 'b']", "which is no list of texts"),  # of a column, the harness takes each letter for a choice
        (["a", ""], "which is no list of texts"),
        ({"a": "b"}, "which is no list of texts"),
        ("[" * 5000, "which is no list of texts"),
        (["only"], "gives 1 choices; there must be 2 to 1000"),
        (["x"] * 1001, "gives 1001 choices"),
    ],
)
def test_choices_of_a_row_that_are_no_list_of_texts_are_refused(options: Any, says: str) -> None:
    message = refusal(task(doc_to_choice="options"), {"text": "sky", "options": options, "label": 0})
    assert "doc_to_choice gives" in message
    assert says in message


def test_rows_at_inference_need_no_label() -> None:
    query = query_of(task(), {"text": "sky"}, WORDS)
    assert query.context == "Which colour?\nsky\nAnswer:"
    with pytest.raises(DataError, match="^colour: the row lacks the field 'text'"):
        query_of(task(), {"label": "red"}, WORDS)


def test_the_longest_field_is_cut_at_its_end() -> None:
    pair = task(**PAIR)
    row = {"first": "one two three", "second": " ".join(f"w{n}" for n in range(50)), "label": "red"}
    query = made(pair, row, words(15)).query
    assert query.truncated
    assert query.context == "Same or not?\nA: one two three\nB: w0 w1 w2 w3 w4 w5 \nAnswer:"


def test_a_row_that_fits_exactly_is_not_cut() -> None:
    row = {"text": "one two three", "label": "red"}
    assert made(task(), row, words(6)).query == made(task(), row).query
    cut = made(task(), row, words(5)).query
    assert cut.truncated
    assert cut.context == "Which colour?\none two \nAnswer:"


def test_where_one_field_is_not_enough_the_next_is_cut() -> None:
    row = {"first": "a a a", "second": "b b b b b b", "label": "red"}
    query = made(task(**PAIR), row, words(7)).query
    assert query.context == "Same or not?\nA: a \nB: \nAnswer:"


def test_an_instruction_that_does_not_fit_is_an_error_with_both_numbers() -> None:
    with pytest.raises(DataError) as caught:
        made(task(), {"text": "sky", "label": "red"}, words(2))
    assert "the instruction alone has 3 tokens, but 2 fit" in str(caught.value)
    assert "multiprompt.max_input_tokens" in str(caught.value)


def test_a_field_that_is_no_text_is_never_cut() -> None:
    listing = task(doc_to_text="{{ options | join(' ') }}\n{{ text }}\nAnswer:")
    row = {"options": ["o"] * 8, "text": "one two three four", "label": "red"}
    assert made(listing, row, words(13)).query.context == "Which colour?\no o o o o o o o\none two \nAnswer:"


TEXTS = st.text(st.sampled_from("ab \né"), max_size=80)


@given(TEXTS, TEXTS, st.integers(min_value=23, max_value=120))
@settings(deadline=None, database=None)
def test_a_context_fits_its_budget_and_keeps_instruction_and_template(first: str, second: str, limit: int) -> None:
    pair = task(**PAIR)
    whole = f"Same or not?\nA: {first}\nB: {second}\nAnswer:"
    instruction = len("Same or not?\nA: \nB: \nAnswer:")
    row = {"first": first, "second": second, "label": "red"}
    budget = Budget(limit, len)
    if instruction > limit and len(whole) > limit:
        with pytest.raises(DataError, match=f"{instruction} tokens, but {limit} fit"):
            made(pair, row, budget)
        return
    query = made(pair, row, budget).query
    assert query.truncated == (len(whole) > limit)
    assert len(query.context) == min(limit, len(whole))
    shown_first, shown_second = query.context.removeprefix("Same or not?\nA: ").removesuffix("\nAnswer:").split("\nB: ")
    assert first.startswith(shown_first)
    assert second.startswith(shown_second)
    assert row == {"first": first, "second": second, "label": "red"}


@given(
    st.sampled_from(["Which?\n", "On {{topic}}: ", "{{ 'made' }} up\n", "", "{# note #}Which?"]),
    st.sampled_from(["Text: {{text}}", "{{text}}\nAnswer:", "text", "Always the same"]),
    st.booleans(),
    st.text(max_size=10),
)
@settings(deadline=None, database=None)
def test_every_context_starts_with_the_constant_text(description: str, text: str, keep: bool, value: str) -> None:
    one = task(description=description, doc_to_text=text, multiprompt={"keep_description": keep})
    context = made(
        one, {"text": value, "topic": value, "label": "red", "Always the same": value}, CHARACTERS
    ).query.context
    assert context.startswith(constant_text(one))


def test_the_constant_text_reaches_over_the_description_to_the_first_field() -> None:
    assert constant_text(task(doc_to_text="Text: {{text}}")) == "Which colour?\nText: "
    assert constant_text(task(description="On {{topic}}: ", doc_to_text="Text: {{text}}")) == "On "


def test_a_generated_text_goes_through_the_filters() -> None:
    def filtered(*names: str) -> str:
        steps = [{"function": name} for name in names]
        filtering = task("text", filter_list=[{"name": "none", "filter": steps}])
        return str(predicted(filtering, Query("", None), "  A b \n")[0])

    assert filtered("take_first") == "  A b \n"
    assert filtered("remove_whitespace") == "A b"
    assert filtered("remove_whitespace", "lowercase") == "a b"
    assert filtered("uppercase") == "  A B \n"


GENERATE: dict[str, Any] = {"doc_to_target": "label"}


def targets(task: Task, *labels: Any) -> list[Any]:
    rows = tuple({"text": "sky", "label": label} for label in labels)
    return [example.target for example in examples(task, Split("test", rows), WORDS)]


@pytest.mark.parametrize(
    ("keys", "label", "target"),
    [
        (GENERATE, ["Paris", "the city"], ("Paris", "the city")),
        (GENERATE, 7, "7"),
        (GENERATE, "['a', 'b']", "['a', 'b']"),
        ({"doc_to_target": "{{label}}"}, ["a", "b"], ("a", "b")),
        ({"doc_to_target": "[{{label}}]"}, "'a', 'b'", ("a", "b")),
        ({"doc_to_target": "[{{label}}]"}, "a, b", "[a, b]"),
        ({"doc_to_target": "{{label}}"}, 7, "7"),
        (GENERATE | {"doc_to_choice": ["no", "yes"]}, 1, "yes"),
        (GENERATE | {"doc_to_choice": ["no", "yes"]}, True, "yes"),
        (GENERATE | {"doc_to_choice": {"a": "no", "b": "yes"}}, 0, "no"),
        ({"doc_to_target": "{{label}}", "doc_to_choice": "{{['no', text]}}"}, "1", "sky"),
    ],
)
def test_a_generated_answer_is_compared_with_what_the_harness_takes(keys: Any, label: Any, target: Any) -> None:
    assert targets(task("text", **keys), label) == [target]


def test_the_first_of_several_right_answers_is_trained_on() -> None:
    assert made(task("text", **GENERATE), {"text": "sky", "label": ["Paris", "the city"]}).answer == "Paris"


@pytest.mark.parametrize(
    ("keys", "labels", "says"),
    [
        (GENERATE, [["a"], [1]], "must hold at least one text"),
        (GENERATE, [["a"], []], "must hold at least one text"),
        (GENERATE, ["a", ["a", "b"]], "row 0 has a text; write every answer as a list"),
        (GENERATE, [["a", "b"], "a"], "row 0 has a list; write every answer as a list"),
        (GENERATE | {"metric_list": [{"metric": "bleu"}]}, ["a", ["b"]], "which the metric bleu cannot score"),
    ],
)
def test_several_answers_that_the_harness_scores_otherwise_are_refused(keys: Any, labels: Any, says: str) -> None:
    with pytest.raises(DataError, match=f"row 1 of split 'test' has .*{says}"):
        targets(task("text", **keys), *labels)


def test_a_list_of_right_choices_is_refused() -> None:
    assert "only one right choice is supported" in refusal(task(), {"text": "sky", "label": [0, 1]})


def test_filters_change_the_generated_text_and_not_the_right_answer() -> None:
    lower = [{"name": "n", "filter": [{"function": "lowercase"}, {"function": "take_first"}]}]
    assert targets(task("text", filter_list=lower), "Paris") == ["Paris"]


@pytest.mark.parametrize(
    ("target", "label", "index"),
    [
        ("{{label|int}}", "1", 1),  # a template that gives digits gives an index, whatever the choices say
        ("{{label}}", "0", 0),
        ("label", "1", 0),  # a column's text is a choice first
        ("label", 1, 1),
        ("label", "3", 2),
    ],
)
def test_digits_among_choices_that_are_digits(target: str, label: Any, index: int) -> None:
    assert targets(task(doc_to_choice=["1", "2", "3"], doc_to_target=target), label) == [index]


def test_the_delimiter_between_examples_stops_generation_where_nothing_else_does() -> None:
    def until(**keys: Any) -> tuple[str, ...]:
        return task("text", **keys).generation.until

    assert until(generation_kwargs={"max_gen_toks": 6}) == ("\n\n",)
    assert until(generation_kwargs={"max_gen_toks": 6}, fewshot_delimiter="##") == ("##",)
    assert until(generation_kwargs=None, fewshot_delimiter="##") == ("##",)
    assert until(generation_kwargs={"until": ["."]}, fewshot_delimiter="##") == (".",)
    plain, other = (task("text", generation_kwargs={}, fewshot_delimiter=mark) for mark in ("\n\n", "##"))
    assert plain.fingerprint == task("text", generation_kwargs={}).fingerprint != other.fingerprint


@pytest.mark.parametrize("keys", [{}, {"doc_to_choice": "{{['a', 'b']}}"}])
def test_a_first_text_that_is_a_number_would_be_an_index_in_the_harness(keys: Any) -> None:
    bare = task(doc_to_text="{{text}}", doc_to_target=0, **keys)
    with pytest.raises(DataError, match="row 0 of split 'test' has a number as doc_to_text"):
        made(bare, {"text": "42"})
    query = query_of(bare, {"text": "42"}, WORDS)
    assert query.context == "Which colour?\n42"


def test_a_description_that_names_a_column_is_refused() -> None:
    named = task(description="Review Text")
    assert made(named, {"text": "sky", "label": 0}).query.context == "Review Textsky\nAnswer:"
    with pytest.raises(DataError, match="has a field of the name 'Review Text', which is also the description"):
        made(named, {"text": "sky", "label": 0, "Review Text": "fine"})


def test_bare_column_names_with_spaces_are_text_choices_and_target() -> None:
    named = task(doc_to_text="Review Text", doc_to_choice="All Options", doc_to_target="Gold Label", description="")
    row = {"Review Text": "fine lamp", "All Options": ["x y", "z"], "Gold Label": "z"}
    example = made(named, row)
    assert (example.query.context, example.query.choices, example.target) == ("fine lamp", ("x y", "z"), 1)
    text = task("text", doc_to_target="Gold Label", description="")
    assert made(text, {"text": "a", "Gold Label": "cold"}).target == "cold"
    long = {"Review Text": "one two three four", "All Options": ["x", "y"], "Gold Label": 0}
    assert made(named, long, words(2)).query.context == "one two "


def test_a_bare_text_is_a_column_whatever_else_is_read() -> None:
    named = task(doc_to_text="Review Text", description="About {{topic}}: ")
    row = {"Review Text": "fine lamp", "topic": "lamps", "label": "red"}
    assert made(named, row).query.context == query_of(named, row, WORDS).context == "About lamps: fine lamp"
    for keys in ({"description": "About {{topic}}: "}, {"description": ""}):
        bare = task(doc_to_text="Review Text", **keys)
        with pytest.raises(DataError, match="lacks the field 'Review Text'"):
            made(bare, {"topic": "lamps", "label": "red"})
        with pytest.raises(DataError, match="lacks the field 'Review Text'"):
            query_of(bare, {"topic": "lamps"}, WORDS)
    constant = task(doc_to_text="{{'Review Text'}}", description="About {{topic}}: ")
    assert query_of(constant, {"topic": "lamps"}, WORDS).context == "About lamps: Review Text"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"caf\xc3\xa9", "café"),
        (date(2024, 5, 3), "2024-05-03"),
        (datetime(2024, 5, 3, 10), "2024-05-03 10:00:00"),
        (Decimal("1.10"), "1.10"),
        (np.float32(0.1), "0.1"),
        (np.float16(0.1), "0.1"),
        (np.int64(7), "7"),
        (np.bool_(True), "True"),
        ([np.float32(0.1), np.float64(0.1), np.int64(7), np.str_("a")], "[0.1, 0.1, 7, 'a']"),
        (np.array(["a", "b"]), "['a', 'b']"),
        (np.array([[0.1]], np.float32), "[[0.1]]"),
        (("a", 1), "['a', 1]"),
        ({"z": 1, "day": date(2024, 5, 3)}, "{'z': 1, 'day': '2024-05-03'}"),
        (Colour.RED, "1"),
        ([Colour.RED], "[1]"),
    ],
    ids=repr,
)
def test_a_value_of_a_call_is_read_as_a_data_file_would_give_it(value: Any, text: str) -> None:
    assert query_of(task(description=""), {"text": value, "unread": object()}, WORDS).context == f"{text}\nAnswer:"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "is empty"),
        (np.float32("nan"), "is empty"),
        (pd.NaT, "is empty"),
        (pd.NA, "is empty"),
        (float("inf"), "holds a number that is too large"),
        ("a\0", "holds a NUL"),
        ([b"a\0"], "holds a NUL"),
        (b"\xff", "holds bytes that are not UTF-8 text"),
        (object(), "holds a object"),
        ({"a"}, "holds a set"),
        ({1: "a"}, "holds a mapping with a int as a key"),
        (1j, "holds a complex"),
    ],
)
def test_a_value_of_a_call_that_no_data_file_holds_is_refused(value: Any, says: str) -> None:
    with pytest.raises(DataError, match=f"colour: the row: the field 'text' {says}"):
        query_of(task(), {"text": value}, WORDS)
    with pytest.raises(DataError, match="colour: the row: the field 'text' (is empty|holds)"):
        query_of(task(doc_to_text="text"), {"text": value}, WORDS)


def test_the_choices_of_a_call_are_read_as_a_data_file_would_give_them() -> None:
    for choices in ("{{options}}", "options", "My Options"):
        named = task(doc_to_choice=choices, description="")
        row = {"text": "a", "options": np.array(["x", "y"]), "My Options": (np.str_("x"), "y")}
        assert query_of(named, row, WORDS).choices == ("x", "y")


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({}, "note"),
        ({"doc_to_text": "note"}, "note"),
        ({"doc_to_text": "{{text}}", "doc_to_target": "note"}, "note"),
        ({"doc_to_text": "{{text}}", "doc_to_target": "{{note}}"}, "note"),
        ({"doc_to_text": "{{text}}", "doc_to_choice": "{{['a', note]}}"}, "note"),
        ({"doc_to_text": "{{text}}", "doc_to_choice": "note"}, "note"),
        ({"doc_to_text": "{{text}}", "description": "{{note}}: "}, "note"),
    ],
)
def test_a_null_that_would_become_text_is_named(keys: Any, field: str) -> None:
    nulled = task(**{"doc_to_text": "{{text}} {{note}}"} | keys)
    fine = {"text": "sky", "label": 0, "note": ["a", "b"] if keys.get("doc_to_choice") == "note" else "red"}
    with pytest.raises(DataError, match=rf"row 1 of split 'test': the field '{field}' is empty \(null\)\.$"):
        examples(nulled, Split("test", (fine, {"text": "sky", "label": 0, "note": None})), WORDS)


def test_a_null_that_the_template_tests_for_is_left_to_it() -> None:
    tested = task(doc_to_text="{{text}}{% if note %} ({{note}}){% endif %}")
    assert made(tested, {"text": "sky", "note": None, "label": 0}).query.context.endswith("?\nsky")
    assert made(tested, {"text": "sky", "note": "hm", "label": 0}).query.context.endswith("sky (hm)")
    with pytest.raises(DataError, match="lacks the field 'note'"):
        made(tested, {"text": "sky", "label": 0})


def test_each_metric_takes_its_own_pipeline_or_its_own_length() -> None:
    steps = {"up": "uppercase", "down": "lowercase"}
    lines = [{"name": n, "filter": [{"function": f}, {"function": "take_first"}]} for n, f in steps.items()]
    both = task("text", filter_list=lines)
    assert [metric.name for metric in both.metrics] == ["exact_match", "exact_match,down"]
    assert predicted(both, Query("", None), "Ab") == ("AB", "ab")
    for order in (["acc", "acc_norm"], ["acc_norm", "acc"]):
        choice = task(doc_to_choice=["b", "long long"], metric_list=[{"metric": name} for name in order])
        found = predicted(choice, Query("", ("b", "long long")), [-2.0, -3.0])
        assert dict(zip(order, found, strict=True)) == {"acc": 0, "acc_norm": 1}
