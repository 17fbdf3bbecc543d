"""Rows behind compiled prefixes give what the plain forward gives, alone and in any company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import encode_pairs
from multiprompt.engine.forward import MAX_BATCH_ROWS, MAX_BATCH_TOKENS, TokenTree, batches
from multiprompt.engine.generation import GenerationRequest, generate
from multiprompt.engine.prefix import Prefix, PrefixCache, compile_prefix, constant_tokens
from tests.engine.reference import plain_greedy, plain_loglikelihood

TEXTS = ("the sky", "a", "what is the colour of the sea today, and who asked for it?", "rose 12")
CHOICES = (" red", " green", " greenish blue", " r")


def prompt(base: BaseModel, length: int, seed: int) -> torch.Tensor:
    return torch.randn(length, base.hidden_size, generator=torch.Generator().manual_seed(seed))


def mixed_requests(base: BaseModel) -> list[tuple[torch.Tensor | None, ChoiceRequest]]:
    """Rows of three prompts of different lengths and constant texts, and of no prompt."""
    requests = []
    for seed, (length, constant) in enumerate(((3, "Which colour? "), (9, ""), (5, "Tell: "), (0, ""))):
        embeddings = prompt(base, length, seed) if length else None
        with torch.inference_mode():
            prefix = compile_prefix(base, embeddings, constant_tokens(base, constant) if constant else [])
        requests += [(embeddings, ChoiceRequest(prefix, constant + text, CHOICES)) for text in TEXTS]
    return requests


def test_choice_scores_of_a_mixed_batch_are_those_of_the_plain_forward(base: BaseModel) -> None:
    requests = mixed_requests(base)
    scored = score_choices(base, [request for _, request in requests])
    for (embeddings, request), scores in zip(requests, scored, strict=True):
        pairs = encode_pairs(base, [request.context] * len(CHOICES), CHOICES)
        expected = [plain_loglikelihood(base, embeddings, context, answer) for context, answer in pairs]
        assert scores == pytest.approx(expected, abs=1e-4)


def test_a_row_scores_the_same_alone_and_in_a_batch(base: BaseModel) -> None:
    requests = [request for _, request in mixed_requests(base)]
    together = score_choices(base, requests)
    alone = [score_choices(base, [request])[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_generation_of_a_mixed_batch_is_that_of_the_plain_forward(base: BaseModel) -> None:
    requests = mixed_requests(base)
    texts = generate(base, [GenerationRequest(r.prefix, r.context, ("\n",), 8) for _, r in requests])
    assert len(set(texts)) > 1
    for (embeddings, request), text in zip(requests, texts, strict=True):
        tokens = plain_greedy(base, embeddings, base.encode(request.context), 8)
        assert text == base.tokenizer.decode(tokens, skip_special_tokens=True).split("\n")[0]


def test_generation_stops_at_the_first_stop_string_and_at_the_limit(base: BaseModel) -> None:
    embeddings = prompt(base, 4, 1)
    with torch.inference_mode():
        prefix = compile_prefix(base, embeddings, [])
    (whole,) = generate(base, [GenerationRequest(prefix, "sky", ("\x00",), 6)])
    stop = whole[2]
    (cut,) = generate(base, [GenerationRequest(prefix, "sky", ("\x00", stop), 6)])
    assert cut == whole[: whole.index(stop)]
    (short,) = generate(base, [GenerationRequest(prefix, "sky", ("\x00",), 2)])
    assert short == base.tokenizer.decode(plain_greedy(base, embeddings, base.encode("sky"), 2))


def test_progress_counts_every_row_once(base: BaseModel) -> None:
    counts: list[int] = []
    requests = [request for _, request in mixed_requests(base)]
    score_choices(base, requests, counts.append)
    assert sum(counts) == len(requests)


@given(st.lists(st.integers(1, 300), max_size=300))
@settings(deadline=None, max_examples=50)
def test_batches_hold_every_row_once_within_the_limits(lengths: list[int]) -> None:
    made = list(batches(lengths))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) <= MAX_BATCH_ROWS
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= MAX_BATCH_TOKENS


def test_a_tree_node_sees_its_ancestors_alone() -> None:
    tree = TokenTree((1, 2, 3, 4), (-1, 0, 0, 2))
    assert tree.depths == [0, 1, 1, 2]
    assert tree.visible.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]


def test_a_row_shares_only_the_constant_tokens_it_has(base: BaseModel) -> None:
    with torch.inference_mode():
        prefix = compile_prefix(base, None, [5, 6, 7])
    assert prefix.shared([5, 6, 7, 8]) == 3
    assert prefix.shared([5, 6, 9, 9]) == 2
    assert prefix.shared([5, 6, 7]) == 2, "a row keeps a token of its own to predict from"


_BASE: list[BaseModel] = []


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
@settings(deadline=None, max_examples=50)
def test_constant_tokens_start_every_row(head: str, tail: str) -> None:
    base = _BASE[0]
    constant = constant_tokens(base, head)
    encoded = base.encode(head + tail)
    assert constant == base.encode(head)[: len(constant)]
    shared = Prefix((), 0, tuple(constant)).shared(encoded)
    assert constant[:shared] == encoded[:shared]


@pytest.fixture(autouse=True)
def _remember_base(base: BaseModel) -> None:
    _BASE[:] = [base]


def test_the_prefix_cache_drops_the_least_recently_used_within_its_budget(base: BaseModel) -> None:
    def compiled() -> Prefix:
        with torch.inference_mode():
            return compile_prefix(base, prompt(base, 4, 0), [])

    size = compiled().nbytes
    cache, made = PrefixCache(budget=2 * size), []

    def make(name: str) -> Prefix:
        made.append(name)
        return compiled()

    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "b"]
