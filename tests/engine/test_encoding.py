"""Text to tokens: seams, special tokens around a text, and answers that are read back as they were written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import constant_tokens, encode_answers, encode_choices, encode_contexts, encode_pairs
from multiprompt.engine.prefix import VirtualTokens
from multiprompt.errors import DataError

CORPUS = [
    "he is unhappy and she is unkind",
    "a warm lamp, a cold stone: Answer: warm",
    "Which colour? red -> green",
] * 9
ENDS = [("<s>", 0), ("</s>", 1)]
VOCABULARY = 330
FRONT, BACK, BOTH = "<s> $A", "$A </s>", "<s> $A </s>"


def bytes_of_words() -> Tokenizer:
    """GPT-2's kind: bytes, words with the space in front of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def sentence_pieces() -> Tokenizer:
    """Llama's kind: a space is put in front of a text, and taken away when it is read back."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    alphabet = sorted({c for text in CORPUS for c in text} | set("▁\nbéx.,"))
    return trained(tokenizer, trainers.UnigramTrainer, initial_alphabet=alphabet, unk_token="<unk>")


def without_words() -> Tokenizer:
    """A vocabulary with tokens across words, as no pre-tokenizer splits the text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    alphabet = sorted({c for text in CORPUS for c in text} | set("▁\nbéx.,"))
    return trained(tokenizer, trainers.BpeTrainer, initial_alphabet=alphabet)


def trained(tokenizer: Tokenizer, trainer: Callable[..., object], **options: object) -> Tokenizer:
    options |= {"vocab_size": VOCABULARY, "special_tokens": ["<s>", "</s>", "<unk>"], "show_progress": False}
    tokenizer.train_from_iterator(CORPUS, trainer(**options))
    return tokenizer


def surrounded(tokenizer: Tokenizer, surround: str) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    if surround:
        copy.post_processor = TemplateProcessing(single=surround, special_tokens=ENDS)
    return copy


BARE = {make.__name__: make() for make in (bytes_of_words, sentence_pieces, without_words)}
KINDS = {
    f"{name} {surround}".strip(): surrounded(tokenizer, surround)
    for name, tokenizer in BARE.items()
    for surround in ("", FRONT, BACK, BOTH)
}


def speaking(base: BaseModel, tokenizer: Tokenizer) -> BaseModel:
    """The tiny model with another tokenizer, and embeddings for all of its tokens."""
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", bos_token="<s>")
    return replace(base, model=widened(base.model), tokenizer=fast)


@cache
def widened(model: PreTrainedModel) -> PreTrainedModel:
    wide = copy.deepcopy(model)
    wide.resize_token_embeddings(VOCABULARY, mean_resizing=False)
    return wide


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, base: BaseModel) -> BaseModel:
    return speaking(base, KINDS[request.param])


@pytest.fixture
def words(base: BaseModel) -> BaseModel:
    return speaking(base, KINDS["bytes_of_words"])


