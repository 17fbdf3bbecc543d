"""Adapter files: PEFT loads what is written, and what cannot be a prompt is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import PeftModel, PromptTuningConfig, PromptTuningInit, get_peft_model
from transformers import AutoModelForCausalLM

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prompt import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    from_adapter,
    new_prompt,
    read_adapter,
    to_adapter,
    write_adapter,
)
from multiprompt.errors import AdapterError
from multiprompt.records import Adapter
from tests.engine.reference import plain_logits

# PEFT calls parts of transformers that are deprecated.
peft_warns = pytest.mark.filterwarnings("ignore::FutureWarning")


def made(base: BaseModel, **settings: Any) -> Adapter:
    return to_adapter(new_prompt(base, PromptConfig(num_virtual_tokens=6, **settings), "Which colour is it?", seed=1))


@peft_warns
def test_peft_loads_an_exported_adapter_and_gives_the_same_logits(
    base: BaseModel, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = made(base)
    write_adapter(adapter, tmp_path / "out")
    peft_model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "out").eval()
    tokens = base.encode("the colour of the sky")
    with torch.inference_mode():
        theirs = peft_model(input_ids=torch.tensor([tokens])).logits[0, -len(tokens) :]
        ours = plain_logits(base, from_adapter(base, adapter, "x").embeddings, tokens)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@peft_warns
def test_an_adapter_saved_by_peft_is_read(base: BaseModel, tiny_model: Path, tmp_path: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prompt_tuning_init=PromptTuningInit.RANDOM)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    model.save_pretrained(tmp_path / "theirs")
    prompt = from_adapter(base, read_adapter(tmp_path / "theirs"), "theirs")
    assert torch.equal(prompt.embeddings, model.prompt_encoder["default"].embedding.weight)


def test_files_survive_a_round_trip_unchanged(base: BaseModel, tmp_path: Path) -> None:
    adapter = made(base)
    write_adapter(adapter, tmp_path / "out")
    assert read_adapter(tmp_path / "out") == adapter
    assert to_adapter(from_adapter(base, adapter, "x")) == adapter


def test_text_initialisation_starts_from_the_words_of_the_text(base: BaseModel) -> None:
    prompt = new_prompt(base, PromptConfig(num_virtual_tokens=4), "Which colour is it?", seed=0)
    words = base.encode("Which colour is it?")
    tokens = (words * 4)[:4]
    assert torch.equal(prompt.embeddings, base.embed(tokens))


def test_an_adapter_holds_no_path_of_this_machine(base: BaseModel, tiny_model: Path) -> None:
    config = json.loads(made(base).config)
    assert config["tokenizer_name_or_path"] == base.record.source
    assert config["base_model_name_or_path"] == base.record.source
    assert config["inference_mode"] is True


def test_random_initialisation_follows_the_seed(base: BaseModel) -> None:
    config = PromptConfig(init="random", num_virtual_tokens=4)
    first, again, other = (new_prompt(base, config, "", seed).embeddings for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_text_initialisation_without_a_text_says_how_to_give_one(base: BaseModel) -> None:
    with pytest.raises(AdapterError, match="init_text"):
        new_prompt(base, PromptConfig(), "  ", seed=0)


def spoilt(adapter: Adapter, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Adapter:
    mapping = json.loads(adapter.config) | config
    weights = adapter.weights if tensors is None else safetensors.torch.save(tensors)
    return Adapter(json.dumps(mapping).encode(), weights)


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (None, {"peft_type": "LORA"}, "method is 'LORA'"),
        (None, {"num_virtual_tokens": 7}, r"shape \(6, 32\).*\(7, 32\)"),
        ({"prompt_embeddings": torch.zeros(6, 31)}, {}, r"shape \(6, 31\).*\(6, 32\)"),
        ({"prompt_embeddings": torch.full((6, 32), torch.nan)}, {}, "not finite"),
        ({"prompt_embeddings": torch.zeros(6, 32, dtype=torch.int64)}, {}, "torch.int64"),
        ({"other": torch.zeros(6, 32)}, {}, r"\['other'\]"),
    ],
)
def test_an_adapter_that_cannot_be_a_prompt_is_refused(
    base: BaseModel, tensors: dict[str, torch.Tensor] | None, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterError, match=f"^mine: .*{message}"):
        from_adapter(base, spoilt(made(base), tensors, **config), "mine")


def test_weights_that_are_no_safetensors_are_refused(base: BaseModel) -> None:
    adapter = made(base)
    for weights in (b"", b"\x80\x04pickle", adapter.weights[:-1]):
        with pytest.raises(AdapterError, match="no safetensors"):
            from_adapter(base, Adapter(adapter.config, weights), "mine")


def test_a_folder_that_lacks_a_file_is_no_adapter(base: BaseModel, tmp_path: Path) -> None:
    write_adapter(made(base), tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterError, match=f"{WEIGHTS_FILE} cannot be read"):
        read_adapter(tmp_path)
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE} cannot be read"):
        read_adapter(tmp_path / "nowhere")
