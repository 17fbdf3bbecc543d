"""Rows: the tokens behind a prefix, and batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from multiprompt.engine.prefix import Prefix

MAX_BATCH_ROWS = 64
MAX_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TokenTree:
    """Continuations that share their heads. Node i holds `tokens[i]` and follows `parents[i]` (-1: the context)."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]

    @cached_property
    def depths(self) -> list[int]:
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    @cached_property
    def visible(self) -> Tensor:
        """The nodes that each node attends to: its ancestors and itself, (nodes, nodes) bool."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    @property
    def leaves(self) -> list[int]:
        return sorted(set(range(len(self.tokens))) - set(self.parents))

    def path(self, node: int) -> list[int]:
        """The nodes from the context down to a node."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path[::-1]


EMPTY_TREE = TokenTree((), ())


@dataclass(frozen=True)
class Row:
    """A row's own tokens and a tree behind them. It attends to the first `shared` positions of its prefix."""

    prefix: Prefix
    shared: int
    tokens: tuple[int, ...]
    tree: TokenTree = EMPTY_TREE

    @classmethod
    def of(cls, prefix: Prefix, tokens: Sequence[int], tree: TokenTree = EMPTY_TREE) -> Row:
        """The row of all its token ids, those of constant text among them."""
        count = prefix.shared(tokens)
        return cls(prefix, prefix.virtual.length + count, tuple(tokens[count:]), tree)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.tree.tokens)

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """The ids of the row's text, those of the prefix included."""
        return self.prefix.tokens[: self.shared - self.prefix.virtual.length] + self.tokens

    @property
    def end(self) -> int:
        """The position behind the row's own tokens."""
        return self.shared + len(self.tokens)

    @property
    def positions(self) -> list[int]:
        return [*range(self.shared, self.end), *(self.end + depth for depth in self.tree.depths)]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of row indices, longest rows first. A batch keeps within the limits even if it is padded."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) >= MAX_BATCH_ROWS or (len(batch) + 1) * lengths[batch[0]] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True)
class Hidden:
    """Last hidden states of a batch, (tokens, hidden); row r's token t stands at `starts[r] + t`."""

    states: Tensor
    starts: Sequence[int]
