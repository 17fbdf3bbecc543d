"""Measuring two sides in one process: interleaved repeats, medians, ratios, and the machine's own limits."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

Side = Callable[[], None]


@dataclass(frozen=True)
class Comparison:
    """Seconds of both sides, in pairs that ran one after the other."""

    name: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        return [peer / ours for ours, peer in zip(self.ours, self.peer, strict=True)]

    def __str__(self) -> str:
        ratios = self.ratios
        return (
            f"{self.name:<58} ours {statistics.median(self.ours):8.3f} s, peer {statistics.median(self.peer):8.3f} s, "
            f"ratio {statistics.median(ratios):5.2f}  (min {min(ratios):.2f}, max {max(ratios):.2f}, n {len(ratios)})"
        )


def compare(
    name: str, ours: Sequence[Side], peer: Sequence[Side], warm_up: int = 1, before: Side = lambda: None
) -> Comparison:
    """Run the sides pair by pair, ours first in even pairs; the first `warm_up` pairs do not count.

    `before` is run, untimed, ahead of each pair.
    """
    taken: list[tuple[float, float]] = []
    for number, (one, other) in enumerate(zip(ours, peer, strict=True)):
        before()
        if number % 2:
            theirs = seconds(other)
            mine = seconds(one)
        else:
            mine = seconds(one)
            theirs = seconds(other)
        taken.append((mine, theirs))
    counted = taken[warm_up:]
    return Comparison(name, tuple(mine for mine, _ in counted), tuple(theirs for _, theirs in counted))


def seconds(side: Side) -> float:
    started = time.perf_counter()
    side()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def matmul_rate(dtype: torch.dtype, device: torch.device, size: int = 1024) -> float:
    """FLOP/s of the best of twenty products of square matrices."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        torch.mm(left, right)

    return 2 * size**3 / min(seconds(product) for _ in range(20))


def machine() -> dict[str, str]:
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    versions = {name: version(name) for name in ("multiprompt", "torch", "transformers", "peft")}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{model}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "gpu": gpu,
        **versions,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
