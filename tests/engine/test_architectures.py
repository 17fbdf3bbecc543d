"""Every architecture gives what its plain forward gives: packed where that is right, a row at a time where it is not.

Most rows are longer than the sliding windows, and prompts and constant texts differ within a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import PretrainedConfig

from benchmarks.architectures import candidates, examine
from multiprompt.config import PromptConfig
from multiprompt.engine import attention
from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import constant_tokens, encode_pairs
from multiprompt.engine.generation import GenerationRequest, generate
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.prompt import require_method
from multiprompt.engine.rows import Row
from multiprompt.errors import AdapterError, BaseModelError
from tests.conftest import write_model
from tests.engine.reference import numbers, plain_greedy, plain_logits, plain_loglikelihood, writing_numbers

HEADS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
SHARED_HEADS = HEADS | {"intermediate_size": 64, "num_key_value_heads": 2}
GEMMA = SHARED_HEADS | {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", SHARED_HEADS),
    "qwen3": ("Qwen3Config", SHARED_HEADS | {"head_dim": 8}),
    "mistral": ("MistralConfig", SHARED_HEADS | {"sliding_window": 8}),
    "gemma2": ("Gemma2Config", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": None}),
    "gemma3": ("Gemma3TextConfig", GEMMA),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.3}),
    "gpt-neox": ("GPTNeoXConfig", HEADS | {"intermediate_size": 64}),
    "opt": ("OPTConfig", HEADS | {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3}),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}),
    "phi3": ("Phi3Config", SHARED_HEADS | {"pad_token_id": 0}),
    "gpt-oss": (
        "GptOssConfig",
        SHARED_HEADS | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    ),
    "deepseek-v3": (
        "DeepseekV3Config",
        SHARED_HEADS
        | {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8}
        | {"qk_nope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1}
        | {"topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1},
    ),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.3}),
}
WITHOUT_PACKING = ("bloom", "gpt-oss", "mamba")
TEXTS = (
    "red?",
    "the sky is blue and the sea is green, what is the rose?",
    "Which colour is it, then?",
    "red, yellow, green: what is the colour of the sky today, and what is it when it rains at night?",
    "is the sea as blue as the sky?",
)
CHOICES = (" red", " green and blue", " greenish", " green or red, who knows")
# A soft prompt's length, the constant text behind it, and how many rows it gets.
PROMPTS = ((5, "Which colour? Answer: ", 5), (11, "", 2), (2, "Answer: ", 1))

Load = Callable[[str], BaseModel]
Case = tuple[Tensor, str, str]


def config(name: str, **settings: object) -> PretrainedConfig:
    kind, own = CONFIGS[name]
    return getattr(transformers, kind)(**(own | settings))


def load(folder: Path) -> BaseModel:
    return load_base_model(locate(str(folder)), "float32")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Load:
    @cache
    def find(name: str) -> BaseModel:
        return load(write_model(tmp_path_factory.mktemp("models") / name, config(name)))

    return find


def mixed_cases(base: BaseModel) -> list[Case]:
    """Soft prompt, constant text and context of rows, prompts in no order."""
    cases = []
    for seed, (length, constant, rows) in enumerate(PROMPTS):
        embeddings = torch.randn(length, base.hidden_size, generator=torch.Generator().manual_seed(seed))
        cases += [(number, (embeddings, constant, constant + text)) for number, text in enumerate(TEXTS[:rows])]
    return [case for _, case in sorted(cases, key=lambda numbered: numbered[0])]


def prefixes(base: BaseModel, cases: list[Case]) -> list[Prefix]:
    compiled: dict[Tensor, Prefix] = {}
    with torch.inference_mode():
        for embeddings, constant, _ in cases:
            if embeddings not in compiled:
                tokens = constant_tokens(base, constant) if constant else []
                compiled[embeddings] = base.forward.compile_prefix(base, VirtualTokens(embeddings), tokens)
    return [compiled[embeddings] for embeddings, _, _ in cases]


def assert_scores_are_those_of_the_plain_forward(base: BaseModel, cases: list[Case]) -> None:
    requests = [
        ChoiceRequest(prefix, context, CHOICES)
        for prefix, (_, _, context) in zip(prefixes(base, cases), cases, strict=True)
    ]
    for (embeddings, _, context), scores in zip(cases, score_choices(base, requests), strict=True):
        pairs = encode_pairs(base, [context] * len(CHOICES), CHOICES)
        assert scores == pytest.approx([plain_loglikelihood(base, embeddings, *pair) for pair in pairs], abs=1e-4)


def assert_generation_is_that_of_the_plain_forward(base: BaseModel, cases: list[Case], limits: list[int]) -> None:
    requests = [
        GenerationRequest(prefix, context, (), limit)
        for prefix, (_, _, context), limit in zip(prefixes(base, cases), cases, limits, strict=True)
    ]
    texts = generate(writing_numbers(base), requests)
    for (embeddings, _, context), limit, text in zip(cases, limits, texts, strict=True):
        assert text == numbers(plain_greedy(base, embeddings, base.encode(context), limit))


@pytest.mark.parametrize("name", CONFIGS)
def test_only_what_cannot_be_packed_falls_back_with_a_warning_that_says_why(
    loaded: Load, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = loaded(name).folder
    caplog.clear()
    with caplog.at_level(logging.WARNING, "multiprompt"):
        base = load(folder)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("multiprompt")]
    if name not in WITHOUT_PACKING:
        assert (base.forward.reason, warnings) == ("", [])
        return
    (warning,) = warnings
    assert base.forward.reason
    assert warning.startswith(base.record.architecture)
    assert warning.endswith(base.forward.reason)


@pytest.mark.parametrize("name", CONFIGS)
def test_choice_scores_of_a_mixed_batch_are_those_of_the_plain_forward(loaded: Load, name: str) -> None:
    base = loaded(name)
    assert_scores_are_those_of_the_plain_forward(base, mixed_cases(base))


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_of_a_mixed_batch_with_rows_that_end_apart_are_those_of_the_plain_forward(
    loaded: Load, name: str
) -> None:
    base = loaded(name)
    cases = mixed_cases(base)
    assert_generation_is_that_of_the_plain_forward(base, cases, [7, 1, 10, 3, 5, 12, 2, 9])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_of_prompts_trained_together_is_that_of_the_plain_forward(loaded: Load, name: str) -> None:
    base = loaded(name)
    cases = mixed_cases(base)
    leaves = {embeddings: embeddings.clone().requires_grad_() for embeddings, _, _ in cases}
    ready = {
        embeddings: Prefix(
            VirtualTokens(leaves[embeddings]), tuple(constant_tokens(base, constant) if constant else ())
        )
        for embeddings, constant, _ in cases
    }
    pairs = [encode_pairs(base, [context], [" green and blue"])[0] for _, _, context in cases]
    targets = torch.tensor([token for _, answer in pairs for token in answer])
    rows = [
        Row.of(ready[embeddings], [*context, *answer[:-1]])
        for (embeddings, _, _), (context, answer) in zip(cases, pairs, strict=True)
    ]
    hidden = base.forward.run(base, rows)
    ends = [start + len(row) for start, row in zip(hidden.starts, rows, strict=True)]
    states = [hidden.states[end - len(answer) : end] for end, (_, answer) in zip(ends, pairs, strict=True)]
    loss = functional.cross_entropy(base.logits(torch.cat(states)), targets)
    loss.backward()

    plain = {embeddings: embeddings.clone().requires_grad_() for embeddings in leaves}
    logits = [
        plain_logits(base, plain[embeddings], [*context, *answer])[len(context) - 1 : -1]
        for (embeddings, _, _), (context, answer) in zip(cases, pairs, strict=True)
    ]
    expected = functional.cross_entropy(torch.cat(logits), targets)
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    for embeddings, leaf in leaves.items():
        largest = float(plain[embeddings].grad.abs().max())
        assert largest > 0
        assert float((leaf.grad - plain[embeddings].grad).abs().max()) < 1e-4 * largest


# What a model does to the logits behind its LM head.
CAPPED = {
    "gemma2": ("Gemma2Config", GEMMA | {"final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3TextConfig", GEMMA | {"final_logit_softcapping": 3.0}),
    "granite": ("GraniteConfig", SHARED_HEADS | {"logits_scaling": 4.0}),
    "cohere": ("CohereConfig", SHARED_HEADS | {"logit_scale": 0.25}),
    "nanochat": ("NanoChatConfig", SHARED_HEADS | {"final_logit_softcapping": 3.0}),
}


@pytest.mark.parametrize("name", CAPPED)
def test_scores_are_of_the_logits_that_the_model_itself_would_give(name: str, tmp_path: Path) -> None:
    kind, own = CAPPED[name]
    base = load(write_model(tmp_path / name, getattr(transformers, kind)(**own)))
    assert_scores_are_those_of_the_plain_forward(base, mixed_cases(base))


# Limits on how far a token sees, beyond the lengths that the self-check tries.
SLIDING = SHARED_HEADS | {"use_sliding_window": True, "sliding_window": 40, "layer_types": ["sliding_attention"] * 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAR = {
    "mistral": ("MistralConfig", SHARED_HEADS | {"sliding_window": 40}),
    "gemma3": ("Gemma3TextConfig", GEMMA | {"sliding_window": 40}),
    "qwen2": ("Qwen2Config", SLIDING),
    "qwen2-moe": ("Qwen2MoeConfig", SLIDING | EXPERTS | {"shared_expert_intermediate_size": 32}),
    "qwen3-moe": ("Qwen3MoeConfig", SLIDING | EXPERTS | {"head_dim": 8}),
    "phimoe": ("PhimoeConfig", SHARED_HEADS | {"sliding_window": 40, "num_local_experts": 4}),
}


@pytest.mark.parametrize("name", FAR)
def test_a_limit_on_how_far_a_token_sees_holds_for_long_rows(name: str, tmp_path: Path) -> None:
    kind, own = FAR[name]
    base = load(write_model(tmp_path / name, getattr(transformers, kind)(**own)))
    text = " ".join(TEXTS)
    assert len(base.encode(text)) > 2 * 40
    cases = [(embeddings, constant, constant + text) for embeddings, constant, _ in mixed_cases(base)[:2]]
    assert_scores_are_those_of_the_plain_forward(base, cases)
    assert_generation_is_that_of_the_plain_forward(base, cases, [4, 2])


# Models with few, projected, unequal or no keys and values: the methods that are refused on each.
PREFIX = "prefix-tuning"
UNUSUAL = {
    "falcon multi-query": (),
    "falcon grouped": (),
    "gpt_bigcode multi-query": (),
    "opt projected": (),
    "bloom": (),
    "deepseek_v3 MLA": (PREFIX,),
    "deepseek_v32 MLA far": (PREFIX,),
    "lfm2 hybrid": (PREFIX,),
    "recurrent_gemma hybrid": (PREFIX,),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_rows_of_every_method_are_mixed_and_alone_what_transformers_gives(name: str, tmp_path: Path) -> None:
    """The same over all architectures is `python -m benchmarks.architectures`."""
    ((_, found),) = candidates([name])
    assert isinstance(found, PretrainedConfig), found
    outcome = examine(name, write_model(tmp_path / "model", found))
    assert outcome.wrong == ()
    assert tuple(outcome.refused) == UNUSUAL[name]
    # Among 40 tokens the longest text does not fit, and behind two of the prompts another one.
    assert outcome.rows == (10 if name.endswith("far") else 4 * (5 - len(UNUSUAL[name])))


def test_a_model_without_a_transformer_of_its_own_is_refused(tmp_path: Path) -> None:
    settings = SHARED_HEADS | {"intermediate_size_mlp": 64, "num_local_experts": 2, "head_dim": 8}
    folder = write_model(tmp_path / "llama4", transformers.Llama4TextConfig(**settings, pad_token_id=0))
    with pytest.raises(BaseModelError, match=str(folder)):
        load(folder)


def test_a_model_that_looks_up_embeddings_by_token_id_in_each_layer_is_refused(tmp_path: Path) -> None:
    own = GEMMA | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 400, "num_kv_shared_layers": 0}
    folder = write_model(tmp_path / "gemma4", transformers.Gemma4TextConfig(**own))
    with pytest.raises(BaseModelError, match="looks up embeddings for each layer by token id"):
        load(folder)


def leaking(base: BaseModel, embeddings: Tensor, *args: object, **others: object) -> Tensor:
    """A forward that adds what it kept of the sequence before."""
    states = HIDDEN(base, embeddings, *args, **others)
    kept = getattr(base.model, "kept", torch.zeros(states.shape[-1]))
    base.model.kept = states[0, -1].clone()
    return states + kept


def own_words_only(base: BaseModel, embeddings: Tensor, *args: object, **others: object) -> Tensor:
    """A forward of embeddings that is another one than that of token ids."""
    return HIDDEN(base, embeddings * 2, *args, **others)


HIDDEN = BaseModel.hidden


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (leaking, "keeps something of a row for the next one"),
        (own_words_only, "does something to its inputs or logits"),
    ],
)
def test_a_plain_forward_that_is_not_the_models_own_is_refused(
    loaded: Load, forward: Callable[..., Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loaded("gpt2").folder
    monkeypatch.setattr(BaseModel, "hidden", forward)
    with pytest.raises(BaseModelError, match=reason):
        load(folder)


def test_a_past_that_counts_for_nothing_refuses_prefix_tuning_alone(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loaded("llama").folder
    monkeypatch.setattr(
        BaseModel, "hidden", lambda self, embeddings, positions=None, cache=None: HIDDEN(self, embeddings, positions)
    )
    base = load(folder)
    with pytest.raises(AdapterError, match="prefix-tuning cannot be used on llama .*differs from its own forward by"):
        require_method(base, PromptConfig(method="prefix-tuning"))


def without_mask(block: attention.Block, _window: int | None, dtype: torch.dtype) -> Tensor:
    return torch.zeros(block.visible[:, None].shape, dtype=dtype)


def without_window(block: attention.Block, _window: int | None, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(block.visible.shape, dtype=dtype)
    return mask.masked_fill_(~block.visible, torch.finfo(dtype).min)[:, None]


def without_prefix(block: attention.Block, _layer: int, _key: Tensor, _value: Tensor) -> list[tuple[Tensor, Tensor]]:
    raise IndexError("no prefix")


def not_a_number(packed: Tensor, _padded: Tensor, real: Tensor) -> Tensor:
    return torch.full((len(real), *packed.shape[1:]), torch.nan)


@pytest.mark.parametrize(
    ("name", "place", "wrong", "reason"),
    [
        ("llama", "Block._mask", without_mask, "hidden states differ by"),
        ("mistral", "Block._mask", without_window, "hidden states differ by"),
        ("gemma3", "Block._mask", without_window, "hidden states differ by"),
        ("llama", "_scatter", not_a_number, "hidden states differ by nan"),
        ("llama", "Block._others", without_prefix, "IndexError: no prefix"),
    ],
)
def test_where_attention_is_wrong_the_base_model_falls_back_and_answers_right(
    loaded: Load,
    name: str,
    place: str,
    wrong: Callable[..., Tensor],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = loaded(name).folder
    monkeypatch.setattr(f"multiprompt.engine.attention.{place}", wrong)
    base = load(folder)
    assert base.forward.reason.startswith(reason)
    assert base.forward.reason in caplog.text
    cases = mixed_cases(base)
    assert_scores_are_those_of_the_plain_forward(base, cases)
    assert_generation_is_that_of_the_plain_forward(base, cases, [3, 1, 5, 2, 4, 1, 2, 6])


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in WITHOUT_PACKING])
def test_a_compiled_prefix_holds_no_more_memory_than_it_says(loaded: Load, name: str) -> None:
    """The prefix cache keeps within its budget by what prefixes say."""
    (prefix, *_) = prefixes(loaded(name), mixed_cases(loaded(name)))
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for pair in prefix.compiled or ()
        for tensor in pair
    }
    assert sum(storages.values()) == prefix.nbytes
