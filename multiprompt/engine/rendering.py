"""Rendering: the exact input of a row, as in training, checking and predicting."""

from __future__ import annotations

from collections.abc import Sequence

from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import constant_tokens, encode_choices, encode_contexts
from multiprompt.engine.inputs import continuations, taught
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.records import RenderedAnswer, Rendering, Token
from multiprompt.tasks.example import Example, Query, constant_text
from multiprompt.tasks.task import Task


def render(
    base: BaseModel, task: Task, row: Query | Example, version: str | None, num_virtual_tokens: int
) -> Rendering:
    """The input of a query, or of an example with its right answer. Raises DataError for a row without tokens."""
    query = row.query if isinstance(row, Example) else row
    context, choices = _context(base, task, row, query)
    prefix = Prefix(VirtualTokens(), tuple(constant_tokens(base, constant_text(task))))
    return Rendering(
        task=task.name,
        version=version,
        num_virtual_tokens=num_virtual_tokens,
        text=query.context,
        tokens=_tokens(base, context),
        constant=prefix.shared(context),
        choices=choices,
        answer=None if task.is_multiple_choice or query is row else _answer(base, task, row),
        truncated=query.truncated,
    )


def _context(
    base: BaseModel, task: Task, row: Query | Example, query: Query
) -> tuple[Sequence[int], tuple[RenderedAnswer, ...]]:
    if query.choices is None:
        return encode_contexts(base, [query.context])[0], ()
    texts = continuations(task, query)
    (scored,) = encode_choices(base, [query.context], [texts])
    right = row.target if isinstance(row, Example) else None
    return scored.context, tuple(
        RenderedAnswer(text, _tokens(base, tokens), None if right is None else number == right)
        for number, (text, tokens) in enumerate(zip(texts, scored.continuations, strict=True))
    )


def _answer(base: BaseModel, task: Task, row: Query | Example) -> RenderedAnswer:
    assert isinstance(row, Example)
    (example,) = taught(base, task, [row])
    return RenderedAnswer(base.decode(example.answer, special=True), _tokens(base, example.answer), True)


def _tokens(base: BaseModel, ids: Sequence[int]) -> tuple[Token, ...]:
    return tuple(Token(token, _text(base, token)) for token in ids)


def _text(base: BaseModel, token: int) -> str:
    """A token's text, with the space that some tokenizers leave out at the start of a text."""
    text = base.decode([token], special=True)
    starts_word = str(base.tokenizer.convert_ids_to_tokens(token)).startswith("▁")
    return f" {text}" if starts_word and not text.startswith(" ") else text
