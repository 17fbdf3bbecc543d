"""Full text over tasks: names, descriptions, tags and notes, by FTS5 on SQLite and tsvector on PostgreSQL.

`task_texts` keeps the words of each task, cut up the same way on both, and the database keeps an index to them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Dialect, Text, TypeDecorator, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

MAX_WORDS = 20
# Characters; PostgreSQL refuses words of more than 2 kB.
MAX_WORD = 256
# Bytes; PostgreSQL indexes no text of more than 1 MB.
MAX_TEXT = 500_000
_WORD = re.compile(r"[^\W_]+")


def words(texts: Iterable[str]) -> list[str]:
    """The words of texts, each once, without case and accents; of a very long text those of its beginning."""
    plain = unicodedata.normalize("NFKD", " ".join(texts)).casefold()
    found = _WORD.findall("".join(letter for letter in plain if not unicodedata.combining(letter)))
    unique = list(dict.fromkeys(word[:MAX_WORD] for word in found))
    ends = accumulate(len(word.encode()) + 1 for word in unique)
    return [word for word, end in zip(unique, ends, strict=True) if end <= MAX_TEXT]


def matches(task_id: ColumnElement[int], text: str) -> ColumnElement[bool]:
    """Whether a task's text holds every word of `text`, or a word that begins with it. Raises ValueError."""
    wanted = words([text])
    if not 0 < len(wanted) <= MAX_WORDS:
        raise ValueError(f"expected 1 to {MAX_WORDS} words, got {len(wanted)}")
    return _Matches(task_id, literal(" ".join(wanted), _Pattern()))


class _Pattern(TypeDecorator[str]):
    """Words, to the database a pattern that asks for all of them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            return " & ".join(f"'{word}':*" for word in value.split())
        return " ".join(f'"{word}"*' for word in value.split())


class _Matches(FunctionElement[bool]):
    inherit_cache = True
    type = Boolean()


@compiles(_Matches)
def _matches_on_sqlite(element: _Matches, compiler: Any, **options: Any) -> str:
    task_id, pattern = (compiler.process(part, **options) for part in element.clauses)
    return f"({task_id} IN (SELECT rowid FROM task_search WHERE task_search MATCH {pattern}))"  # noqa: S608 (parameters)


@compiles(_Matches, "postgresql")
def _matches_on_postgresql(element: _Matches, compiler: Any, **options: Any) -> str:
    task_id, pattern = (compiler.process(part, **options) for part in element.clauses)
    found = f"array_to_tsvector(string_to_array(words, ' ')) @@ CAST({pattern} AS tsquery)"
    return f"({task_id} IN (SELECT task_id FROM task_texts WHERE {found}))"  # noqa: S608 (parameters)
