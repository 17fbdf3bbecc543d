"""Python's own `re` in a process that can be stopped.

It also runs as a program: it reads a request a line from standard input, and writes an answer a line, both as JSON.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any

MAX_MEMORY_BYTES = 2 << 30


class StoppedError(Exception):
    """A pattern took too much time or memory, so its process was ended."""


class Matcher:
    """The process, started when it is first asked, and again after its end; a fork starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def ask(self, seconds: float, limit: int, source: str, text: str, *replacement: Any) -> Any:
        """The result of `found` or `replaced`. Raises StoppedError after `seconds` of processor time, ValueError."""
        request = json.dumps([seconds, limit, source, text, *replacement])
        with self._lock:
            answer = ""
            try:
                with suppress(BrokenPipeError):
                    answer = self._answer(request)
            finally:
                if not answer.endswith("\n"):
                    self.close()
        if not answer.endswith("\n"):
            raise StoppedError
        error, result = json.loads(answer)
        if error:
            raise ValueError(error)
        return result

    def _answer(self, request: str) -> str:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        child = self._child = self._child or _start()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(request + "\n")
        child.stdin.flush()
        return child.stdout.readline()

    def close(self) -> None:
        """End the process; the next request starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        with suppress(BrokenPipeError):
            child.communicate()

    def forget(self) -> None:
        """After a fork: the process belongs to the parent."""
        self._lock, self._child = threading.Lock(), None


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", __file__]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="ascii")


MATCHER = Matcher()
atexit.register(MATCHER.close)
os.register_at_fork(after_in_child=MATCHER.forget)


def found(limit: int, source: str, text: str) -> list[Any]:
    """As `re.findall`, of at most `limit` characters. Raises ValueError."""
    made, length = [], 0
    for match in _compiled(source).finditer(text):
        groups = match.groups("")
        made.append(match[0] if not groups else groups[0] if len(groups) == 1 else groups)
        length = _within(limit, length + sum(map(len, groups or match[0])))
    return made


def replaced(limit: int, source: str, text: str, replacement: str, count: int) -> str:
    """As `re.sub`, of at most `limit` characters. Raises ValueError."""
    pieces: list[str] = []
    end = length = 0
    for number, match in enumerate(_compiled(source).finditer(text)):
        if count and number >= count:
            break
        try:
            pieces += [text[end : match.start()], match.expand(replacement)]
        except (re.error, IndexError) as error:
            raise ValueError(f"the replacement {replacement[:80]!r} is not valid: {error}") from None
        length = _within(limit, length + len(pieces[-1]) + len(pieces[-2]))
        end = match.end()
    return "".join(pieces) + text[end:]


@lru_cache(maxsize=256)
def _compiled(source: str) -> re.Pattern[str]:
    return re.compile(source)


def _within(limit: int, characters: int) -> int:
    if characters > limit:
        raise ValueError(f"it makes a text of more than {limit} characters")
    return characters


def _answer(limit: int, source: str, text: str, *replacement: Any) -> list[Any]:
    try:
        return [None, replaced(limit, source, text, *replacement) if replacement else found(limit, source, text)]
    except (ValueError, TypeError, re.error, RecursionError, MemoryError) as error:
        return [str(error) or type(error).__name__, None]


def main() -> None:
    """Answer until the standard input ends; the signal of the timer ends the process.

    Signals that ask a group of processes to end are for the parent, which may finish its work first.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    for line in sys.stdin:
        seconds, *request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = _answer(*request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
