"""The protocol of prompt methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from peft.config import PromptLearningConfig
from torch import Tensor, nn

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import VirtualTokens

# The name in PEFT's weights file of the table that a prompt comes to.
EMBEDDINGS = "prompt_embeddings"


class Kind(ABC):
    """A prompt method. PEFT owns its config, its parameters and its files.

    The defaults are for a prompt that is a table of embeddings, with or without an encoder in front of it.
    """

    peft_config: ClassVar[type[PromptLearningConfig]]
    # The largest sizes that the config of an adapter may have, by field.
    bounds: ClassVar[Mapping[str, int]] = {}

    def sizes(self, base: BaseModel) -> dict[str, Any]:
        """The fields of PEFT's config that the base model sets.

        Raises AdapterError where the method cannot be used on the base model.
        """
        return {"num_transformer_submodules": 1, "num_layers": base.num_layers, "token_dim": base.hidden_size}

    @abstractmethod
    def settings(self, base: BaseModel, config: PromptConfig, text: str) -> dict[str, Any]:
        """The fields of PEFT's config that the task file sets; `text` is the one that a prompt may start from."""

    @abstractmethod
    def build(self, config: PromptLearningConfig) -> nn.Module:
        """PEFT's module for a config, with random parameters."""

    def fault(self, _: PromptLearningConfig) -> str:
        """The reason why an adapter of this config is not the prompt of one task; empty where it is."""
        return ""

    def is_encoded(self, _: PromptLearningConfig) -> bool:
        """True where training needs more parameters than inference."""
        return False

    def start(self, _: BaseModel, virtual: VirtualTokens) -> Tensor | None:
        """The table of a prompt that puts these virtual tokens in front; None where it cannot."""
        return virtual.embeddings

    def output(self, config: PromptLearningConfig, module: nn.Module) -> Tensor:
        """The table that the parameters come to, a row a virtual token, with its gradient."""
        embedding = table(module)
        if not self.is_encoded(config):
            return embedding
        return cast("Tensor", module(torch.arange(config.num_virtual_tokens, device=embedding.device)))

    def virtual_tokens(self, _: PromptLearningConfig, output: Tensor) -> VirtualTokens:
        """The virtual tokens that a table holds."""
        return VirtualTokens(output)

    def weights(self, config: PromptLearningConfig, module: nn.Module) -> dict[str, Tensor]:
        """The tensors of PEFT's weights file, by name."""
        return {EMBEDDINGS: self.output(config, module)}


def table(module: nn.Module) -> Tensor:
    """The parameter with a row a virtual token, which every module of PEFT's prompts has."""
    return cast("nn.Embedding", module.embedding).weight
