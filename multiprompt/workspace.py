"""The workspace: a catalog and a base model, and the methods that move data from one to the other."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.writing import Candidate, Parent, digest
from multiprompt.config import DEFAULT_BASE_MODEL
from multiprompt.continual.gate import compare, failure
from multiprompt.errors import (
    BaseMismatchError,
    ConfigError,
    ConflictError,
    DataError,
    MultipromptError,
    NotFoundError,
    StateError,
    nearest,
)
from multiprompt.records import (
    CheckReport,
    CheckResult,
    Edge,
    Evaluation,
    Event,
    Job,
    LearnReport,
    Matrix,
    Prediction,
    Problem,
    Run,
    Schedule,
    TaskRecord,
    VersionRecord,
)

if TYPE_CHECKING:
    from multiprompt.engine.base import BaseModel
    from multiprompt.engine.prefix import Prefix
    from multiprompt.engine.prompt import SoftPrompt
    from multiprompt.jobs.durable import JobStore
    from multiprompt.tasks.split import Split
    from multiprompt.tasks.task import Task

# What is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
Notify = Callable[[str], None]


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True, eq=False)
class _Admission:
    """What asks to be published: a prompt, where it came from, and the data that it is measured on."""

    task: Task
    prompt: SoftPrompt
    run: Run | None
    parents: tuple[Parent, ...]
    test: Split
    training_data: tuple[Split, Split] | None


class Workspace:
    """Learn, serve, check and look up the prompts of one catalog. Made by `multiprompt.open`."""

    def __init__(
        self,
        catalog: Catalog,
        base_model: str | None = None,
        *,
        dtype: str | None = None,
        hub_metrics: bool = False,
        actor: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        progress: Progress = _silent,
        notify: Notify = lambda message: None,
    ) -> None:
        self.catalog = catalog
        self._reference = base_model
        self._dtype = dtype
        self._hub_metrics = hub_metrics
        self._actor = actor or getpass.getuser()
        self._clock = clock
        self._progress = progress
        self._notify = notify
        self._base: BaseModel | None = None
        self._base_lock = Lock()
        self._prefixes: Any = None

    # Learning

    def add_task(self, task: Task | str | Path) -> TaskRecord:
        """Put a task into the catalog after reading its data once, so that what is wrong with it shows now.

        Raises TaskFileError, TemplateError, MetricError, ConfigError or DataError; then nothing is added.
        """
        from multiprompt.tasks.task import Task

        read = task if isinstance(task, Task) else Task.from_file(task)
        self._read_rows(read)
        return self.catalog.add_task(read, self._actor, self._clock())

    def learn(self, name: str) -> LearnReport:
        """Train a prompt for a task, evaluate it, check every other published prompt, and publish or reject it.

        Nothing is stored before the one transaction at the end, so an interrupted call leaves the catalog as it was.
        """
        from multiprompt.engine.learning import learn_prompt
        from multiprompt.tasks.split import load_data

        task = self._task(name)
        before = self.catalog.digests()
        data = load_data(task)
        base = self.base_model()
        learned = learn_prompt(base, task, data, lambda done, total: self._progress(f"{name}: training", done, total))
        parents = tuple(Parent("retrained-from", old.label, old) for old in self._published_of(name))
        splits = (data.training, data.validation)
        return self._admit(_Admission(task, learned.prompt, learned.run, parents, data.test, splits), before)

    def import_adapter(self, name: str, folder: str | Path) -> LearnReport:
        """Take a PEFT prompt-tuning adapter as a new version; it is evaluated, gated and published like a trained one.

        Raises AdapterError when its method, shape or numbers cannot be a prompt for the base model.
        """
        from multiprompt.engine.prompt import from_adapter, read_adapter
        from multiprompt.tasks.split import load_test_split

        task = self._task(name)
        before = self.catalog.digests()
        prompt = from_adapter(self.base_model(), read_adapter(Path(folder)), str(folder))
        parents = (Parent("imported-from", str(folder)),)
        return self._admit(_Admission(task, prompt, None, parents, load_test_split(task), None), before)

    def rollback(self, name: str, to: int | None = None, reason: str = "") -> VersionRecord:
        """Publish a retired version again, by default the one retired last."""
        return self.catalog.roll_back(name, to, reason or "asked for", self._actor, self._clock())

    # Inference

    def predict(self, rows: Sequence[tuple[str, Mapping[str, Any] | str]]) -> list[Prediction]:
        """Answers for any mix of tasks; a row is a mapping of fields, or a text where the task reads one field.

        A name may carry a version: `sst2@2`. Raises NotFoundError for an unknown task or version, DataError naming the
        row that lacks a field.
        """
        from multiprompt.engine.answering import Question, answer, budget
        from multiprompt.tasks.example import queries

        base = self.base_model()
        versions = {label: self.version(label) for label in dict.fromkeys(label for label, _ in rows)}
        tasks = {label: self.catalog.task_file(version) for label, version in versions.items()}
        questions = []
        for number, (label, row) in enumerate(rows):
            task, version = tasks[label], versions[label]
            try:
                (query,) = queries(task, [_as_row(task, row)], budget(base, task, version.num_virtual_tokens))
            except DataError as error:
                raise DataError(f"row {number} of the call: {error}") from None
            questions.append(Question(task, self._prefix(base, task, version), query))
        answers = answer(base, questions, self._counter("predicting", len(questions)))
        return [
            Prediction(
                task=question.task.name,
                version=versions[label].label,
                output=str(found.output)
                if question.query.choices is None
                else question.query.choices[int(found.output)],
                probabilities=None
                if found.probabilities is None
                else dict(zip(question.query.choices or (), found.probabilities, strict=True)),
                truncated=question.query.truncated,
            )
            for (label, _), question, found in zip(rows, questions, answers, strict=True)
        ]

    # Regression

    def check(self) -> CheckReport:
        """Evaluate every published prompt on the rows of its baseline and compare. The result is stored.

        Raises BaseMismatchError when the base model is another than the prompts'.
        """
        started = time.perf_counter()
        _, published = self.catalog.published()
        if published:
            self.base_model()
        results, taken = [], {}
        for version in published:
            result, evaluation = self._check(version)
            results.append(result)
            if evaluation is not None:
                taken[version.label] = evaluation
        report = CheckReport(tuple(results), time.perf_counter() - started)
        self.catalog.save_check(report, taken, self._actor, self._clock())
        return report

    # Looking up

    def tasks(self, query: str = "") -> list[TaskRecord]:
        """Tasks that match a query like `tag.team = 'nlp' and score.acc > 0.8`; QueryError says where it is wrong.

        The language is described in catalog/query.py, the fields in catalog/fields.py.
        """
        return self.catalog.tasks(query)

    def versions(self, query: str = "") -> list[VersionRecord]:
        return self.catalog.versions(query)

    def version(self, label: str) -> VersionRecord:
        """`sst2@2`, or `sst2` for the published version."""
        return self.catalog.version(*parse_label(label))

    def evaluations(self, query: str = "") -> list[Evaluation]:
        return self.catalog.evaluations(query)

    def events(self, query: str = "") -> list[Event]:
        return self.catalog.events(query)

    def lineage(self, label: str) -> list[Edge]:
        """The edges above and below a version: what it came from, and what came from it; of every version of a task."""
        name, number = parse_label(label)
        own = [self.catalog.version(name, number)] if number is not None else self.catalog.versions_of(name)
        edges = self.catalog.lineage()
        up = _closure({v.label for v in own}, [(edge.child, edge.parent, edge) for edge in edges])
        down = _closure({v.label for v in own}, [(edge.parent, edge.child, edge) for edge in edges])
        return [edge for edge in edges if edge in up or edge in down]

    def matrix(self) -> Matrix:
        """R[i][j]: the score on task j after learning task i."""
        return self.catalog.matrix()

    def digest(self, label: str) -> str:
        """A version's digest, recomputed from its stored bytes."""
        return digest(self.catalog.adapter(self.version(label)))

    def verify(self) -> list[Problem]:
        return self.catalog.verify()

    def export(self, label: str, folder: str | Path) -> Path:
        """Write a version as a PEFT adapter folder that `PeftModel.from_pretrained` loads."""
        from multiprompt.engine.prompt import write_adapter

        version = self.version(label)
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StateError(f"{target} exists and is no empty folder: choose another, nothing was written.")
        write_adapter(self.catalog.adapter(version), target)
        (target / "README.md").write_text(_model_card(version), encoding="utf-8")
        return target

    # Jobs

    def submit(self, name: str) -> Job:
        """Queue the learning of a task for a worker; while one waits or runs, that one is given back."""
        self.catalog.task(name)
        return self.job_store.submit("learn", name)

    def schedule(self, name: str, *, cron: str, timezone: str | None = None) -> Schedule:
        """Learn a task anew at each tick of a cron expression, in UTC or an IANA time zone. Raises ConfigError."""
        self.catalog.task(name)
        return self.job_store.schedule("learn", name, cron, timezone)

    def jobs(self) -> list[Job]:
        return self.job_store.jobs()

    def schedules(self) -> list[Schedule]:
        return self.job_store.schedules()

    @cached_property
    def job_store(self) -> JobStore:
        from multiprompt.jobs.durable import JobStore

        return JobStore(self.catalog.path)

    # The base model

    def base_model(self) -> BaseModel:
        """The base model, loaded on first use and held against the catalog's fingerprints.

        Raises BaseMismatchError naming both when it is another than the catalog's.
        """
        from multiprompt.engine.base import load_base_model
        from multiprompt.engine.hub import locate

        with self._base_lock:
            if self._base is None:
                reference, dtype, bound = self.catalog.base_model()
                source = locate(self._reference or reference or DEFAULT_BASE_MODEL, self._notify)
                base = load_base_model(source, self._dtype or dtype)
                if bound is None:
                    self.catalog.bind_base_model(base.record, self._actor, self._clock())
                elif bound.identity != base.record.identity:
                    raise BaseMismatchError(
                        f"{self.catalog.path} holds prompts for {bound}, but {base.record} was loaded. "
                        "Open it with that base model and dtype, or make another catalog for this one."
                    )
                self._base = base
            return self._base

    # Steps of the above

    def _admit(self, admission: _Admission, before: Mapping[str, str]) -> LearnReport:
        """Evaluate, gate, and publish or reject in one transaction; gate again what others published meanwhile.

        `before` are the digests of all published prompts from before the training.
        """
        from multiprompt.engine.evaluation import Subject
        from multiprompt.engine.prompt import to_adapter

        base, task = self.base_model(), admission.task
        adapter = to_adapter(admission.prompt)
        soft = self._evaluate(task, admission.test, Subject.soft(admission.prompt, digest(adapter)))
        hard = self._evaluate(task, admission.test, Subject.hard(task))
        candidate = Candidate(
            task,
            base.record,
            adapter,
            admission.prompt.num_virtual_tokens,
            admission.run,
            admission.parents,
            hard,
            soft,
            admission.test,
            admission.training_data,
        )
        started = time.perf_counter()
        checked: dict[int, CheckResult] = {}
        while True:
            epoch, published = self.catalog.published()
            for version in published:
                if version.task != task.name and version.id not in checked:
                    checked[version.id], _ = self._check(version)
            results = tuple(checked[version.id] for version in published if version.task != task.name)
            check = CheckReport(results, time.perf_counter() - started)
            publish, reason = self._decide(admission, soft, check)
            try:
                version = self.catalog.admit(
                    candidate, check, publish=publish, reason=reason, epoch=epoch, actor=self._actor, at=self._clock()
                )
            except ConflictError:
                continue
            break
        return LearnReport(
            version=version.label,
            published=publish,
            reason=reason,
            metric=soft.metric,
            hard=hard.score,
            soft=soft.score,
            train_seconds=admission.run.seconds if admission.run else 0.0,
            truncated=soft.truncated,
            check=check,
            untouched=all(self.digest(label) == old for label, old in before.items()),
        )

    def _decide(self, admission: _Admission, soft: Evaluation, check: CheckReport) -> tuple[bool, str]:
        """Publish, unless an older task got worse or the task's own published version is better on the same rows."""
        from multiprompt.engine.evaluation import Subject

        for result in check.results:
            if result.verdict in ("regressed", "failed"):
                return False, f"{result.version} {result.verdict}: {result.cause or 'unknown cause'}"
        for old in self._published_of(admission.task.name):
            was = self._evaluate(admission.task, admission.test, Subject.soft(self._prompt(old), old.digest))
            result = compare(old.label, was, soft, admission.task.config.regression.max_drop)
            if result.verdict == "regressed":
                return (
                    False,
                    f"{old.label} is better: {soft.metric} {was.score:.4f}, the candidate has {soft.score:.4f}",
                )
        return True, f"{soft.metric} {soft.score:.4f}"

    def _check(self, version: VersionRecord) -> tuple[CheckResult, Evaluation | None]:
        """Measure a published version on its baseline's rows; what cannot be measured has failed."""
        from multiprompt.engine.evaluation import Subject, evaluate

        max_drop = 0.0
        try:
            task = self.catalog.task_file(version)
            max_drop = task.config.regression.max_drop
            baseline = self.catalog.baseline(version)
            rows = self.catalog.evaluation_rows(version)
            current = evaluate(
                self.base_model(),
                task,
                rows,
                Subject.soft(self._prompt(version), version.digest),
                hub_metrics=self._hub_metrics,
                advance=self._counter(f"{version.label}: checking", len(rows.rows)),
            )
            return compare(version.label, baseline, current, max_drop), current
        except (MultipromptError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            return failure(version.label, version.metric or "", version.score or 0.0, max_drop, reason), None

    def _evaluate(self, task: Task, split: Split, subject: Any) -> Evaluation:
        """A score: the stored one where every influence is the same, else measured."""
        from multiprompt.engine.evaluation import evaluate, evaluation_key

        base = self.base_model()
        stored = self.catalog.evaluation_with_key(evaluation_key(base, task, split, subject))
        if stored is not None and stored.task == task.name:
            return stored
        what = f"{task.name}: evaluating the {'hard' if subject.prompt is None else 'soft'} prompt"
        return evaluate(
            base, task, split, subject, hub_metrics=self._hub_metrics, advance=self._counter(what, len(split.rows))
        )

    def _prompt(self, version: VersionRecord) -> SoftPrompt:
        from multiprompt.engine.prompt import from_adapter

        base = self.base_model()
        if version.base_model.identity != base.record.identity:
            raise BaseMismatchError(
                f"{version.label} was trained on {version.base_model}, but the catalog is open with {base.record}. "
                f"Open it with that base model, or run `multiprompt learn {version.task}`."
            )
        return from_adapter(base, self.catalog.adapter(version), version.label)

    def _prefix(self, base: BaseModel, task: Task, version: VersionRecord) -> Prefix:
        from multiprompt.engine.answering import compile_task
        from multiprompt.engine.prefix import PrefixCache

        if self._prefixes is None:
            self._prefixes = PrefixCache()
        prefix: Prefix = self._prefixes.get(version.id, lambda: compile_task(base, task, self._prompt(version)))
        return prefix

    def _published_of(self, name: str) -> list[VersionRecord]:
        return [version for version in self.catalog.versions_of(name) if version.state == "published"]

    def _task(self, name: str) -> Task:
        from multiprompt.tasks.task import Task

        record = self.catalog.task(name)
        return Task.from_source(record.source, Path(record.folder), where=name)

    def _read_rows(self, task: Task) -> None:
        """Render every row once, with a token count that costs nothing, to find what is wrong before training does."""
        from multiprompt.tasks.example import Budget, examples
        from multiprompt.tasks.split import load_data, load_test_split

        data = load_data(task) if task.data.training else None
        everything = Budget(tokens=1, count=lambda _: 0)
        for split in (data.training, data.validation, data.test) if data else (load_test_split(task),):
            examples(task, split, everything)

    def _counter(self, what: str, total: int) -> Callable[[int], None]:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self._progress(what, done, total)

        return advance


def parse_label(label: str) -> tuple[str, int | None]:
    """`sst2@2` → ("sst2", 2); `sst2` → ("sst2", None). Raises NotFoundError for anything else after the @."""
    name, at, number = label.partition("@")
    if not at:
        return name, None
    if not number.isdecimal() or len(number) > 9:
        raise NotFoundError(f"{label!r} names no version: write task@number, for example {name}@1.")
    return name, int(number)


def _closure(start: set[str], steps: Sequence[tuple[str, str, Edge]]) -> set[Edge]:
    """The edges that can be walked from `start`; a step is (from, to, edge)."""
    reached, found, frontier = set(start), set(), set(start)
    while frontier:
        walked = [(to, edge) for origin, to, edge in steps if origin in frontier]
        found |= {edge for _, edge in walked}
        frontier = {to for to, _ in walked} - reached
        reached |= frontier
    return found


def _as_row(task: Task, row: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if not isinstance(row, str):
        return row
    if len(task.fields) != 1:
        raise DataError(
            f"{task.name} reads the fields {', '.join(sorted(task.fields))}; give them by name instead of one text."
        )
    return {next(iter(task.fields)): row}


def _model_card(version: VersionRecord) -> str:
    base = version.base_model
    score = f"{version.metric} {version.score:.4f}" if version.score is not None else "not evaluated"
    return f"""---
base_model: {base.source}
library_name: peft
---
# {version.label}

A soft prompt of {version.num_virtual_tokens} virtual tokens ({version.method}) for {base.name}, {score}.

- digest: {version.digest}
- base model: {base.source}, revision {base.revision}, dtype {base.dtype}
- base weights: {base.weights}

Load it with `PeftModel.from_pretrained(base_model, "this folder")`.
"""


def open_workspace(
    catalog: str | Path = "multiprompt.db", base_model: str | None = None, *, create: bool = True, **options: Any
) -> Workspace:
    """Open a catalog (a path or a SQLAlchemy URL), making a missing one.

    `base_model` is an alias, a folder or a hub id; by default the catalog's own, or smollm2-135m for a new catalog.
    `options` are those of Workspace: dtype, hub_metrics, actor, clock, progress, notify.
    """
    known: Iterable[str] = ("dtype", "hub_metrics", "actor", "clock", "progress", "notify")
    for option in options:
        if option not in known:
            raise ConfigError(f"open has no option {option!r}; {nearest(option, known)}")
    return Workspace(Catalog.open(str(catalog), create=create), base_model, **options)
