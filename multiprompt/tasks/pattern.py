"""Regular expressions from task files, matched within a time limit."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import regex

from multiprompt.errors import TaskFileError

MAX_PATTERN_CHARACTERS = 10_000
MAX_SECONDS = 2.0
# `regex` writes a part out as often as it must at least be there.
MAX_REPEATS = 100_000
_COUNT = re.compile(r"\{(\d+)(?:,\d*)?\}")

# `re` reads these as plain characters, `regex` as fuzzy counts and as POSIX classes.
_READ_OTHERWISE = re.compile(r"(?<!\\)\{[^}]*[deis]|\[\[:")


class PatternError(ValueError):
    """A pattern took too long on a text, or a replacement is wrong."""


class Pattern:
    """A pattern as Python's `re` reads it, run by `regex`, which can stop after `MAX_SECONDS`."""

    def __init__(self, source: str) -> None:
        """Raises TaskFileError when `re` cannot read the pattern, or reads it in another way than `regex`."""
        if len(source) > MAX_PATTERN_CHARACTERS:
            raise TaskFileError(f"a pattern has {len(source)} characters; the limit is {MAX_PATTERN_CHARACTERS}.")
        shown = source if len(source) <= 80 else source[:80] + "…"
        if _READ_OTHERWISE.search(source):
            raise TaskFileError(f"the pattern {shown!r} holds '{{' or '[[:', which is ambiguous; write it escaped.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(source)
                if math.prod(max(1, int(count)) for count in _COUNT.findall(source)) > MAX_REPEATS:
                    raise ValueError(f"its counts come to more than {MAX_REPEATS} repeats")
                self._compiled = regex.compile(source)
        except (re.error, regex.error, RecursionError, OverflowError, MemoryError, Warning, ValueError) as error:
            raise TaskFileError(f"the pattern {shown!r} is not valid: {' '.join(str(error).split())}") from None

    def findall(self, text: str) -> list[Any]:
        """As `re.findall`: texts, or tuples of groups. Raises PatternError."""
        return list(self._timed(lambda: self._compiled.findall(text, timeout=MAX_SECONDS)))

    def sub(self, replacement: str, text: str, count: int = 0, within: Callable[[int], None] = lambda _: None) -> str:
        """As `re.sub`; `within` is told the length so far. Raises PatternError."""
        pieces: list[str] = []
        end = length = 0
        for number, match in enumerate(self._timed(lambda: list(self._compiled.finditer(text, timeout=MAX_SECONDS)))):
            if count and number >= count:
                break
            try:
                pieces += [text[end : match.start()], match.expand(replacement)]
            except (regex.error, IndexError) as error:
                raise PatternError(f"the replacement {replacement[:80]!r} is not valid: {error}") from None
            length += len(pieces[-1]) + len(pieces[-2])
            within(length)
            end = match.end()
        return "".join(pieces) + text[end:]

    def _timed(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except MemoryError:
            raise PatternError(
                f"the pattern {self._compiled.pattern[:80]!r} took too much memory on one text; make it simpler"
            ) from None
        except TimeoutError:
            raise PatternError(
                f"the pattern {self._compiled.pattern[:80]!r} took more than {MAX_SECONDS:g} seconds on one text; "
                "make it simpler"
            ) from None


@lru_cache(maxsize=256)
def pattern(source: str) -> Pattern:
    """A pattern, compiled once. Raises TaskFileError."""
    return Pattern(source)
