"""Writing: draws that a seed fixes, pieces that settle, and rows that do not change each other."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import cycle

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, TopKLogitsWarper, TopPLogitsWarper

from multiprompt.engine.base import BaseModel
from multiprompt.engine.generation import GenerationRequest, Sampling, before, generate, stream
from multiprompt.engine.prefix import Prefix, VirtualTokens
from tests.engine.reference import numbers, plain_greedy, plain_logits, writing_numbers

CONTEXTS = (
    "the sky",
    "which colour is it, and who asked for it?",
    "a",
    "rose 12",
    "Answer: red green yellow, and then what?",
    "blue",
    "is it?",
    "the end of the day",
    "sea",
    "the sky is",
)


def soft_prompt(base: BaseModel, length: int = 4) -> Tensor:
    return torch.randn(length, base.hidden_size, generator=torch.Generator().manual_seed(length))


def compiled(base: BaseModel, embeddings: Tensor | None) -> Prefix:
    with torch.inference_mode():
        return base.forward.compile_prefix(base, VirtualTokens(embeddings), [])


@pytest.fixture(scope="module")
def prefix(base: BaseModel) -> Prefix:
    return compiled(base, soft_prompt(base))


def request(
    prefix: Prefix, context: str, limit: int = 8, until: tuple[str, ...] = (), **sampling: float
) -> GenerationRequest:
    return GenerationRequest(prefix, context, until, limit, Sampling(**sampling))


def one(base: BaseModel, asked: GenerationRequest) -> str:
    (text,) = generate(base, [asked])
    return text


def test_a_seed_gives_the_same_text_again_alone_and_in_any_batch(base: BaseModel, prefix: Prefix) -> None:
    other = compiled(base, soft_prompt(base, 9))
    requests = [
        request(prefix if n % 3 else other, context, temperature=1.0, seed=seed)
        for n, context in enumerate(CONTEXTS)
        for seed in (0, 1)
    ]
    base = writing_numbers(base)
    together = generate(base, requests)
    assert generate(base, requests) == together
    assert generate(base, requests[::-1]) == together[::-1]
    assert [one(base, asked) for asked in requests] == together
    assert all(first != second for first, second in zip(together[::2], together[1::2], strict=True))


def test_seeds_give_different_texts(base: BaseModel, prefix: Prefix) -> None:
    base = writing_numbers(base)
    texts = generate(base, [request(prefix, "the sky", temperature=1.0, seed=seed) for seed in range(20)])
    assert len(set(texts)) == 20


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e-3},
        {"temperature": 1e-9},
        {"temperature": 5.0, "top_k": 1},
        {"temperature": 5.0, "top_p": 1e-6},
        {"temperature": 0.0, "top_k": 3, "top_p": 0.5},
    ],
)
def test_what_leaves_one_token_to_draw_from_is_greedy(
    base: BaseModel, prefix: Prefix, sampling: dict[str, float]
) -> None:
    base = writing_numbers(base)
    drawn = generate(base, [request(prefix, context, **sampling, seed=3) for context in CONTEXTS])
    assert drawn == generate(base, [request(prefix, context) for context in CONTEXTS])


def first_tokens(base: BaseModel, prefix: Prefix, **sampling: float) -> Counter[str]:
    """How often each token is the first one, over 400 seeds."""
    asked = [request(prefix, "the sky", 1, **sampling, seed=seed) for seed in range(400)]
    return Counter(generate(writing_numbers(base), asked))


def likeliest(base: BaseModel, temperature: float) -> list[tuple[str, float]]:
    """The plain forward's next tokens and their probabilities, the likeliest first."""
    with torch.inference_mode():
        logits = plain_logits(base, soft_prompt(base), base.encode("the sky"))[-1]
    chances = torch.softmax(logits / temperature, dim=-1)
    return [(numbers([token]), float(chances[token])) for token in chances.argsort(descending=True).tolist()]


def assert_frequency(count: int, chance: float) -> None:
    assert abs(count / 400 - chance) < 4 * math.sqrt(chance * (1 - chance) / 400)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_tokens_are_drawn_as_often_as_they_are_probable(base: BaseModel, prefix: Prefix, temperature: float) -> None:
    counts = first_tokens(base, prefix, temperature=temperature)
    for token, chance in likeliest(base, temperature)[:5]:
        assert_frequency(counts[token], chance)


