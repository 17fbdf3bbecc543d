"""Rows behind prefixes give what the plain forward gives, alone and in any company."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from multiprompt.engine.base import BaseModel, Past
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import constant_tokens, encode_pairs
from multiprompt.engine.generation import GenerationRequest, Sampling, generate
from multiprompt.engine.packed import PackedForward
from multiprompt.engine.prefix import Layers, Prefix, PrefixCache, VirtualTokens
from multiprompt.engine.rows import MAX_BATCH_ROWS, MAX_BATCH_TOKENS, Hidden, Row, TokenTree, batches
from tests.engine.reference import (
    numbers,
    plain_greedy,
    plain_loglikelihood,
    plain_model,
    writing_numbers,
)

TEXTS = ("the sky", "a", "what is the colour of the sea today, and who asked for it?", "rose 12", "blue: is it?", "x y")
CHOICES = (" red", " green", " greenish blue", " r")
# A soft prompt's length, the constant text behind it, and how many rows it gets: many, and few.
PROMPTS = ((3, "Which colour? ", 6), (9, "", 2), (5, "Tell: ", 5), (0, "", 4), (2, "Which", 1), (0, "Answer: ", 3))

Case = tuple[torch.Tensor | None, ChoiceRequest]


def prompt(base: BaseModel, length: int, seed: int) -> torch.Tensor:
    return torch.randn(length, base.hidden_size, generator=torch.Generator().manual_seed(seed))


def compiled(base: BaseModel, embeddings: torch.Tensor | None, constant: str = "") -> Prefix:
    with torch.inference_mode():
        return base.forward.compile_prefix(
            base, VirtualTokens(embeddings), constant_tokens(base, constant) if constant else []
        )


def mixed_requests(base: BaseModel) -> list[Case]:
    """Rows of prompts of different lengths and constant texts, and of no prompt, in no order."""
    requests: list[tuple[int, Case]] = []
    for seed, (length, constant, rows) in enumerate(PROMPTS):
        embeddings = prompt(base, length, seed) if length else None
        prefix = compiled(base, embeddings, constant)
        for number, text in enumerate(TEXTS[:rows]):
            requests.append((number, (embeddings, ChoiceRequest(prefix, constant + text, CHOICES))))
    return [case for _, case in sorted(requests, key=lambda numbered: numbered[0])]


def states(base: BaseModel, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Hidden states of each row's tokens."""
    hidden = base.forward.run(base, rows)
    return [hidden.states[start : start + len(row)] for start, row in zip(hidden.starts, rows, strict=True)]


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


@pytest.mark.parametrize("context", ["", " "])
def test_an_empty_context_is_answered_the_same_alone_and_behind_other_rows(base: BaseModel, context: str) -> None:
    prefix = compiled(base, prompt(base, 4, 1))
    empty = ChoiceRequest(prefix, context, CHOICES)
    (alone,) = score_choices(base, [empty])
    for other in TEXTS[:2]:
        _, beside = score_choices(base, [ChoiceRequest(prefix, other, CHOICES), empty])
        assert beside == pytest.approx(alone, abs=1e-4)


def test_an_empty_context_is_continued_the_same_alone_and_behind_other_rows(base: BaseModel) -> None:
    prefix = compiled(base, prompt(base, 4, 1))
    empty = GenerationRequest(prefix, "", (), 4)
    (alone,) = generate(writing_numbers(base), [empty])
    for other in TEXTS[:2]:
        _, beside = generate(writing_numbers(base), [GenerationRequest(prefix, other, (), 4), empty])
        assert beside == alone


def test_generation_of_a_mixed_batch_is_that_of_the_plain_forward(base: BaseModel) -> None:
    requests = mixed_requests(base)
    texts = generate(writing_numbers(base), [GenerationRequest(r.prefix, r.context, (), 8) for _, r in requests])
    assert len(set(texts)) > 1
    for (embeddings, request), text in zip(requests, texts, strict=True):
        assert text == numbers(plain_greedy(base, embeddings, base.encode(request.context), 8))


