"""Progress of long work on standard error: bars on a terminal, and a line now and then in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from multiprompt.cli.output import echo, progress_bars
from multiprompt.records import Progress

SECONDS_A_LINE = 10.0


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A function that takes progress and shows it where standard error goes."""
    if sys.stderr.isatty():
        with progress_bars() as bars:
            yield bars
    else:
        yield progress_lines(SECONDS_A_LINE)


def progress_lines(seconds: float) -> Progress:
    """A line about work that takes longer than so many seconds, and then one each time that they went by."""
    told = time.monotonic()
    of = ""

    def advance(what: str, done: int, total: int) -> None:
        nonlocal told, of
        now = time.monotonic()
        ended = what == of and done >= total
        if now - told >= seconds or ended:
            echo(f"{what}: {done} of {total}", err=True)
            told, of = now, "" if ended else what

    return advance
