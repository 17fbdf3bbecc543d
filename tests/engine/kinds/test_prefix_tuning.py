"""Prefix tuning starts from keys and values that score as the words or embeddings they are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multiprompt.engine.base import BaseModel
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.errors import AdapterError
from tests.conftest import write_tiny_model
from tests.engine.reference import plain_logits
from tests.engine.test_prompt import from_version, logits_behind, made, words


def test_prefix_tuning_from_a_text_scores_as_the_words_of_the_text_do(base: BaseModel) -> None:
    prompt = made(base, "prefix tuning", init="text")
    tokens = base.encode("the colour of the sky is")
    ours = logits_behind(base, prompt.virtual_tokens(), tokens)
    torch.testing.assert_close(ours, plain_logits(base, words(base), tokens), rtol=1e-4, atol=1e-4)


def test_prefix_tuning_starts_from_what_a_projection_came_to(base: BaseModel) -> None:
    other = made(base, "prefix tuning with projection", seed=3)
    assert torch.equal(from_version(base, "prefix tuning", other).output(), other.output())


@pytest.mark.parametrize("start", ["prompt tuning", "p-tuning by LSTM", "multitask prompt tuning"])
def test_prefix_tuning_from_embeddings_scores_as_they_do(base: BaseModel, start: str) -> None:
    other = made(base, start, seed=3)
    tokens = base.encode("the sea")
    ours = logits_behind(base, from_version(base, "prefix tuning", other).virtual_tokens(), tokens)
    theirs = plain_logits(base, other.output(), tokens)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_embeddings_never_start_from_keys_and_values_not_even_of_their_shape(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "flat", num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=1)
    flat = load_base_model(locate(str(folder)), "float32")
    keys_and_values = made(flat, "prefix tuning", init="random")
    assert keys_and_values.output().shape == made(flat, "prompt tuning").output().shape
    with pytest.raises(AdapterError, match="cannot start from prefix-tuning"):
        from_version(flat, "prompt tuning", keys_and_values)


def test_prefix_tuning_starts_from_a_texts_activations_without_the_packed_forward_too(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprompt.engine.selfcheck._switch", lambda *_: "for this test")
    plain = load_base_model(locate(str(base.folder)), "float32")
    assert plain.forward.reason == "for this test"
    started = [made(one, "prefix tuning", init="text").output() for one in (plain, base)]
    assert torch.allclose(*started, atol=1e-5)