def test_generation_stops_at_the_first_stop_string_and_at_the_limit(base: BaseModel) -> None:
    embeddings = prompt(base, 4, 1)
    prefix = compiled(base, embeddings)
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
    generate(base, [GenerationRequest(r.prefix, r.context, ("\n",), 2) for r in requests], counts.append)
    assert sum(counts) == 2 * len(requests)


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_a_prefix_gives_the_same_states_compiled_or_not(base: BaseModel, rows: int) -> None:
    embeddings, other = prompt(base, 5, 1), prompt(base, 2, 2)
    constant = constant_tokens(base, "Which colour? ")
    with torch.inference_mode():
        plain, ready = Prefix(VirtualTokens(embeddings), tuple(constant)), compiled(base, embeddings, "Which colour? ")
        beside = [Prefix(VirtualTokens(other), ()), compiled(base, other)]
        found = []
        for prefix, neighbour in zip((plain, ready), beside, strict=True):
            mine = [Row.of(prefix, base.encode("Which colour? " + text)) for text in TEXTS[:rows]]
            theirs = [Row.of(neighbour, base.encode(text)) for text in TEXTS[:2]]
            found.append(torch.cat(states(base, [theirs[0], *mine, theirs[1]])))
    assert torch.allclose(*found, atol=1e-5)


