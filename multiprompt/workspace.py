"""The workspace: a catalog and a base model, and the methods that move data from one to the other."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import parse_label
from multiprompt.catalog.writing import Parent, digest
from multiprompt.config import DEFAULT_BASE_MODEL, DEFAULT_PRIORITY, POLICIES
from multiprompt.errors import (
    BaseMismatchError,
    ConfigError,
    StateError,
    TrainingError,
    nearest,
)
from multiprompt.records import (
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
    Listing,
    Matrix,
    PlannedJob,
    Prediction,
    Problem,
    Progress,
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
    from multiprompt.engine.base import BaseModel
    from multiprompt.engine.prompt import SoftPrompt
    from multiprompt.inference import Inference
    from multiprompt.jobs.durable import JobStore
    from multiprompt.measuring import Measuring
    from multiprompt.tasks.task import Task

Notify = Callable[[str], None]


def _silent(what: str, done: int, total: int) -> None:
    pass


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
        self._clock = clock
        self.progress = progress
        self._notify = notify
        self._base: BaseModel | None = None
        # What the catalog was bound to when the base model was loaded.
        self._bound: BaseModelRecord | None = None
        self._base_lock = Lock()
        self._inference: Inference | None = None

    # Learning

    def add_task(self, task: Task | str | Path) -> TaskRecord:
        """Put a task into the catalog after reading its data once, so that what is wrong with it shows now.

        Raises TaskFileError, TemplateError, MetricError, ConfigError or DataError; then nothing is added.
        """
        from multiprompt.tasks.task import Task

        read = task if isinstance(task, Task) else Task.from_file(task)
        self._read_rows(read)
        return self.catalog.add_task(read, self.actor, self._clock())

    def learn(self, name: str) -> LearnReport:
        """Train a prompt for a task, evaluate it, check every other published prompt, and publish or reject it.

        A version is stored in the one transaction at the end. A call that was interrupted goes on, when it is made
        again, from the last validation that its training reached.
        """
        return self.learn_many([name])[0]

    def learn_many(self, names: Sequence[str]) -> list[LearnReport]:
        """Train prompts for several tasks in the same passes over the base model, then admit one after another.

        Each comes out as `learn` would make it. One whose training fails raises TrainingError after the others are in.
        """
        from multiprompt.admission import Admission, parents
        from multiprompt.engine.adapter import to_adapter
        from multiprompt.engine.learning import Learned, Lesson, learn_prompts
        from multiprompt.tasks.split import load_data

        if len(set(names)) < len(names):
            raise ConfigError(f"learn_many got a task twice: {', '.join(sorted(names))}.")
        tasks = [self.task(name) for name in names]
        before = self.catalog.digests()
        base = self.base_model()
        starts = [self._start(task) for task in tasks]
        lessons = [
            Lesson(task, load_data(task), None if start is None else self.prompt(start, to_train=True))
            for task, start in zip(tasks, starts, strict=True)
        ]
        outcomes = learn_prompts(
            base,
            lessons,
            lambda training: self.progress(f"{training.name}: training", training.step, training.config.steps),
            self.catalog.checkpoint,
            lambda name, key, data: self.catalog.save_checkpoint(name, key, data, self.actor, self._clock()),
        )
        reports = []
        for lesson, start, outcome in zip(lessons, starts, outcomes, strict=True):
            if isinstance(outcome, Learned):
                splits = (lesson.data.training, lesson.data.validation)
                came_from = parents(self.catalog, lesson.task.name, start)
                adapter = to_adapter(outcome.prompt)
                admission = Admission(
                    lesson.task, outcome.prompt, adapter, outcome.run, came_from, lesson.data.test, splits
                )
                reports.append(self._admit(admission, before | self.catalog.digests()))
        for outcome in outcomes:
            if isinstance(outcome, TrainingError):
                raise outcome
        return reports

    def import_adapter(self, name: str, folder: str | Path) -> LearnReport:
        """Take a PEFT adapter of any prompt method as a new version; it is gated and published like a trained one.

        Raises AdapterError when its method, shape or numbers cannot be a prompt for the base model.
        """
        from multiprompt.admission import Admission
        from multiprompt.engine.adapter import from_adapter, read_adapter, to_adapter, trainable
        from multiprompt.tasks.split import load_test_split

        task = self.task(name)
        before = self.catalog.digests()
        adapter = read_adapter(Path(folder))
        prompt = from_adapter(self.base_model(), adapter, str(folder))
        trainable(self.base_model(), adapter, str(folder))
        parents = (Parent("imported-from", str(folder)),)
        files = to_adapter(prompt)
        if adapter.encoder is not None:
            files = replace(files, encoder=adapter.encoder)
        return self._admit(Admission(task, prompt, files, None, parents, load_test_split(task), None), before)

    def rollback(self, name: str, to: int | None = None, reason: str = "", *, force: bool = False) -> VersionRecord:
        """Publish a retired version again, by default the one retired last.

        Raises StateError for a guarded task unless `force` and a reason are given.
        """
        return self.catalog.roll_back(name, to, reason, self.actor, self._clock(), force=force)

    def publish(self, label: str, reason: str = "", *, force: bool = False) -> VersionRecord:
        """Publish a candidate that was held because its task is guarded; raises StateError as `rollback` does."""
        name, number = parse_label(label)
        return self.catalog.publish(name, number, reason, self.actor, self._clock(), force=force)

    def guard(self, name: str, guarded: bool = True, reason: str = "") -> None:
        """Hold what a task would publish until it is published by force and with a reason."""
        self.catalog.guard(name, guarded, reason, self.actor, self._clock())

    def note(self, name: str, text: str) -> None:
        """Keep a note on a task among its events; the query function `matches` finds it."""
        self.catalog.note(name, text, self.actor, self._clock())

    # Inference

    def predict(
        self, rows: Sequence[tuple[str, Mapping[str, Any] | str]], *, strict: bool = True, seed: int = 0
    ) -> list[Prediction]:
        """Answers for any mix of tasks; a row is a mapping of fields, or a text where the task reads one field.

        A name may carry a version: `sst2@2`. A row that cannot be answered raises NotFoundError or DataError naming it;
        with `strict=False` it gets a Prediction whose `error` says why, and the others their answers. `seed` is for
        tasks that ask for sampling.
        """
        from multiprompt.measuring import counter

        advance = counter(self.progress, "predicting", len(rows))
        return self.inference().predict(rows, strict=strict, seed=seed, advance=advance)

    def stream(self, name: str, row: Mapping[str, Any] | str, *, seed: int = 0) -> Iterator[str]:
        """A generated answer piece by piece, as the model writes it and before the task's filters."""
        return self.inference().stream(name, row, seed)

    def inference(self) -> Inference:
        """What `predict` and `stream` go through; made on first use and kept."""
        from multiprompt.inference import Inference

        base = self.base_model()
        with self._base_lock:
            if self._inference is None:
                self._inference = Inference(self.catalog, base)
            return self._inference

    # Regression

    def check(self, *, full: bool = False) -> CheckReport:
        """Hold every published prompt against its baseline, on its task and data as they are now; stored.

        This is the one place where prompts run on another base model than their own: that is measured, and named as
        the cause. `full` runs all rows of all tasks. A task whose policy is rollback, and which regressed, gets its
        previous version back where that one is better.
        """
        from multiprompt.retreat import roll_back_regressed

        report = CheckReport((), 0.0)
        if self.catalog.published()[1]:
            report = self.checking().published(full=full)
            told = roll_back_regressed(self.checking(), self.catalog, report, self.actor, self._clock)
            report = replace(report, notes=(*report.notes, *told))
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
        """Accept what a published version scores now, on its task and data as they are, as its baseline; an event.

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
        """Score a task's published version on the rows that its data has now; the score is stored."""
        from multiprompt.tasks.split import load_test_split

        version, task = self.version(name), self.task(name)
        split = load_test_split(task)
        evaluation = self.measuring().version(version, task, split)
        self.catalog.save_evaluation(version, split, evaluation, self.actor, self._clock())
        return evaluation

    def measuring(self) -> Measuring:
        """What scores are taken with, on the base model."""
        from multiprompt.measuring import Measuring

        return Measuring(self.catalog, self.base_model(), hub_metrics=self._hub_metrics, progress=self.progress)

    def checking(self) -> Checking:
        """What published prompts are checked with, on the base model as it is."""
        from multiprompt.checking import Checking

        return Checking(
            self.catalog,
            self._loaded(),
            hub_metrics=self._hub_metrics,
            progress=self.progress,
            actor=self.actor,
            clock=self._clock,
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
        """Delete stored files that nothing has referred to for so many days; a dry run only says what it would."""
        keep = timedelta(days=days)
        if dry_run:
            return self.catalog.garbage(self._clock(), keep)
        return self.catalog.collect_garbage(self.actor, self._clock(), keep)

    def export(self, label: str, folder: str | Path) -> Path:
        """Write a version as a PEFT adapter folder that `PeftModel.from_pretrained` loads."""
        from multiprompt.engine.adapter import write_adapter
        from multiprompt.model_card import model_card

        version = self.version(label)
        target = Path(folder)
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StateError(f"{target} exists and is no empty folder: choose another, nothing was written.")
        adapter, card = self.catalog.adapter(version), model_card(self.catalog, version)
        write_adapter(adapter, target)
        (target / "README.md").write_text(card, encoding="utf-8")
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
        """What the schedules will submit in so many days, and how long such jobs took when they ran last."""
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
        if self._bound is not None and self._bound.identity != base.record.identity:
            raise BaseMismatchError(
                f"{self.catalog.location} holds prompts for {self._bound}, but {base.record} was loaded. "
                "Open it with that base model and dtype, or make another catalog for this one."
            )
        return base

    # Steps of the above

    def _loaded(self) -> BaseModel:
        """The base model, whichever it is; a catalog that has none yet is bound to it."""
        from multiprompt.engine.hub import locate
        from multiprompt.engine.loading import load_base_model

        with self._base_lock:
            if self._base is None:
                reference, dtype, bound = self.catalog.base_model()
                source = locate(self._reference or reference or DEFAULT_BASE_MODEL, self._notify)
                base = load_base_model(source, self._dtype or dtype)
                if bound is None:
                    self.catalog.bind_base_model(base.record, self.actor, self._clock())
                if bound is None or bound.identity == base.record.identity:
                    self.catalog.set_forward(base.fallback, self.actor, self._clock())
                self._base, self._bound = base, bound
            return self._base

    def _admit(self, admission: Admission, before: Mapping[str, str]) -> LearnReport:
        """Measure, gate, and publish or reject. `before` are the digests of what was published before the training."""
        from multiprompt.admission import admit, candidate, measure, untouched

        measuring = self.measuring()
        asking = candidate(measuring, admission, *measure(measuring, admission))
        version, check, reason = admit(measuring, self.checking(), asking, self.actor, self._clock)
        return LearnReport(
            version=version.label,
            published=version.state == "published",
            reason=reason if version.state != "candidate" else f"held, as the task is guarded; {reason}",
            metric=asking.soft.metric,
            hard=asking.hard.score,
            soft=asking.soft.score,
            train_seconds=admission.run.seconds if admission.run else 0.0,
            truncated=asking.soft.truncated,
            check=check,
            untouched=untouched(measuring, before),
        )

    def prompt(self, version: VersionRecord, *, to_train: bool = False) -> SoftPrompt:
        """A version's prompt on the base model; to be trained on, with its encoder where it has one."""
        from multiprompt.inference import load_prompt

        return load_prompt(self.catalog, self.base_model(), version, to_train=to_train)

    def _start(self, task: Task) -> VersionRecord | None:
        """The version that a task's prompt starts from. Raises NotFoundError."""
        label = task.config.prompt.init_version
        return None if label is None else self.version(label)

    def task(self, name: str) -> Task:
        """A task as its file says now. Raises NotFoundError."""
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
