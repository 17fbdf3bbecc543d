"""Rows of every prompt method on every tiny causal model of the installed transformers: mixed, alone, and plain.

    python -m benchmarks.architectures [NAME…]

Each row's choice scores and generated tokens in a batch of all methods are held against the same row alone, and against
transformers' own forward, one row at a time. A base model or a method may be refused; a wrong row is a fault.

A model with a window, a chunk size or a number of chosen keys runs twice: as small as most rows, and under the name
"… far" larger than the rows of the self-check. The longest row is longer than either.
"""

from __future__ import annotations

import inspect
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, DynamicCache, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.encoding import constant_tokens, encode_pairs
from multiprompt.engine.generation import GenerationRequest, generate
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.prompt import new_prompt
from multiprompt.errors import AdapterError, BaseModelError
from tests.conftest import write_model
from tests.engine.reference import numbers, writing_numbers

# The names of windows, chunk sizes and numbers of chosen keys.
WINDOWS = (
    "sliding_window", "sliding_window_size", "attention_window_size", "window_size", "attention_chunk_size",
    "local_attention", "local_attention_window_len", "keep_window_size", "index_topk", "index_block_size", "chunk_size",
    "mamba_chunk_size", "block_size", "max_inference_chunksize", "lsh_attn_chunk_length", "local_attn_chunk_length",
)  # fmt: skip
NEAR, FAR = 8, 40
# Sizes by the names that configs have for them; a config takes those that it knows.
SIZES: dict[str, Any] = {
    **dict.fromkeys(WINDOWS, NEAR),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "lru_width"), 32),
    **dict.fromkeys(("n_layer", "n_layers", "num_layers", "num_hidden_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("n_head", "n_heads", "num_heads", "num_attention_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "dim_ff", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "mamba_d_head"), 16),
    **dict.fromkeys(("head_dim", "state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_experts_per_tok", "mamba_expand"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "max_window_layers", "index_topk_blocks"), 1),
    **dict.fromkeys(("initializer_range", "init_std"), 0.3),
    "use_sliding_window": True,
    "v_head_dim": 12,
    "index_head_dim": 16,
    # With few heads many keys get the score zero; among equals torch.topk chooses by how many there are.
    "index_n_heads": 2,
    "vocab_size": 400,
    "rotary_dim": 4,
    "pad_token_id": 0,
}
# Further tiny models, of a type and with settings of their own.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon multi-query": ("falcon", {"multi_query": True, "alibi": False, "new_decoder_architecture": False}),
    "falcon grouped": ("falcon", {"alibi": False, "new_decoder_architecture": True, "parallel_attn": True}),
    "gpt_bigcode multi-query": ("gpt_bigcode", {"multi_query": True, "num_key_value_heads": 1}),
    "deepseek_v2 MLA": ("deepseek_v2", {"num_key_value_heads": 4}),
    "deepseek_v3 MLA": ("deepseek_v3", {"num_key_value_heads": 4}),
    "minicpm3 MLA": ("minicpm3", {"num_key_value_heads": 4}),
    "deepseek_v32 MLA": ("deepseek_v32", {"num_key_value_heads": 4}),
    "glm_moe_dsa MLA": ("glm_moe_dsa", {"num_key_value_heads": 4}),
    "hy_v4 MLA": ("hy_v4", {"num_key_value_heads": 4}),
    "axk2 MLA": ("axk2", {"num_key_value_heads": 4}),
    "dots3_note_text MLA": ("dots3_note_text", {"num_key_value_heads": 4}),
    "gpt_neo local": ("gpt_neo", {"attention_types": [[["global", "local"], 1]]}),
    "mamba2": ("mamba2", {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1}),
    "falcon_h1 sized": ("falcon_h1", {"mamba_d_ssm": 64}),
    "opt projected": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "lfm2 hybrid": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "jamba hybrid": ("jamba", {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}),
    "recurrent_gemma hybrid": ("recurrent_gemma", {"num_hidden_layers": 3, "num_key_value_heads": 1}),
}
MOST_WEIGHTS = 8_000_000
METHODS: dict[str, dict[str, Any]] = {
    "prompt-tuning": {},
    "p-tuning": {"encoder_hidden_size": 16},
    "prefix-tuning": {},
    "multitask-prompt-tuning": {"num_ranks": 2},
}
LONG = "The rose is red, the grass is green, and the sea by the town was grey. " * 3
TEXTS = ("red?", "the sky is blue and the sea is green, what is the rose?", "Which colour is it, then?", LONG)
CHOICES = (" red", " green and blue", " greenish", " yellow")
LIMITS = (3, 1, 5, 3)


