"""The plain forward that the engine is held against: one row, no cache, soft prompt and tokens concatenated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multiprompt.engine.base import BaseModel


def plain_logits(base: BaseModel, embeddings: Tensor | None, tokens: Sequence[int]) -> Tensor:
    """(tokens, vocabulary) in float32, for one row behind a soft prompt."""
    inputs = base.embed(tokens)
    if embeddings is not None:
        inputs = torch.cat([embeddings.to(base.dtype), inputs])
    return base.model(inputs_embeds=inputs[None], use_cache=False).logits[0, -len(tokens) :].float()


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
