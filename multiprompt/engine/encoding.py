"""Text to tokens: training, checking and predicting use the same list of ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multiprompt.engine.base import BaseModel
from multiprompt.errors import DataError

Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Scored:
    """Token ids of a row's context, and of each continuation behind it."""

    context: list[int]
    continuations: list[list[int]]


def encode_choices(base: BaseModel, contexts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[Scored]:
    """Contexts, each with its continuations, encoded together.

    Trailing white space of a context belongs to its continuations. Each pair is encoded as one text, so that its tokens
    are those of running text (lm-evaluation-harness, `_encode_pair`). A continuation may merge with the last tokens of
    the context; then every continuation of the row is scored with these. A context without tokens becomes the token
    that begins texts. Raises DataError for a continuation that adds no token.
    """
    heads = [context.rstrip() for context in contexts]
    moved = [context[len(head) :] for context, head in zip(contexts, heads, strict=True)]
    unique = list(dict.fromkeys(heads))
    encoded = dict(zip(unique, base.encode_batch(unique), strict=True))
    texts = [head + space + k for head, space, ks in zip(heads, moved, continuations, strict=True) for k in ks]
    wholes = iter(base.encode_batch(texts))
    return [_scored(base, encoded[head], list(ks), wholes) for head, ks in zip(heads, continuations, strict=True)]


def encode_pairs(base: BaseModel, contexts: Sequence[str], continuations: Sequence[str]) -> list[Pair]:
    """Token ids of each context and of its one continuation, as in `encode_choices`."""
    rows = encode_choices(base, contexts, [(continuation,) for continuation in continuations])
    return [(row.context, row.continuations[0]) for row in rows]


def encode_contexts(base: BaseModel, contexts: Sequence[str]) -> list[list[int]]:
    """Token ids of contexts for generation, each context as it stands."""
    return [ids or [base.first_token] for ids in base.encode_batch(contexts)]


def encode_answers(base: BaseModel, contexts: Sequence[str], delimiter: str, answers: Sequence[str]) -> list[Pair]:
    """Token ids of each context and of its right answer, for generation.

    Context, delimiter and answer are encoded as running text. A delimiter of white space is left out behind a context
    that ends in white space. Where running text changes the context's last tokens, as behind a trailing space, the
    answer is encoded on its own.
    """
    between = [
        answer if delimiter.isspace() and context[-1:].isspace() else delimiter + answer
        for context, answer in zip(contexts, answers, strict=True)
    ]
    asked = base.encode_batch(contexts)
    wholes = base.encode_batch([context + text for context, text in zip(contexts, between, strict=True)])
    return [
        (ids or [base.first_token], whole[len(ids) :] if whole[: len(ids)] == ids else _alone(base, text))
        for text, ids, whole in zip(between, asked, wholes, strict=True)
    ]


def constant_tokens(base: BaseModel, text: str) -> list[int]:
    """The token ids that all texts starting with `text` begin with.

    The last tokens of `text` may merge with the next characters. So two continuations are tried, and the common part
    is kept.
    """
    first, *others = (base.encode(text + probe) for probe in ("", "a", " 0"))
    return first[: _shared(first, others)]


def _scored(base: BaseModel, head: list[int], texts: Sequence[str], encoded: Iterator[list[int]]) -> Scored:
    wholes = [next(encoded) for _ in texts]
    cut = len(head)
    if any(whole[:cut] != head for whole in wholes):
        cut = _shared(head, wholes)
    for text, whole in zip(texts, wholes, strict=True):
        if len(whole) <= cut:
            raise DataError(f"the choice {text[:100]!r} adds no token to the text before it.")
    return Scored(head[:cut] or [base.first_token], [whole[cut:] for whole in wholes])


def _shared(first: Sequence[int], others: Sequence[Sequence[int]]) -> int:
    """The number of leading ids that one list shares with all the others."""
    count = 0
    for ids in zip(first, *others, strict=False):
        if len(set(ids)) > 1:
            break
        count += 1
    return count


def _alone(base: BaseModel, answer: str) -> list[int]:
    """The tokens of an answer that follows no word.

    They are those behind a line break, or else those of the answer by itself. The first that decode to the answer are
    taken, as some tokenizers put a space in front of any text.
    """
    mark = base.encode_bare("\n")
    behind, bare = base.encode_bare("\n" + answer), base.encode_bare(answer)
    candidates = [behind[len(mark) :]] if behind[: len(mark)] == mark else []
    return next((ids for ids in (*candidates, bare) if base.decode(ids, special=True) == answer), bare)
