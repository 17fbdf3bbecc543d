"""Soft prompts: a PEFT module with its config, before, during and after training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import TaskType
from peft.config import PromptLearningConfig
from torch import Tensor, nn

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds import KINDS, method_of
from multiprompt.engine.kinds.kind import Kind, table
from multiprompt.engine.prefix import VirtualTokens
from multiprompt.errors import AdapterError


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """A PEFT module with float32 parameters, and the config that describes it.

    With `config.inference_mode` it holds the output of an encoder alone. Without, it holds the encoder, for training.
    """

    config: PromptLearningConfig
    module: nn.Module

    @property
    def method(self) -> str:
        return method_of(self.config)

    @property
    def kind(self) -> Kind:
        return KINDS[self.method]

    @property
    def num_virtual_tokens(self) -> int:
        return int(self.config.num_virtual_tokens)

    @property
    def is_encoded(self) -> bool:
        """True where training needs more parameters than inference."""
        return self.kind.is_encoded(self.config)

    def output(self) -> Tensor:
        """The table that the parameters come to, a row a virtual token, with its gradient."""
        return self.kind.output(self.config, self.module)

    def virtual_tokens(self) -> VirtualTokens:
        """The virtual tokens in front of each row, with the gradient of the parameters."""
        return self.kind.virtual_tokens(self.config, self.output())

    def has_shape_of(self, other: SoftPrompt) -> bool:
        """True where both have one method and parameters of the same shapes."""
        return self.method == other.method and _shapes(self) == _shapes(other)

    def copy(self) -> SoftPrompt:
        return SoftPrompt(self.config, copy.deepcopy(self.module))


def require_method(base: BaseModel, config: PromptConfig) -> None:
    """Raises AdapterError where the method cannot be used on a base model."""
    KINDS[config.method].sizes(base)


def new_prompt(
    base: BaseModel, config: PromptConfig, description: str, seed: int, start: SoftPrompt | None = None
) -> SoftPrompt:
    """A prompt before training: a copy of `start` in the shape of `config`, or else one that starts by its `init`.

    Raises AdapterError when the start is missing or does not fit.
    """
    text = config.init_text or description.strip()
    if start is None and config.start == "text" and not text:
        raise AdapterError(
            "the prompt starts from the task's description, but the task has none: write a description, "
            "or set multiprompt.init_text, or set multiprompt.init to sample-vocab."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prompt = _random_prompt(base, config, text)
        prompt.module.to(base.device)
        with torch.no_grad():
            _initialise(base, prompt, config, text, start)
    return prompt


def empty_prompt(base: BaseModel, config: PromptConfig) -> SoftPrompt:
    """A prompt of the shape that `config` asks for; its parameters hold no numbers."""
    with torch.device("meta"):
        return _random_prompt(base, config, "text")


def _random_prompt(base: BaseModel, config: PromptConfig, text: str) -> SoftPrompt:
    kind = KINDS[config.method]
    common: dict[str, Any] = {
        "task_type": TaskType.CAUSAL_LM,
        "num_virtual_tokens": config.num_virtual_tokens,
        "base_model_name_or_path": base.record.source,
    }
    described = kind.peft_config(**common, **kind.sizes(base), **kind.settings(base, config, text))
    return SoftPrompt(described, kind.build(described))


def _shapes(prompt: SoftPrompt) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in prompt.module.state_dict().items()}


def _initialise(base: BaseModel, prompt: SoftPrompt, config: PromptConfig, text: str, start: SoftPrompt | None) -> None:
    """Fill in the numbers that the parameters start from; without a start they stay random."""
    if start is not None:
        _start_from(base, prompt, start)
        return
    assert config.start != "version", "the caller gives the version as `start`"
    tokens = _start_tokens(base, config, text)
    if tokens:
        wanted = table(prompt.module)
        repeated = (tokens * -(-len(wanted) // len(tokens)))[: len(wanted)]
        wanted.copy_(cast("Tensor", prompt.kind.start(base, VirtualTokens(base.embed(repeated).float()))))


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
    """Take over all parameters of another prompt where they are of one shape, else its virtual tokens."""
    if prompt.has_shape_of(start):
        prompt.module.load_state_dict(start.module.state_dict())
        return
    if prompt.is_encoded:
        raise AdapterError(
            f"an encoder of {prompt.method} can only start from one of its own shape, not from {start.method} with "
            f"{start.num_virtual_tokens} tokens: give both the same settings, or learn this one from a random start."
        )
    wanted, found = table(prompt.module), prompt.kind.start(base, start.virtual_tokens())
    if found is None:
        raise AdapterError(
            f"{prompt.method} cannot start from {start.method} with {start.num_virtual_tokens} tokens: it starts from "
            "embeddings, and the other holds keys and values. Name a version of another method."
        )
    if found.shape != wanted.shape:
        raise AdapterError(
            f"{prompt.method} with {prompt.num_virtual_tokens} tokens cannot start from {start.method} with "
            f"{start.num_virtual_tokens}: give both the same num_virtual_tokens and a method of the same kind."
        )
    wanted.copy_(found)
