"""The model's exact input for a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Token:
    """A token's id and the text that it stands for."""

    id: int
    text: str


@dataclass(frozen=True)
class RenderedAnswer:
    """The tokens behind the context: a choice with the tokens that it is scored by, or an answer and its end.

    `right` is None where the row has no label.
    """

    text: str
    tokens: tuple[Token, ...]
    right: bool | None = None


@dataclass(frozen=True)
class Rendering:
    """The exact input of a row: a soft prompt, then the tokens of its context.

    `version` is None for a task that is not learned yet. `constant` counts the leading tokens that all rows share and
    that are run once. `choices` are those that are scored; `answer` is a generated answer as training teaches it.
    """

    task: str
    version: str | None
    num_virtual_tokens: int
    text: str
    tokens: tuple[Token, ...]
    constant: int
    choices: tuple[RenderedAnswer, ...]
    answer: RenderedAnswer | None
    truncated: bool
