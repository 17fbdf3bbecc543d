"""Compiled prompts: the keys and values of what every row of a prompt starts with.

On a causal model nothing in front depends on what follows, so soft prompt and constant text are run once, and each row
attends to the result (the observation behind prefix tuning, Li & Liang 2021, turned into a compile step).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from multiprompt.engine.base import BaseModel

DEFAULT_CACHE_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Prefix:
    """Keys and values a layer, each (kv_heads, length, head_dim): first the virtual tokens, then the constant text.

    A shorter head of it is a valid prefix too, so a row that shares only some of `tokens` attends to just those.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    virtual: int
    tokens: tuple[int, ...]

    @property
    def length(self) -> int:
        return self.virtual + len(self.tokens)

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def shared(self, tokens: Sequence[int]) -> int:
        """How many leading tokens of a row the prefix already holds; the row keeps at least one for itself."""
        count = 0
        for mine, theirs in zip(self.tokens, tokens[:-1], strict=False):
            if mine != theirs:
                break
            count += 1
        return count


def compile_prefix(base: BaseModel, embeddings: Tensor | None, constant: Sequence[int]) -> Prefix:
    """Run virtual tokens (n, hidden) and constant token ids through the model once.

    Keeps the gradient with respect to `embeddings` where autograd is on.
    """
    parts = [] if embeddings is None else [embeddings.to(base.dtype)]
    if constant:
        parts.append(base.embed(constant).to(base.dtype))
    virtual = 0 if embeddings is None else int(embeddings.shape[0])
    if not parts:
        return Prefix((), 0, ())
    cache = DynamicCache()
    base.hidden(cache, inputs_embeds=torch.cat(parts)[None])
    layers: list[Any] = cache.layers
    return Prefix(tuple((layer.keys[0], layer.values[0]) for layer in layers), virtual, tuple(constant))


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


class PrefixCache:
    """Compiled prefixes, least recently used dropped first, within a budget of bytes. Safe from several threads."""

    def __init__(self, budget: int = DEFAULT_CACHE_BYTES) -> None:
        self._budget = budget
        self._entries: OrderedDict[Hashable, Prefix] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Prefix]) -> Prefix:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        prefix = make()
        with self._lock:
            self._entries[key] = prefix
            while len(self._entries) > 1 and sum(entry.nbytes for entry in self._entries.values()) > self._budget:
                self._entries.popitem(last=False)
        return prefix
