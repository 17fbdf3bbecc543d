"""Model inputs: what training teaches is what is asked, ends as generation ends, and fits the model."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers
from tokenizers.normalizers import Normalizer
from transformers import PreTrainedTokenizerFast

from multiprompt.engine.answering import Answer, Question, answer, budget
from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import encode_choices, encode_contexts
from multiprompt.engine.evaluation import Subject, evaluation_key
from multiprompt.engine.generation import Stops
from multiprompt.engine.inputs import continuations, taught
from multiprompt.engine.learning import TrainingInput, learn_prompts
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.teaching import TrainingExample
from multiprompt.errors import DataError
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Budget, Example, examples
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping

ROOM = Budget(10_000, len)
ROWS = tuple({"text": f"sky {n}", "label": label} for n, label in enumerate(("red", "blue", "green", "yellow")))


ENDS_SPECIAL = {"until": ["!<|end|>"], "max_gen_toks": 6}


def task(kind: str = "choice", **keys: Any) -> Task:
    return Task.from_mapping(task_mapping(kind=kind) | keys)


def rows(task: Task, *data: dict[str, Any], room: Budget = ROOM) -> list[Example]:
    return examples(task, Split("train", data or ROWS), room)


def learn(base: BaseModel, task: Task, *data: dict[str, Any]) -> None:
    split = Split("train", data or ROWS)
    learn_prompts(base, [TrainingInput(task, split, split)])


def without_end(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.eos_token = None
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", None)
    return replace(base, tokenizer=tokenizer)


@pytest.mark.parametrize("delimiter", [" ", "", "\n", " is "])
@pytest.mark.parametrize("text", ["{{text}}\nAnswer:", "{{text}} colou", "{{text}} -> ", "{{text}}", "text"])
def test_a_choice_is_trained_with_the_tokens_that_it_is_scored_with(base: BaseModel, delimiter: str, text: str) -> None:
    made = task(target_delimiter=delimiter, doc_to_text=text, doc_to_choice=["red", "r", "blue", "green", "yellow"])
    for row, example in zip(rows(made), taught(base, made, rows(made)), strict=True):
        (scored,) = encode_choices(base, [row.query.context], [continuations(made, row.query)])
        assert isinstance(row.target, int)
        assert example == TrainingExample(tuple(scored.context), tuple(scored.continuations[row.target]))


@pytest.mark.parametrize("until", [["\n"], ["<|end|>"], [], [".", "\n"]])
@pytest.mark.parametrize("text", ["{{text}}\nAnswer:", "{{text}} -> ", "{{text}}\n", "{{text}} colou"])
def test_generation_reads_a_taught_answer_back_as_the_answer(base: BaseModel, text: str, until: list[str]) -> None:
    made = task("text", doc_to_text=text, generation_kwargs={"until": until})
    stops = Stops.of(base, until)
    for row, example in zip(rows(made), taught(base, made, rows(made)), strict=True):
        assert [list(example.context)] == encode_contexts(base, [row.query.context])
        written, ended = stops.cut(base, example.answer)
        assert ended
        assert written.removeprefix(" ") == row.answer


def test_without_a_stop_string_and_an_end_token_no_answer_is_learned(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = task("text", generation_kwargs={"until": [], "max_gen_toks": 6})
    endless = without_end(base, monkeypatch)
    with pytest.raises(DataError, match=r"^colour: generation_kwargs.until is empty and .* has no end token"):
        learn(endless, made)
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", [41, 42])
    assert {example.answer[-1] for example in taught(replace(endless), made, rows(made))} == {41}


def spelled(base: BaseModel, normalizer: Normalizer) -> BaseModel:
    """The tiny model with a tokenizer that changes a text before it reads it."""
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizer
    return replace(base, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("normalizer", "until", "end"),
    [
        (normalizers.Replace("\n", " "), ["\n"], "<|end|>"),
        (normalizers.Strip(), ["\n\n"], "<|end|>"),
        (normalizers.Lowercase(), ["Q:"], "<|end|>"),
        (normalizers.Lowercase(), ["Q:", "!"], "!"),
        (normalizers.Lowercase(), ["\n"], "\n"),
    ],
)
def test_an_answer_ends_where_the_tokenizer_cannot_write_the_stop_string(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, normalizer: Normalizer, until: list[str], end: str
) -> None:
    made, reads = task("text", generation_kwargs={"until": until, "max_gen_toks": 6}), spelled(base, normalizer)
    for row, example in zip(rows(made), taught(reads, made, rows(made)), strict=True):
        assert Stops.of(reads, until).cut(reads, example.answer) == (f" {row.answer}", True)
        assert base.decode(example.answer, special=True) == f" {row.answer}{end}"
    if end == "<|end|>":
        with pytest.raises(DataError, match=r"^colour: the tokenizer of tiny can write none of .* has no end token"):
            taught(without_end(reads, monkeypatch), made, rows(made))


def test_the_end_is_the_first_stop_string_that_may_follow_the_answer(base: BaseModel) -> None:
    made = task("text", generation_kwargs={"until": ["\n\n", "!"]})
    plain, early = taught(base, made, rows(made, {"text": "a", "label": "blue"}, {"text": "a", "label": "blue\n"}))
    assert base.decode(plain.answer) == " blue\n\n"
    assert base.decode(early.answer) == " blue\n!"


def warnings(base: BaseModel, task: Task, caplog: pytest.LogCaptureFixture, *data: dict[str, Any]) -> list[str]:
    with caplog.at_level(logging.WARNING, "multiprompt"):
        learn(base, task, *data)
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("text", "why"), [("sky<|end|>blue", "a special token"), ("sky<|mark|>blue", "a special token")]
)
def test_answers_with_a_special_token_inside_are_told_of(
    base: BaseModel, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    model = copy.deepcopy(base.model)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    marked = replace(base, tokenizer=tokenizer, model=model)
    made = task("text", generation_kwargs={"until": ["\n"], "max_gen_toks": 60})
    (told,) = warnings(marked, made, caplog, *ROWS, {"text": "a", "label": text})
    assert told.startswith(f"colour: 1 of 5 training answers cannot be given as they are, because of {why}")


def test_answers_that_the_tokenizer_spells_otherwise_are_told_of(
    base: BaseModel, caplog: pytest.LogCaptureFixture
) -> None:
    uncased, data = spelled(base, normalizers.Lowercase()), {"text": "a", "label": "Red"}
    (told,) = warnings(uncased, task("text"), caplog, *ROWS, data)
    assert told.startswith("colour: 1 of 5 training answers cannot be given as they are, because of the tokenizer")
    caplog.clear()
    metrics = [{"metric": "exact_match", "ignore_case": True}]
    assert warnings(uncased, task("text", metric_list=metrics), caplog, *ROWS, data) == []


def test_answers_that_generation_would_cut_are_told_of(base: BaseModel, caplog: pytest.LogCaptureFixture) -> None:
    made = task("text", generation_kwargs={"until": ["\n"], "max_gen_toks": 6})
    data = (*ROWS, {"text": "a", "label": "red\nblue"}, {"text": "a", "label": "red, " * 9})
    assert warnings(base, made, caplog, *data) == [
        "colour: 1 of 6 training answers cannot be given as they are, because of a stop string in front of their end "
        "(generation_kwargs.until); the first is colour: row 4 of split 'train'.",
        "colour: 1 of 6 training answers cannot be given as they are, because of generation_kwargs.max_gen_toks, "
        "which is 6; the first is colour: row 5 of split 'train'.",
    ]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"generation_kwargs": {"until": [" "], "max_gen_toks": 6}}, ["because of a stop string in front of"]),
        ({"filter_list": None}, ["because of filter_list, after which they are unequal"]),
        ({"filter_list": None, "target_delimiter": ""}, []),
        ({"filter_list": None, "doc_to_text": "{{text}}: "}, []),
        (
            {
                "filter_list": None,
                "target_delimiter": "",
                "generation_kwargs": {"until": ["!<|end|>"], "max_gen_toks": 6},
            },
            [],
        ),
        ({}, []),
    ],
)
def test_answers_that_no_row_could_give_are_told_of(
    base: BaseModel, caplog: pytest.LogCaptureFixture, keys: dict[str, Any], why: list[str]
) -> None:
    told = warnings(base, task("text", **keys), caplog)
    assert len(told) == len(why)
    for message, reason in zip(told, why, strict=True):
        assert message.startswith("colour: 4 of 4 training answers")
        assert reason in message


def test_an_answer_too_long_for_the_model_names_its_row_and_the_numbers(base: BaseModel) -> None:
    made = task("text", generation_kwargs={"until": ["\n"], "max_gen_toks": 6})
    with pytest.raises(DataError, match=r"row 4 of split 'train': its answer has \d+ tokens behind 4 of prompt and"):
        learn(base, made, *ROWS, {"text": "sky " * 20, "label": "blue " * 240})


def test_a_choice_of_a_row_is_counted_and_the_text_is_cut_for_it(base: BaseModel) -> None:
    made = task(doc_to_choice="{{[text, 'red']}}", doc_to_target=1)
    room = budget(base, made, 4)
    (row,) = rows(made, {"text": "sky " * 125}, room=room)
    (scored,) = encode_choices(base, [row.query.context], [continuations(made, row.query)])
    assert row.query.truncated
    assert 200 < 4 + len(scored.context) + max(map(len, scored.continuations)) <= base.max_tokens
    with pytest.raises(DataError, match=r"row 0 of split 'train': its longest choice has \d+ tokens, but .* 252"):
        rows(made, {"text": "sky " * 300}, room=room)


@pytest.mark.parametrize(
    "keys", [{"doc_to_choice": ["red", "word " * 200]}, {"generation_kwargs": {"max_gen_toks": 300}}]
)
def test_an_answer_that_leaves_no_room_is_refused_with_its_length(base: BaseModel, keys: dict[str, Any]) -> None:
    made = task("text" if "generation_kwargs" in keys else "choice", **keys)
    with pytest.raises(DataError, match=r"takes 256 tokens; 4 of prompt and \d{3,4} of the answer leave none"):
        budget(base, made, 4)


def test_a_text_without_unicode_names_its_row(base: BaseModel) -> None:
    half = r"^colour: row 1 of split 'train': the tokenizer of tiny cannot read the text: U\+D800"
    own = task(doc_to_choice="{{['red', label]}}", doc_to_text="{{'Say: '}}", doc_to_target=0)
    data = ({"text": "a", "label": "red"}, {"text": "a \ud800", "label": "\ud800"})
    with pytest.raises(DataError, match=half):
        rows(task(), *data, room=budget(base, task(), 4))
    with pytest.raises(DataError, match=half):
        rows(own, *data, room=budget(base, own, 4))
    made = task("text", doc_to_text="{{'Say: '}}", generation_kwargs={"max_gen_toks": 6})
    with pytest.raises(DataError, match=half):
        taught(base, made, rows(made, *data, room=budget(base, made, 4)))


def test_a_row_of_the_longest_length_is_answered(base: BaseModel) -> None:
    made = task()
    prefix = base.forward.compile_prefix(base, VirtualTokens(base.embed([40, 41, 42, 43])), [])
    (row,) = rows(made, {"text": "sky " * 900, "label": "red"}, room=budget(base, made, 4))
    assert len(base.encode(row.query.context)) >= base.max_tokens - 12
    (found,) = answer(base, [Question(made, prefix, row.query)])
    assert found.scores is not None


def test_a_choice_without_a_token_names_its_row(base: BaseModel) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    strips = replace(base, tokenizer=tokenizer)
    made = task(target_delimiter="", doc_to_choice="{{['red', label]}}", doc_to_target=0)
    made_rows = rows(made, {"text": "a", "label": "b"}, {"text": "a", "label": " "})
    where = r"^colour: row 1 of split 'train': the choice ' ' adds no token"
    with pytest.raises(DataError, match=where):
        taught(strips, made, made_rows)
    with pytest.raises(DataError, match=where):
        prefix = base.forward.compile_prefix(base, VirtualTokens(), [])
        answer(strips, [Question(made, prefix, row.query) for row in made_rows])


def test_a_choice_without_a_token_is_refused_before_training_where_another_one_is_right(base: BaseModel) -> None:
    strips = spelled(base, normalizers.Strip())
    made = task(doc_to_choice=["red", " "], doc_to_target=0)
    with pytest.raises(DataError, match="the choice '  ' adds no token"):
        taught(strips, made, rows(made))


def test_a_choice_is_trained_as_it_is_scored_where_the_tokenizer_drops_spaces(base: BaseModel) -> None:
    closes = spelled(base, normalizers.Replace(" ", ""))
    made = task(doc_to_text="{{text}} the colou", doc_to_choice=["r", "red", "x"], doc_to_target=2)
    for row, example in zip(rows(made), taught(closes, made, rows(made)), strict=True):
        (scored,) = encode_choices(closes, [row.query.context], [continuations(made, row.query)])
        assert example == TrainingExample(tuple(scored.context), tuple(scored.continuations[2]))


def test_probabilities_of_equal_choices_are_one_share_each_text_and_sum_to_one() -> None:
    found = Answer((0,), (-1.0, -2.0, -1.0)).probabilities(("red", "blue", "red"))
    assert found == pytest.approx({"red": 0.7310586, "blue": 0.2689414})


def test_end_tokens_that_only_the_model_has_are_part_of_the_key_of_generated_scores(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(base: BaseModel, task: Task) -> str:
        return evaluation_key(base, task, "data", Subject.hard(task))["decoding"]

    assert decoding(base, task("text")) == decoding(base, task()) == "greedy"
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", [0, 41, 42])
    assert decoding(replace(base), task("text")) == "greedy, ends at 41, ends at 42"
    assert decoding(replace(base), task()) == "greedy"


def test_a_choice_that_takes_the_texts_last_token_apart_is_held_to_the_longest_input(base: BaseModel) -> None:
    merges = [("h", "i"), ("a", "b"), ("c", "d"), ("e", "f"), ("g", "h"), ("ab", "cd"), ("ef", "gh"), ("abcd", "efgh")]
    names = ["<unk>", *"abcdefghij", *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, merges, unk_token="<unk>"))
    growing = replace(base, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<unk>"))
    asked = ChoiceRequest(Prefix(VirtualTokens(), ()), "a" * 253 + "abcdefgh", ("i", "j"))
    assert len(growing.encode(asked.context)) == 254
    assert len(score_choices(growing, [asked])[0]) == 2
    with pytest.raises(DataError, match="have 257 tokens, but tiny takes 256: lower"):
        score_choices(growing, [replace(asked, context="a" + asked.context)])
