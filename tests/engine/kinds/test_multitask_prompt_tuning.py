"""Multitask prompt tuning: a version is the prompt of one task, and starts as the shared table."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from multiprompt.engine.adapter import from_adapter
from multiprompt.engine.base import BaseModel
from multiprompt.errors import AdapterError
from tests.engine.test_adapter import moved, spoilt
from tests.engine.test_prompt import from_version, made


@pytest.mark.parametrize("init", ["text", "sample-vocab", "tokens", "random", "version"])
def test_multitask_prompt_tuning_starts_as_the_shared_matrix(base: BaseModel, init: str) -> None:
    given = {
        "tokens": {"init_tokens": (7, 8)},
        "version": {"init_version": "x", "start": made(base, "prompt tuning", seed=3, init="random")},
    }
    prompt = made(base, "multitask prompt tuning", init=init, **given.get(init, {}))
    torch.testing.assert_close(prompt.output(), prompt.module.embedding.weight)


def test_multitask_prompt_tuning_starts_from_one_of_another_rank(base: BaseModel) -> None:
    other = made(base, "multitask prompt tuning", seed=3, num_ranks=5)
    torch.testing.assert_close(from_version(base, "multitask prompt tuning", other).output(), other.output())


@pytest.mark.parametrize("missing", ["prefix_task_cols", "prefix_task_rows", "prompt_embeddings"])
def test_multitask_prompt_tuning_needs_all_three_matrices(base: BaseModel, missing: str) -> None:
    adapter = moved(base, "multitask prompt tuning")
    tensors = safetensors.torch.load(adapter.weights)
    del tensors[missing]
    with pytest.raises(AdapterError, match=f"the weights hold .*expected .*'{missing}'"):
        from_adapter(base, spoilt(adapter, tensors), "mine")


def test_the_prompts_of_several_tasks_are_no_version(base: BaseModel) -> None:
    with pytest.raises(AdapterError, match="holds the prompts of 2 tasks, but a version is the prompt of one: save"):
        from_adapter(base, spoilt(moved(base, "multitask prompt tuning"), num_tasks=2), "mine")
