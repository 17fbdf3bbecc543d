"""Attention over a packed batch.

The idea: all tokens of a batch lie in one sequence without padding, as in sequence packing (Krell et al. 2021). A
layout divides the sequence into blocks of rows. A row attends to the past of its block, to a stated piece of the
sequence, and to itself. Padding exists inside a block's attention alone, so every other layer of the model runs on
real tokens only.

transformers calls `attend` for each layer through its AttentionInterface. A context variable holds the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "multiprompt"


@dataclass(eq=False)
class Block:
    """Rows that lie one behind the other in the packed sequence, the first at `start`.

    `lengths` are the rows' tokens, and `width` is the longest.
    `past` holds the keys and values of each layer, (kv_heads, 1 or rows, positions, head_dim).
    `before` is the piece of the packed sequence that every row sees behind the past.
    `visible` is bool, (1 or rows, width, past + before + width); padding sees itself.
    `positions` are those of the queries, (rows, width), and of the keys, (1 or rows, past + before + width).
    """

    start: int
    lengths: Sequence[int]
    past: Sequence[tuple[Tensor, Tensor]]
    before: slice
    visible: Tensor
    positions: tuple[Tensor, Tensor]
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        device = self.visible.device
        self.rows, self.width, self.count = len(self.lengths), max(self.lengths), sum(self.lengths)
        lengths = torch.tensor(self.lengths, device=device)
        columns = torch.arange(self.width, device=device)
        starts = lengths.cumsum(0) - lengths
        self.padded = None
        if self.count < self.rows * self.width:
            packed = starts[:, None] + torch.minimum(columns, lengths[:, None] - 1)
            self.padded = packed.flatten(), (columns < lengths[:, None]).flatten().nonzero().flatten()

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, cap: float
    ) -> Tensor:
        """The block's part of one layer's attention, (count, heads, head_dim).

        Of the packed sequence, queries are (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim).
        """
        heads = query.shape[1]
        groups = heads // key.shape[1]
        own_key, own_value = self._pad(key), self._pad(value)
        queries = self._pad(query * scaling).unflatten(0, (key.shape[1], groups)).transpose(1, 2)
        others = self._others(layer, key, value)
        scores = [_scores(queries, keys) for keys, _ in others] + [_scores(queries, own_key)]
        whole = torch.cat(scores, dim=-1) if others else scores[0]
        if cap:
            whole = torch.tanh(whole / cap) * cap
        whole = whole + self._mask(window, whole.dtype)
        weights = torch.softmax(whole, dim=-1, dtype=torch.float32).to(value.dtype)
        pieces = weights.split([score.shape[-1] for score in scores], dim=-1)
        mixed = _mix(pieces[-1], own_value)
        for (_, values), piece in zip(others, pieces, strict=False):
            mixed = mixed + _mix(piece, values)
        return self._unpad(mixed.permute(1, 3, 0, 2, 4).reshape(self.rows * self.width, heads, -1))

    def _others(self, layer: int, key: Tensor, value: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values that stand before the rows' own, (kv_heads, 1 or rows, positions, head_dim)."""
        others = [self.past[layer]] if self.past else []
        if self.before.stop > self.before.start:
            others.append((key[self.before].transpose(0, 1)[:, None], value[self.before].transpose(0, 1)[:, None]))
        return others

    def _pad(self, packed: Tensor) -> Tensor:
        """(tokens, heads, head_dim) of the packed sequence → (heads, rows, width, head_dim)."""
        own = packed[self.start : self.start + self.count]
        if self.padded is not None:
            own = _gather(own, *self.padded)
        return own.reshape(self.rows, self.width, *own.shape[1:]).permute(2, 0, 1, 3)

    def _unpad(self, padded: Tensor) -> Tensor:
        return padded if self.padded is None else _scatter(padded, *self.padded)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """The numbers added to scores, (1 or rows, 1, width, keys), equal for all heads."""
        if (window, dtype) not in self._masks:
            visible = self.visible
            if window is not None:
                queries, keys = self.positions
                visible = visible & (queries[:, :, None] - keys[:, None, :] < window)
            mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
            self._masks[window, dtype] = mask.masked_fill_(~visible, torch.finfo(dtype).min)
        return self._masks[window, dtype][:, None]


@dataclass(eq=False)
class Layout:
    """The blocks of a packed sequence, in order. With `keep` it collects the keys and values of each layer."""

    blocks: list[Block]
    keep: bool = False
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    layer: int = 0
    windows: set[int | None] = field(default_factory=set)


_LAYOUT: ContextVar[Layout] = ContextVar("layout")


@contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """The layout that a forward of the base model attends by."""
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


def attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """One layer's attention, (1, heads, tokens, head_dim) → (1, tokens, heads, head_dim).

    Raises NotImplementedError for a kind of attention that would need more than the layout knows.
    """
    unknown = [name for name in ("s_aux", "position_bias", "head_mask") if others.get(name) is not None]
    if unknown or query.shape[0] != 1:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'more than one sequence'}")
    layout = _LAYOUT.get()
    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = [
        block.attend(layout.layer, queries, keys, values, scale, sliding_window, softcap or 0.0)
        for block in layout.blocks
    ]
    layout.layer += 1
    layout.windows.add(sliding_window)
    if layout.keep:
        layout.kept.append((keys, values))
    return torch.cat(mixed)[None], None


AttentionInterface.register(ATTENTION, attend)


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Queries (kv_heads, rows, groups, width, head_dim) by keys (kv_heads, 1 or rows, n, head_dim)."""
    return _by_heads(queries, keys.transpose(2, 3))


def _mix(weights: Tensor, values: Tensor) -> Tensor:
    """Weights (kv_heads, rows, groups, width, n) by values (kv_heads, 1 or rows, n, head_dim)."""
    return _by_heads(weights, values)


def _by_heads(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product for each KV head and row; a larger one for each KV head where all rows share the right side."""
    heads, rows, groups, width, inner = left.shape
    if right.shape[1] == 1:
        return torch.bmm(left.reshape(heads, -1, inner), right[:, 0]).view(heads, rows, groups, width, -1)
    flat = torch.bmm(left.reshape(heads * rows, groups * width, inner), right.reshape(heads * rows, inner, -1))
    return flat.view(heads, rows, groups, width, -1)


class _Gather(torch.autograd.Function):
    """Packed → padded. Padding repeats a row's last token and nothing attends to it, so its gradient is zero."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, padded: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        return packed.index_select(0, padded)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Scatter(torch.autograd.Function):
    """Padded → packed."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, _: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        ctx.shape = padded.shape
        return padded.index_select(0, real)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.new_zeros(ctx.shape).index_copy_(0, ctx.saved_tensors[0], grad), None, None


_gather: Callable[[Tensor, Tensor, Tensor], Tensor] = _Gather.apply
_scatter: Callable[[Tensor, Tensor, Tensor], Tensor] = _Scatter.apply
