"""Prompt tuning: the virtual tokens are embeddings, and these are the parameters (Lester et al. 2021)."""

from __future__ import annotations

import copy
from typing import Any, cast

from peft import PromptTuningConfig
from peft.config import PromptLearningConfig
from peft.tuners import PromptEmbedding
from torch import nn

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds.kind import Kind

_INITS = {"text": "TEXT", "sample-vocab": "SAMPLE_VOCAB"}


class PromptTuning(Kind):
    peft_config = PromptTuningConfig

    def settings(self, base: BaseModel, config: PromptConfig, text: str) -> dict[str, Any]:
        from_text = config.start == "text"
        return {
            "prompt_tuning_init": _INITS.get(config.start, "RANDOM"),
            "prompt_tuning_init_text": text if from_text else None,
            "tokenizer_name_or_path": base.record.source if from_text else None,
        }

    def build(self, config: PromptLearningConfig) -> nn.Module:
        return PromptEmbedding(without_init(config), None)


def without_init(config: PromptLearningConfig) -> Any:
    """The config with random parameters, so that PEFT asks for no word embeddings."""
    bare = cast("PromptTuningConfig", copy.copy(config))
    bare.prompt_tuning_init = "RANDOM"
    return bare


KIND = PromptTuning()
