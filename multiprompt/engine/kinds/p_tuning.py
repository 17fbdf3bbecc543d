"""P-tuning: an encoder, an MLP or an LSTM, makes the virtual tokens from a table (Liu et al. 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

from peft import PromptEncoderConfig
from peft.config import PromptLearningConfig
from peft.tuners import PromptEncoder
from torch import nn

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds.kind import Kind

# The layers of PEFT's MLP, which it does not take from the config.
_MLP_LAYERS = 2


class PTuning(Kind):
    peft_config = PromptEncoderConfig
    bounds: ClassVar = {"encoder_hidden_size": 16384, "encoder_num_layers": 16}

    def settings(self, base: BaseModel, config: PromptConfig, _: str) -> dict[str, Any]:
        return {
            "encoder_reparameterization_type": config.encoder.upper(),
            "encoder_hidden_size": config.encoder_hidden_size or base.hidden_size,
            "encoder_num_layers": config.encoder_layers if config.encoder == "lstm" else _MLP_LAYERS,
        }

    def build(self, config: PromptLearningConfig) -> nn.Module:
        return PromptEncoder(config)

    def is_encoded(self, config: PromptLearningConfig) -> bool:
        return not config.inference_mode


KIND = PTuning()
