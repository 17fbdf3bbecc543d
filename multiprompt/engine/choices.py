"""Multiple choice: the log-likelihood of every choice of a row from one forward.

The idea: the context of a row runs once, and the choices follow it as a tree of tokens. Choices that begin alike share
the nodes of their common head. A mask lets a node see the context, its ancestors and itself. This is tree attention,
as in SpecInfer (Miao et al. 2024). The last token of a choice is predicted and never run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import Scored, encode_choices
from multiprompt.engine.prefix import Prefix
from multiprompt.engine.refusing import Refuse, end_call, read_each
from multiprompt.engine.rows import Row, TokenTree, batches
from multiprompt.errors import DataError

Advance = Callable[[int], None]
# The most tokens of a tree; attention over it takes the square of them in memory.
MAX_TREE_TOKENS = 2048


@dataclass(frozen=True)
class ChoiceRequest:
    """A context and the continuations to score behind it, with their delimiter."""

    prefix: Prefix
    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class _Paths:
    """The tree of some continuations, and the (node, next token) steps of each; node -1 is the context."""

    tree: TokenTree
    steps: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True)
class _Piece:
    """Some of the continuations of a request, in order, as one row."""

    number: int
    row: Row
    paths: _Paths
    is_first: bool


def score_choices(
    base: BaseModel,
    requests: Sequence[ChoiceRequest],
    advance: Advance = lambda _: None,
    refuse: Refuse = end_call,
) -> list[list[float]]:
    """Summed log-likelihood (nats) of each continuation behind prefix and context, a list for each request.

    `refuse` gets the error of a row that fails, and the row's list is then empty. A row that is too long, or a
    continuation that adds no token, is a DataError. Numbers that are not finite are a BaseModelError.
    """
    found = read_each(lambda some: _encoded(base, some), requests, refuse)
    pieces = [
        piece
        for number, (request, row) in enumerate(zip(requests, found, strict=True))
        if row is not None
        for piece in _pieces(number, request.prefix, row)
    ]
    made: list[list[float]] = [[] for _ in pieces]
    for batch in batches([len(piece.row) for piece in pieces]):
        with torch.inference_mode():
            for i, values in zip(batch, _score(base, [(pieces[i].row, pieces[i].paths) for i in batch]), strict=True):
                made[i] = values
        advance(sum(pieces[i].is_first for i in batch))
    scores: list[list[float]] = [[] for _ in requests]
    for piece, values in zip(pieces, made, strict=True):
        scores[piece.number] += values
    for number, values in enumerate(scores):
        if not all(map(math.isfinite, values)):
            scores[number] = []
            refuse(number, base.not_finite())
    return scores


def _encoded(base: BaseModel, requests: Sequence[ChoiceRequest]) -> list[Scored]:
    contexts = [request.context for request in requests]
    rows = encode_choices(base, contexts, [request.continuations for request in requests])
    for request, row in zip(requests, rows, strict=True):
        # A choice may take apart the context's last token. The last token of a choice is never run.
        length = request.prefix.virtual.length + len(row.context) + max(map(len, row.continuations), default=0) - 1
        if length > base.max_tokens:
            raise DataError(
                f"prompt, text and longest choice have {length} tokens, but {base.record.name} takes "
                f"{base.max_tokens}: lower multiprompt.max_input_tokens, or shorten the text."
            )
    return rows


def _pieces(number: int, prefix: Prefix, row: Scored) -> Iterator[_Piece]:
    trees = _trees(tuple(map(tuple, row.continuations)), MAX_TREE_TOKENS)
    for place, paths in enumerate(trees):
        yield _Piece(number, Row.of(prefix, row.context, paths.tree), paths, place == 0)


@lru_cache(maxsize=256)
def _trees(continuations: tuple[tuple[int, ...], ...], most: int) -> tuple[_Paths, ...]:
    """Trees of the continuations in order, of at most `most` tokens each. Rows of a task often have equal ones."""
    return tuple(_grow(group) for group in _groups(continuations, most))


def _groups(continuations: Sequence[tuple[int, ...]], most: int) -> Iterator[list[tuple[int, ...]]]:
    group: list[tuple[int, ...]] = []
    size = 0
    for continuation in continuations:
        if group and size + len(continuation) > most:
            yield group
            group, size = [], 0
        group.append(continuation)
        size += len(continuation)
    yield group


def _grow(continuations: Sequence[tuple[int, ...]]) -> _Paths:
    nodes: dict[tuple[int, ...], int] = {(): -1}
    tokens: list[int] = []
    parents: list[int] = []
    for continuation in continuations:
        for end in range(1, len(continuation)):
            head = continuation[:end]
            if head not in nodes:
                nodes[head] = len(tokens)
                tokens.append(continuation[end - 1])
                parents.append(nodes[head[:-1]])
    steps = tuple(tuple((nodes[c[:i]], token) for i, token in enumerate(c)) for c in continuations)
    return _Paths(TokenTree(tuple(tokens), tuple(parents)), steps)


def _score(base: BaseModel, batch: Sequence[tuple[Row, _Paths]]) -> list[list[float]]:
    hidden = base.forward.run(base, [row for row, _ in batch])
    columns: list[int] = []
    picks: list[tuple[int, int]] = []
    for start, (row, path) in zip(hidden.starts, batch, strict=True):
        context = len(columns)
        columns += range(start + len(row.tokens) - 1, start + len(row))
        picks += [(context + 1 + node, token) for steps in path.steps for node, token in steps]
    log_probs = torch.log_softmax(base.logits(hidden.states[columns]), dim=-1)
    picked = iter(log_probs[[i for i, _ in picks], [t for _, t in picks]].tolist())
    return [[sum(next(picked) for _ in steps) for steps in path.steps] for _, path in batch]
