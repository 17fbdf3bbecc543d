"""Soft prompts: PEFT's modules hold the parameters, its configs describe them, and all methods come to a prefix."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import (
    MultitaskPromptTuningConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
)
from peft.config import PromptLearningConfig
from peft.tuners import MultitaskPromptEmbedding, PrefixEncoder, PromptEmbedding, PromptEncoder
from torch import Tensor, nn

from multiprompt.config import PromptConfig
from multiprompt.engine import past
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import VirtualTokens
from multiprompt.errors import AdapterError

METHODS: Mapping[str, type[PromptLearningConfig]] = {
    "prompt-tuning": PromptTuningConfig,
    "p-tuning": PromptEncoderConfig,
    "prefix-tuning": PrefixTuningConfig,
    "multitask-prompt-tuning": MultitaskPromptTuningConfig,
}
_PEFT_INITS = {"text": "TEXT", "sample-vocab": "SAMPLE_VOCAB"}
_ONE_TASK = torch.zeros(1, dtype=torch.long)


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A PEFT prompt encoder with float32 parameters, and the config that describes it.

    With `config.inference_mode` it holds what an encoder came to; without, the encoder itself, so that it can be
    trained on.
    """

    config: PromptLearningConfig
    module: nn.Module

    @property
    def method(self) -> str:
        return next(name for name, config in METHODS.items() if type(self.config) is config)

    @property
    def num_virtual_tokens(self) -> int:
        return int(self.config.num_virtual_tokens)

    @property
    def is_encoded(self) -> bool:
        """Whether training needs more parameters than inference."""
        return (
            not self.config.inference_mode
            and isinstance(self.module, (PromptEncoder, PrefixEncoder))
            and (len(list(self.module.parameters())) > 1)
        )

    def output(self) -> Tensor:
        """(num_virtual_tokens, hidden), or for prefix tuning (num_virtual_tokens, layers · 2 · kv_heads · head_dim);
        with its gradient."""
        embedding = cast("nn.Embedding", self.module.embedding).weight
        if isinstance(self.module, MultitaskPromptEmbedding):
            indices = torch.arange(len(embedding), device=embedding.device)[None]
            return cast("Tensor", self.module(indices, _ONE_TASK.to(embedding.device)))[0]
        if not self.is_encoded:
            return embedding
        return cast("Tensor", self.module(torch.arange(self.num_virtual_tokens, device=embedding.device)))

    def virtual_tokens(self) -> VirtualTokens:
        """What the prompt puts in front of its rows, with the gradient of its parameters."""
        output = self.output()
        if not isinstance(self.config, PrefixTuningConfig):
            return VirtualTokens(output)
        layers_and_heads = cast("tuple[int, int]", (self.config.num_layers, self.config.num_attention_heads))
        layers = output.view(len(output), layers_and_heads[0], 2, layers_and_heads[1], -1).permute(1, 2, 3, 0, 4)
        return VirtualTokens(layers=tuple((keys, values) for keys, values in layers))

    def copy(self) -> SoftPrompt:
        return SoftPrompt(self.config, copy.deepcopy(self.module))


def new_prompt(
    base: BaseModel, config: PromptConfig, description: str, seed: int, start: SoftPrompt | None = None
) -> SoftPrompt:
    """A prompt before training: a copy of `start` in the shape of `config`, or without one as its `init` says.

    Raises AdapterError when what it is to start from is missing or does not fit.
    """
    text = config.init_text or description.strip()
    if start is None and config.start == "text" and not text:
        raise AdapterError(
            "the prompt starts from the task's description, but the task has none: write a description, "
            "or set multiprompt.init_text, or set multiprompt.init to sample-vocab."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        described = peft_config(base, config, text)
        prompt = SoftPrompt(described, build(described).to(base.device))
        with torch.no_grad():
            _initialise(base, prompt, config, text, start)
    return prompt


def has_shape(base: BaseModel, prompt: SoftPrompt, config: PromptConfig) -> bool:
    """Whether a prompt has the method and every parameter's shape that `config` asks for."""
    described = peft_config(base, config, "text")
    with torch.device("meta"):
        wanted = SoftPrompt(described, build(described))
    return prompt.method == wanted.method and _shapes(prompt) == _shapes(wanted)


def _shapes(prompt: SoftPrompt) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in prompt.module.state_dict().items()}


def peft_config(base: BaseModel, config: PromptConfig, text: str) -> PromptLearningConfig:
    """PEFT's config of a prompt for a base model."""
    common: dict[str, Any] = {
        "task_type": TaskType.CAUSAL_LM,
        "num_virtual_tokens": config.num_virtual_tokens,
        "num_transformer_submodules": 1,
        "num_layers": base.num_layers,
        "token_dim": base.hidden_size,
        "base_model_name_or_path": base.record.source,
    }
    if config.method == "p-tuning":
        return PromptEncoderConfig(
            **common,
            encoder_reparameterization_type=config.encoder.upper(),
            encoder_hidden_size=config.encoder_hidden_size or base.hidden_size,
            encoder_num_layers=config.encoder_layers if config.encoder == "lstm" else 2,
        )
    if config.method == "prefix-tuning":
        heads, head_dim = base.key_value_shape
        common |= {"token_dim": heads * head_dim, "num_attention_heads": heads}
        return PrefixTuningConfig(
            **common,
            prefix_projection=config.projection,
            encoder_hidden_size=config.encoder_hidden_size or base.hidden_size,
        )
    from_text = config.start == "text"
    tuning: dict[str, Any] = {
        "prompt_tuning_init": _PEFT_INITS.get(config.start, "RANDOM"),
        "prompt_tuning_init_text": text if from_text else None,
        "tokenizer_name_or_path": base.record.source if from_text else None,
    }
    if config.method == "prompt-tuning":
        return PromptTuningConfig(**common, **tuning)
    return MultitaskPromptTuningConfig(
        **common, **tuning | {"prompt_tuning_init": "TEXT" if from_text else "RANDOM"}, num_ranks=config.num_ranks
    )


