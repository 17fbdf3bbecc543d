"""Soft prompts before training: what each method starts from, and what it cannot start from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import VirtualTokens
from multiprompt.engine.prompt import SoftPrompt, new_prompt
from multiprompt.engine.rows import Row
from multiprompt.errors import AdapterError

METHODS: dict[str, dict[str, Any]] = {
    "prompt tuning": {"method": "prompt-tuning"},
    "p-tuning by MLP": {"method": "p-tuning"},
    "p-tuning by LSTM": {"method": "p-tuning", "encoder": "lstm", "encoder_hidden_size": 12},
    "prefix tuning": {"method": "prefix-tuning"},
    "prefix tuning with projection": {"method": "prefix-tuning", "projection": True, "encoder_hidden_size": 12},
    "multitask prompt tuning": {"method": "multitask-prompt-tuning", "num_ranks": 2},
}
ENCODED = ("p-tuning by MLP", "p-tuning by LSTM", "prefix tuning with projection")
OF_EMBEDDINGS = ("prompt tuning", "multitask prompt tuning")
TEXT = "Which colour is it?"
LENGTH = 6


def made(
    base: BaseModel, method: str, seed: int = 0, start: SoftPrompt | None = None, text: str = TEXT, **settings: Any
) -> SoftPrompt:
    config = PromptConfig(**{"num_virtual_tokens": LENGTH, **METHODS[method], **settings})
    return new_prompt(base, config, text, seed, start)


def from_version(base: BaseModel, method: str, start: SoftPrompt, **settings: Any) -> SoftPrompt:
    return made(base, method, seed=5, start=start, init="version", init_version="other@1", **settings)


def words(base: BaseModel, text: str = TEXT, length: int = LENGTH) -> Tensor:
    tokens = base.encode(text)
    return base.embed(list(itertools.islice(itertools.cycle(tokens), length)))


def logits_behind(base: BaseModel, virtual: VirtualTokens, tokens: Sequence[int]) -> Tensor:
    """What the engine says on one row behind virtual tokens, (tokens, vocabulary)."""
    with torch.inference_mode():
        hidden = base.forward.run(base, [Row.of(base.forward.compile_prefix(base, virtual, ()), tokens)])
        return base.logits(hidden.states)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_prompt_has_the_length_that_was_asked_for(base: BaseModel, method: str) -> None:
    prompt = made(base, method)
    assert prompt.method == METHODS[method]["method"]
    assert prompt.num_virtual_tokens == prompt.virtual_tokens().length == LENGTH
    assert prompt.is_encoded == (method in ENCODED)
    assert all(parameter.dtype == torch.float32 for parameter in prompt.module.parameters())
    assert prompt.output().isfinite().all()


@pytest.mark.parametrize("method", OF_EMBEDDINGS)
def test_text_initialisation_starts_from_the_words_of_the_description(base: BaseModel, method: str) -> None:
    torch.testing.assert_close(made(base, method).output(), words(base))


@pytest.mark.parametrize("length", [1, 3, 40])
def test_a_text_is_cut_or_repeated_to_the_length_of_the_prompt(base: BaseModel, length: int) -> None:
    prompt = made(base, "prompt tuning", num_virtual_tokens=length)
    assert torch.equal(prompt.output(), words(base, length=length))


@pytest.mark.parametrize("method", OF_EMBEDDINGS)
def test_a_text_of_its_own_takes_the_place_of_the_description(base: BaseModel, method: str) -> None:
    torch.testing.assert_close(made(base, method, init_text="Answer: red").output(), words(base, "Answer: red"))


@pytest.mark.parametrize("method", OF_EMBEDDINGS)
def test_sampled_vocabulary_is_words_of_the_vocabulary_that_the_seed_fixes(base: BaseModel, method: str) -> None:
    vocabulary = base.embed(range(base.model.config.vocab_size))
    first, again, other = (made(base, method, seed, init="sample-vocab").output() for seed in (1, 1, 2))
    assert torch.cdist(first, vocabulary, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1).values.max() < 1e-5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_fixes_a_random_start_and_leaves_other_randomness_alone(base: BaseModel, method: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (made(base, method, seed, init="random", text="").output() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", OF_EMBEDDINGS)
def test_a_prompt_starts_from_the_tokens_that_are_given(base: BaseModel, method: str) -> None:
    prompt = made(base, method, init="tokens", init_tokens=(7, 8, 9, 10))
    torch.testing.assert_close(prompt.output(), base.embed([7, 8, 9, 10, 7, 8]))


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_starts_from_another_of_its_kind_with_all_its_parameters(base: BaseModel, method: str) -> None:
    start = made(base, method, seed=3, init="random")
    prompt = from_version(base, method, start)
    theirs = start.module.state_dict()
    mine = prompt.module.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    with torch.no_grad():
        prompt.module.embedding.weight.add_(1)
    assert not torch.equal(prompt.output(), start.output()), "it is a copy"


@pytest.mark.parametrize("start", ["prompt tuning", "p-tuning by MLP", "p-tuning by LSTM", "multitask prompt tuning"])
@pytest.mark.parametrize("method", OF_EMBEDDINGS)
def test_embeddings_start_from_what_any_prompt_of_embeddings_came_to(base: BaseModel, method: str, start: str) -> None:
    other = made(base, start, seed=3, init="random")
    torch.testing.assert_close(from_version(base, method, other).output(), other.output())


@pytest.mark.parametrize(
    ("method", "start", "settings", "message"),
    [
        ("prompt tuning", "prompt tuning", {"num_virtual_tokens": 4}, "prompt-tuning with 4 tokens cannot start from"),
        ("prompt tuning", "prefix tuning", {}, "cannot start from prefix-tuning with 6"),
        ("multitask prompt tuning", "prefix tuning", {}, "cannot start from prefix-tuning with 6"),
        ("prefix tuning", "prompt tuning", {"num_virtual_tokens": 4}, "cannot start from prompt-tuning with 6"),
        ("prefix tuning", "prefix tuning", {"num_virtual_tokens": 4}, "cannot start from prefix-tuning with 6"),
        ("p-tuning by MLP", "prompt tuning", {}, "an encoder of p-tuning .*not from prompt-tuning"),
        ("p-tuning by MLP", "p-tuning by LSTM", {}, "an encoder of p-tuning .*of its own shape"),
        ("p-tuning by MLP", "p-tuning by MLP", {"encoder_hidden_size": 9}, "an encoder of p-tuning .*of its own shape"),
        ("prefix tuning with projection", "prefix tuning", {}, "an encoder of prefix-tuning .*of its own shape"),
    ],
)
def test_a_version_that_does_not_fit_is_refused(
    base: BaseModel, method: str, start: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        from_version(base, method, made(base, start), **settings)


def test_a_token_beyond_the_vocabulary_is_named(base: BaseModel) -> None:
    vocabulary = base.model.config.vocab_size
    with pytest.raises(AdapterError, match=f"init_tokens holds {vocabulary}, but tiny has {vocabulary} tokens"):
        made(base, "prompt tuning", init="tokens", init_tokens=(1, vocabulary))


@pytest.mark.parametrize("method", ["prompt tuning", "prefix tuning", "multitask prompt tuning"])
def test_text_initialisation_without_a_text_says_how_to_give_one(base: BaseModel, method: str) -> None:
    with pytest.raises(AdapterError, match="init_text"):
        made(base, method, text=" \n")


def test_a_copy_is_trained_without_moving_the_prompt(base: BaseModel) -> None:
    prompt = made(base, "prompt tuning")
    before = prompt.output().detach().clone()
    with torch.no_grad():
        prompt.copy().module.embedding.weight.zero_()
    assert torch.equal(prompt.output(), before)
