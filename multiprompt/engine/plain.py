"""The plain forward: one row at a time, soft prompt and tokens concatenated, nothing reused.

It is slow and takes any causal model. The engine uses it where the packed forward would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.rows import Hidden, Row


@dataclass(frozen=True)
class PlainForward:
    """The forward of every other base model. `reason` says why it is not the packed one."""

    reason: str
    name = "plain"

    def compile_prefix(self, _: BaseModel, /, virtual: VirtualTokens, constant: Sequence[int]) -> Prefix:
        return Prefix(virtual, tuple(constant))

    def run(self, base: BaseModel, rows: Sequence[Row]) -> Hidden:
        return run(base, rows)

    def decoder(self, base: BaseModel, rows: Sequence[Row]) -> PlainDecoder:
        return PlainDecoder(base, rows)


def run(base: BaseModel, rows: Sequence[Row]) -> Hidden:
    """Hidden states of every token of every row, with the gradient of their prefixes."""
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row))
    return Hidden(torch.cat([_row_states(base, row) for row in rows]), starts[:-1])


class PlainDecoder:
    """Rows that run again from the start for every token."""

    hidden: Tensor

    def __init__(self, base: BaseModel, rows: Sequence[Row]) -> None:
        self._base = base
        self._rows = list(rows)
        self._run()

    def step(self, tokens: Tensor) -> None:
        grown = zip(self._rows, tokens.tolist(), strict=True)
        self._rows = [Row(row.prefix, row.shared, (*row.tokens, token)) for row, token in grown]
        self._run()

    def keep(self, rows: Tensor) -> None:
        self._rows = [self._rows[i] for i in rows.tolist()]
        self.hidden = self.hidden[rows]

    def _run(self) -> None:
        hidden = run(self._base, self._rows)
        ends = [start + len(row) - 1 for start, row in zip(hidden.starts, self._rows, strict=True)]
        self.hidden = hidden.states[ends]


def states(base: BaseModel, virtual: VirtualTokens, tokens: Sequence[int]) -> Tensor:
    """Hidden states of one text's tokens behind a soft prompt, (tokens, hidden)."""
    embeddings = base.embed(tokens)
    if virtual.embeddings is not None:
        embeddings = torch.cat([virtual.embeddings.to(base.dtype), embeddings])
    cache = None
    if virtual.layers:
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(virtual.layers):
            cache.update(keys[None].to(base.dtype), values[None].to(base.dtype), layer)
    return base.hidden(embeddings[None], cache=cache)[0, -len(tokens) :]


def _row_states(base: BaseModel, row: Row) -> Tensor:
    """Hidden states of a row, (tokens, hidden); each path of its tree runs as a text of its own."""
    head = [*row.prefix.tokens[: row.shared - row.prefix.virtual.length], *row.tokens]
    paths = [row.tree.path(leaf) for leaf in row.tree.leaves] or [[]]
    nodes: dict[int, Tensor] = {}
    for path in paths:
        made = states(base, row.prefix.virtual, head + [row.tree.tokens[node] for node in path])
        nodes.update(zip(path, made[len(head) :], strict=True))
    own = made[len(head) - len(row.tokens) : len(head)]
    return torch.cat([own, *(nodes[node][None] for node in range(len(row.tree.tokens)))])