def build(config: PromptLearningConfig) -> nn.Module:
    """PEFT's module for a config, its parameters random; word embeddings are ours to fill in."""
    if isinstance(config, PromptEncoderConfig):
        return PromptEncoder(config)
    if isinstance(config, PrefixTuningConfig):
        return PrefixEncoder(config)
    assert isinstance(config, PromptTuningConfig)
    bare = copy.copy(config)
    bare.prompt_tuning_init = "RANDOM"
    if isinstance(bare, MultitaskPromptTuningConfig):
        return MultitaskPromptEmbedding(bare, None)
    return PromptEmbedding(bare, None)


def _initialise(base: BaseModel, prompt: SoftPrompt, config: PromptConfig, text: str, start: SoftPrompt | None) -> None:
    """Fill in what the parameters start from; without anything to start from they stay random."""
    if isinstance(prompt.module, MultitaskPromptEmbedding):
        _let_through(prompt.module)
    if start is not None:
        _start_from(base, prompt, start)
        return
    assert config.start != "version", "the workspace looks the version up"
    tokens = _start_tokens(base, config, text)
    if not tokens:
        return
    embedding = cast("nn.Embedding", prompt.module.embedding).weight
    repeated = (tokens * -(-len(embedding) // len(tokens)))[: len(embedding)]
    embeddings = base.embed(repeated).float()
    if isinstance(prompt.config, PrefixTuningConfig):
        embedding.copy_(_activations(base, VirtualTokens(embeddings)))
        return
    embedding.copy_(embeddings)


def _start_tokens(base: BaseModel, config: PromptConfig, text: str) -> list[int]:
    if config.start == "text":
        return base.encode(text)
    if config.start == "sample-vocab":
        return cast("list[int]", torch.randint(base.vocabulary, (config.num_virtual_tokens,)).tolist())
    tokens = list(config.init_tokens or ())
    unknown = [token for token in tokens if not 0 <= token < base.vocabulary]
    if unknown:
        raise AdapterError(f"init_tokens holds {unknown[0]}, but {base.record.name} has {base.vocabulary} tokens.")
    return tokens


def _start_from(base: BaseModel, prompt: SoftPrompt, start: SoftPrompt) -> None:
    """Take over another prompt: all parameters where they are of one shape, else what it puts in front."""
    if prompt.method == start.method and _shapes(prompt) == _shapes(start):
        prompt.module.load_state_dict(start.module.state_dict())
        return
    if len(_shapes(prompt)) > 1 and not isinstance(prompt.module, MultitaskPromptEmbedding):
        raise AdapterError(
            f"an encoder of {prompt.method} can only start from one of its own shape, not from {start.method} with "
            f"{start.num_virtual_tokens} tokens: give both the same settings, or learn this one from a random start."
        )
    wanted = cast("nn.Embedding", prompt.module.embedding).weight
    output = start.output()
    if isinstance(start.config, PrefixTuningConfig) and not isinstance(prompt.config, PrefixTuningConfig):
        raise AdapterError(
            f"{prompt.method} cannot start from {start.method} with {start.num_virtual_tokens} tokens: it starts from "
            "embeddings, and the other holds keys and values. Name a version of another method."
        )
    if isinstance(prompt.config, PrefixTuningConfig) and not isinstance(start.config, PrefixTuningConfig):
        output = _activations(base, start.virtual_tokens())
    if output.shape != wanted.shape:
        raise AdapterError(
            f"{prompt.method} with {prompt.num_virtual_tokens} tokens cannot start from {start.method} with "
            f"{start.num_virtual_tokens}: give both the same num_virtual_tokens and a method of the same kind."
        )
    wanted.copy_(output)


def _let_through(module: MultitaskPromptEmbedding) -> None:
    """Make the task's factor one, so that the prompt starts as the shared matrix is (PEFT starts it near zero)."""
    module.prefix_task_cols.zero_()[:, :, 0] = 1.0
    module.prefix_task_rows[:, 0] = 1.0


def _activations(base: BaseModel, virtual: VirtualTokens) -> Tensor:
    """The keys and values that embeddings come to, laid out as prefix tuning's parameters (Li & Liang 2021, sec. 5.3:
    starting from real words' activations is better than from random numbers)."""
    layers = base.forward.compile_prefix(base, virtual, ()).compiled
    if layers is None:
        layers = past.of_embeddings(base, cast("Tensor", virtual.embeddings).to(base.dtype))
    stacked = torch.stack([torch.stack(pair) for pair in layers])
    return stacked.permute(3, 0, 1, 2, 4).reshape(stacked.shape[3], -1).float()
