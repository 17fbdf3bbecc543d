"""Multiple choice: the log-likelihood of every choice of a row from one forward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import encode_choices
from multiprompt.engine.forward import run
from multiprompt.engine.prefix import Prefix
from multiprompt.engine.refusing import Refuse, end_call, read_each
from multiprompt.engine.rows import Row, TokenTree, batches
from multiprompt.errors import DataError

Advance = Callable[[int], None]


@dataclass(frozen=True)
class ChoiceRequest:
    """A context and the continuations to score behind it, delimiter included."""

    prefix: Prefix
    context: str
    continuations: tuple[str, ...]


@dataclass(frozen=True)
class _Paths:
    """The tree that a row's continuations make, and the (node, next token) steps of each; node -1 is the context."""

    tree: TokenTree
    steps: tuple[tuple[tuple[int, int], ...], ...]


def score_choices(
    base: BaseModel,
    requests: Sequence[ChoiceRequest],
    advance: Advance = lambda _: None,
    refuse: Refuse = end_call,
) -> list[list[float]]:
    """Summed log-likelihood (nats) of each continuation given prefix and context, a list a request.

    `refuse` gets a DataError for a continuation without a token of its own or a row that is too long, BaseModelError
    for numbers that are not finite; the row's list is then empty.
    A row's context is run once; continuations hang behind it as a token tree under a tree-shaped mask, so that shared
    heads are run once too, and last tokens never (tree attention as in SpecInfer, Miao et al. 2024).
    """
    found = read_each(lambda some: _paths(base, some), requests, refuse)
    read = [(number, path) for number, path in enumerate(found) if path is not None]
    rows = [Row.of(requests[number].prefix, context, path.tree) for number, (context, path) in read]
    scores: list[list[float]] = [[] for _ in requests]
    for batch in batches([len(row) for row in rows]):
        with torch.inference_mode():
            made = _score(base, [(rows[i], read[i][1][1]) for i in batch])
        for i, values in zip(batch, made, strict=True):
            if all(map(math.isfinite, values)):
                scores[read[i][0]] = values
            else:
                refuse(read[i][0], base.not_finite())
        advance(len(batch))
    return scores


def _paths(base: BaseModel, requests: Sequence[ChoiceRequest]) -> list[tuple[list[int], _Paths]]:
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
    return [(row.context, _grow(tuple(map(tuple, row.continuations)))) for row in rows]


@lru_cache(maxsize=4096)
def _grow(continuations: tuple[tuple[int, ...], ...]) -> _Paths:
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
    hidden = run(base, [row for row, _ in batch])
    columns: list[int] = []
    picks: list[tuple[int, int]] = []
    for start, (row, path) in zip(hidden.starts, batch, strict=True):
        context = len(columns)
        columns += range(start + len(row.tokens) - 1, start + len(row))
        picks += [(context + 1 + node, token) for steps in path.steps for node, token in steps]
    log_probs = torch.log_softmax(base.logits(hidden.states[columns]), dim=-1)
    picked = iter(log_probs[[i for i, _ in picks], [t for _, t in picks]].tolist())
    return [[sum(next(picked) for _ in steps) for steps in path.steps] for _, path in batch]