def harness(kind: BaseModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """lm-evaluation-harness's `_encode_pair`, with a tokenizer that appends nothing."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole, head = kind.tokenizer.encode(context + continuation), kind.tokenizer.encode(context)
    return head, whole[len(head) :]


@pytest.mark.parametrize("name", ["bytes_of_words", "sentence_pieces", "sentence_pieces <s> $A"])
@pytest.mark.parametrize("context", ["Which colour? red ->", "a lamp:\nAnswer: ", "a\n\n"])
def test_where_nothing_merges_the_tokens_are_the_harnesss(base: BaseModel, name: str, context: str) -> None:
    kind = speaking(base, KINDS[name])
    for choice in (" warm", " cold stone", " a"):
        assert encode_pairs(kind, [context], [choice]) == [harness(kind, context, choice)]


def test_a_choice_that_merges_with_the_context_is_scored_over_the_text_of_its_row(words: BaseModel) -> None:
    choices = ("happy", "kind", "zzz")
    (row,) = encode_choices(words, ["she is un"], [choices])
    head = words.encode("she is un")
    assert words.encode("she is unhappy")[: len(head)] != head
    assert row.context == words.encode("she is")
    assert [words.decode(tokens) for tokens in row.continuations] == [f" un{choice}" for choice in choices]


@given(
    st.text(st.sampled_from("unhapykid wrm.\né"), max_size=12),
    st.lists(st.text(st.sampled_from("unhapykid wrm.\né"), min_size=1, max_size=6), min_size=2, max_size=4),
    st.sampled_from(sorted(KINDS)),
)
@settings(deadline=None, database=None, max_examples=300)
def test_all_choices_of_a_row_stand_behind_one_context_and_have_tokens(
    base: BaseModel, context: str, choices: list[str], name: str
) -> None:
    kind = speaking(base, KINDS[name])
    try:
        (row,) = encode_choices(kind, [context], [choices])
    except DataError as error:
        assert "adds no token" in str(error)
        return
    start = [] if row.context == [kind.first_token] else row.context
    for choice, tokens in zip(choices, row.continuations, strict=True):
        assert tokens
        assert [*start, *tokens] in (kind.encode(context + choice), kind.encode(context + choice)[1:])


def test_a_choice_without_a_token_is_refused_by_its_name(base: BaseModel) -> None:
    kind = sentence_pieces()
    kind.normalizer = normalizers.Strip()
    with pytest.raises(DataError, match=r"the choice ' ' adds no token"):
        encode_choices(speaking(base, kind), ["a lamp"], [(" ", " warm")])


def test_a_merging_choice_no_longer_wins_by_having_no_token(base: BaseModel) -> None:
    prefix = base.forward.compile_prefix(base, VirtualTokens(), [])
    contexts = ("the colou", "the col", "Ans")
    for context, choices in zip(contexts, (("r", "red"), ("our", "x"), ("wer", "x")), strict=True):
        (scores,) = score_choices(base, [ChoiceRequest(prefix, context, choices)])
        assert max(scores) < 0


def test_special_tokens_behind_a_text_are_left_out_and_those_in_front_stay_once(base: BaseModel) -> None:
    for name, tokenizer in BARE.items():
        bare = speaking(base, tokenizer).encode("a warm lamp")
        for surround, front in ((FRONT, [0]), (BACK, []), (BOTH, [0])):
            kind = speaking(base, KINDS[f"{name} {surround}"])
            assert kind.encode("a warm lamp") == [*front, *bare]
            assert kind.encode_batch(["a warm lamp", ""]) == [[*front, *bare], front]
            assert kind.count_tokens("a warm lamp") == len(front) + len(bare)
            assert constant_tokens(kind, "a warm lamp")[: len(front)] == front
            assert kind.encode("<s>a warm lamp").count(0) == 1
            assert 1 not in encode_choices(kind, ["a"], [(" warm",)])[0].continuations[0]


def test_an_empty_context_is_the_token_that_texts_begin_with(kind: BaseModel) -> None:
    assert encode_contexts(kind, [""]) == [[kind.first_token]]
    assert encode_choices(kind, [""], [(" warm",)])[0].context == [kind.first_token]


TEMPLATES = ("a lamp ->", "a lamp -> ", "a lamp:\n", "un", "Answer:  ", "x\t", "")
ANSWERS = ("warm", "happy", "cold stone", "Warm, and 2\ncold", "é", "a", "kind.")


@pytest.mark.parametrize("delimiter", [" ", "", "\n"])
@pytest.mark.parametrize("context", TEMPLATES)
def test_an_answer_stands_behind_the_very_tokens_that_are_asked_and_is_read_back(
    kind: BaseModel, context: str, delimiter: str
) -> None:
    pairs = encode_answers(kind, [context] * len(ANSWERS), delimiter, [answer + "</s>" for answer in ANSWERS])
    for answer, (asked, taught) in zip(ANSWERS, pairs, strict=True):
        assert [asked] == encode_contexts(kind, [context])
        if "<unk>" in kind.tokenizer.convert_ids_to_tokens(taught):
            continue
        assert taught[-1] == kind.tokenizer.eos_token_id
        assert kind.decode(taught) in (answer, delimiter + answer)


def test_behind_running_text_an_answer_has_the_tokens_of_running_text(words: BaseModel) -> None:
    ((asked, taught),) = encode_answers(words, ["a lamp:"], " ", ["warm\n"])
    assert asked + taught == words.encode("a lamp: warm\n")


@pytest.mark.parametrize("name", ["bytes_of_words", "sentence_pieces", "without_words"])
def test_a_tokenizer_with_tokens_across_words_is_known(base: BaseModel, name: str) -> None:
    assert speaking(base, KINDS[name]).splits_at_spaces == (name != "without_words")


def test_a_text_that_the_tokenizer_cannot_read_is_a_data_error(base: BaseModel) -> None:
    with pytest.raises(DataError, match=r"cannot read the text: U\+D800 is half of a character"):
        base.encode("a \ud800")
    strict = Tokenizer(models.WordLevel({"warm": 0, "</s>": 1, "<s>": 2}))
    strict.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(DataError, match="cannot read the text"):
        speaking(base, strict).encode_batch(["warm", "cold"])
