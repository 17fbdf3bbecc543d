"""Multitask prompt tuning: a shared table times a task's own matrix of low rank (Wang et al. 2023)."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from peft import MultitaskPromptTuningConfig
from peft.config import PromptLearningConfig
from peft.tuners import MultitaskPromptEmbedding
from torch import Tensor, nn

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds.kind import EMBEDDINGS, table
from multiprompt.engine.kinds.prompt_tuning import PromptTuning, without_init


class MultitaskPromptTuning(PromptTuning):
    """A version holds the prompt of one task."""

    peft_config = MultitaskPromptTuningConfig
    bounds: ClassVar = {"num_ranks": 256}

    def settings(self, base: BaseModel, config: PromptConfig, text: str) -> dict[str, Any]:
        # PEFT knows no init from sampled words for this method.
        init = "TEXT" if config.start == "text" else "RANDOM"
        return super().settings(base, config, text) | {"prompt_tuning_init": init, "num_ranks": config.num_ranks}

    def build(self, config: PromptLearningConfig) -> nn.Module:
        """The task's matrix is all ones, so that the prompt starts as the shared table; PEFT starts it near zero."""
        module = MultitaskPromptEmbedding(without_init(config), None)
        with torch.no_grad():
            module.prefix_task_cols.zero_()[:, :, 0] = 1.0
            module.prefix_task_rows[:, 0] = 1.0
        return module

    def fault(self, config: PromptLearningConfig) -> str:
        tasks = cast("MultitaskPromptTuningConfig", config).num_tasks
        if tasks == 1:
            return ""
        return (
            f"the adapter holds the prompts of {tasks} tasks, but a version is the prompt of one: "
            "save one task's row of prefix_task_cols and prefix_task_rows with num_tasks 1."
        )

    def output(self, _: PromptLearningConfig, module: nn.Module) -> Tensor:
        shared = table(module)
        indices = torch.arange(len(shared), device=shared.device)[None]
        return cast("Tensor", module(indices, torch.zeros(1, dtype=torch.long, device=shared.device)))[0]

    def weights(self, _: PromptLearningConfig, module: nn.Module) -> dict[str, Tensor]:
        tensors = module.state_dict()
        return {EMBEDDINGS: tensors.pop("embedding.weight"), **tensors}


KIND = MultitaskPromptTuning()
