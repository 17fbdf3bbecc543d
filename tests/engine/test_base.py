"""Base models: what identifies one, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from multiprompt.engine.base import BaseModel
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.errors import BaseModelError
from multiprompt.records import BaseModelRecord


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


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_changed_tokenizer_setting_changes_the_tokenizer_fingerprint(base: BaseModel, folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", add_prefix_space=True)
    assert record(folder).tokenizer != base.record.tokenizer


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
    ("kind", "settings", "longest"),
    [
        ("LlamaConfig", {"max_position_embeddings": 96}, 96),
        ("GPT2Config", {"n_positions": 96}, 96),
        ("MptConfig", {"d_model": 32, "n_heads": 4, "n_layers": 1, "max_seq_len": 96}, 96),
        ("OPTConfig", {"max_position_embeddings": 96, "ffn_dim": 32, "word_embed_proj_dim": 32}, 96),
        ("BloomConfig", {"n_layer": 1, "n_head": 4}, 2048),
        ("BloomConfig", {"n_layer": 1, "n_head": 4, "seq_length": 96}, 96),
        ("RobertaConfig", {"max_position_embeddings": 96, "is_decoder": True, "pad_token_id": 1}, 94),
        ("MambaConfig", {}, 2048),
    ],
)
def test_the_longest_input_is_read_under_each_configs_name(
    base: BaseModel, kind: str, settings: dict[str, object], longest: int
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = getattr(transformers, kind)(vocab_size=40, **(sizes if "d_model" not in settings else {}), **settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert dataclasses.replace(base, model=model).max_tokens == longest
