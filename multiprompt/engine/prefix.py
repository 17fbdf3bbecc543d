"""Prefixes: soft prompt and constant text, compiled to keys and values.

The idea: on a causal model, earlier tokens do not depend on later ones. So soft prompt and constant text run once, and
every row attends to the result. Prefix tuning rests on the same fact (Li & Liang 2021).
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
    """The virtual tokens of a soft prompt: embeddings (n, hidden), or keys and values themselves."""

    embeddings: Tensor | None = None
    layers: Layers = ()

    @property
    def length(self) -> int:
        if self.embeddings is not None:
            return int(self.embeddings.shape[0])
        return int(self.layers[0][0].shape[1]) if self.layers else 0


@dataclass(frozen=True, eq=False)
class Prefix:
    """Virtual tokens, then token ids of constant text; `compiled` holds the keys and values of both.

    Any head of a prefix is a prefix too. So a row that shares only some of `tokens` attends to those.
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
        """The number of leading tokens of a row that the prefix holds. The row keeps at least one for itself."""
        count = 0
        for mine, theirs in zip(self.tokens, tokens[:-1], strict=False):
            if mine != theirs:
                break
            count += 1
        return count


class PrefixCache:
    """Compiled prefixes within a budget of bytes; the least recently used leaves first. Threads may share it."""

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
