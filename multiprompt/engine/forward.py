"""The way of rows through the base model: packed, or plain where the base model does not allow that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from multiprompt.engine import packed, plain
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.rows import Hidden, Row


class Decoder(Protocol):
    """Rows that grow by a token a step; `hidden` (rows, hidden) are the states at their last tokens."""

    hidden: Tensor

    def step(self, tokens: Tensor) -> None:
        """Take the next token of each row, (rows,)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, by index."""


def compile_prefix(base: BaseModel, virtual: VirtualTokens, constant: Sequence[int]) -> Prefix:
    """Run virtual tokens and constant token ids once, for all rows to come."""
    prefix = Prefix(virtual, tuple(constant))
    return prefix if base.fallback else packed.compile_prefix(base, prefix)


def run(base: BaseModel, rows: Sequence[Row]) -> Hidden:
    """Hidden states of every token of every row, with the gradient of prefixes that are not compiled."""
    return plain.run(base, rows) if base.fallback else packed.run(base, rows)


def decoder(base: BaseModel, rows: Sequence[Row]) -> Decoder:
    """The rows run, to be continued token by token; their prefixes are compiled ones."""
    return plain.PlainDecoder(base, rows) if base.fallback else packed.PackedDecoder(base, rows)
