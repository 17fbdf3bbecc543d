"""Checks: baselines, canaries, results and their evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from multiprompt.errors import counted, percent
from multiprompt.records.catalog import VersionRecord
from multiprompt.records.listing import Listing
from multiprompt.records.shown import Shown, html_table, text_table

if TYPE_CHECKING:
    from pandas import DataFrame

LearnState = Literal["published", "held", "candidate", "rejected", "retired"]
Verdict = Literal["identical", "unchanged", "improved", "inconclusive", "regressed", "failed"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a score, or of a difference of scores."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Change:
    """Something that two versions were made with, or two scores taken with, differently; None where one has none."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Flip:
    """A row, with its text, that is answered rightly on one side of a comparison and not on the other."""

    row: int
    reference: Any
    before: Any
    after: Any
    better: bool
    text: str = ""


@dataclass(frozen=True)
class Baseline:
    """The baseline of a version: its evaluation, without its rows, and the task file that it is served with.

    `data` is the fingerprint of the rows; `task_file` and `folder` are those of the version, `now` those of its task.
    """

    evaluation: int
    metric: str
    score: float
    rows: int
    data: str
    key: Mapping[str, str]
    task_file: str
    folder: str
    now: tuple[str, str]


@dataclass(frozen=True)
class Canary:
    """A row of a baseline, by its index, with what was predicted for it."""

    index: int
    row: Mapping[str, Any]
    prediction: Any


@dataclass(frozen=True)
class Evidence:
    """The evidence of a verdict: `rows` compared of the `total`, of which so many were `lost` and `gained`.

    `moved` are answered in another way, or have another right answer. `interval` is of the drop, `detectable` the least
    drop that so many rows could show, `rows_needed` how many would settle what they leave open. None where the
    metric allows no such statement, as one of the hub does not.
    """

    rows: int
    total: int
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None
    adjusted: float | None = None
    interval: Interval | None = None
    error: float | None = None
    detectable: float | None = None
    rows_needed: int | None = None
    moved: int | None = None
    flips: tuple[Flip, ...] = ()


@dataclass(frozen=True, repr=False)
class CheckResult(Shown):
    """A published version against its baseline; `drop` is positive where the score got worse.

    `policy` is what a regression does: it keeps other candidates out ("block"), is told only ("warn"), or also moves
    the task back ("rollback"). `changes` are the parts of the score's key that are not the baseline's. Where it is
    `reused`, nothing that can move the score has changed, or this very comparison was made before. A regression that is
    `standing` was found by the check before this one; it keeps no candidate out.
    """

    version: str
    metric: str
    baseline: float
    score: float | None
    drop: float | None
    max_drop: float
    verdict: Verdict
    cause: str
    alpha: float = 0.02
    policy: str = "block"
    changes: tuple[Change, ...] = ()
    evidence: Evidence | None = None
    reused: bool = False
    standing: bool = False

    @property
    def blocks(self) -> bool:
        """Whether it keeps a check from passing. What could not be measured always does."""
        return self.verdict == "failed" or (self.verdict == "regressed" and self.policy != "warn")

    @property
    def _line(self) -> str:
        return f"{self.version} {self.told}"

    def _facts(self) -> Mapping[str, Any]:
        scores = {"baseline": self.baseline, "now": self.score, "drop": self.drop, "tolerated": self.max_drop}
        return {"version": self.version, "metric": self.metric, **scores, "verdict": self.verdict, "cause": self.cause}

    @property
    def told(self) -> str:
        """On one line: "regressed: acc 0.9300 to 0.2333; cause: data"."""
        now = "–" if self.score is None else f"{self.score:.4f}"
        return f"{self.verdict}: {self.metric} {self.baseline:.4f} to {now}; cause: {self.cause or 'none'}"