def test_compiled_and_uncompiled_prefixes_share_a_pass(base: BaseModel) -> None:
    embeddings = prompt(base, 5, 1)
    with torch.inference_mode():
        prefixes = [compiled(base, embeddings, "Tell: "), Prefix(VirtualTokens(embeddings), tuple(base.encode("Te")))]
        rows = [Row.of(prefix, base.encode("Tell: " + text)) for text in TEXTS for prefix in prefixes]
        together = states(base, rows)
        alone = [states(base, [row])[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def key_values(base: BaseModel, length: int, seed: int) -> Layers:
    generator = torch.Generator().manual_seed(seed)
    assert isinstance(base.past, Past)
    heads, size = base.past.heads, base.past.head_dim
    return tuple(
        (torch.randn(heads, length, size, generator=generator), torch.randn(heads, length, size, generator=generator))
        for _ in range(base.num_layers)
    )


def cached_states(base: BaseModel, layers: Layers, tokens: Sequence[int]) -> torch.Tensor:
    """The plain model's states of a text behind a cache of keys and values."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(layers):
        cache.update(keys[None], values[None], layer)
    model = plain_model(base).base_model
    return model(input_ids=torch.tensor([tokens]), cache=cache, use_cache=True).last_hidden_state[0]


@pytest.mark.parametrize("constant", ["", "Which colour? "])
def test_keys_and_values_in_front_are_what_a_cache_is_to_the_plain_model(base: BaseModel, constant: str) -> None:
    ids = constant_tokens(base, constant) if constant else []
    with torch.inference_mode():
        groups = [(key_values(base, 3, 1), 5), (key_values(base, 7, 2), 2)]
        for ready in (True, False):
            rows, expected = [], []
            for layers, count in groups:
                virtual = VirtualTokens(layers=layers)
                prefix = base.forward.compile_prefix(base, virtual, ids) if ready else Prefix(virtual, tuple(ids))
                assert prefix.length == layers[0][0].shape[1] + len(ids)
                for text in TEXTS[:count]:
                    tokens = base.encode(constant + text)
                    row = Row.of(prefix, tokens)
                    rows.append(row)
                    expected.append(cached_states(base, layers, tokens)[-len(row) :])
            assert torch.allclose(torch.cat(states(base, rows)), torch.cat(expected), atol=1e-4)


def test_keys_and_values_in_front_get_the_gradient_of_the_plain_model(base: BaseModel) -> None:
    tokens = base.encode("Which colour? the sky is blue")
    grads = []
    for packed in (True, False):
        layers = tuple((k.requires_grad_(), v.requires_grad_()) for k, v in key_values(base, 4, 3))
        if packed:
            prefix = Prefix(VirtualTokens(layers=layers), tuple(tokens[:2]))
            (made,) = states(base, [Row.of(prefix, tokens)])
        else:
            made = cached_states(base, layers, tokens)[2:]
        made[:, :7].sum().backward()
        grads.append(torch.cat([part.grad.flatten() for pair in layers for part in pair]))
    assert torch.allclose(grads[0], grads[1], atol=1e-4 * float(grads[1].abs().max()))


def test_many_choices_of_several_tokens_take_one_run_of_the_base_model(base: BaseModel) -> None:
    embeddings = prompt(base, 4, 1)
    choices = tuple(f" {colour} intent {n % 11} of {n}" for n in range(77) for colour in [TEXTS[n % 2]])
    request = ChoiceRequest(compiled(base, embeddings, "Tell: "), "Tell: what is it?", choices)
    calls = []
    hook = base.model.base_model.register_forward_hook(lambda *_: calls.append(1))
    try:
        (scores,) = score_choices(base, [request])
    finally:
        hook.remove()
    assert len(calls) == 1
    pairs = encode_pairs(base, [request.context] * len(choices), choices)
    assert min(len(answer) for _, answer in pairs) > 1
    assert scores == pytest.approx([plain_loglikelihood(base, embeddings, *pair) for pair in pairs], abs=1e-4)


def test_choices_in_pieces_score_as_in_one_tree(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = base.forward.compile_prefix(base, VirtualTokens(base.embed([40, 41])), [])
    choices = tuple(f" {colour} {number}" for number in range(20) for colour in ("red", "green sky"))
    requests = [
        ChoiceRequest(prefix, text, choices[: 2 + 19 * n]) for n, text in enumerate(("the sky", "a", "Answer:"))
    ]
    whole, counts = score_choices(base, requests), list[int]()
    monkeypatch.setattr("multiprompt.engine.choices.MAX_TREE_TOKENS", 12)
    lengths = fed(monkeypatch)
    pieces = score_choices(base, requests, counts.append)
    for one, other in zip(whole, pieces, strict=True):
        assert other == pytest.approx(one, abs=1e-4)
    assert sum(counts) == 3
    assert max(lengths) <= 12


def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens of choices each row holds that goes through the model."""
    lengths: list[int] = []
    run = PackedForward.run

    def counted(forward: PackedForward, base: BaseModel, rows: Sequence[Row]) -> Hidden:
        lengths.extend(len(row.tree.tokens) for row in rows)
        return run(forward, base, rows)

    monkeypatch.setattr(PackedForward, "run", counted)
    return lengths


def test_threads_at_once_get_what_one_thread_gets(base: BaseModel) -> None:
    size = compiled(base, prompt(base, 9, 0)).nbytes
    cache = PrefixCache(budget=3 * size)

    def prefix(number: int) -> Prefix:
        length, constant, _ = PROMPTS[number]
        embeddings = prompt(base, length, number) if length else None
        return cache.get(number, lambda: compiled(base, embeddings, constant))

    def work(seed: int) -> tuple[list[list[float]], list[str], torch.Tensor]:
        chosen = [(seed + step) % len(PROMPTS) for step in range(4)]
        cases = [(prefix(n), PROMPTS[n][1] + text) for n in chosen for text in TEXTS[: 2 + (seed + n) % 4]]
        scores = score_choices(base, [ChoiceRequest(p, text, CHOICES[: 2 + seed % 3]) for p, text in cases])
        texts = generate(
            base,
            [
                GenerationRequest(p, text, ("\n",), 2 + n % 5, Sampling(temperature=n % 2, seed=seed))
                for n, (p, text) in enumerate(cases)
            ],
        )
        embeddings = prompt(base, 2 + seed % 3, seed).requires_grad_()
        trained = Prefix(VirtualTokens(embeddings), ())
        made = states(base, [Row.of(trained, base.encode(text)) for _, text in cases])
        torch.cat(made)[:, :7].sum().backward()
        return scores, texts, embeddings.grad

    alone = [work(seed) for seed in range(16)]
    with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        together = list(pool.map(work, range(16)))
    for (scores, texts, grad), (own_scores, own_texts, own_grad) in zip(together, alone, strict=True):
        assert texts == own_texts
        # Now and then the last bits of a few values differ (by 2e-6).
        assert [value for row in scores for value in row] == pytest.approx(
            [value for row in own_scores for value in row], abs=1e-4
        )
        assert torch.allclose(grad, own_grad, atol=1e-4 * float(own_grad.abs().max()))


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
    assert [tree.path(leaf) for leaf in tree.leaves] == [[0, 1], [0, 2, 3]]


def test_a_tree_behind_a_row_gives_each_path_the_states_it_has_as_a_text(base: BaseModel) -> None:
    tokens, tree = base.encode("the sky is"), TokenTree((41, 42, 43, 44), (-1, 0, 0, -1))
    with torch.inference_mode():
        prefix = compiled(base, prompt(base, 3, 1))
        (made,) = states(base, [Row.of(prefix, tokens, tree)])
        for node in range(4):
            path = [tree.tokens[n] for n in tree.path(node)]
            (text,) = states(base, [Row.of(prefix, [*tokens, *path])])
            assert torch.allclose(made[len(tokens) + node], text[-1], atol=1e-5)


def test_a_row_shares_only_the_constant_tokens_it_has(base: BaseModel) -> None:
    prefix = Prefix(VirtualTokens(), (5, 6, 7))
    assert prefix.shared([5, 6, 7, 8]) == 3
    assert prefix.shared([5, 6, 9, 9]) == 2
    assert prefix.shared([5, 6, 7]) == 2, "a row keeps a token of its own to predict from"


@pytest.mark.parametrize("rows", [2, 5])
def test_a_row_that_departs_from_the_constant_text_does_not_see_the_rest_of_it(base: BaseModel, rows: int) -> None:
    embeddings = prompt(base, 4, 1)
    prefix = compiled(base, embeddings, "Which colour? ")
    with torch.inference_mode():
        contexts = ["Which colour? red", "Which", "Wh", "the sky", "Which colour is it?"][:rows]
        texts = generate(writing_numbers(base), [GenerationRequest(prefix, text, (), 6) for text in contexts])
    assert texts == [numbers(plain_greedy(base, embeddings, base.encode(text), 6)) for text in contexts]


_BASE: list[BaseModel] = []


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
@settings(deadline=None, max_examples=50)
def test_constant_tokens_start_every_row(head: str, tail: str) -> None:
    base = _BASE[0]
    constant = constant_tokens(base, head)
    encoded = base.encode(head + tail)
    assert constant == base.encode(head)[: len(constant)]
    shared = Prefix(VirtualTokens(), tuple(constant)).shared(encoded)
    assert constant[:shared] == encoded[:shared]


@pytest.fixture(autouse=True)
def _remember_base(base: BaseModel) -> None:
    _BASE[:] = [base]


def test_the_prefix_cache_drops_the_least_recently_used_within_its_budget(base: BaseModel) -> None:
    size = compiled(base, prompt(base, 4, 0)).nbytes
    cache, made = PrefixCache(budget=2 * size), []

    def make(name: str) -> Prefix:
        made.append(name)
        return compiled(base, prompt(base, 4, 0))

    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "b"]


def test_the_prefix_cache_counts_bytes_not_entries(base: BaseModel) -> None:
    small, large = compiled(base, prompt(base, 2, 0)), compiled(base, prompt(base, 8, 0))
    assert large.nbytes == 4 * small.nbytes
    cache = PrefixCache(budget=large.nbytes)
    kept = [cache.get(n, lambda: compiled(base, prompt(base, 2, 0))) for n in range(4)]
    assert [cache.get(n, lambda: large) for n in range(4)] == kept
    assert cache.get("large", lambda: large) is large
    assert cache.get("large", lambda: small) is large
    assert cache.get(3, lambda: small) is small, "the large one took the room of all others"


def test_a_prefix_beyond_the_budget_is_kept_until_the_next(base: BaseModel) -> None:
    one, other = compiled(base, prompt(base, 4, 0)), compiled(base, prompt(base, 4, 1))
    cache = PrefixCache(budget=1)
    assert cache.get("a", lambda: one) is one
    assert cache.get("a", lambda: other) is one
    assert cache.get("b", lambda: other) is other
    assert cache.get("a", lambda: other) is other
