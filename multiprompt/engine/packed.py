"""The packed forward: rows of any prompts in one pass over the weights, each behind its own prefix.

The idea: rows are grouped by prefix, and each group is a block of the packed sequence (see attention.py). A compiled
prefix is the past of its rows. A prefix that is not compiled, as in training, is a block of its own in the same pass:
it runs once for all its rows, with its gradient. Prefixes with few rows share a block and are padded there, as each
block costs time of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multiprompt.engine.attention import Block, Layout, laid_out
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import Layers, Prefix, VirtualTokens
from multiprompt.engine.rows import Hidden, Row

# A prefix with fewer rows is copied next to others instead of getting a block of its own.
_ROWS_FOR_A_BLOCK = 4
# The tokens that a decoder's buffers grow by.
_TOKENS_OF_ROOM = 32
_NOTHING = slice(0, 0)

# Keys and values.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PackedForward:
    """The forward of base models on which the self-check finds it equal to the plain one."""

    name = "packed"
    reason = ""

    def compile_prefix(self, base: BaseModel, virtual: VirtualTokens, constant: Sequence[int]) -> Prefix:
        prefix = Prefix(virtual, tuple(constant))
        return replace(prefix, compiled=_compiled(base, prefix))

    def run(self, base: BaseModel, rows: Sequence[Row]) -> Hidden:
        batch = _Batch(base)
        starts = batch.add_rows(rows)
        return Hidden(batch.run(), starts)

    def decoder(self, base: BaseModel, rows: Sequence[Row]) -> PackedDecoder:
        return PackedDecoder(base, rows)


def layout_of(base: BaseModel, rows: Sequence[Row]) -> Layout:
    """The layout of a batch after it ran, with the windows that the model's layers asked for."""
    batch = _Batch(base)
    batch.add_rows(rows)
    batch.run()
    return batch.layout


def _compiled(base: BaseModel, prefix: Prefix) -> Layers:
    """Keys and values of all positions of a prefix."""
    given = [(keys.to(base.dtype), values.to(base.dtype)) for keys, values in prefix.virtual.layers]
    if not prefix.tokens and prefix.virtual.embeddings is None:
        return tuple(given)
    batch = _Batch(base, keep=True)
    batch.add_prefix(prefix)
    batch.run()
    # A view would keep the tensor behind it in memory; in some models that is a whole projection.
    made = [(_by_head(keys), _by_head(values)) for keys, values in batch.layout.kept]
    if given:
        made = [
            (torch.cat([first, keys], 1), torch.cat([second, values], 1))
            for (first, second), (keys, values) in zip(given, made, strict=True)
        ]
    return tuple(made)


class PackedDecoder:
    """Rows that grow by a token a step. Buffers hold the keys and values of prefix, own and new tokens."""

    def __init__(self, base: BaseModel, rows: Sequence[Row]) -> None:
        self._base = base
        batch = _Batch(base, keep=True)
        starts = torch.tensor(batch.add_rows(rows), device=base.device)
        states = batch.run()
        lengths = torch.tensor([len(row) for row in rows], device=base.device)
        self.hidden = states[starts + lengths - 1]
        self._next = torch.tensor([row.end for row in rows], device=base.device)
        width = int(lengths.max())
        own = starts[:, None] + torch.minimum(torch.arange(width, device=base.device), lengths[:, None] - 1)
        self._buffers: list[Pair] = [
            (keys[own].permute(2, 0, 1, 3), values[own].permute(2, 0, 1, 3)) for keys, values in batch.layout.kept
        ]
        past = _stacked([row.prefix for row in rows])
        if past:
            pairs = zip(past, self._buffers, strict=True)
            self._buffers = [(torch.cat([p[0], b[0]], 2), torch.cat([p[1], b[1]], 2)) for p, b in pairs]
        ahead = past[0][0].shape[2] if past else 0
        self._length = ahead + width
        self._visible = _visible(rows, ahead, width)[range(len(rows)), [len(row) - 1 for row in rows]].to(base.device)
        self._positions = _key_positions(rows, ahead, width).to(base.device)

    def step(self, tokens: Tensor) -> None:
        end = self._length
        if end == self._visible.shape[1]:
            self._grow()
        self._visible[:, end] = True
        self._positions[:, end] = self._next
        past = [(keys[:, :, :end], values[:, :, :end]) for keys, values in self._buffers]
        block = Block(
            0,
            [1] * len(tokens),
            past,
            _NOTHING,
            self._visible[:, None, : end + 1],
            (self._next[:, None], self._positions[:, : end + 1]),
        )
        layout = Layout([block], keep=True)
        with laid_out(layout):
            embeddings = self._base.model.get_input_embeddings()(tokens)
            self.hidden = self._base.hidden(embeddings[None], self._next[None])[0]
        for buffers, made in zip(self._buffers, layout.kept, strict=True):
            for buffer, new in zip(buffers, made, strict=True):
                buffer[:, :, end] = new.transpose(0, 1)
        self._length += 1
        self._next = self._next + 1

    def keep(self, rows: Tensor) -> None:
        self._buffers = [(keys.index_select(1, rows), values.index_select(1, rows)) for keys, values in self._buffers]
        self._visible, self._positions = self._visible[rows], self._positions[rows]
        self._next, self.hidden = self._next[rows], self.hidden[rows]

    def _grow(self) -> None:
        self._buffers = [(_with_room(keys, 2), _with_room(values, 2)) for keys, values in self._buffers]
        self._visible, self._positions = _with_room(self._visible, 1), _with_room(self._positions, 1)