@dataclass(frozen=True, repr=False)
class CheckReport(Shown):
    """A regression evaluation: passed only if every task was measured and none that blocks has regressed.

    `evaluated`, `canaries` and `reused` count rows: run and compared, run to see that nothing moved, and not run since
    what they would say was known. `noise` is the share of the rows that moved which a second run answers in yet another
    way, None where none was made. `notes` tell what a reader should know beside the verdicts. A `trial` changed nothing
    in the catalog.
    """

    results: tuple[CheckResult, ...]
    seconds: float
    evaluated: int = 0
    canaries: int = 0
    reused: int = 0
    noise: float | None = None
    notes: tuple[str, ...] = ()
    trial: bool = False

    @property
    def _line(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}: {self.summary}; {self.cost}"

    def _repr_html_(self) -> str:
        shown = Listing(self.results)._repr_html_() if self.results else ""
        return f"<p>{escape(self._line)}</p>{shown}"

    def to_pandas(self) -> DataFrame:
        """A row a version, for which pandas must be installed."""
        import pandas

        return pandas.DataFrame([result._facts() for result in self.results])

    @property
    def passed(self) -> bool:
        return not any(result.blocks for result in self.results)

    @property
    def summary(self) -> str:
        counts = Counter(result.verdict for result in self.results)
        return f"{len(self.results)} checked: " + (", ".join(f"{n} {v}" for v, n in sorted(counts.items())) or "none")

    @property
    def cost(self) -> str:
        canaries = "1 canary" if self.canaries == 1 else f"{self.canaries} canaries"
        return (
            f"{counted(self.evaluated, 'row')} evaluated, {canaries}, {counted(self.reused, 'row')} reused, "
            f"{self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class Rollback:
    """A regressed `version`, and the `earlier` one that a check publishes in its place, with the `score` it has now."""

    version: VersionRecord
    earlier: VersionRecord
    score: float
    reason: str


@dataclass(frozen=True, repr=False)
class LearnReport(Shown):
    """The result of learning or importing a prompt.

    `state` says where the version stands: published, held (its task is guarded, or it was learned with other settings),
    candidate (it did not learn), rejected or retired. `hard`, `soft` and `majority` (the best of one answer to every
    row) are scores on the same `rows`. `interval` is of `soft`, and `p_value` of its being no better than `hard`.
    `untouched` says that every prompt published before still has its digest, recomputed from its stored bytes.
    `warnings` are of the task's data. `is_new` is False where the training gave the bytes of an existing version:
    `version` names it, and nothing was stored.
    """

    version: str
    published: bool
    reason: str
    metric: str
    hard: float
    soft: float
    train_seconds: float
    truncated: int
    check: CheckReport
    untouched: bool
    state: LearnState = "published"
    rows: int = 0
    interval: Interval | None = None
    majority: float | None = None
    p_value: float | None = None
    warnings: tuple[str, ...] = ()
    is_new: bool = True

    @property
    def _line(self) -> str:
        if not self.is_new:
            return f"{self.version} {self.state}: {self.reason}"
        score = "" if self.measured in self.reason else f"; {self.measured}"
        others = "" if self.untouched else "; other published prompts CHANGED"
        return f"{self.version} {self.state}: {self.reason}{score}; hard prompt {self.hard:.4f}{others}"

    def _facts(self) -> Mapping[str, Any]:
        scores = {"score": self.measured, "hard prompt": self.hard, "majority answer": self.majority}
        told = {"others": self.check.summary, "untouched": self.untouched, "warnings": self.warnings}
        return {"version": self.version, "state": self.state, "reason": self.reason, **scores, **told}

    @property
    def measured(self) -> str:
        """The score with its interval and rows."""
        return measured(self.metric, self.soft, self.interval, self.rows)


def measured(metric: str, score: float, interval: Interval | None, rows: int) -> str:
    """A score as it is told: "acc 0.9300 (95 % 0.8900 to 0.9600, 200 rows)"."""
    between = "" if interval is None else f"{percent(interval.confidence)} {interval.low:.4f} to {interval.high:.4f}, "
    return f"{metric} {score:.4f} ({between}{counted(rows, 'row')})"


@dataclass(frozen=True, repr=False)
class Matrix:
    """The accuracy matrix: `scores[i][j]` on task j after learning task i, None where it was not measured.

    `before` are the scores of the tasks' hard prompts, `higher_is_better` the signs of their metrics (empty: all True).
    """

    tasks: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    before: tuple[float | None, ...] = ()
    higher_is_better: tuple[bool, ...] = ()

    def __repr__(self) -> str:
        return text_table(("after learning", *self.tasks), self._lines) if self.tasks else "<Matrix of no task>"

    def _repr_html_(self) -> str:
        return html_table(("after learning", *self.tasks), self._lines)

    def to_pandas(self) -> DataFrame:
        """A row a learned task and a column a task, for which pandas must be installed."""
        import pandas

        return pandas.DataFrame(self.scores, index=list(self.tasks), columns=list(self.tasks), dtype=float)

    @property
    def _lines(self) -> list[tuple[Any, ...]]:
        return [(task, *scores) for task, scores in zip(self.tasks, self.scores, strict=True)]
