"""The plain forward that the engine is held against: one row, no cache, soft prompt and tokens concatenated.

It runs on a copy of its own, as loading a base model exchanges the attention of the copy that the engine uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from multiprompt.engine.base import BaseModel


def plain_model(base: BaseModel) -> PreTrainedModel:
    return _loaded(base.folder, base.dtype, base.device)


@cache
def _loaded(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    # What is made in inference mode takes no part in a later backward.
    with torch.inference_mode(False):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.requires_grad_(False).eval().to(device)


def plain_logits(base: BaseModel, embeddings: Tensor | None, tokens: Sequence[int]) -> Tensor:
    """(tokens, vocabulary) in float32, for one row behind a soft prompt."""
    model = plain_model(base)
    inputs = model.get_input_embeddings()(torch.tensor(tokens, dtype=torch.long, device=base.device))
    if embeddings is not None:
        inputs = torch.cat([embeddings.to(base.dtype), inputs])
    return model(inputs_embeds=inputs[None], use_cache=False).logits[0, -len(tokens) :].float()


def plain_loglikelihood(
    base: BaseModel, embeddings: Tensor | None, context: Sequence[int], continuation: Sequence[int]
) -> float:
    with torch.inference_mode():
        logits = plain_logits(base, embeddings, [*context, *continuation])
    steps = logits[len(context) - 1 : -1].log_softmax(-1)
    return float(steps[torch.arange(len(continuation)), list(continuation)].sum())


def plain_greedy(base: BaseModel, embeddings: Tensor | None, context: Sequence[int], limit: int) -> list[int]:
    """Greedy tokens until the end token or `limit`, the whole row run again for each."""
    made: list[int] = []
    with torch.inference_mode():
        while len(made) < limit:
            token = int(plain_logits(base, embeddings, [*context, *made])[-1].argmax())
            if token == base.tokenizer.eos_token_id:
                break
            made.append(token)
    return made


class _Numbers:
    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def __call__(self, *args: Any) -> Any:
        return self._tokenizer(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return numbers(tokens)


def numbers(tokens: Sequence[int]) -> str:
    return "".join(f"<{token}>" for token in tokens)


def writing_numbers(base: BaseModel) -> BaseModel:
    """The same base model, but what it generates reads as token ids, so that equal texts mean equal tokens."""
    return replace(base, tokenizer=_Numbers(base.tokenizer))
