"""What the catalog answers with: frozen records, detached from the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")

# What is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]

VersionState = Literal["candidate", "published", "retired", "rejected"]
PromptKind = Literal["soft", "hard"]
JobState = Literal["queued", "running", "done", "failed", "parked", "cancelled"]
JobKind = Literal["learn", "retrain", "evaluate", "check"]
Verdict = Literal["identical", "unchanged", "improved", "inconclusive", "regressed", "failed"]


class Listing(list[T], Generic[T]):
    """A page of records; `after` is where the next page begins, None on the last one."""

    def __init__(self, records: Iterable[T] = (), after: str | None = None) -> None:
        super().__init__(records)
        self.after = after

    def to_pandas(self) -> DataFrame:
        """A row a record and a column a field, for which pandas must be installed."""
        import pandas

        return pandas.json_normalize([asdict(record) for record in self])  # type: ignore[call-overload,no-any-return,unused-ignore]


@dataclass(frozen=True)
class BaseModelRecord:
    """A frozen language model, identified by its dtype and the fingerprints of its weights, tokenizer and config."""

    name: str
    source: str
    revision: str
    architecture: str
    dtype: str
    weights: str
    tokenizer: str
    config: str

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What must be equal for a prompt to run on it."""
        return self.weights, self.tokenizer, self.config, self.dtype

    def __str__(self) -> str:
        return f"{self.name} ({self.weights[:15]}…, tokenizer {self.tokenizer[:15]}…, {self.dtype})"


@dataclass(frozen=True)
class Adapter:
    """A prompt's PEFT files: adapter_config.json and adapter_model.safetensors.

    `encoder` are the parameters that an encoder had, as safetensors; PEFT's files keep only what they came to.
    """

    config: bytes
    weights: bytes
    encoder: bytes | None = None


@dataclass(frozen=True)
class TaskRecord:
    """A task in the catalog; `published` is the version that serves it."""

    name: str
    description: str
    tags: tuple[str, ...]
    metric: str
    fingerprint: str
    source: str
    folder: str
    created_at: datetime
    published: int | None
    published_at: datetime | None
    score: float | None
    guarded: bool = False


@dataclass(frozen=True)
class VersionRecord:
    """A prompt version, written `task@number`. `digest` identifies its adapter files."""

    id: int
    task: str
    number: int
    state: VersionState
    method: str
    num_virtual_tokens: int
    digest: str
    base_model: BaseModelRecord
    created_at: datetime
    published_at: datetime | None
    retired_at: datetime | None
    metric: str | None
    score: float | None
    reason: str

    @property
    def label(self) -> str:
        return f"{self.task}@{self.number}"


@dataclass(frozen=True)
class Evaluation:
    """One score of one prompt on one data snapshot, with what each row got.

    `key` holds the parts that can move the score; equal keys mean that the score may be reused.
    """

    task: str
    kind: PromptKind
    metric: str
    score: float
    higher_is_better: bool
    metrics: Mapping[str, float]
    key: Mapping[str, str]
    predictions: tuple[Any, ...]
    references: tuple[Any, ...]
    truncated: int
    seconds: float

    @property
    def rows(self) -> int:
        return len(self.predictions)


@dataclass(frozen=True)
class EvaluationRecord:
    """An evaluation in a listing, without its rows; `version` is None for the hard prompt."""

    id: int
    task: str
    version: str | None
    kind: PromptKind
    metric: str
    score: float
    metrics: Mapping[str, float]
    rows: int
    truncated: int
    seconds: float
    data: str
    created_at: datetime


@dataclass(frozen=True)
class Run:
    """One training: settings, loss by step, validation by step, and when it stopped."""

    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    training_data: str
    validation_data: str
    losses: tuple[float, ...]
    validations: tuple[tuple[int, float, float], ...]
    best_step: int
    truncated: int
    seconds: float


@dataclass(frozen=True)
class Edge:
    """A lineage edge: `child`, a version, came from `parent` in the way `relation` says.

    The parent is a version, a folder that was imported, the fingerprint of data or of a base model, a run or a job.
    """

    child: str
    relation: str
    parent: str


@dataclass(frozen=True)
class Impact:
    """A published version that a change would touch, and the cost of evaluating it again."""

    version: str
    relation: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Event:
    """Who moved which pointer when and why."""

    id: int
    at: datetime
    actor: str
    kind: str
    task: str | None
    from_version: int | None
    to_version: int | None
    reason: str


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a difference."""

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
    """A row that is answered rightly on one side of a comparison and not on the other."""

    row: int
    reference: Any
    before: Any
    after: Any
    better: bool


@dataclass(frozen=True)
class Baseline:
    """What a version is held against: its evaluation, without its rows, and the task file that it was made with.

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
    """What a verdict rests on: `rows` compared of the `total`, of which so many were `lost` and `gained`.

    `interval` is of the drop, `detectable` the least drop that so many rows could show, `rows_needed` how many would
    settle what they leave open. None where the metric allows no such statement, as one of the hub does not.
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
    flips: tuple[Flip, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    """A published version against its baseline; `drop` is positive where the score got worse.

    `policy` is what a regression does: it keeps other candidates out ("block"), is told only ("warn"), or also moves
    the task back ("rollback"). `changes` are the parts of the score's key that are not the baseline's. Where it is
    `reused`, nothing that can move the score has changed, or this very comparison was made before.
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

    @property
    def blocks(self) -> bool:
        """Whether it keeps a check from passing. What could not be measured always does."""
        return self.verdict == "failed" or (self.verdict == "regressed" and self.policy != "warn")


