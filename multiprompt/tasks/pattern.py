"""Regular expressions from task files, matched within a time limit."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

from multiprompt.errors import TaskFileError
from multiprompt.tasks.matching import MATCHER, StoppedError

MAX_PATTERN_CHARACTERS = 10_000
MAX_SECONDS = 2.0
MAX_MADE_CHARACTERS = 4_000_000


class PatternError(ValueError):
    """A pattern took too long on a text or made too much of it, or a replacement is wrong."""


class Pattern:
    """A pattern of Python's `re`, as in the harness, which is stopped after `MAX_SECONDS`."""

    def __init__(self, source: str) -> None:
        """Raises TaskFileError when `re` cannot read the pattern."""
        if len(source) > MAX_PATTERN_CHARACTERS:
            raise TaskFileError(f"a pattern has {len(source)} characters; the limit is {MAX_PATTERN_CHARACTERS}.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                re.compile(source)
        except (re.error, RecursionError, OverflowError, MemoryError, ValueError) as error:
            shown = source if len(source) <= 80 else source[:80] + "…"
            raise TaskFileError(f"the pattern {shown!r} is not valid: {' '.join(str(error).split())}") from None
        self._source = source

    def findall(self, text: str) -> list[Any]:
        """As `re.findall`: texts, or tuples of groups. Raises PatternError."""
        return [tuple(match) if isinstance(match, list) else match for match in self._ask(text)]

    def sub(self, replacement: str, text: str, count: int = 0) -> str:
        """As `re.sub`. Raises PatternError."""
        return str(self._ask(text, replacement, count))

    def _ask(self, text: str, *replacement: Any) -> Any:
        try:
            return MATCHER.ask(MAX_SECONDS, MAX_MADE_CHARACTERS, self._source, text, *replacement)
        except StoppedError:
            raise PatternError(
                f"the pattern {self._source[:80]!r} took more than {MAX_SECONDS:g} seconds on one text, or too much "
                "memory; make it simpler"
            ) from None
        except ValueError as error:
            raise PatternError(str(error)) from None


@lru_cache(maxsize=256)
def pattern(source: str) -> Pattern:
    """A pattern, compiled once. Raises TaskFileError."""
    return Pattern(source)