def test_top_k_draws_from_the_likeliest_alone_in_their_proportion(base: BaseModel, prefix: Prefix) -> None:
    counts = first_tokens(base, prefix, temperature=1.0, top_k=3)
    kept = likeliest(base, 1.0)[:3]
    assert set(counts) == {token for token, _ in kept}
    for token, chance in kept:
        assert_frequency(counts[token], chance / sum(chance for _, chance in kept))


def test_top_p_cuts_the_tail_and_keeps_the_token_that_reaches_it(base: BaseModel, prefix: Prefix) -> None:
    ranked = likeliest(base, 1.0)
    share = sum(chance for _, chance in ranked[:4]) - ranked[3][1] / 2
    kept = ranked[:4]
    assert set(first_tokens(base, prefix, temperature=1.0)) - {token for token, _ in kept}
    counts = first_tokens(base, prefix, temperature=1.0, top_p=share)
    assert set(counts) == {token for token, _ in kept}
    for token, chance in kept:
        assert_frequency(counts[token], chance / sum(chance for _, chance in kept))


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 0.5), (8, 0.3), (50, 0.9)])
def test_top_p_is_of_what_top_k_leaves_as_in_transformers(
    base: BaseModel, prefix: Prefix, top_k: int, top_p: float
) -> None:
    with torch.inference_mode():
        logits = plain_logits(base, soft_prompt(base), base.encode("the sky"))[-1:] / 4.0
        kept = TopPLogitsWarper(top_p)(None, TopKLogitsWarper(top_k)(None, logits))[0].isfinite()  # type: ignore[arg-type]
    allowed = {numbers([token]) for token in kept.nonzero().flatten().tolist()}
    found = set(first_tokens(base, prefix, temperature=4.0, top_k=top_k, top_p=top_p))
    assert found <= allowed
    assert len(allowed) < top_k


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}], ids=["greedy", "sampled"])
def test_the_pieces_of_a_stream_are_the_text(base: BaseModel, prefix: Prefix, sampling: dict[str, float]) -> None:
    for context in CONTEXTS:
        asked = request(prefix, context, 20, ("\n", "\x00\x01"), **sampling)
        pieces = list(stream(base, asked))
        assert "".join(pieces) == one(base, asked)
        assert "" not in pieces


def saying(base: BaseModel, tokens: Sequence[int]) -> BaseModel:
    """The base model, made to write these tokens and then the end token, over and over."""

    class Saying(BaseModel):
        def logits(self, hidden: Tensor) -> Tensor:
            logits = torch.zeros(len(hidden), len(self.tokenizer))
            logits[:, next(script)] = 100.0
            return logits

    script = cycle([*tokens, base.tokenizer.eos_token_id])
    return Saying(**{field.name: getattr(base, field.name) for field in fields(base)})


Said = Callable[[str | Sequence[int]], BaseModel]


@pytest.fixture
def said(base: BaseModel) -> Said:
    return lambda text: saying(base, base.encode(text) if isinstance(text, str) else text)


WORDS = "naïve 日本語 text, 🙂🙂 and the end of it"


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}], ids=["greedy", "sampled"])
def test_a_stream_never_splits_a_character(said: Said, prefix: Prefix, sampling: dict[str, float]) -> None:
    base = said(WORDS)
    assert len(base.encode("日")) > 1
    pieces = list(stream(base, request(prefix, "a", 200, ("\x00",), **sampling)))
    assert "".join(pieces) == WORDS
    assert len(pieces) > 10
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 200])
def test_bytes_that_make_no_character_are_in_the_stream_as_in_the_text(
    base: BaseModel, said: Said, prefix: Prefix, limit: int
) -> None:
    first, second, *_ = base.encode("日")
    tokens = [first, *base.encode("a"), first, second, first, *base.encode("b日"), second, first]
    asked = request(prefix, "a", limit, ("\x00",))
    text = one(said(tokens), asked)
    assert "\N{REPLACEMENT CHARACTER}" in text
    assert "".join(stream(said(tokens), asked)) == text == base.tokenizer.decode(tokens[:limit])


