"""Base models: what identifies one, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    Qwen2Config,
)

from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.fingerprint import former_identity
from multiprompt.engine.generation import GenerationRequest, generate
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.errors import BaseModelError, DataError
from multiprompt.records import BaseModelRecord
from tests.conftest import write_model, write_tiny_model


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def record(folder: Path, dtype: str = "float32") -> BaseModelRecord:
    return load_base_model(locate(str(folder)), dtype).record


def test_a_copy_has_the_same_identity(base: BaseModel, folder: Path) -> None:
    assert record(folder).identity == base.record.identity


def test_the_identity_does_not_depend_on_how_tensors_are_spread_over_files(base: BaseModel, folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    files = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    for file, part in files.items():
        safetensors.torch.save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert record(folder).identity == base.record.identity


def test_one_changed_weight_changes_the_weights_fingerprint_alone(base: BaseModel, folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["model.norm.weight"][0] += 1e-3
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    changed = record(folder)
    assert changed.weights != base.record.weights
    assert (changed.tokenizer, changed.config) == (base.record.tokenizer, base.record.config)


def padded(folder: Path) -> Path:
    """A model with more embeddings than its tokenizer has tokens."""
    model = AutoModelForCausalLM.from_pretrained(write_tiny_model(folder))
    model.resize_token_embeddings(320)
    model.save_pretrained(folder)
    return folder


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text() or "{}") | values))


def test_a_changed_setting_of_the_model_changes_the_config_fingerprint(base: BaseModel, folder: Path) -> None:
    edit_json(folder / "config.json", rms_norm_eps=1e-3)
    assert record(folder).config != base.record.config


def test_the_name_in_the_config_changes_nothing(base: BaseModel, folder: Path) -> None:
    edit_json(folder / "config.json", _name_or_path="elsewhere", transformers_version="0")
    assert record(folder).identity == base.record.identity


def test_the_dtype_is_recorded_and_part_of_the_identity(base: BaseModel, folder: Path) -> None:
    half = load_base_model(locate(str(folder)), "bfloat16")
    assert half.record.dtype == "bfloat16"
    assert half.model.dtype == torch.bfloat16
    assert half.record.identity != base.record.identity


def test_an_unknown_dtype_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(BaseModelError, match="'int3'; it must be one of: auto, float32, bfloat16, float16"):
        record(folder, "int3")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"holds no \*\.safetensors weights"):
        record(folder)


def test_code_in_a_model_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    sign = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(sign)!r}).touch()\n"
    (folder / "evil.py").write_text(code)
    edit_json(
        folder / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    with pytest.raises(BaseModelError, match="cannot be loaded as a causal language model"):
        record(folder)
    assert not sign.exists()


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100], ids=["empty", "zeros"])
def test_damaged_weights_name_the_folder(folder: Path, damage: bytes) -> None:
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(BaseModelError, match=str(folder)):
        record(folder)


def test_parameters_are_frozen(base: BaseModel) -> None:
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("tokenizer_config.json", {"clean_up_tokenization_spaces": True}),
        ("tokenizer_config.json", {"eos_token": "the"}),
    ],
)
def test_whatever_changes_the_loaded_tokenizer_changes_its_fingerprint(
    base: BaseModel, folder: Path, file: str, values: dict[str, object]
) -> None:
    (folder / file).touch()
    edit_json(folder / file, **values)
    assert record(folder).tokenizer != base.record.tokenizer


def test_a_file_of_added_tokens_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = padded(tmp_path / "padded")
    before = record(folder).tokenizer
    (folder / "added_tokens.json").write_text('{"red": 299}')
    assert record(folder).tokenizer != before


def test_a_tokenizer_setting_that_changes_no_token_changes_nothing(base: BaseModel, folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", chat_template="{{ messages }}", model_max_length=7)
    description = json.loads((folder / "tokenizer.json").read_text())
    cut = {"max_length": 5, "direction": "Right", "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(description | {"truncation": cut}))
    assert record(folder).identity == base.record.identity


def test_the_words_of_a_slow_tokenizer_are_in_its_fingerprint(folder: Path) -> None:
    def with_words(*words: str) -> BaseModelRecord:
        (folder / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words)))
        return record(folder)

    (folder / "tokenizer.json").unlink()
    config = {"tokenizer_class": "BertTokenizer", "eos_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert with_words("red", "green").tokenizer != with_words("green", "red").tokenizer


def test_the_end_tokens_of_the_generation_config_are_in_the_config_fingerprint(base: BaseModel, folder: Path) -> None:
    edit_json(folder / "generation_config.json", eos_token_id=[0, 7])
    assert record(folder).config != base.record.config


def test_weights_that_are_not_loaded_are_not_fingerprinted(base: BaseModel, folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    others = {name: tensor + 1 for name, tensor in tensors.items()}
    safetensors.torch.save_file(others, folder / "model.fp16.safetensors", metadata={"format": "pt"})
    assert record(folder).identity == base.record.identity


def test_writing_over_the_file_does_not_change_a_loaded_model(folder: Path) -> None:
    loaded = load_base_model(locate(str(folder)), "float32")
    before = [parameter.clone() for parameter in loaded.model.parameters()]
    path = folder / "model.safetensors"
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[:4096] + bytes(len(content) - 4096))
    assert all(torch.equal(*pair) for pair in zip(before, loaded.model.parameters(), strict=True))


def edit_weights(folder: Path, drop: Sequence[str] = (), **added: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in safetensors.torch.load_file(path).items() if name not in drop}
    safetensors.torch.save_file(tensors | added, path, metadata={"format": "pt"})


LAYER = "model.layers.1.mlp"


def test_a_folder_that_lacks_a_tensor_is_refused(folder: Path) -> None:
    edit_weights(folder, drop=[f"{LAYER}.down_proj.weight"])
    with pytest.raises(BaseModelError, match="lacks"):
        record(folder)


def test_the_tensor_that_is_missing_is_named(folder: Path) -> None:
    edit_weights(folder, drop=[f"{LAYER}.down_proj.weight"], other=torch.zeros(64, 32))
    with pytest.raises(BaseModelError, match=rf"lacks {LAYER}\.down_proj\.weight, which LlamaForCausalLM needs"):
        record(folder)


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    name = f"{LAYER}.down_proj.weight"
    edit_weights(folder, drop=[name], **{name: torch.zeros(64, 32)})
    with pytest.raises(BaseModelError, match=r"has other shapes for model\.layers\.1\.mlp\.down_proj\.weight"):
        record(folder)


LORA = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "name", [f"{LAYER}.down_proj.bias", "model.layers.2.mlp.down_proj.weight", "model.embed_norm.weight", LORA]
)
def test_a_tensor_that_the_config_leaves_out_is_refused(folder: Path, name: str) -> None:
    edit_weights(folder, **{name: torch.zeros(32)})
    with pytest.raises(BaseModelError, match=f"holds {name}, which LlamaForCausalLM as config.json describes it"):
        record(folder)


@pytest.mark.parametrize("name", ["norm.weight", "model.model.norm.weight"])
def test_a_tensor_under_two_names_is_refused(folder: Path, name: str) -> None:
    edit_weights(folder, **{name: torch.zeros(32)})
    with pytest.raises(BaseModelError, match=r"under two names, .*norm\.weight and .*norm\.weight: keep one"):
        record(folder)


def test_tensors_of_other_parts_and_computed_ones_are_left_out(folder: Path) -> None:
    others = {"vision.patch.weight": torch.ones(3), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    edit_weights(folder, **others)
    record(folder)


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in safetensors.torch.load_file(folder / "model.safetensors")
    record(folder)


def test_a_peft_folder_is_refused_with_the_way_out(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"holds a PEFT adapter .*merge it"):
        record(folder)


def test_an_index_that_names_files_of_another_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match=r"must name files of its own folder.*'\.\./model\.safetensors'"):
        record(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "hqq", "quanto", "torchao", "compressed-tensors"])
def test_a_quantised_folder_is_refused_by_its_method(folder: Path, method: str) -> None:
    edit_json(folder / "config.json", quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(BaseModelError, match=f"quantised with {method}"):
        record(folder)


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


@pytest.mark.parametrize(
    "content",
    ["", "[]", "7", "{", nested(60), nested(100_000), '{"model_type": 7}', '{"model_type": "unheard-of"}', "\x00"],
)
def test_a_config_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(BaseModelError):
        record(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 10**15},
        {"hidden_size": -32},
        {"hidden_size": "32"},
        {"hidden_size": None},
        {"hidden_size": 10**400},
        {"max_position_embeddings": -5},
        {"vocab_size": 10**12},
        {"vocab_size": 1},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 900},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 1.5},
        {"num_attention_heads": 0},
        {"num_attention_heads": 10**9},
        {"num_labels": 10**9},
        {"intermediate_size": [64]},
        {"hidden_act": "__import__"},
        {"rope_parameters": {"rope_type": "yarn"}},
        {"rope_parameters": "x"},
        {"model_type": "bert"},
        {"model_type": "t5"},
        {"model_type": "vit"},
        {"model_type": "gpt2", "n_positions": 10**7},
        {"is_encoder_decoder": True},
        {"attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "flex_attention"},
        {"experts_implementation": "sonicmoe"},
        {"transformers_weights": "../model.safetensors"},
        {"configuration_files": ["config.4.0.0.json"]},
        {"pad_token_id": 10**9},
    ],
    ids=str,
)
def test_a_config_that_the_weights_do_not_fit_is_refused_in_one_line(folder: Path, values: dict[str, object]) -> None:
    edit_json(folder / "config.json", **values)
    with pytest.raises(BaseModelError) as refused:
        record(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "LlamaTokenizer", "BertTokenizer", "T5Tokenizer"])
def test_a_tokenizer_without_its_vocabulary_is_refused(folder: Path, kind: str) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    with pytest.raises(BaseModelError, match=f"{kind} found no vocabulary"):
        record(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_no_numbers_by_themselves_are_refused(folder: Path, dtype: torch.dtype) -> None:
    name = f"{LAYER}.down_proj.weight"
    edit_weights(folder, drop=[name], **{name: torch.ones(32, 64, dtype=dtype)})
    with pytest.raises(BaseModelError, match=rf"{name} as (I8|I16|I32|BOOL|C64).*unquantised"):
        record(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
def test_a_parameter_of_any_name_that_is_no_number_by_itself_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_model(tmp_path / "gpt2", GPT2Config(n_embd=32, n_layer=1, n_head=4))
    name = "transformer.h.0.mlp.c_fc.bias"
    edit_weights(folder, drop=[name], **{name: torch.ones(128).to(dtype)})
    with pytest.raises(BaseModelError, match=rf"{name} as (I8|BOOL|F8_E4M3).*unquantised"):
        record(folder)


def test_a_mask_among_the_tensors_may_be_of_any_dtype(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "gpt2", GPT2Config(n_embd=32, n_layer=1, n_head=4))
    edit_weights(folder, **{"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8)})
    record(folder)


def test_a_tokenizer_that_begins_every_text_with_a_token_without_embedding_is_refused(folder: Path) -> None:
    texts = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    start = {"SpecialToken": {"id": "X", "type_id": 0}}
    added = {"X": {"id": "X", "ids": [5000], "tokens": ["X"]}}
    processor = {"type": "TemplateProcessing", "single": [start, texts[0]], "pair": texts, "special_tokens": added}
    edit_json(folder / "tokenizer.json", post_processor=processor)
    with pytest.raises(BaseModelError, match=r"puts the token id 5000 in front of every text.*for 299 tokens"):
        record(folder)


@pytest.mark.parametrize("positions", [1, 8, 26])
def test_a_model_of_very_few_positions_is_refused(tmp_path: Path, positions: int) -> None:
    folder = write_model(tmp_path / "gpt2", GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=positions))
    with pytest.raises(BaseModelError, match=f"takes {positions} tokens at most; the self-check needs 27"):
        record(folder)


def test_a_model_that_takes_just_the_rows_of_the_self_check_runs(tmp_path: Path) -> None:
    record(write_model(tmp_path / "gpt2", GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=27)))


def former(base: BaseModel) -> BaseModelRecord:
    names = ("weights", "tokenizer", "config", "dtype")
    return dataclasses.replace(base.record, **dict(zip(names, former_identity(base.folder, "float32"), strict=True)))


def test_an_older_releases_fingerprints_are_taken_of_the_files_that_were_loaded(folder: Path) -> None:
    one, other = load_base_model(locate(str(folder)), "float32"), load_base_model(locate(str(folder)), "float32")
    edit_json(folder / "config.json", rms_norm_eps=1e-3)
    changed = former(load_base_model(locate(str(folder)), "float32"))
    assert not one.is_of(changed)
    edit_json(folder / "config.json", rms_norm_eps=1e-6)
    assert not other.is_of(changed)


def test_a_damaged_file_that_is_not_loaded_is_no_traceback(base: BaseModel, folder: Path) -> None:
    (folder / "other.safetensors").write_bytes(b"")
    loaded = load_base_model(locate(str(folder)), "float32")
    assert not loaded.is_of(dataclasses.replace(base.record, weights="sha256:0"))


@pytest.mark.parametrize("end", ["abc", [1, "x"], [[1]], 5.5, True, {"a": 1}])
def test_an_end_token_that_is_no_token_id_is_refused(folder: Path, end: object) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    with pytest.raises(BaseModelError, match=r"generation_config\.json has the eos_token_id .*whole number"):
        record(folder)


def test_a_tokenizer_that_reads_a_text_at_random_is_refused(folder: Path) -> None:
    read = json.loads((folder / "tokenizer.json").read_text())
    edit_json(folder / "tokenizer.json", model={**read["model"], "dropout": 0.1})
    with pytest.raises(BaseModelError, match=r"at random \(dropout 0\.1\).*null"):
        record(folder)


def test_a_text_that_gives_no_finite_numbers_is_refused(folder: Path) -> None:
    name = "model.embed_tokens.weight"
    embeddings = safetensors.torch.load_file(folder / "model.safetensors")[name]
    spoilt = load_base_model(locate(str(folder)), "float32").encode("z")
    embeddings[spoilt] = torch.nan
    edit_weights(folder, drop=[name], **{name: embeddings})
    base, prefix = load_base_model(locate(str(folder)), "float32"), Prefix(VirtualTokens(), ())
    with pytest.raises(BaseModelError, match="not finite"):
        score_choices(base, [ChoiceRequest(prefix, "a z", (" red", " blue"))])
    with pytest.raises(BaseModelError, match="not finite"):
        generate(base, [GenerationRequest(prefix, "a z", ("\n",), 3)])


def test_weights_that_give_no_finite_numbers_are_refused(folder: Path) -> None:
    name = "model.norm.weight"
    edit_weights(folder, drop=[name], **{name: torch.full((32,), torch.nan)})
    with pytest.raises(BaseModelError, match="not finite"):
        record(folder)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"model": 3}', "\x00\x01"])
def test_a_damaged_file_beside_the_weights_is_no_traceback(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    with contextlib.suppress(BaseModelError):
        record(folder)


def test_a_setting_that_is_no_size_may_be_negative(folder: Path) -> None:
    edit_json(folder / "config.json", kda_lower_bound=-5.0, pad_token_id=-100)
    record(folder)


def test_an_encoder_is_refused_as_not_causal(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    folder = write_model(tmp_path / "bert", BertConfig(**sizes, initializer_range=0.3))
    with pytest.raises(BaseModelError, match="no causal language model"):
        record(folder)


def test_a_token_beyond_the_embeddings_is_named(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[TOOL]"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BaseModelError, match=r"token '\[TOOL\]' has the id 299.*embeddings for 299 tokens"):
        record(folder)


def test_a_text_with_a_token_that_only_the_tokenizers_class_adds_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = Qwen2Config(**sizes, intermediate_size=64)
    base = load_base_model(locate(str(write_model(tmp_path / "qwen2", config))), "float32")
    with pytest.raises(DataError, match=r"'<\|endoftext\|>' with the id 299, but qwen2 has embeddings for 299 tokens"):
        base.encode("red<|endoftext|>")


def test_embeddings_without_a_token_are_no_fault(tmp_path: Path) -> None:
    record(padded(tmp_path / "padded"))


def test_loading_a_model_prints_nothing(tiny_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    cast("Any", logging.warning_once).cache_clear()
    logging.enable_progress_bar()
    load_base_model(locate(str(tiny_model)), "float32")
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