@dataclass(frozen=True)
class CheckReport:
    """A regression evaluation: passed only if every task was measured and none that blocks has regressed.

    `evaluated`, `canaries` and `reused` count rows: run and compared, run to see that nothing moved, and not run since
    what they would say was known. `noise` is the share of the rows that moved which a second run answers in yet another
    way, None where none was made. `notes` tell what a reader should know beside the verdicts.
    """

    results: tuple[CheckResult, ...]
    seconds: float
    evaluated: int = 0
    canaries: int = 0
    reused: int = 0
    noise: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not any(result.blocks for result in self.results)

    @property
    def summary(self) -> str:
        counts = Counter(result.verdict for result in self.results)
        return f"{len(self.results)} checked: " + (", ".join(f"{n} {v}" for v, n in sorted(counts.items())) or "none")

    @property
    def cost(self) -> str:
        return (
            f"{self.evaluated} rows evaluated, {self.canaries} canaries, {self.reused} rows reused, "
            f"{self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class LearnReport:
    """What learning or importing a prompt came to.

    `untouched` says that every prompt published before still has its digest, recomputed from its stored bytes.
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


@dataclass(frozen=True)
class Matrix:
    """The accuracy matrix: `scores[i][j]` on task j after learning task i, None where it was not measured.

    `before` are the scores of the tasks' hard prompts, `higher_is_better` the signs of their metrics (empty: all True).
    """

    tasks: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    before: tuple[float | None, ...] = ()
    higher_is_better: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """An answer: the choice with a probability for each, or a generated text; or the `error` that stood in its way."""

    task: str
    version: str
    output: str
    probabilities: Mapping[str, float] | None = None
    truncated: bool = False
    error: str | None = None


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: `done` of `total` rows or steps of what `step` names, by which worker, in which attempt."""

    worker: str
    attempt: int
    step: str
    done: int
    total: int
    updated_at: datetime


@dataclass(frozen=True)
class Job:
    """One piece of scheduled work; `outcome` is what came of it, or why it failed. `task` is empty for a check.

    Of two that wait, the one of the lower `priority` runs first. `progress` is None before a worker takes it.
    """

    id: str
    kind: str
    task: str
    state: JobState
    priority: int
    created_at: datetime
    updated_at: datetime
    outcome: str
    progress: JobProgress | None = None

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")

    def wait(self, timeout: float | None = None) -> Job:
        """Wait until it has ended, and give it as it is then. Raises JobTimeoutError after `timeout` seconds."""
        look: Callable[[str, float | None], Job] = self.__dict__["_wait"]
        return look(self.id, timeout)

    def waiting(self, wait: Callable[[str, float | None], Job]) -> Job:
        """The same job, with what `wait` goes through."""
        object.__setattr__(self, "_wait", wait)
        return self


@dataclass(frozen=True)
class Outcome:
    """How a job ended: whether it came to what it was for, and what it says."""

    good: bool
    text: str


@dataclass(frozen=True)
class JobLog:
    """A line of a job's log."""

    at: datetime
    level: str
    worker: str
    message: str


@dataclass(frozen=True)
class Claim:
    """The right to write for a job; a newer claim on it ends this one."""

    job: str
    owner: str


@dataclass(frozen=True)
class WorkerRecord:
    """A process that does jobs; `beats` grows while it lives."""

    id: str
    name: str
    host: str
    pid: int
    slots: int
    beats: int
    started_at: datetime
    beat_at: datetime


@dataclass(frozen=True)
class Schedule:
    """When jobs of a kind are submitted: at the ticks of `cron` in a time zone, every so often, or by a `watch`.

    A watch looks at "data", "score", "base" or "age" (older than `every_seconds`) and keeps what it saw in `seen`.
    `next_at` is when it is looked at next.
    """

    name: str
    kind: str
    task: str | None
    cron: str | None
    every_seconds: float | None
    watch: str | None
    timezone: str
    priority: int
    active: bool
    seen: str
    next_at: datetime | None
    last_at: datetime | None
    last_job: str | None
    created_at: datetime


@dataclass(frozen=True)
class PlannedJob:
    """A job that a schedule will submit, and what such a job took when it ran last."""

    at: datetime
    schedule: str
    kind: str
    task: str | None
    seconds: float | None


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


@dataclass(frozen=True)
class VersionDiff:
    """What differs between two versions."""

    before: str
    after: str
    changes: tuple[Change, ...]
    scores: tuple[ScoreChange, ...]
    flips: tuple[Flip, ...]
    tokens: tuple[TokenChange, ...]


@dataclass(frozen=True)
class Garbage:
    """Stored files that nothing refers to, and what of these (and of stale checkpoints) is or would be deleted."""

    unused: int
    unused_bytes: int
    deleted: int
    deleted_bytes: int


@dataclass(frozen=True)
class SqlResult:
    """What a SELECT gave; `cut` says that there were more rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    cut: bool


@dataclass(frozen=True)
class Problem:
    """One thing that `verify` found wrong."""

    where: str
    what: str


Rows = Sequence[Mapping[str, Any]]