def with_byte_tokens(base: BaseModel) -> BaseModel:
    """The base model with a tokenizer that writes all but two letters as bytes, which it reads a run at a time."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b"]
    tokenizer = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<unk>")
    return replace(base, tokenizer=fast)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 8])
def test_bytes_that_later_ones_spoil_are_in_the_stream_as_in_the_text(
    base: BaseModel, prefix: Prefix, limit: int
) -> None:
    spoken = with_byte_tokens(base)
    tokens = [*spoken.encode("a\n"), 1 + 0xF0, *spoken.encode("bA"), 1 + 0xE2, *spoken.encode("€")]
    asked = request(prefix, "a", limit, ("\x00",))
    text = one(saying(spoken, tokens), asked)
    assert "".join(stream(saying(spoken, tokens), asked)) == text == spoken.decode(tokens[:limit])


@pytest.mark.parametrize(
    ("stops", "text"),
    [
        (("text, 🙂",), "naïve 日本語 "),
        (("日本語 texts", "本語 text,"), "naïve 日"),
        (("🙂 and the sea", " and the end"), "naïve 日本語 text, 🙂🙂"),
        (("the end of it all", "it is", "日本人"), WORDS),
        (("🙂🙂🙂", "e e", "d of"), "naïve 日本語 text, 🙂🙂 and th"),
        (("n",), ""),
    ],
)
def test_no_part_of_a_stop_string_is_sent(said: Said, prefix: Prefix, stops: tuple[str, ...], text: str) -> None:
    asked = request(prefix, "a", 200, stops)
    assert one(said(WORDS), asked) == text
    pieces = list(stream(said(WORDS), asked))
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(pieces) >= len(text) / 5, "what can no longer become a stop string is not held back"


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}], ids=["greedy", "sampled"])
def test_a_stop_string_that_the_model_itself_writes_cuts_stream_and_text_alike(
    base: BaseModel, prefix: Prefix, sampling: dict[str, float]
) -> None:
    base = writing_numbers(base)
    for context in CONTEXTS:
        whole = one(base, request(prefix, context, 12, **sampling))
        for start, end in ((3, 7), (10, 18), (20, 29), (1, 2)):
            stop = whole[start:end]
            asked = request(prefix, context, 12, (stop, stop[:-1] + "?"), **sampling)
            text = one(base, asked)
            assert text == whole[: whole.index(stop)]
            assert "".join(stream(base, asked)) == text


def test_the_end_token_ends_a_text_and_is_no_part_of_it(said: Said, prefix: Prefix) -> None:
    assert one(said("the sky"), request(prefix, "a", 50)) == "the sky"
    assert "".join(stream(said("the sky"), request(prefix, "a", 50))) == "the sky"
    assert one(said(""), request(prefix, "a", 50)) == ""
    assert list(stream(said(""), request(prefix, "a", 50))) == []


def with_special_tilde(base: BaseModel) -> BaseModel:
    """The base model with "~" as a special token, which decoding leaves out."""
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["~"]})
    return replace(base, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("stop", "text"), [("~", "the sky"), ("\n~", "the sky"), ("y~", "the sk"), ("~ and", "the sky"), (" ~", "the sky")]
)
def test_a_stop_string_that_is_or_holds_a_special_token_stops(
    base: BaseModel, prefix: Prefix, stop: str, text: str
) -> None:
    special = with_special_tilde(base)
    written = special.encode(text + stop + " more of it")
    assert special.decode(written) == (text + stop + " more of it").replace("~", "")
    for until in ((stop,), ("\x00", stop)):
        asked = request(prefix, "a", 50, until)
        assert one(saying(special, written), asked) == text
        assert "".join(stream(saying(special, written), asked)) == text


def test_a_stop_string_around_the_end_token_is_left_out_whole(base: BaseModel, prefix: Prefix) -> None:
    written = [*base.encode("the sky\n"), base.tokenizer.eos_token_id]
    asked = request(prefix, "a", 50, ("\n<|end|>",))
    assert one(saying(base, written), asked) == "".join(stream(saying(base, written), asked)) == "the sky"


def test_a_special_token_that_is_no_stop_is_left_out_of_the_text(base: BaseModel, prefix: Prefix) -> None:
    special = with_special_tilde(base)
    asked = request(prefix, "a", 50, ("~!",))
    assert one(saying(special, special.encode("the~ sky")), asked) == "the sky"
    assert "".join(stream(saying(special, special.encode("the~ sky")), asked)) == "the sky"


@pytest.mark.parametrize("end", [41, [0, 41]])
def test_the_end_tokens_of_the_generation_settings_end_a_text(
    base: BaseModel, prefix: Prefix, monkeypatch: pytest.MonkeyPatch, end: int | list[int]
) -> None:
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", end)
    ended = replace(base)
    written = [*base.encode("the sky"), 41, *base.encode(" is")]
    assert one(saying(ended, written), request(prefix, "a", 50)) == "the sky"
    assert ended.end_tokens == (0, 41)


def test_a_stream_with_cleaned_up_spaces_is_the_text(base: BaseModel, prefix: Prefix) -> None:
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    cleaning = replace(base, tokenizer=tokenizer)
    words = base.encode("I do n't know , they 've gone . Is it ?")
    asked = request(prefix, "a", 50)
    assert one(saying(cleaning, words), asked) == "I don't know, they've gone. Is it?"
    assert "".join(stream(saying(cleaning, words), asked)) == "I don't know, they've gone. Is it?"


def test_rows_that_end_early_do_not_change_the_others(base: BaseModel, prefix: Prefix) -> None:
    other, none = compiled(base, soft_prompt(base, 9)), compiled(base, None)
    limits = [1, 12, 2, 9, 3, 8, 11, 4, 6, 1]
    requests = [
        request((prefix, other, none)[n % 3], context, limit, temperature=float(n % 2), seed=n)
        for n, (context, limit) in enumerate(zip(CONTEXTS, limits, strict=True))
    ]
    base = writing_numbers(base)
    together = generate(base, requests)
    assert len({text.count("<") for text in together}) > 6
    assert [one(base, asked) for asked in requests] == together


def test_long_texts_are_those_of_the_plain_forward(base: BaseModel) -> None:
    cases = [(soft_prompt(base, 4), CONTEXTS[0]), (soft_prompt(base, 9), CONTEXTS[1]), (None, CONTEXTS[3])]
    requests = [request(compiled(base, embeddings), context, 70, ("\x00",)) for embeddings, context in cases]
    texts = generate(writing_numbers(base), requests)
    assert max(text.count("<") for text in texts) > 64
    for (embeddings, context), text in zip(cases, texts, strict=True):
        assert text == numbers(plain_greedy(base, embeddings, base.encode(context), 70))


def test_rows_kept_after_the_buffers_grew_go_on_as_alone(base: BaseModel, prefix: Prefix) -> None:
    limits = [50, 34, 33, 1, 32, 70, 31, 66, 65, 64]
    requests = [request(prefix, context, limit) for context, limit in zip(CONTEXTS, limits, strict=True)]
    base = writing_numbers(base)
    assert generate(base, requests) == [one(base, asked) for asked in requests]


def test_more_rows_than_fit_a_batch_keep_their_order_and_their_texts(base: BaseModel, prefix: Prefix) -> None:
    contexts = [f"{context} {n}" for n in range(8) for context in CONTEXTS]
    counts: list[int] = []
    base = writing_numbers(base)
    texts = generate(base, [request(prefix, context, 3) for context in contexts], counts.append)
    assert len(counts) > 1
    assert sum(counts) == len(contexts)
    assert texts == [one(base, request(prefix, context, 3)) for context in contexts]


@pytest.mark.parametrize(
    ("until", "kept"),
    [
        (("Q:", "\nQ:"), "red\n"),
        (("\nQ:", "Q:"), "red"),
        (("\n\n", "\n"), "red"),
        ((" no", "Q"), "red\n"),
        ((), "red\nQ: a"),
    ],
)
def test_stop_strings_are_cut_off_one_after_another_as_in_the_harness(until: tuple[str, ...], kept: str) -> None:
    assert before("red\nQ: a", until) == kept
