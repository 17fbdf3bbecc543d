"""Inspection of soft prompts: the distance of two, token by token, and the nearest words."""

from __future__ import annotations

from itertools import zip_longest
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from multiprompt.engine.base import BaseModel
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.records import TokenChange, TokenView

NEAREST = 3


def compare_tokens(base: BaseModel, before: SoftPrompt, after: SoftPrompt) -> tuple[TokenChange, ...]:
    """Virtual tokens side by side: L2 norms, cosine, and the vocabulary tokens of greatest cosine.

    Empty for prompts of keys and values. Nearest words explain little: near any text lies a prompt that solves a task
    (Khashabi et al. 2022, Prompt Waywardness).
    """
    with torch.inference_mode():
        old, new = (prompt.virtual_tokens().embeddings for prompt in (before, after))
        if old is None or new is None:
            return ()
        table = cast("Tensor", base.model.get_input_embeddings().weight)
        words = functional.normalize(table.float(), dim=-1)
        shared = min(len(old), len(new))
        cosines = functional.cosine_similarity(old[:shared].float(), new[:shared].float()).tolist()
        sides = ([_view(base, words, vector) for vector in side.float()] for side in (old, new))
        pairs = list(zip_longest(*sides, cosines))
    return tuple(TokenChange(index, one, other, cosine) for index, (one, other, cosine) in enumerate(pairs))


def _view(base: BaseModel, words: Tensor, vector: Tensor) -> TokenView:
    near = (words @ functional.normalize(vector, dim=0)).topk(NEAREST).indices
    return TokenView(float(vector.norm()), tuple(str(base.tokenizer.decode([token])) for token in near.tolist()))