@dataclass(frozen=True)
class Case:
    """A row: the prompt in front of it, the text, and how many tokens are generated."""

    method: str
    virtual: VirtualTokens
    prefix: Prefix
    text: str
    limit: int


@dataclass(frozen=True)
class Outcome:
    """How a model's rows went, or why it is refused; `refused` gives a reason a method, `wrong` names rows."""

    name: str
    way: str
    refused: dict[str, str]
    rows: int
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        methods = "".join(f"\n    {method}: {reason}" for method, reason in self.refused.items())
        faults = "".join(f"\n    WRONG {row}" for row in self.wrong)
        return f"{self.name:<28} {self.way:<8} rows {self.rows:>3}  wrong {len(self.wrong)}{methods}{faults}"


def tiny_config(kind: str, settings: dict[str, Any]) -> PretrainedConfig:
    """A small config of a model type."""
    names = _settings(kind)
    return CONFIG_MAPPING[kind](**{name: size for name, size in SIZES.items() if name in names} | settings)


def _settings(kind: str) -> set[str]:
    """The names of a config's settings; none where it cannot be made without any."""
    config = CONFIG_MAPPING[kind]
    with suppress(Exception):  # configs fail in ways of their own
        return {*vars(config()), *config.attribute_map}
    return set()


def examine(name: str, folder: Path) -> Outcome:
    """Hold a model's rows, in a mixed batch and alone, against transformers' own forward."""
    try:
        base = load_base_model(locate(str(folder)), "float32")
    except BaseModelError as error:
        return Outcome(
            name, "refused", {"all": str(error).replace(f"{folder}: ", "").replace(str(folder), "it")}, 0, ()
        )
    cases, refused = _cases(base)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    wrong = tuple(_wrong(base, model, cases))
    return Outcome(name, base.forward.name, refused, len(cases), wrong)


def _cases(base: BaseModel) -> tuple[list[Case], dict[str, str]]:
    """Rows of each method and of none, in no order, and why a method is refused."""
    prompts: list[tuple[str, VirtualTokens, str]] = [("none", VirtualTokens(), "")]
    refused = {}
    for seed, (method, settings) in enumerate(METHODS.items()):
        config = PromptConfig(method, num_virtual_tokens=3 + seed, init="random", **settings)
        try:
            prompt = new_prompt(base, config, "", seed)
        except AdapterError as error:
            refused[method] = str(error)
            continue
        prompts.append((method, prompt.virtual_tokens(), "Which colour? " if seed % 2 else ""))
    cases = []
    with torch.inference_mode():
        for method, virtual, constant in prompts:
            prefix = base.forward.compile_prefix(base, virtual, constant_tokens(base, constant) if constant else [])
            room = base.max_tokens - virtual.length - max(map(base.count_tokens, (*CHOICES, "." * max(LIMITS))))
            rows = [(constant + text, limit) for text, limit in zip(TEXTS, LIMITS, strict=True)]
            cases += [
                Case(method, virtual, prefix, text, limit) for text, limit in rows if base.count_tokens(text) <= room
            ]
    return sorted(cases, key=lambda case: case.text), refused


def _wrong(base: BaseModel, model: Any, cases: Sequence[Case]) -> Iterator[str]:
    mixed = list(zip(_scores(base, cases), _texts(base, cases), strict=True))
    alone = [(*_scores(base, [case]), *_texts(base, [case])) for case in reversed(cases)][::-1]
    for case, (scores, text), (scores_alone, text_alone) in zip(cases, mixed, alone, strict=True):
        row = f"{case.method} {case.text[:60]!r} ({base.count_tokens(case.text)} tokens)"
        expected, made = _plain_scores(base, model, case), _plain_text(base, model, case)
        for where, found in (("alone", scores_alone), ("plain", expected)):
            if not all(abs(one - other) <= 1e-3 + 1e-4 * abs(other) for one, other in zip(scores, found, strict=True)):
                yield f"{row}: choices {scores}, {where} {found}"
        if not text == text_alone == made:
            yield f"{row}: generated {text}, alone {text_alone}, plain {made}"


