"""The difference of two versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiprompt.records.check import Change, Flip, Interval
from multiprompt.records.shown import Shown


@dataclass(frozen=True)
class ScoreChange:
    """A metric of two versions, with an interval of the difference where both were scored on the same rows."""

    metric: str
    before: float
    after: float
    interval: Interval | None


@dataclass(frozen=True)
class TokenView:
    """A virtual token: its L2 norm, and the vocabulary tokens of greatest cosine."""

    norm: float
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class TokenChange:
    """A virtual token of two versions, None where one is shorter, and their cosine."""

    index: int
    before: TokenView | None
    after: TokenView | None
    cosine: float | None


@dataclass(frozen=True, repr=False)
class VersionDiff(Shown):
    """The difference of two versions; `template` is a unified diff of the task files' templates and choices."""

    before: str
    after: str
    changes: tuple[Change, ...]
    scores: tuple[ScoreChange, ...]
    flips: tuple[Flip, ...]
    tokens: tuple[TokenChange, ...]
    template: tuple[str, ...] = ()

    def _facts(self) -> Mapping[str, Any]:
        scores = {score.metric: f"{score.before:.4f} → {score.after:.4f}" for score in self.scores}
        changes = [f"{change.name}: {change.before} → {change.after}" for change in self.changes]
        return {"versions": f"{self.before} → {self.after}", **scores, "changes": changes, "flips": len(self.flips)}