class _Batch:
    """A packed sequence under construction."""

    def __init__(self, base: BaseModel, keep: bool = False) -> None:
        self.base = base
        self.layout = Layout([], keep)
        self._embeddings: list[Tensor] = []
        self._positions: list[int] = []

    def run(self) -> Tensor:
        """Hidden states of the packed sequence, (tokens, hidden)."""
        positions = torch.tensor(self._positions, device=self.base.device)
        with laid_out(self.layout):
            return self.base.hidden(torch.cat(self._embeddings)[None], positions[None])[0]

    def add_rows(self, rows: Sequence[Row]) -> list[int]:
        """Append rows, prefix by prefix. Gives the start of each."""
        starts = [0] * len(rows)
        for members in _grouped(rows):
            group = [rows[i] for i in members]
            prefix = group[0].prefix
            if prefix.compiled is None:
                self._add(group, _as_past(prefix.virtual.layers, self.base.dtype), self.add_prefix(prefix))
            elif all(row.prefix is prefix for row in group):
                self._add(group, _as_past(prefix.compiled, self.base.dtype), _NOTHING)
            else:
                self._add(group, _stacked([row.prefix for row in group]), _NOTHING)
            start = len(self._positions)
            for i, row in zip(reversed(members), reversed(group), strict=True):
                start -= len(row)
                starts[i] = start
        return starts

    def add_prefix(self, prefix: Prefix) -> slice:
        """Append the part of a prefix that has to run. Gives its place."""
        start = len(self._positions)
        embeddings = [] if prefix.virtual.embeddings is None else [prefix.virtual.embeddings.to(self.base.dtype)]
        if prefix.tokens:
            embeddings.append(self.base.embed(prefix.tokens))
        count = sum(len(part) for part in embeddings)
        if not count:
            return slice(start, start)
        past = _as_past(prefix.virtual.layers, self.base.dtype)
        given = prefix.length - count
        visible = torch.ones(count, prefix.length, dtype=torch.bool, device=self.base.device).tril(given)
        keys = torch.arange(prefix.length, device=self.base.device)
        block = Block(start, [count], past, _NOTHING, visible[None], (keys[None, given:], keys[None]))
        self._append(block, torch.cat(embeddings), range(given, prefix.length))
        return slice(start, start + count)

    def _add(self, group: Sequence[Row], past: Sequence[Pair], before: slice) -> None:
        lengths = [len(row) for row in group]
        ahead = (past[0][0].shape[2] if past else 0) + before.stop - before.start
        width = max(lengths)
        keys = _key_positions(group, ahead, width)
        device = self.base.device
        block = Block(
            len(self._positions),
            lengths,
            past,
            before,
            _visible(group, ahead, width).to(device),
            (keys[:, ahead:].to(device), keys.to(device)),
        )
        tokens = [token for row in group for token in (*row.tokens, *row.tree.tokens)]
        self._append(block, self.base.embed(tokens), [position for row in group for position in row.positions])

    def _append(self, block: Block, embeddings: Tensor, positions: Sequence[int]) -> None:
        self.layout.blocks.append(block)
        self._embeddings.append(embeddings)
        self._positions += positions


def _grouped(rows: Sequence[Row]) -> list[list[int]]:
    """Row indices by prefix; compiled prefixes with few rows together."""
    groups: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(id(row.prefix), []).append(i)
    small = [i for group in groups.values() if _is_small(rows, group) for i in group]
    large = [group for group in groups.values() if not _is_small(rows, group)]
    return large + [small] * bool(small)


def _is_small(rows: Sequence[Row], group: Sequence[int]) -> bool:
    return rows[group[0]].prefix.compiled is not None and len(group) < _ROWS_FOR_A_BLOCK


def _visible(rows: Sequence[Row], ahead: int, width: int) -> Tensor:
    """The positions of prefix and row that each token sees, (rows, width, ahead + width) bool."""
    shared = torch.tensor([row.shared for row in rows])
    prefix = (torch.arange(ahead) < shared[:, None])[:, None].expand(-1, width, -1)
    own = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(rows), 1, 1)
    for r, row in enumerate(rows):
        if row.tree.tokens:
            start, end = len(row.tokens), len(row)
            own[r, start:end, start:end] = row.tree.visible
    return torch.cat([prefix, own], dim=2)


def _key_positions(rows: Sequence[Row], ahead: int, width: int) -> Tensor:
    """(rows, ahead + width): the positions of the prefix's and of the rows' own tokens."""
    own = torch.tensor([[*row.positions, *[row.end] * (width - len(row))] for row in rows])
    return torch.cat([torch.arange(ahead).expand(len(rows), -1), own], dim=1)


def _as_past(layers: Layers, dtype: torch.dtype) -> list[Pair]:
    """Keys and values that all rows of a block share: (kv_heads, 1, positions, head_dim)."""
    return [(keys[:, None].to(dtype), values[:, None].to(dtype)) for keys, values in layers]


def _stacked(prefixes: Sequence[Prefix]) -> list[Pair]:
    """A past a row, padded on the right to the longest: (kv_heads, rows, positions, head_dim)."""
    longest = max(prefixes, key=lambda prefix: prefix.length)
    stacked = []
    for layer, examples in enumerate(longest.compiled or ()):
        pair = []
        for which, example in enumerate(examples):
            whole = example.new_zeros(example.shape[0], len(prefixes), *example.shape[1:])
            for r, prefix in enumerate(prefixes):
                if prefix.compiled:
                    whole[:, r, : prefix.length] = prefix.compiled[layer][which]
            pair.append(whole)
        stacked.append((pair[0], pair[1]))
    return stacked


def _by_head(states: Tensor) -> Tensor:
    """(tokens, heads, head_dim) → (heads, tokens, head_dim), in memory of its own."""
    return states.transpose(0, 1).clone(memory_format=torch.contiguous_format)


def _with_room(tensor: Tensor, dim: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dim] = _TOKENS_OF_ROOM
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=dim)
