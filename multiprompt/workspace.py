"""The workspace: a catalog and a base model, and the methods that move data from one to the other."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import InputRow, as_pair, as_rows, parse_label
from multiprompt.catalog.writing import Parent, digest
from multiprompt.config import DEFAULT_BASE_MODEL, DEFAULT_PRIORITY, POLICIES
from multiprompt.errors import (
    BaseMismatchError,
    ConfigError,
    DataError,
    IntegrityError,
    MultipromptError,
    NotFoundError,
    StateError,
    TrainingError,
    counted,
    nearest,
)
from multiprompt.records import (
    Adapter,
    AddedTask,
    BaseModelRecord,
    CheckReport,
    Claim,
    Edge,
    Evaluation,
    EvaluationRecord,
    Event,
    Garbage,
    Impact,
    Job,
    JobLog,
    LearnReport,
    LearnState,
    Listing,
    Matrix,
    PlannedJob,
    Prediction,
    Problem,
    Progress,
    Rendering,
    Schedule,
    SqlResult,
    TaskRecord,
    TokenChange,
    VersionDiff,
    VersionRecord,
)

if TYPE_CHECKING:
    from multiprompt.admission import Admission
    from multiprompt.checking import Checking
    from multiprompt.config import PromptConfig
    from multiprompt.engine.base import BaseModel
    from multiprompt.engine.prompt import SoftPrompt
    from multiprompt.inference import Inference
    from multiprompt.jobs.durable import JobStore
    from multiprompt.measuring import Measuring
    from multiprompt.tasks.example import Example, Query
    from multiprompt.tasks.task import Task

Notify = Callable[[str], None]


# The state of a version that was just admitted.
_LEARN_STATES: Mapping[str, LearnState] = {
    "published": "published",
    "candidate": "candidate",
    "rejected": "rejected",
    "retired": "retired",
}


# Longer ago than any catalog was made.
_MAX_DAYS = 365_000


def _silent(what: str, done: int, total: int) -> None:
    pass


def _zoned(clock: Callable[[], datetime]) -> Callable[[], datetime]:
    """The same clock, which raises ConfigError where it gives a time without a zone: that may be of any zone."""

    def now() -> datetime:
        at = clock()
        if at.utcoffset() is None:
            raise ConfigError(f"the clock gave {at.isoformat()} without a zone: give one like datetime.now(UTC).")
        return at

    return now


def _user() -> str:
    """The user's name; in a container it may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


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
        self.actor = actor or _user()
        self._clock = _zoned(clock)
        self.progress = progress
        self._notify = notify
        self._base: BaseModel | None = None
        # What the catalog was bound to when the base model was loaded.
        self._bound: BaseModelRecord | None = None
        self._base_lock = Lock()
        self._inference: Inference | None = None

    # Learning

    def add_task(self, task: Task | str | Path) -> AddedTask:
        """Put a task into the catalog after checking everything that learning it needs, but for lengths in tokens.

        Raises TaskFileError, TemplateError, MetricError, ConfigError or DataError; then nothing is added. Once the
        base model is loaded, AdapterError for prefix tuning on one that takes no keys and values.
        """
        from multiprompt.tasks.file_change import difference
        from multiprompt.tasks.task import Task

        read = task if isinstance(task, Task) else Task.from_file(task)
        warnings = self._checked(read)
        if self._base is not None and read.config.prompt.method == "prefix-tuning":
            self._base.require_past()
        changed: tuple[str, ...] | None
        try:
            changed = difference(self.task(read.name).mapping, read.mapping)
        except NotFoundError:
            changed = None
        except MultipromptError as error:
            changed = (f"the file that was added before cannot be read any more: {error}",)
        record = self.catalog.add_task(read, self.actor, self._clock())
        change: Any = "new" if changed is None else "changed" if changed else "unchanged"
        return AddedTask(**vars(record), change=change, difference=changed or (), warnings=warnings)

    def learn(self, name: str, *, as_added: bool = False) -> LearnReport:
        """Train a prompt for a task, evaluate it, check every other published prompt, and publish, hold or reject it.

        A version is stored in the one transaction at the end. A call that was interrupted goes on, when it is made
        again, from the last validation that its training reached. Raises StateError where the task file was edited
        since it was added, unless it is to be learned `as_added`.
        """
        return self.learn_many([name], as_added=as_added)[0]

    def learn_many(self, names: Sequence[str], *, as_added: bool = False) -> list[LearnReport]:
        """Train prompts for several tasks in the same passes over the base model, then admit one after another.

        Each comes out as `learn` would make it. One whose training fails raises TrainingError after the others are in.
        """
        return list(self.learn_each(names, as_added=as_added))

    def learn_each(self, names: Sequence[str], *, as_added: bool = False) -> Iterator[LearnReport]:
        """The same, a report at a time: those of the tasks that are in are not lost where a later one raises."""
        from multiprompt.admission import Admission, existing, parents
        from multiprompt.continual.data_faults import data_faults
        from multiprompt.engine.adapter import to_adapter
        from multiprompt.engine.learning import Learned, Lesson, learn_prompts
        from multiprompt.tasks.split import load_data

        if len(set(names)) < len(names):
            raise ConfigError(f"learn_many got a task twice: {', '.join(sorted(names))}.")
        tasks = [self.task(name) if as_added else self.task_as_on_disk(name) for name in names]
        before = self.catalog.digests()
        base = self.base_model()
        starts = [self.start(task)[0] for task in tasks]
        replaced = [self.published(task.name) for task in tasks]
        lessons = [
            Lesson(task, load_data(task), None if start is None else self.prompt(start, to_train=True))
            for task, start in zip(tasks, starts, strict=True)
        ]
        outcomes = learn_prompts(
            base,
            lessons,
            lambda training: self.progress(f"{training.name}: training", training.step, training.config.steps),
            self._checkpoint,
            lambda name, key, data: self.catalog.save_checkpoint(name, key, data, self.actor, self._clock()),
        )
        for lesson, old, start, outcome in zip(lessons, replaced, starts, outcomes, strict=True):
            if isinstance(outcome, Learned):
                splits = (lesson.data.training, lesson.data.validation)
                came_from = parents(old, start)
                adapter = to_adapter(outcome.prompt)
                admission = Admission(
                    lesson.task, outcome.prompt, adapter, outcome.run, came_from, lesson.data.test, splits
                )
                known = existing(self.catalog, lesson.task, adapter, lesson.data.test)
                if known is None:
                    report = self._admit(admission, before)
                    before |= {report.version: digest(adapter)}
                else:
                    report = self._nothing_new(admission, known, before)
                yield replace(report, warnings=data_faults(lesson.task, lesson.data))
        for outcome in outcomes:
            if isinstance(outcome, TrainingError):
                raise outcome

    def import_adapter(self, name: str, folder: str | Path) -> LearnReport:
        """Take a PEFT adapter of any prompt method as a new version; it is gated and published like a trained one.

        One that has the bytes of a version of the task becomes none. Raises AdapterError when its method, shape or
        numbers cannot be a prompt for the base model, and BaseMismatchError where the folder's card says that it was
        made on another one. Where nothing but a name says so, the report warns.
        """
        from multiprompt.admission import Admission
        from multiprompt.continual.data_faults import few_rows
        from multiprompt.engine.adapter import from_adapter, read_adapter, to_adapter, trainable
        from multiprompt.tasks.split import load_test_split

        task = self.task(name)
        before = self.catalog.digests()
        adapter = read_adapter(Path(folder))
        doubts = _base_doubts(self.base_model(), adapter, Path(folder))
        prompt = from_adapter(self.base_model(), adapter, str(folder))
        trainable(self.base_model(), adapter, str(folder))
        parents = (Parent("imported-from", str(folder)),)
        files = to_adapter(prompt)
        if adapter.encoder is not None:
            files = replace(files, encoder=adapter.encoder)
        test = load_test_split(task)
        report = self._admit(Admission(task, prompt, files, None, parents, test, None), before)
        return replace(report, warnings=(*self._file_notes({name}), *doubts, *few_rows(task, test)))

    def rollback(self, name: str, to: int | None = None, reason: str = "", *, force: bool = False) -> VersionRecord:
        """Publish a retired version again, by default the one retired last.

        Raises StateError for a guarded task unless `force` and a reason are given.
        """
        return self.catalog.roll_back(name, to, reason, self.actor, self._clock(), force=force)

    def publish(self, label: str, reason: str = "", *, force: bool = False) -> VersionRecord:
        """Publish a candidate that was held, as its task is guarded or it did not learn.

        Raises StateError unless `force` and a reason are given.
        """
        name, number = parse_label(label)
        return self.catalog.publish(name, number, reason, self.actor, self._clock(), force=force)

    def guard(self, name: str, guarded: bool = True, reason: str = "") -> None:
        """Hold what a task would publish until it is published by force and with a reason."""
        self.catalog.guard(name, guarded, reason, self.actor, self._clock())

    def note(self, name: str, text: str) -> None:
        """Keep a note on a task among its events; the query function `matches` finds it."""
        self.catalog.note(name, text, self.actor, self._clock())

    # Inference

    def predict(self, rows: Iterable[InputRow], *, strict: bool = True, seed: int = 0) -> list[Prediction]:
        """Answers for any mix of tasks; a row is a mapping of fields, or a text where the task reads one field.

        A name may carry a version: `sst2@2`. A row that cannot be answered raises an error naming it;
        with `strict=False` it gets a Prediction whose `error` says why, and the others their answers. `seed` is for
        tasks that ask for sampling.
        """
        from multiprompt.measuring import counter

        asked = as_rows(rows)
        if strict and self._base is None:
            self._require_served(asked)
        advance = counter(self.progress, "predicting", len(asked))
        return self.inference().predict(asked, strict=strict, seed=seed, advance=advance)

    def stream(self, name: str, row: Mapping[str, Any] | str, *, seed: int = 0) -> Iterator[str]:
        """A generated answer piece by piece, as the model writes it and before the task's filters."""
        self.version(name)
        return self.inference().stream(name, row, seed)

    def render(self, name: str, row: Mapping[str, Any] | str | int, *, split: str = "test") -> Rendering:
        """What the model reads for a row: a mapping of fields, a text, or the number of a row of a split.

        A row of a split comes with its answer; splits are training, validation and test. A task that has no published
        version is rendered as its file says. Raises NotFoundError or DataError.
        """
        from multiprompt.engine.answering import budget
        from multiprompt.engine.rendering import render
        from multiprompt.inference import as_row
        from multiprompt.tasks.example import example, query_of
        from multiprompt.tasks.split import load_row

        learned = parse_label(name)[1] is not None or self.catalog.task(name).published is not None
        version = self.version(name) if learned else None
        task = self.task(name) if version is None else self.catalog.task_file(version)
        base = self.base_model()
        length = task.config.prompt.num_virtual_tokens if version is None else version.num_virtual_tokens
        room = budget(base, task, length)
        asked: Query | Example
        if isinstance(row, int) and not isinstance(row, bool):
            asked = example(task, load_row(task, split, row), room, f"{task.name}: row {row} of split {split!r}")
        else:
            asked = query_of(task, as_row(task, row), room)
        return render(base, task, asked, None if version is None else version.label, length)

    def _require_served(self, rows: Sequence[InputRow]) -> None:
        """Raises NotFoundError for a label without a version before a base model is loaded for it."""
        known: set[str] = set()
        for number, asking in enumerate(rows):
            try:
                label = as_pair(asking)[0]
                if label not in known:
                    self.version(label)
                    known.add(label)
            except (DataError, NotFoundError) as error:
                raise type(error)(f"row {number} of the call: {error}") from None

    def inference(self) -> Inference:
        """What `predict` and `stream` go through; made on first use and kept."""
        from multiprompt.inference import Inference

        base = self.base_model()
        with self._base_lock:
            if self._inference is None:
                self._inference = Inference(self.catalog, base)
            return self._inference

    # Regression

    def check(self, *, full: bool = False, dry_run: bool = False) -> CheckReport:
        """Hold every published prompt, as it is served, against its baseline, on its data as it is now; stored.

        This is the one place where prompts run on another base model than their own: that is measured, and named as
        the cause. Where the base model's files changed since it was loaded, the check runs on what they hold now, and
        `predict` keeps to the model that was loaded. `full` runs all rows of all tasks. A task whose policy is
        rollback, and which regressed, gets its previous version back where that one is better. With `dry_run`, or on a
        base model that the workspace was opened with in place of the catalog's, it is a trial: nothing is stored, moved
        or triggered.
        """
        from multiprompt.retreat import roll_back_regressed

        report, served = CheckReport((), 0.0, trial=dry_run), self.catalog.published()[1]
        if served:
            base = self._as_stored(dry_run=dry_run)
            trial = dry_run or self._is_on_another_base(base.record)
            checking = self._checking(base, trial=trial)
            report = checking.published(full=full)
            notes = self._file_notes({version.task for version in served})
            if trial:
                notes.append("this is a trial: nothing was stored, moved or triggered")
            else:
                notes += roll_back_regressed(checking, self.catalog, report, self.actor, self._clock)
            report = replace(report, notes=(*report.notes, *notes), trial=trial)
        if report.trial:
            self.catalog.conclude(report.passed, f"trial: {report.summary}", self.actor, self._clock())
        else:
            self.catalog.save_check(report, self.actor, self._clock())
        return report

    def report_html(self, report: CheckReport) -> str:
        """A check as one self-contained page."""
        from multiprompt.report import html

        base = "no base model" if self._base is None else str(self._base.record)
        return html(report, self.matrix(), self.catalog.location, base, self._clock())

    def report_junit(self, report: CheckReport) -> str:
        """A check as JUnit XML."""
        from multiprompt.report import junit

        return junit(report, self._clock())

    def bless(self, label: str, reason: str) -> Evaluation:
        """Accept what a published version scores now, as it is served, on its data as it is, as its baseline; an event.

        Raises StateError without a reason, or for a version that is not published, and BaseMismatchError on another
        base model than the catalog's, on which it is not served.
        """
        version = self.version(label)
        if version.state != "published":
            raise StateError(f"{version.label} is {version.state}; only a published version has a baseline to bless.")
        if not reason.strip():
            raise StateError("a baseline is blessed for a reason; give one with --reason.")
        self.base_model()
        task, split, evaluation = self.checking().whole(version)
        self.catalog.bless(version, task, split, evaluation, reason, self.actor, self._clock())
        return evaluation

    def set_policy(self, policy: str, reason: str = "") -> None:
        """What a regression does where a task file does not say: "block", "warn" or "rollback". Raises ConfigError."""
        if policy not in POLICIES:
            raise ConfigError(f"no policy {policy!r}; {nearest(policy, POLICIES)}")
        self.catalog.set_policy(policy, reason, self.actor, self._clock())

    def evaluate(self, name: str) -> Evaluation:
        """Score a task's published version, as it is served, on the rows that its data has now.

        A new score is stored; where the same one was taken before, that one is given.
        """
        from multiprompt.checking import served_task
        from multiprompt.tasks.split import load_test_split

        version, measuring = self.version(name), self.measuring()
        task = served_task(version, self.catalog.baseline_of(version))
        split = load_test_split(task)
        stored = measuring.stored(task, split, measuring.subject(version))
        if stored is not None:
            told = f"{version.label}: {stored.metric} {stored.score:.4f} (reused)"
            self.catalog.conclude(True, told, self.actor, self._clock())
            return stored
        evaluation = measuring.version(version, task, split)
        self.catalog.save_evaluation(version, split, evaluation, self.actor, self._clock())
        return evaluation

    def measuring(self) -> Measuring:
        """What scores are taken with, on the base model."""
        from multiprompt.measuring import Measuring

        return Measuring(self.catalog, self.base_model(), hub_metrics=self._hub_metrics, progress=self.progress)

    def checking(self) -> Checking:
        """What published prompts are checked with, on the base model."""
        return self._checking(self.base_model())

    def _checking(self, base: BaseModel, *, trial: bool = False) -> Checking:
        """Checks on a base model; in a `trial` nothing is stored."""
        from multiprompt.checking import Checking

        return Checking(
            self.catalog,
            base,
            hub_metrics=self._hub_metrics,
            progress=self.progress,
            actor=self.actor,
            clock=self._clock,
            trial=trial,
        )

    # Looking up

    def tasks(
        self, query: str = "", *, after: str | None = None, limit: int | None = None, as_of: datetime | None = None
    ) -> Listing[TaskRecord]:
        """Tasks that match a query like `tag.team = 'nlp' and score.acc > 0.8`; QueryError says where it is wrong.

        The language is described in catalog/query.py, the fields in catalog/fields.py. A page of `limit` records ends
        with the `after` to ask for the next one with; `as_of` shows what was published at a time.
        """
        return self.catalog.tasks(query, after=after, limit=limit, as_of=as_of)

    def versions(
        self, query: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Listing[VersionRecord]:
        return self.catalog.versions(query, after=after, limit=limit)

    def version(self, label: str) -> VersionRecord:
        """`sst2@2`, or `sst2` for the published version."""
        return self.catalog.version(*parse_label(label))

    def evaluations(
        self, query: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Listing[EvaluationRecord]:
        return self.catalog.evaluations(query, after=after, limit=limit)

    def evaluation(self, identity: int) -> Evaluation:
        """An evaluation of a listing, with what each row got."""
        return self.catalog.evaluation(identity)

    def events(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Event]:
        return self.catalog.events(query, after=after, limit=limit)

    def notes(self, name: str) -> list[Event]:
        """The notes on a task, oldest first. Raises NotFoundError."""
        quoted = self.catalog.task(name).name.replace("'", "''")
        return list(self.events(f"kind = 'noted' and task = '{quoted}'"))

    def lineage(self, label: str) -> list[Edge]:
        """What a version (or every version of a task) came from, what came from it, and what each was made of."""
        return self.catalog.lineage(*parse_label(label))

    def provenance(self, label: str, form: str) -> str:
        """The lineage as "tree", "mermaid", "dot", "prov" (W3C PROV-JSON) or "openlineage" (a list of run events)."""
        from multiprompt.catalog import provenance

        name, number = parse_label(label)
        edges = self.lineage(label)
        if form in ("prov", "openlineage"):
            labels = {edge.child for edge in edges}
            versions = {version.label: version for version in self.catalog.versions_labelled(labels)}
            return {"prov": provenance.prov_json, "openlineage": provenance.openlineage}[form](edges, versions)
        start = [version.label for version in self.catalog.versions_of(name) if number in (None, version.number)]
        drawings = {"tree": provenance.tree, "mermaid": provenance.mermaid, "dot": provenance.dot}
        if form not in drawings:
            raise ConfigError(f"no form {form!r}: give tree, mermaid, dot, prov or openlineage.")
        return drawings[form](edges, start)

    def diff(self, before: str, after: str, *, tokens: bool = True) -> VersionDiff:
        """What differs between two versions: how they were made, scores, rows that flipped, and the virtual tokens.

        The last needs the base model; without `tokens` it is not loaded.
        """
        from multiprompt import diff

        old, new = self.version(before), self.version(after)
        compared: Sequence[TokenChange] = ()
        if tokens:
            from multiprompt.engine.inspection import compare_tokens

            compared = compare_tokens(self.base_model(), self.prompt(old), self.prompt(new))
        return diff.diff(self.catalog, old, new, compared)

    def impact_of_base(self, name: str) -> list[Impact]:
        """The published prompts that a change of the base model would touch, with the cost of evaluating them again."""
        return self.catalog.impact_of_base(name)

    def impact_of_data(self, fingerprint: str) -> list[Impact]:
        """The published prompts that were trained, validated or scored on data; a fingerprint may be cut."""
        return self.catalog.impact_of_data(fingerprint)

    def matrix(self) -> Matrix:
        """R[i][j]: the score on task j after learning task i."""
        return self.catalog.matrix()

    def digest(self, label: str) -> str:
        """A version's digest, recomputed from its stored bytes."""
        return digest(self.catalog.adapter(self.version(label)))

    def sql(self, statement: str, limit: int = 1000, *, seconds: float = 30.0) -> SqlResult:
        """The first rows of a SELECT over the views v_tasks, v_versions, v_evaluations, v_lineage, v_events and v_jobs.

        The last is there once there was a job. Raises QueryError, also for one that takes longer than `seconds`.
        """
        from multiprompt.jobs.table import attached

        jobs = attached(self.catalog.path) if self.catalog.is_file else None
        return self.catalog.sql(statement, limit, jobs, seconds=seconds)

    def verify(self) -> list[Problem]:
        """Every digest, reference and invariant that does not hold."""
        return self.catalog.verify(self.progress)

    def backup(self, file: str | Path) -> Path:
        """Copy the catalog into a new SQLite file, while others work in it."""
        self.catalog.backup(Path(file), self.progress)
        return Path(file)

    def collect_garbage(self, *, days: float = 30, dry_run: bool = False) -> Garbage:
        """Delete stored files that nothing has referred to for so many days; a dry run only says what it would.

        What belongs to a job that waits or runs stays, however old it is. Raises ConfigError for days below 0 or NaN.
        """
        if not days >= 0:
            raise ConfigError(f"days is {days}; it must be 0 or more.")
        keep = timedelta(days=min(days, _MAX_DAYS))
        if dry_run:
            return self.catalog.garbage(self._clock(), keep, self.job_store.live)
        return self.catalog.collect_garbage(self.actor, self._clock(), keep, self.job_store.live)

    def export(self, label: str, folder: str | Path) -> Path:
        """Write a version as a PEFT adapter folder that `PeftModel.from_pretrained` loads."""
        from multiprompt.engine.adapter import is_free, write_adapter
        from multiprompt.model_card import model_card

        version = self.version(label)
        target = Path(folder)
        if not is_free(target):
            raise StateError(f"{target} exists and is no empty folder: choose another, nothing was written.")
        write_adapter(self.catalog.adapter(version), target, model_card(self.catalog, version))
        return target

    # Jobs

    def submit(self, name: str | None = None, kind: str | None = None, *, priority: int = DEFAULT_PRIORITY) -> Job:
        """Queue a job for a worker; while one that learns this task waits or runs, that one is given back.

        Kinds are learn, retrain (which starts from the published version), evaluate, and check, which takes no task.
        By default a task is retrained where it has a published version, else learned; without a task all is checked.
        """
        if name is not None:
            published = self.catalog.task(name).published
            kind = kind or ("learn" if published is None else "retrain")
        return self.job_store.submit(kind or "check", name, priority)

    def schedule(
        self,
        name: str | None = None,
        kind: str | None = None,
        *,
        cron: str | None = None,
        every: timedelta | None = None,
        on: str | None = None,
        timezone: str = "UTC",
        priority: int = DEFAULT_PRIORITY,
        called: str | None = None,
    ) -> Schedule:
        """Submit a job again and again: at the ticks of `cron` in a time zone, `every` so often, or `on` a change.

        `on` is data (its files or hub revision changed), score (a check found a drop), base (the base model's files
        changed) or age (the published version is older than `every`). Ticks that were missed become one job. A schedule
        of the same kind, task and trigger is replaced; so that both stay, give one a name (`called`). Raises
        ConfigError.
        """
        if name is not None:
            self.catalog.task(name)
        kind = kind or ("check" if name is None else "retrain")
        return self.job_store.schedule(kind, name, cron, every, on, timezone, priority, called)

    def plan(self, days: float = 7) -> list[PlannedJob]:
        """What the schedules will submit in so many days, and how long such jobs took when they ran last.

        Raises ConfigError for days that are none.
        """
        if not 0 <= days <= _MAX_DAYS:
            raise ConfigError(f"days is {days}; it must be from 0 to {_MAX_DAYS}.")
        from multiprompt.jobs.plan import plan

        now = self._clock()
        return plan(self.catalog, self.schedules(), now, now + timedelta(days=days))

    def job(self, identity: str) -> Job:
        """A job by its id, or by a beginning that no other id has. Raises NotFoundError."""
        return self.job_store.job(identity)

    def cancel(self, identity: str) -> Job:
        """Stop a job; nothing of it stays but its log. Raises StateError when it has ended."""
        return self.job_store.cancel(identity)

    def retry(self, identity: str) -> Job:
        """Queue a job that failed, was parked or cancelled as a new one. Raises StateError when it waits or runs."""
        return self.job_store.retry(identity)

    def job_logs(self, identity: str) -> list[JobLog]:
        """What the workers noted of a job, oldest first."""
        return self.catalog.ledger.logs(self.job(identity).id)

    def jobs(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Job]:
        """Jobs that match a query like `state = 'failed' and created_at > '2026-11-01'`."""
        return self.job_store.jobs(query, after=after, limit=limit)

    def schedules(self) -> list[Schedule]:
        return self.job_store.schedules()

    @cached_property
    def job_store(self) -> JobStore:
        from multiprompt.jobs.durable import JobStore

        return JobStore(self.catalog, self._clock)

    # The base model

    def claimed_by(self, claim: Claim, progress: Progress) -> Workspace:
        """The same workspace, on the same loaded base model, for a job; see `Catalog.claimed_by`."""
        claimed = copy(self)
        claimed.catalog, claimed.progress, claimed._inference = self.catalog.claimed_by(claim), progress, None
        return claimed

    def base_model(self) -> BaseModel:
        """The base model, loaded on first use and held against the catalog's fingerprints.

        Raises BaseMismatchError naming both when it is another than the catalog's.
        """
        base = self._loaded()
        if self._bound is not None and not base.is_of(self._bound):
            raise BaseMismatchError(
                f"{self.catalog.location} is bound to {self._bound}, but {base.record} was loaded, with "
                f"{self._bound.difference(base.record)}. "
                "Open it with that base model and dtype, or make another catalog for this one."
            )
        return base

    def reload_base_model(self) -> None:
        """Load the base model, again where its files changed since, whichever it is; a worker does so before each job.

        What `predict` compiled for the model before is dropped.
        """
        with self._base_lock:
            if self._base is not None and self._base.files_changed:
                self._base = self._inference = None
        self._loaded()

    def bind(self, base: BaseModel, *, dry_run: bool = False) -> None:
        """Work on a base model that was loaded; a catalog that has none is bound to it.

        A catalog that knows it by the fingerprints of an earlier release is from now on held to those of this one.
        A dry run writes nothing.
        """
        _, _, bound = self.catalog.base_model()
        if not dry_run:
            if bound is None or (base.is_of(bound) and bound.identity != base.record.identity):
                self.catalog.bind_base_model(base.record, self.actor, self._clock(), former=bound)
                bound = self.catalog.base_model()[2]
            if bound is None or base.is_of(bound):
                self.catalog.set_forward(base.fallback, self.actor, self._clock())
        self._base, self._bound = base, bound

    # Steps of the above

    def _as_stored(self, *, dry_run: bool = False) -> BaseModel:
        """The base model that its files hold now; the loaded one stays in its place where they changed since."""
        base = self._loaded(dry_run=dry_run)
        return self._load() if base.files_changed else base

    def _load(self) -> BaseModel:
        from multiprompt.engine.hub import locate
        from multiprompt.engine.loading import load_base_model

        reference, dtype, bound = self.catalog.base_model()
        try:
            source = locate(self._reference or reference or DEFAULT_BASE_MODEL, self._notify)
        except NotFoundError as error:
            if self._reference is not None or bound is None:
                raise
            raise NotFoundError(
                f"{self.catalog.location} is bound to {bound}, but {error}. Where it was moved, run "
                "`multiprompt init --base-model` with its new place."
            ) from None
        return load_base_model(source, self._dtype or dtype)

    def _loaded(self, *, dry_run: bool = False) -> BaseModel:
        """The base model, whichever it is; a catalog that has none yet is bound to it."""
        with self._base_lock:
            if self._base is None:
                self.bind(self._load(), dry_run=dry_run)
            assert self._base is not None
            return self._base

    def _admit(self, admission: Admission, before: Mapping[str, str]) -> LearnReport:
        """Measure, gate, and publish, hold or reject.

        `before` are the digests of what was published before the training.
        """
        from multiprompt.admission import admit, candidate, measure, require_untouched, untouched, yardsticks
        from multiprompt.continual.floor import interval

        measuring = self.measuring()
        require_untouched(measuring, before)
        asking = candidate(measuring, admission, *measure(measuring, admission))
        version, check, reason, is_new = admit(measuring, self.checking(), asking, self.actor, self._clock)
        others = {other.name: other for other in yardsticks(measuring, asking)}
        most = others.get("majority answer")
        state = self._learn_state(version)
        return LearnReport(
            version=version.label,
            published=version.state == "published",
            reason=f"the task is guarded; {reason}" if state == "held" else reason,
            metric=asking.soft.metric,
            hard=asking.hard.score,
            soft=asking.soft.score,
            train_seconds=admission.run.seconds if admission.run else 0.0,
            truncated=asking.soft.truncated,
            check=check,
            untouched=untouched(measuring, before),
            state=state,
            rows=asking.soft.rows,
            interval=interval(asking.soft, admission.task.metrics[0]),
            majority=None if most is None else most.score,
            p_value=others["hard prompt"].p_value,
            is_new=is_new,
        )

    def _learn_state(self, version: VersionRecord) -> LearnState:
        """Where a version stands; a candidate is held by its task's guard unless it is below the floor."""
        held = version.state == "candidate" and not self.catalog.is_below_floor(version)
        return "held" if held else _LEARN_STATES[version.state]

    def _nothing_new(self, admission: Admission, known: VersionRecord, before: Mapping[str, str]) -> LearnReport:
        """The report of a training that gave the bytes of an existing version; nothing but its checkpoint changes."""
        from multiprompt.admission import end_known, measure, require_untouched
        from multiprompt.continual.floor import interval

        measuring = self.measuring()
        require_untouched(measuring, before)
        soft, hard = measure(measuring, admission)
        outcome = end_known(self.catalog, known, False, self.actor, self._clock())
        return LearnReport(
            version=known.label,
            published=known.state == "published",
            reason=outcome,
            metric=soft.metric,
            hard=hard.score,
            soft=soft.score,
            train_seconds=admission.run.seconds if admission.run else 0.0,
            truncated=soft.truncated,
            check=CheckReport((), 0.0),
            untouched=True,
            state=self._learn_state(known),
            rows=soft.rows,
            interval=interval(soft, admission.task.metrics[0]),
            is_new=False,
        )

    def _checkpoint(self, name: str, key: str) -> bytes | None:
        """Where a training of a task broke off; a damaged checkpoint counts as none."""
        try:
            return self.catalog.checkpoint(name, key)
        except IntegrityError as error:
            self._notify(f"{error}; the training starts from its beginning")
            return None

    def prompt(self, version: VersionRecord, *, to_train: bool = False) -> SoftPrompt:
        """A version's prompt on the base model; to be trained on, with its encoder where it has one."""
        from multiprompt.inference import load_prompt

        return load_prompt(self.catalog, self.base_model(), version, to_train=to_train)

    def published(self, name: str) -> VersionRecord | None:
        """A task's published version, None where there is none. Raises NotFoundError for an unknown task."""
        number = self.catalog.task(name).published
        return None if number is None else self.catalog.version(name, number)

    def start(self, task: Task, *, retrain: bool = False) -> tuple[VersionRecord | None, str]:
        """The version that a training starts from, and the reason where a retraining starts afresh.

        A retraining starts from the published version while the task file asks for its shape. Any other training
        starts from the version that `init: version` names, if any. Raises NotFoundError.
        """
        from multiprompt.engine.prompt import has_shape

        asked, afresh = task.config.prompt, ""
        number = self.catalog.task(task.name).published if retrain else None
        if number is not None:
            published = self.catalog.version(task.name, number)
            if has_shape(self.base_model(), self.prompt(published, to_train=True), asked):
                return published, ""
            afresh = f"learning afresh: {_difference(published, self.catalog.adapter(published), asked)}"
        return (None if asked.init_version is None else self.version(asked.init_version)), afresh

    def task(self, name: str) -> Task:
        """A task as its file says now. Raises NotFoundError."""
        from multiprompt.tasks.task import Task

        record = self.catalog.task(name)
        return Task.from_source(record.source, Path(record.folder), where=name)

    def task_as_on_disk(self, name: str) -> Task:
        """A task as it was added. Raises StateError where its file on disk says otherwise by now."""
        record = self.catalog.task(name)
        changes = _file_changes(record)
        if changes:
            raise StateError(
                f"{name}: its task file {record.file} was edited since it was added ({_told(changes)}). "
                f"Run `multiprompt add {record.file}`, or learn it with --as-added."
            )
        return self.task(name)

    def _file_notes(self, names: Collection[str]) -> list[str]:
        """What a check tells of task files that were edited or went away since they were added."""
        notes, missing = [], []
        for record in (record for record in self.catalog.tasks() if record.name in names):
            changes = _file_changes(record)
            if changes:
                notes.append(
                    f"{record.name}: its task file {record.file} was edited since it was added ({_told(changes)})"
                )
            elif changes is None and record.file != "":
                missing.append(record.name)
        if missing:
            listed = ", ".join(missing[:5]) + ", …" * (len(missing) > 5)
            notes.append(f"{counted(len(missing), 'task file')} gone, so that an edit is not seen: {listed}")
        return notes

    def _is_on_another_base(self, base: BaseModelRecord) -> bool:
        """Whether another base model or dtype was asked for than the catalog's, whose own files may have changed."""
        bound = self._bound
        return (
            bound is not None
            and (base.source, base.dtype) != (bound.source, bound.dtype)
            and base.identity != bound.identity
        )

    def _checked(self, task: Task) -> tuple[str, ...]:
        """Check what learning needs, by reading every row once. Gives warnings of what makes its scores doubtful."""
        from multiprompt.continual.data_faults import data_faults, few_rows
        from multiprompt.tasks.example import UNCOUNTED, examples
        from multiprompt.tasks.split import load_data, load_test_split

        if task.data.training is None:
            test = load_test_split(task)
            examples(task, test, UNCOUNTED)
            self._tell_notes(task, test.notes)
            return (f"{task.name}: it names no training_split, so it can be imported only", *few_rows(task, test))
        data = load_data(task)
        for split in (data.training, data.validation, data.test):
            examples(task, split, UNCOUNTED)
        self._tell_notes(task, data.notes)
        return (*self._start_faults(task), *data_faults(task, data))

    def _tell_notes(self, task: Task, notes: Iterable[str]) -> None:
        for note in notes:
            self._notify(f"{task.name}: {note}")

    def _start_faults(self, task: Task) -> tuple[str, ...]:
        """Whether the version that a task's prompt starts from is missing; it may be learned later."""
        try:
            self.start(task)
        except NotFoundError as error:
            return (f"{task.name}: its init_version cannot be started from yet: {error}",)
        return ()


def _base_doubts(base: BaseModel, adapter: Adapter, folder: Path) -> tuple[str, ...]:
    """Why an adapter may be of another base model or dtype. Raises BaseMismatchError where its card shows another."""
    from multiprompt.engine.adapter import named_base_model
    from multiprompt.model_card import identity_on_card

    record, card, named = base.record, identity_on_card(folder), named_base_model(adapter)
    if card:
        theirs = replace(record, name=named or "another base model", **card)
        if not base.is_of(replace(theirs, dtype=record.dtype)):
            raise BaseMismatchError(
                f"{folder} was made on {theirs}, but the catalog is open with {record}, with "
                f"{theirs.difference(record)}. Import it into a catalog of that base model, or delete its README.md to "
                "try it on this one."
            )
        differs = theirs.dtype != record.dtype
        return (f"{folder} was made in {theirs.dtype}, and this catalog runs {record.dtype}",) if differs else ()
    if named is None or named in (record.source, record.source.partition("@")[0], record.name):
        return ()
    return (f"{folder} says that it was made on {named}; whether that is {record} is not known",)


def _file_changes(record: TaskRecord) -> Sequence[str] | None:
    """How a task's file on disk differs from what was added; None where there is no such file."""
    from multiprompt.tasks.file_change import file_difference

    return file_difference(record.source, Path(record.file)) if record.file else None


def _difference(published: VersionRecord, adapter: Adapter, asked: PromptConfig) -> str:
    """How a version differs from the prompt that a task file asks for."""
    if (published.method, published.num_virtual_tokens) != (asked.method, asked.num_virtual_tokens):
        return (
            f"{published.label} is {published.method} with {published.num_virtual_tokens} virtual tokens, "
            f"and the task file asks for {asked.method} with {asked.num_virtual_tokens}"
        )
    if adapter.encoder is None and (asked.method == "p-tuning" or asked.projection):
        return f"{published.label} has no encoder to go on with, as it was imported or made without one"
    return f"the parameters of {published.label} have other shapes than the task file asks for"


def _told(changes: Sequence[str]) -> str:
    """The lines of a difference on one line."""
    shown = list(changes[:6]) + ["…"] * (len(changes) > 6)
    return "; ".join(shown)


def open_workspace(
    catalog: str | Path = "multiprompt.db", base_model: str | None = None, *, create: bool = True, **options: Any
) -> Workspace:
    """Open a catalog (a path or a SQLAlchemy URL), making a missing one.

    `base_model` is an alias, a folder or a hub id; by default the catalog's own, or smollm2-135m for a new catalog.
    A catalog remembers the name, also where the model then cannot be loaded.
    `options` are those of Workspace: dtype, hub_metrics, actor, clock, progress, notify.
    """
    known: Iterable[str] = ("dtype", "hub_metrics", "actor", "clock", "progress", "notify")
    for option in options:
        if option not in known:
            raise ConfigError(f"open has no option {option!r}; {nearest(option, known)}")
    opened = Catalog.open(str(catalog), create=create)
    if base_model is not None:
        folder = Path(base_model).expanduser()
        opened.name_base_model(str(folder.resolve()) if folder.is_dir() else base_model)
    return Workspace(opened, base_model, **options)


def init_workspace(
    catalog: str | Path, base_model: str | None = None, dtype: str | None = None, **options: Any
) -> Workspace:
    """Open a catalog with its base model loaded; a missing one is made after the base model was found to be usable.

    A catalog that is bound to the same base model in another place keeps the new place.
    `options` are those of `open_workspace`. Raises BaseModelError, with no catalog made.
    """
    if Catalog.exists(str(catalog)):
        workspace = open_workspace(catalog, base_model, create=False, dtype=dtype, **options)
        found = workspace.base_model()
        if base_model is not None:
            workspace.catalog.move_base_model(found.record.source, workspace.actor, datetime.now(UTC))
        return workspace
    from multiprompt.engine.hub import locate
    from multiprompt.engine.loading import load_base_model

    source = locate(base_model or DEFAULT_BASE_MODEL, options.get("notify", lambda _: None))
    base = load_base_model(source, dtype or "auto")
    workspace = open_workspace(catalog, base_model, dtype=dtype, **options)
    workspace.bind(base)
    return workspace
