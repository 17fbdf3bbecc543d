"""Records of the catalog: tasks, versions, evaluations, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from multiprompt.errors import counted
from multiprompt.records.shown import Shown, cell

if TYPE_CHECKING:
    from pandas import DataFrame

VersionState = Literal["candidate", "published", "retired", "rejected"]
PromptKind = Literal["soft", "hard"]


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
        """The fingerprints that must be equal for a prompt to run on it."""
        return self.weights, self.tokenizer, self.config, self.dtype

    def difference(self, other: BaseModelRecord) -> str:
        """Which parts of the identity differ, to be read after "with"."""
        names = ("other weights", "another tokenizer", "another config", "another dtype")
        pairs = zip(names, self.identity, other.identity, strict=True)
        return " and ".join(name for name, mine, theirs in pairs if mine != theirs)

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


@dataclass(frozen=True, repr=False)
class TaskRecord(Shown):
    """A task in the catalog; `published` is the version that serves it.

    `file` is the path of its task file: empty where it was added without one, None where an older release added it.
    """

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
    file: str | None = None

    def _facts(self) -> Mapping[str, Any]:
        published = "–" if self.published is None else f"{self.name}@{self.published}"
        facts = {"task": self.name, "metric": self.metric, "score": self.score, "published": published}
        return {**facts, "since": self.published_at, "tags": self.tags, **({"guarded": True} if self.guarded else {})}

    @property
    def _line(self) -> str:
        if self.published is None:
            return f"{self.name}: {self.metric}, nothing published"
        return f"{self.name}: {self.metric} {cell(self.score)}, published {self.name}@{self.published}"


TaskChange = Literal["new", "changed", "unchanged"]


@dataclass(frozen=True, repr=False)
class AddedTask(TaskRecord):
    """A task as it was added: new, changed (`difference` says how) or unchanged, with `warnings` of its data."""

    change: TaskChange = "new"
    difference: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def _facts(self) -> Mapping[str, Any]:
        return {**super()._facts(), "change": self.change, "warnings": self.warnings}

    @property
    def _line(self) -> str:
        warned = f", {counted(len(self.warnings), 'warning')}" if self.warnings else ""
        return f"{super()._line}; {self.change}{warned}"


@dataclass(frozen=True, repr=False)
class NewTask(Shown):
    """A task that was made from a data file, and `added` to the catalog.

    It has the task file, the number of `rows` of each split, the `labels` of a choice, and notes of left-out rows.
    """

    file: Path
    rows: Mapping[str, int]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    added: AddedTask

    def _facts(self) -> Mapping[str, Any]:
        return {"task": self.added.name, "file": self.file, "rows": self.rows, "labels": len(self.labels)}


@dataclass(frozen=True, repr=False)
class VersionRecord(Shown):
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

    def _facts(self) -> Mapping[str, Any]:
        facts = {"version": self.label, "state": self.state, "metric": self.metric, "score": self.score}
        made = {"method": self.method, "tokens": self.num_virtual_tokens, "base model": self.base_model.name}
        return {**facts, **made, "published": self.published_at, "reason": self.reason}

    @property
    def _line(self) -> str:
        score = "" if self.metric is None else f", {self.metric} {cell(self.score)}"
        return f"{self.label} {self.state}{score}, {self.method} of {self.num_virtual_tokens} tokens"


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """One score of one prompt on one data snapshot, with what each row got.

    `key` holds the parts that can move the score; equal keys mean that the score may be reused.
    `metrics` are all scores by their metric, `score` by `metric` among them.
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

    def _facts(self) -> Mapping[str, Any]:
        return {"task": self.task, "prompt": self.kind, "rows": self.rows, **self.metrics}


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
    Data have `rows` of a `split`. `name` tells the parent to a reader: "train.csv, 44 rows, sha256:32e3…".
    """

    child: str
    relation: str
    parent: str
    split: str | None = None
    rows: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class Impact:
    """A published version that a change would touch, and the cost of evaluating it again."""

    version: str
    relation: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Event:
    """One change of the catalog: its time, its actor, its reason, and the versions that a pointer moved between."""

    id: int
    at: datetime
    actor: str
    kind: str
    task: str | None
    from_version: int | None
    to_version: int | None
    reason: str


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
class Garbage:
    """Stored files that nothing refers to, and what of these (and of stale checkpoints) is or would be deleted."""

    unused: int
    unused_bytes: int
    deleted: int
    deleted_bytes: int


@dataclass(frozen=True)
class SqlResult:
    """The result of a SELECT; `cut` says that there were more rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    cut: bool

    def to_pandas(self) -> DataFrame:
        """The rows as a data frame, for which pandas must be installed."""
        import pandas

        return pandas.DataFrame(self.rows, columns=list(self.columns))


@dataclass(frozen=True)
class Problem:
    """One thing that `verify` found wrong."""

    where: str
    what: str
