"""Prefixes: what every row of a prompt starts with, compiled to keys and values.

On a causal model nothing in front depends on what follows, so soft prompt and constant text are run once, and each row
attends to the result (the observation behind prefix tuning, Li & Liang 2021, turned into a compile step).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

DEFAULT_CACHE_BYTES = 1 << 30

# Keys and values a layer, each (kv_heads, positions, head_dim).
Layers = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True, eq=False)
class VirtualTokens:
    """What a soft prompt puts in front: embeddings (n, hidden) that the model runs, or keys and values themselves."""

    embeddings: Tensor | None = None
    layers: Layers = ()

    @property
    def length(self) -> int:
        if self.embeddings is not None:
            return int(self.embeddings.shape[0])
        return int(self.layers[0][0].shape[1]) if self.layers else 0


@dataclass(frozen=True, eq=False)
class Prefix:
    """Virtual tokens, then the ids of constant text, and once it is compiled their keys and values.

    A shorter head of it is a valid prefix too, so a row that shares only some of `tokens` attends to just those.
    """

    virtual: VirtualTokens
    tokens: tuple[int, ...]
    compiled: Layers | None = None

    @property
    def length(self) -> int:
        return self.virtual.length + len(self.tokens)

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.compiled or ())

    def shared(self, tokens: Sequence[int]) -> int:
        """How many leading tokens of a row the prefix already holds; the row keeps at least one for itself."""
        count = 0
        for mine, theirs in zip(self.tokens, tokens[:-1], strict=False):
            if mine != theirs:
                break
            count += 1
        return count


class PrefixCache:
    """Compiled prefixes, least recently used dropped first, within a budget of bytes. Safe from several threads."""

    def __init__(self, budget: int = DEFAULT_CACHE_BYTES) -> None:
        self._budget = budget
        self._size = 0
        self._entries: OrderedDict[Hashable, Prefix] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Prefix]) -> Prefix:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        prefix = make()
        with self._lock:
            if key in self._entries:
                return self._entries[key]
            self._entries[key] = prefix
            self._size += prefix.nbytes
            while len(self._entries) > 1 and self._size > self._budget:
                self._size -= self._entries.popitem(last=False)[1].nbytes
        return prefix
