"""Text to tokens, the way the harness does it."""

from __future__ import annotations

from collections.abc import Sequence

from multiprompt.engine.base import BaseModel

Pair = tuple[list[int], list[int]]


def encode_pairs(base: BaseModel, contexts: Sequence[str], continuations: Sequence[str]) -> list[Pair]:
    """Token ids of each context and of its continuation.

    Trailing white space of a context belongs to its continuation, and the pair is encoded as one text, so that tokens
    at the seam are those of running text (lm-evaluation-harness, `_encode_pair`). A context without a token is the
    token that texts begin with.
    """
    moved = [(c.rstrip(), c[len(c.rstrip()) :] + k) for c, k in zip(contexts, continuations, strict=True)]
    unique = list(dict.fromkeys(context for context, _ in moved))
    heads = dict(zip(unique, base.encode_batch(unique), strict=True))
    wholes = base.encode_batch([context + continuation for context, continuation in moved])
    return [
        (heads[context] or [base.first_token], whole[len(heads[context]) :])
        for (context, _), whole in zip(moved, wholes, strict=True)
    ]


def constant_tokens(base: BaseModel, text: str) -> list[int]:
    """The token ids that encodings of texts starting with `text` have in common.

    The last tokens of `text` may merge with what follows, so two continuations are probed and the common part kept.
    """
    first, *others = (base.encode(text + probe) for probe in ("", "a", " 0"))
    count = 0
    for ids in zip(first, *others, strict=False):
        if len(set(ids)) > 1:
            break
        count += 1
    return first[:count]
