"""Adapter files: PEFT loads what is written, PEFT's are read, and what cannot be a prompt is refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from peft import (
    MultitaskPromptTuningConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.architectures import VARIANTS, tiny_config
from multiprompt.engine import adapter as adapters
from multiprompt.engine.adapter import (
    CONFIG_FILE,
    ENCODER_FILE,
    WEIGHTS_FILE,
    from_adapter,
    read_adapter,
    to_adapter,
    trainable,
    write_adapter,
)
from multiprompt.engine.base import BaseModel
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.errors import AdapterError
from multiprompt.records import Adapter
from tests.conftest import write_model
from tests.engine.test_prompt import ENCODED, LENGTH, METHODS, logits_behind, made

# PEFT calls parts of transformers that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

COMMON: dict[str, Any] = {"task_type": "CAUSAL_LM", "num_virtual_tokens": LENGTH}
PEFT_CONFIGS = {
    "prompt tuning": lambda: PromptTuningConfig(**COMMON, prompt_tuning_init="RANDOM"),
    "p-tuning by MLP": lambda: PromptEncoderConfig(**COMMON, encoder_hidden_size=12),
    "p-tuning by LSTM": lambda: PromptEncoderConfig(
        **COMMON, encoder_hidden_size=12, encoder_reparameterization_type="LSTM"
    ),
    "prefix tuning": lambda: PrefixTuningConfig(**COMMON),
    "prefix tuning with projection": lambda: PrefixTuningConfig(
        **COMMON, prefix_projection=True, encoder_hidden_size=12
    ),
    "multitask prompt tuning": lambda: MultitaskPromptTuningConfig(
        **COMMON, prompt_tuning_init="RANDOM", num_tasks=1, num_ranks=2
    ),
}


def moved(base: BaseModel, method: str) -> Adapter:
    """An adapter with every parameter away from where it started, as training leaves it."""
    prompt = made(base, method, seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(prompt.module.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(0.1 * noise)
    return to_adapter(prompt)


def peft_logits(model: PeftModel, tokens: Sequence[int]) -> Tensor:
    task = {"task_ids": torch.zeros(1, dtype=torch.long)} if "MULTITASK" in str(model.peft_type) else {}
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokens]), **task).logits[0, -len(tokens) :]


def our_logits(base: BaseModel, adapter: Adapter, tokens: Sequence[int]) -> Tensor:
    return logits_behind(base, from_adapter(base, adapter, "x").virtual_tokens(), tokens)


@pytest.mark.parametrize("method", METHODS)
def test_peft_loads_an_exported_adapter_and_gives_the_same_logits(
    base: BaseModel, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    adapter = moved(base, method)
    write_adapter(adapter, tmp_path / "out")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "out").eval()
    tokens = base.encode("the colour of the sky")
    theirs = peft_logits(loaded, tokens)
    torch.testing.assert_close(our_logits(base, adapter, tokens), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["falcon multi-query", "gpt_bigcode multi-query", "opt projected", "bloom"])
def test_peft_loads_an_exported_prefix_for_models_with_keys_and_values_of_other_sizes(
    name: str, tmp_path: Path
) -> None:
    kind, settings = VARIANTS.get(name, (name, {}))
    folder = write_model(tmp_path / "model", tiny_config(kind, settings))
    base = load_base_model(locate(str(folder)), "float32")
    adapter = moved(base, "prefix tuning")
    write_adapter(adapter, tmp_path / "out")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "out").eval()
    tokens = base.encode("the colour of the sky")
    torch.testing.assert_close(our_logits(base, adapter, tokens), peft_logits(loaded, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_saved_by_peft_is_read_and_gives_the_same_logits(
    base: BaseModel, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), PEFT_CONFIGS[method]()).eval()
    model.save_pretrained(tmp_path / "theirs")
    tokens = base.encode("the colour of the sky")
    ours = our_logits(base, read_adapter(tmp_path / "theirs"), tokens)
    torch.testing.assert_close(ours, peft_logits(model, tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_files_survive_a_round_trip_unchanged(base: BaseModel, tmp_path: Path, method: str) -> None:
    adapter = moved(base, method)
    write_adapter(adapter, tmp_path / "out")
    assert read_adapter(tmp_path / "out") == adapter
    again = to_adapter(from_adapter(base, adapter, "x"))
    assert again.weights == adapter.weights
    assert again.encoder is None, "what inference reads has no encoder any more"
    assert to_adapter(from_adapter(base, again, "x")) == again


@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_on_comes_back_with_all_its_parameters(base: BaseModel, method: str) -> None:
    prompt = made(base, method, seed=1)
    adapter = to_adapter(prompt)
    assert (adapter.encoder is not None) == (method in ENCODED)
    back = trainable(base, adapter, "x")
    assert back.is_encoded == prompt.is_encoded
    assert torch.equal(back.output(), prompt.output())
    theirs = prompt.module.state_dict()
    assert {name: bool(torch.equal(value, theirs[name])) for name, value in back.module.state_dict().items()} == (
        dict.fromkeys(theirs, True)
    )
    assert to_adapter(back) == adapter


@pytest.mark.parametrize("method", ENCODED)
def test_a_prompt_that_lost_its_encoder_is_trained_on_as_what_it_came_to(base: BaseModel, method: str) -> None:
    adapter = moved(base, method)
    bare = trainable(base, Adapter(adapter.config, adapter.weights), "x")
    assert not bare.is_encoded
    assert torch.equal(bare.output(), from_adapter(base, adapter, "x").output())


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_says_what_it_is_for_and_that_it_is_for_inference(base: BaseModel, method: str) -> None:
    config = json.loads(moved(base, method).config)
    assert config["base_model_name_or_path"] == base.record.source
    assert config["task_type"] == "CAUSAL_LM"
    assert config["num_virtual_tokens"] == LENGTH
    assert config["inference_mode"] is True


def test_an_adapter_from_a_text_names_the_tokenizer_by_the_model_not_by_a_path(base: BaseModel) -> None:
    config = json.loads(moved(base, "prompt tuning").config)
    assert config["tokenizer_name_or_path"] == base.record.source
    assert config["prompt_tuning_init_text"] == "Which colour is it?"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read_as_float32(base: BaseModel, dtype: torch.dtype) -> None:
    half = torch.randn(LENGTH, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    adapter = spoilt(moved(base, "prompt tuning"), {"prompt_embeddings": half})
    assert torch.equal(from_adapter(base, adapter, "x").output(), half.float())


def spoilt(adapter: Adapter, tensors: dict[str, Tensor] | None = None, **config: Any) -> Adapter:
    mapping = json.loads(adapter.config) | config
    weights = adapter.weights if tensors is None else safetensors.torch.save(tensors)
    return Adapter(json.dumps(mapping).encode(), weights, adapter.encoder)


def tensor(fill: float = 0.0, *shape: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {"prompt_embeddings": torch.full(shape or (LENGTH, 32), fill, dtype=dtype)}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (None, {"peft_type": "LORA"}, "method is 'LORA'; it must be one of: PROMPT_TUNING"),
        (None, {"peft_type": None}, "method is None"),
        (None, {"peft_type": ["PROMPT_TUNING"]}, r"method is \['PROMPT_TUNING'\]"),
        (None, {"peft_type": "PREFIX_TUNING"}, r"shape \(6, 32\).*\(6, 64\)"),
        (None, {"num_virtual_tokens": 7}, r"shape \(6, 32\).*\(7, 32\)"),
        (None, {"num_virtual_tokens": 10**9}, "num_virtual_tokens 1000000000; it must lie between"),
        (None, {"num_virtual_tokens": 0}, "num_virtual_tokens 0"),
        (None, {"num_virtual_tokens": "6"}, "num_virtual_tokens '6'"),
        (None, {"num_virtual_tokens": None}, "gives no num_virtual_tokens"),
        (tensor(0, LENGTH, 31), {}, r"shape \(6, 31\), but tiny takes \(6, 32\)"),
        (tensor(0, LENGTH * 32), {}, r"shape \(192,\), but tiny takes \(6, 32\)"),
        (tensor(torch.nan), {}, "prompt_embeddings holds numbers that are not finite"),
        (tensor(torch.inf), {}, "prompt_embeddings holds numbers that are not finite"),
        (tensor(1e300, dtype=torch.float64), {}, "prompt_embeddings holds numbers that are not finite"),
        (tensor(0, dtype=torch.int64), {}, "torch.int64"),
        (tensor(0, dtype=torch.bool), {}, "torch.bool"),
        ({}, {}, r"the weights hold \[\], expected \['prompt_embeddings'\]"),
        ({"other": torch.zeros(LENGTH, 32)}, {}, r"hold \['other'\]"),
        ({**tensor(), "other": torch.zeros(1)}, {}, r"hold \['other', 'prompt_embeddings'\]"),
    ],
)
def test_an_adapter_that_cannot_be_a_prompt_is_refused(
    base: BaseModel, tensors: dict[str, Tensor] | None, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterError, match=f"^mine: .*{message}"):
        from_adapter(base, spoilt(moved(base, "prompt tuning"), tensors, **config), "mine")


@pytest.mark.parametrize(
    "config", [b"", b"{", b"[]", b'"x"', b"null", b"{}", b"\xff", b"[" * 200_000], ids=lambda raw: raw[:4].hex()
)
def test_a_config_that_is_none_is_refused(base: BaseModel, config: bytes) -> None:
    with pytest.raises(AdapterError, match=f"^mine: {CONFIG_FILE} is no PEFT config"):
        from_adapter(base, Adapter(config, moved(base, "prompt tuning").weights), "mine")


@pytest.mark.parametrize("method", METHODS)
def test_sizes_that_fit_no_memory_are_refused_before_they_are_made(base: BaseModel, method: str) -> None:
    huge = {"num_virtual_tokens": 10**9, "encoder_hidden_size": 10**9, "num_ranks": 10**9}
    for name in huge.keys() & json.loads(moved(base, method).config).keys():
        with pytest.raises(AdapterError, match=f"{name} 1000000000"):
            from_adapter(base, spoilt(moved(base, method), **{name: huge[name]}), "mine")


def without_a_tensor(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(tensors.items())[1:])


def transposed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.T.contiguous() if value.ndim == 2 else value for name, value in tensors.items()}


def not_finite(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value * torch.nan for name, value in tensors.items()}


@pytest.mark.parametrize("method", ENCODED)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_a_tensor, "the weights hold"),
        (transposed, "has shape"),
        (not_finite, "not finite"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(base: BaseModel, method: str, change: Any, message: str) -> None:
    adapter = moved(base, method)
    encoder = safetensors.torch.save(change(safetensors.torch.load(adapter.encoder)))
    with pytest.raises(AdapterError, match=f"^mine: .*{message}"):
        trainable(base, Adapter(adapter.config, adapter.weights, encoder), "mine")


@pytest.mark.parametrize(
    "config",
    [
        {"encoder_reparameterization_type": "GRU"},
        {"encoder_reparameterization_type": None},
        {"encoder_hidden_size": None},
        {"encoder_hidden_size": 13},
    ],
)
def test_an_encoder_that_its_config_does_not_describe_is_refused(base: BaseModel, config: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match="^mine: "):
        trainable(base, spoilt(moved(base, "p-tuning by LSTM"), **config), "mine")


def test_an_encoder_that_is_no_safetensors_is_named(base: BaseModel) -> None:
    adapter = moved(base, "p-tuning by MLP")
    with pytest.raises(AdapterError, match=f"^mine: {ENCODER_FILE} is no safetensors file"):
        trainable(base, Adapter(adapter.config, adapter.weights, b"junk"), "mine")


def test_weights_that_are_no_safetensors_are_refused(base: BaseModel) -> None:
    adapter = moved(base, "prompt tuning")
    for weights in (b"", b"\x80\x04pickle", adapter.weights[:-1], adapter.weights[:40]):
        with pytest.raises(AdapterError, match=f"^mine: {WEIGHTS_FILE} is no safetensors file"):
            from_adapter(base, Adapter(adapter.config, weights), "mine")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "U64", "Q4"])
def test_weights_of_a_rare_dtype_are_read_or_refused_by_name(base: BaseModel, dtype: str) -> None:
    bits = {"F4": 4, "F6_E2M3": 6, "C64": 64, "U64": 64}.get(dtype, 8)
    count = LENGTH * 32
    header = {"prompt_embeddings": {"dtype": dtype, "shape": [LENGTH, 32], "data_offsets": [0, count * bits // 8]}}
    raw = json.dumps(header).encode()
    weights = len(raw).to_bytes(8, "little") + raw + b"\x00" * (count * bits // 8)
    adapter = Adapter(moved(base, "prompt tuning").config, weights)
    try:
        prompt = from_adapter(base, adapter, "mine")
    except AdapterError as error:
        assert str(error).startswith("mine: ")
    else:
        assert prompt.output().isfinite().all(), "a dtype that is read is read right"


def test_a_folder_that_lacks_a_file_is_no_adapter(base: BaseModel, tmp_path: Path) -> None:
    write_adapter(moved(base, "prompt tuning"), tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterError, match=f"{WEIGHTS_FILE} cannot be read"):
        read_adapter(tmp_path)
    with pytest.raises(AdapterError, match=f"{CONFIG_FILE} cannot be read"):
        read_adapter(tmp_path / "nowhere")


def test_of_two_exports_into_one_folder_one_takes_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new" / "out", tmp_path / "empty"):
        assert [adapters.claim_folder(folder) for _ in range(2)] == [True, False]
    with pytest.raises(AdapterError, match="cannot be written"):
        adapters.claim_folder(Path("/proc/out"))


def test_files_beyond_the_limit_are_not_read(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = moved(base, "p-tuning by MLP")
    write_adapter(adapter, tmp_path)
    monkeypatch.setattr(adapters, "MAX_ADAPTER_BYTES", len(adapter.encoder) - 1)
    with pytest.raises(AdapterError, match=f"{ENCODER_FILE} has {len(adapter.encoder)} bytes; the limit is"):
        read_adapter(tmp_path)
    monkeypatch.setattr(adapters, "MAX_ADAPTER_BYTES", 100)
    with pytest.raises(AdapterError, match="the limit is 100"):
        from_adapter(base, adapter, "mine")


def test_a_folder_written_anew_holds_nothing_of_the_adapter_before(base: BaseModel, tmp_path: Path) -> None:
    write_adapter(moved(base, "p-tuning by MLP"), tmp_path)
    second = moved(base, "prompt tuning")
    write_adapter(second, tmp_path)
    assert read_adapter(tmp_path) == second


def test_written_files_are_as_readable_as_any_other(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    write_adapter(moved(base, "prompt tuning"), tmp_path)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
