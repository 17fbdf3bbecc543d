"""Prefix tuning: the virtual tokens are keys and values of each layer (Li & Liang 2021)."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from peft import PrefixTuningConfig
from peft.config import PromptLearningConfig
from peft.tuners import PrefixEncoder
from torch import Tensor, nn

from multiprompt.config import PromptConfig
from multiprompt.engine import past
from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds.kind import Kind
from multiprompt.engine.prefix import Layers, VirtualTokens
from multiprompt.errors import AdapterError


class PrefixTuning(Kind):
    """A row of the table holds a virtual token's keys and values: layers · 2 · kv_heads · head_dim numbers."""

    peft_config = PrefixTuningConfig
    bounds: ClassVar = {"encoder_hidden_size": 16384}

    def sizes(self, base: BaseModel) -> dict[str, Any]:
        if isinstance(base.past, str):
            raise AdapterError(
                f"prefix-tuning cannot be used on {base.record.name} ({base.record.architecture}), as {base.past}: "
                "use prompt-tuning or p-tuning."
            )
        heads, head_dim = base.past.heads, base.past.head_dim
        return super().sizes(base) | {"token_dim": heads * head_dim, "num_attention_heads": heads}

    def settings(self, base: BaseModel, config: PromptConfig, _: str) -> dict[str, Any]:
        return {
            "prefix_projection": config.projection,
            "encoder_hidden_size": config.encoder_hidden_size or base.hidden_size,
        }

    def build(self, config: PromptLearningConfig) -> nn.Module:
        return PrefixEncoder(config)

    def is_encoded(self, config: PromptLearningConfig) -> bool:
        return not config.inference_mode and bool(cast("PrefixTuningConfig", config).prefix_projection)

    def start(self, base: BaseModel, virtual: VirtualTokens) -> Tensor:
        """Embeddings become the keys and values that the model makes of them.

        The activations of real words are a better start than random numbers (Li & Liang 2021, sec. 5.3).
        """
        layers = virtual.layers or _activations(base, virtual)
        stacked = torch.stack([torch.stack(pair) for pair in layers])
        return stacked.permute(3, 0, 1, 2, 4).reshape(stacked.shape[3], -1).float()

    def virtual_tokens(self, config: PromptLearningConfig, output: Tensor) -> VirtualTokens:
        layers, heads = cast("tuple[int, int]", (config.num_layers, config.num_attention_heads))
        pairs = output.view(len(output), layers, 2, heads, -1).permute(1, 2, 3, 0, 4)
        return VirtualTokens(layers=tuple((keys, values) for keys, values in pairs))


def _activations(base: BaseModel, virtual: VirtualTokens) -> Layers:
    compiled = base.forward.compile_prefix(base, virtual, ()).compiled
    if compiled is not None:
        return compiled
    return past.of_embeddings(base, cast("Tensor", virtual.embeddings).to(base.dtype))


KIND = PrefixTuning()
