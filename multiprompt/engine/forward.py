"""The one forward: rows of any prompts in one batch, each attending to its own compiled prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import DynamicCache

from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import Prefix

MAX_BATCH_ROWS = 64
MAX_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TokenTree:
    """Continuations that share their heads: node i has `tokens[i]` and hangs under `parents[i]` (-1: the context)."""

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
        """(nodes, nodes) bool: which nodes each node attends to, its ancestors and itself."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


EMPTY_TREE = TokenTree((), ())


@dataclass(frozen=True)
class Row:
    """A row's own tokens, after the `shared` positions of the prefix that it attends to, and a tree behind them."""

    prefix: Prefix
    shared: int
    tokens: tuple[int, ...]
    tree: TokenTree = EMPTY_TREE

    @classmethod
    def of(cls, prefix: Prefix, tokens: Sequence[int], tree: TokenTree = EMPTY_TREE) -> Row:
        """A row from all of its token ids, constant text included."""
        count = prefix.shared(tokens)
        return cls(prefix, prefix.virtual + count, tuple(tokens[count:]), tree)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.tree.tokens)

    @property
    def positions(self) -> list[int]:
        end = self.shared + len(self.tokens)
        return [*range(self.shared, end), *(end + depth for depth in self.tree.depths)]


@dataclass
class Forward:
    """What a batch left: hidden states (rows, width, hidden), and the cache and mask to decode on from."""

    hidden: Tensor
    cache: DynamicCache
    visible: Tensor


def forward(base: BaseModel, rows: Sequence[Row]) -> Forward:
    """Run a batch of rows, padded on the right. Row r's token t has its hidden state at `hidden[r, t]`."""
    width = max(len(row) for row in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    for r, row in enumerate(rows):
        tokens[r, : len(row)] = torch.tensor([*row.tokens, *row.tree.tokens])
        positions[r, : len(row)] = torch.tensor(row.positions)
    visible = _visible(rows, width).to(base.device)
    cache = _gather(rows)
    hidden = base.hidden(
        cache,
        input_ids=tokens.to(base.device),
        position_ids=positions.to(base.device),
        attention_mask=additive(visible, base.dtype),
    )
    return Forward(hidden, cache, visible)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, queries, keys) bool → the (rows, 1, queries, keys) mask that is added to attention scores."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of rows of like length, longest first, in batches that stay within the limits when padded."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) >= MAX_BATCH_ROWS or (len(batch) + 1) * lengths[batch[0]] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _visible(rows: Sequence[Row], width: int) -> Tensor:
    """(rows, width, prefix + width) bool. Padding attends to itself, so that no softmax runs over nothing."""
    longest = max(row.prefix.length for row in rows)
    shared = torch.tensor([row.shared for row in rows])
    prefix = (torch.arange(longest) < shared[:, None])[:, None].expand(-1, width, -1)
    own = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(rows), 1, 1)
    for r, row in enumerate(rows):
        if row.tree.tokens:
            start, end = len(row.tokens), len(row)
            own[r, start:end, start:end] = row.tree.visible
    return torch.cat([prefix, own], dim=2)


def _gather(rows: Sequence[Row]) -> DynamicCache:
    """A cache that holds each row's prefix, padded on the right to the longest."""
    first = rows[0].prefix
    cache = DynamicCache()
    if all(row.prefix is first for row in rows):
        for layer, (keys, values) in enumerate(first.layers):
            cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), layer)
        return cache
    longest = max(row.prefix.length for row in rows)
    for layer, example in enumerate(max((row.prefix for row in rows), key=lambda p: p.length).layers):
        stacked = []
        for which in range(2):
            whole = example[which].new_zeros(len(rows), example[which].shape[0], longest, example[which].shape[2])
            for r, row in enumerate(rows):
                if row.prefix.length:
                    whole[r, :, : row.prefix.length] = row.prefix.layers[layer][which]
            stacked.append(whole)
        cache.update(stacked[0], stacked[1], layer)
    return cache
