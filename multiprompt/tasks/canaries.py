"""Canaries: the few rows of a task that are looked at first, in the order in which all of them would be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multiprompt.records import Canary

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split

CANARIES = 4


def order(data: str, rows: int) -> list[int]:
    """The rows in random order, the same at each call for data of the same fingerprint."""
    return random.Random(data).sample(range(rows), rows)


def canaries(split: Split, predictions: Sequence[Any]) -> tuple[Canary, ...]:
    """The first rows in that order, with what was predicted for them."""
    chosen = order(split.fingerprint, len(split.rows))[:CANARIES]
    return tuple(Canary(index, split.rows[index], predictions[index]) for index in chosen)