def _scores(base: BaseModel, cases: Sequence[Case]) -> list[list[float]]:
    return score_choices(base, [ChoiceRequest(case.prefix, case.text, CHOICES) for case in cases])


def _texts(base: BaseModel, cases: Sequence[Case]) -> list[str]:
    requests = [GenerationRequest(case.prefix, case.text, (), case.limit) for case in cases]
    return generate(writing_numbers(base), requests)


def _plain_scores(base: BaseModel, model: Any, case: Case) -> list[float]:
    found = []
    for context, continuation in encode_pairs(base, [case.text] * len(CHOICES), CHOICES):
        logits = _plain_logits(model, case.virtual, [*context, *continuation])
        steps = logits[len(context) - 1 : -1].log_softmax(-1)
        found.append(float(steps[torch.arange(len(continuation)), list(continuation)].sum()))
    return found


def _plain_text(base: BaseModel, model: Any, case: Case) -> str:
    context, made = base.encode(case.text), list[int]()
    while len(made) < case.limit:
        token = int(_plain_logits(model, case.virtual, [*context, *made])[-1].argmax())
        if token == base.tokenizer.eos_token_id:
            break
        made.append(token)
    return numbers(made)


@torch.inference_mode()
def _plain_logits(model: Any, virtual: VirtualTokens, tokens: Sequence[int]) -> Tensor:
    """transformers' logits of one row, (tokens, vocabulary): behind embeddings, behind a cache, or by token ids."""
    ids = torch.tensor([tokens])
    if virtual.embeddings is not None:
        whole = torch.cat([virtual.embeddings, model.get_input_embeddings()(ids)[0]])
        return model(inputs_embeds=whole[None], use_cache=False).logits[0, -len(tokens) :].float()
    if not virtual.layers:
        return model(input_ids=ids, use_cache=False).logits[0].float()
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(virtual.layers):
        cache.update(keys[None], values[None], layer)
    named = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return model(input_ids=ids, use_cache=True, **{named: cache}).logits[0].float()


def candidates(names: Sequence[str]) -> Iterator[tuple[str, PretrainedConfig | str]]:
    """Names with tiny configs, or with the reason why there is none."""
    kinds = {kind: (kind, dict[str, Any]()) for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)} | VARIANTS
    far = {name: {window: FAR for window in WINDOWS if window in _settings(kind)} for name, (kind, _) in kinds.items()}
    kinds |= {f"{name} far": (kinds[name][0], settings | kinds[name][1]) for name, settings in far.items() if settings}
    for name, (kind, settings) in kinds.items():
        if names and name not in names:
            continue
        try:
            config = tiny_config(kind, settings)
            with torch.device("meta"):
                weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
        except Exception as error:  # configs fail on sizes in ways of their own
            yield name, _short(error)
            continue
        yield name, config if weights <= MOST_WEIGHTS else f"{weights:,} weights at its smallest"


def _written(config: PretrainedConfig, folder: Path) -> str:
    """Write a random model; says why transformers cannot."""
    try:
        write_model(folder, config)
    except Exception as error:
        return _short(error)
    return ""


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def main(names: Sequence[str]) -> int:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    outcomes, without = [], []
    for name, config in candidates(names):
        with tempfile.TemporaryDirectory() as folder:
            if isinstance(config, PretrainedConfig):
                config = _written(config, Path(folder))
            if config:
                without.append(f"{name}: {config}")
                continue
            try:
                outcome = examine(name, Path(folder))
            except Exception as error:
                outcome = Outcome(name, "FAILED", {}, 0, (_short(error),))
        outcomes.append(outcome)
        print(outcome, flush=True)
    ways = {way: sum(one.way == way for one in outcomes) for way in ("packed", "plain", "refused", "FAILED")}
    print(f"\n{len(outcomes)} architectures: " + ", ".join(f"{count} {way}" for way, count in ways.items()))
    print(f"no tiny model: {len(without)}" + "".join(f"\n    {line}" for line in without))
    rows, wrong = sum(one.rows for one in outcomes), sum(len(one.wrong) for one in outcomes)
    print(f"rows: {rows}\nwrong: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
