"""Text to tokens, the way the harness does it."""

from __future__ import annotations

from collections.abc import Sequence

from multiprompt.engine.base import BaseModel

Pair = tuple[list[int], list[int]]


def encode_pairs(base: BaseModel, contexts: Sequence[str], continuations: Sequence[str]) -> list[Pair]:
    """Token ids of each context and of its continuation.

    Trailing white space of a context belongs to its continuation, and the pair is encoded as one text, so that tokens
    at the seam are those of running text (lm-evaluation-harness, `_encode_pair`).
    """
    moved = [(c.rstrip(), c[len(c.rstrip()) :] + k) for c, k in zip(contexts, continuations, strict=True)]
    unique = list(dict.fromkeys(context for context, _ in moved))
    heads = dict(zip(unique, base.encode_batch(unique), strict=True))
    wholes = base.encode_batch([context + continuation for context, continuation in moved])
    return [(heads[context], whole[len(heads[context]) :]) for (context, _), whole in zip(moved, wholes, strict=True)]
