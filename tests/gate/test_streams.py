"""The gate's decisions over many simulated additions: what it misses, and how often it raises a false alarm.

A stream is fifty tasks of 500 rows that are checked together. Rows flip from right to wrong and back by chance (NOISE
of them each way); a planted drop takes five points more from one task.
"""

from __future__ import annotations

import numpy
import pytest

from multiprompt.config import RegressionConfig
from multiprompt.gate.statistics import mcnemar, settled
from multiprompt.gate.verdict import judge
from multiprompt.records import CheckResult, Evidence

TASKS, ROWS, STREAMS = 50, 500, 100
NOISE = 0.002
TOLERATED = RegressionConfig()
LOOKS = (64, 128, 256, ROWS)


def flips(rng: numpy.random.Generator, planted: float, noise: float) -> numpy.ndarray:
    """-1 where a row was lost, 1 where it was gained."""
    chances = rng.random(ROWS)
    return numpy.where(chances < noise + planted, -1, numpy.where(chances > 1 - noise, 1, 0))


def examined(name: str, moved: numpy.ndarray, sequential: bool) -> CheckResult:
    """The rows in random order, until they settle it."""
    for seen in LOOKS if sequential else (ROWS,):
        lost, gained = int((moved[:seen] < 0).sum()), int((moved[:seen] > 0).sum())
        alpha = TOLERATED.alpha / len(LOOKS)
        if seen < ROWS and settled(lost, gained, seen, ROWS, TOLERATED.max_drop, alpha, alpha / TASKS):
            break
    drop = (lost - gained) / seen
    evidence = Evidence(seen, ROWS, lost, gained, p_value=mcnemar(lost, gained), error=0.01)
    return CheckResult(name, "acc", 0.8, 0.8 - drop, drop, TOLERATED.max_drop, "unchanged", "", evidence=evidence)


def stream(seed: int, planted: float, noise: float, sequential: bool) -> list[str]:
    rng = numpy.random.default_rng(seed)
    drops = [planted, *[0.0] * (TASKS - 1)]
    tasks = [examined(f"t{n}@1", flips(rng, drop, noise), sequential) for n, drop in enumerate(drops)]
    return [result.verdict for result in judge(tasks)]


@pytest.mark.parametrize("sequential", [False, True])
def test_a_drop_of_five_points_is_caught_in_95_of_100_streams(sequential: bool) -> None:
    caught = [stream(seed, 0.05, NOISE, sequential)[0] == "regressed" for seed in range(STREAMS)]
    assert sum(caught) >= 95


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("noise", [0.0, NOISE, 0.01, 0.02])
def test_with_nothing_planted_one_stream_in_100_raises_an_alarm_at_most(noise: float, sequential: bool) -> None:
    alarms = ["regressed" in stream(seed, 0.0, noise, sequential) for seed in range(STREAMS)]
    assert sum(alarms) <= 1


def test_what_is_called_kept_early_had_not_dropped() -> None:
    """Of tasks that dropped by twice what they tolerate, hardly any is let through before all rows were run."""
    rng = numpy.random.default_rng(0)
    early = [examined("t@1", flips(rng, 0.02, 0.0), True).evidence for _ in range(300)]
    assert sum(evidence is not None and evidence.rows < ROWS for evidence in early) <= 0.02 * 300 + 3
