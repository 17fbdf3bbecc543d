"""The longest input of a model is read from its config and its tables of positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from transformers import DeepseekV32Config, DogeConfig, PretrainedConfig

from multiprompt.engine.hub import locate
from multiprompt.engine.lengths import longest_input
from multiprompt.engine.loading import load_base_model
from tests.conftest import write_model


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
    kind: str, settings: dict[str, object], longest: int
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = getattr(transformers, kind)(vocab_size=40, **(sizes if "d_model" not in settings else {}), **settings)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert longest_input(model) == longest


DOGE = DogeConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=256,
    keep_window_size=48, num_experts=4,
)  # fmt: skip
SPARSE = DeepseekV32Config(
    hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=256,
    index_topk=48, index_n_heads=2, index_head_dim=16, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
    qk_nope_head_dim=8, v_head_dim=12, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
    topk_group=1, moe_intermediate_size=32, first_k_dense_replace=1,
)  # fmt: skip


@pytest.mark.parametrize("config", [DOGE, SPARSE], ids=["doge", "deepseek_v32"])
def test_the_longest_input_has_no_more_tokens_than_attention_chooses(tmp_path: Path, config: PretrainedConfig) -> None:
    base = load_base_model(locate(str(write_model(tmp_path / "model", config))), "float32")
    assert base.max_tokens == 48
