"""The process that runs patterns: what ends it, and what does not."""

from __future__ import annotations

import os
import signal
import time

from multiprompt.tasks.matching import Matcher


def pid(matcher: Matcher) -> int:
    assert matcher._child is not None
    return matcher._child.pid


def test_a_process_that_was_ended_from_outside_is_started_again() -> None:
    matcher = Matcher()
    assert matcher.ask(2.0, 100, r"\d+", "a1") == ["1"]
    first = pid(matcher)
    os.kill(first, signal.SIGKILL)
    while not os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT):
        time.sleep(0.01)
    assert matcher.ask(2.0, 100, r"\d+", "b2") == ["2"]
    assert pid(matcher) != first
    matcher.close()


def test_signals_to_a_whole_group_of_processes_do_not_end_it() -> None:
    matcher = Matcher()
    assert matcher.ask(2.0, 100, r"\d+", "a1") == ["1"]
    first = pid(matcher)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(first, number)
    assert matcher.ask(2.0, 100, r"\d+", "b2") == ["2"]
    assert pid(matcher) == first
    matcher.close()
