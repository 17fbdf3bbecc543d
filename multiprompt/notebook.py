"""Progress bars in a notebook: one line of HTML each, which is updated in place."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

_SECONDS_AN_UPDATE = 0.2


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class Bars:
    """Takes progress and shows a bar for each piece of work."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[Any, int]] = {}
        self._shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        bar, before = self._bars.get(what, (None, 0))
        now = time.monotonic()
        if bar is None or done < before:
            self._bars[what] = _show(_bar(what, done, total)), done
        elif now - self._shown >= _SECONDS_AN_UPDATE or done >= total:
            bar.update(_bar(what, done, total), raw=True)
            self._bars[what], self._shown = (bar, done), now


def _show(data: dict[str, str]) -> Any:
    """A handle of something that is shown, by which it is updated."""
    from IPython import display

    show: Any = display.display
    return show(data, raw=True, display_id=True)


def _bar(what: str, done: int, total: int) -> dict[str, str]:
    text = f"{what}: {done} of {total}"
    bar = f'<progress value="{done}" max="{max(total, 1)}"></progress>'
    return {"text/plain": text, "text/html": f"{bar} {escape(text)}"}
