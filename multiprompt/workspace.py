"""The workspace: learn, serve, check and look up the prompts of one catalog. Each method is one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from multiprompt.catalog.artifacts import digest
from multiprompt.catalog.labels import InputRow, as_rows, parse_label
from multiprompt.config import DEFAULT_BASE_MODEL, DEFAULT_PRIORITY, MAX_DAYS, POLICIES
from multiprompt.context import Context
from multiprompt.errors import ConfigError, MultipromptError, nearest
from multiprompt.records import (
    AddedTask,
    CheckReport,
    Edge,
    Evaluation,
    EvaluationRecord,
    EvaluationReport,
    Event,
    Garbage,
    Impact,
    Job,
    LearnReport,
    Listing,
    Matrix,
    NewTask,
    PlannedJob,
    Prediction,
    Problem,
    Rendering,
    Schedule,
    SqlResult,
    TaskRecord,
    VersionDiff,
    VersionRecord,
)
from multiprompt.records.shown import Shown

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from multiprompt.engine.base import BaseModel
    from multiprompt.jobs.queue import JobQueue
    from multiprompt.jobs.schedules import Schedules
    from multiprompt.serving.predictor import Predictor
    from multiprompt.tasks.task import Task


class Workspace(Shown):
    """The prompts of one catalog on its base model. Made by `multiprompt.open`."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.catalog = context.catalog
        self._lock = Lock()
        self._predictor: Predictor | None = None

    def _facts(self) -> Mapping[str, Any]:
        try:
            tasks, (source, _, bound) = self.catalog.tasks.find(), self.catalog.base_models.get()
        except MultipromptError as error:
            return {"catalog": self.location, "error": error}
        name = source or DEFAULT_BASE_MODEL if bound is None else bound.name
        published = sum(task.published is not None for task in tasks)
        return {"catalog": self.location, "base model": name, "tasks": len(tasks), "published": published}

    # Learning

    def add_task(self, task: Task | str | Path) -> AddedTask:
        """Put a task into the catalog after checking everything that learning it needs, but for lengths in tokens.

        Raises TaskFileError, TemplateError, MetricError, ConfigError or DataError; then nothing is added. Once the
        base model is loaded, AdapterError for prefix tuning on one that takes no keys and values.
        """
        from multiprompt.learning.adding import add_task

        return add_task(self.context, task)

    def new_task(
        self,
        data: str | Path,
        *,
        text: str,
        label: str | None = None,
        target: str | None = None,
        instruction: str | None = None,
        name: str | None = None,
        out: str | Path | None = None,
        seed: int = 0,
    ) -> NewTask:
        """Make a task of a data file, or of a folder that `datasets` saved, and add it, as `multiprompt new` does.

        The rows of the splits and the task file are written to the folder `out`, by default one of the task's name.
        Raises DataError, NotFoundError for an unknown column, and StateError for a known name or a used folder.
        """
        from multiprompt.learning.adding import new_task

        folder = None if out is None else Path(out)
        options = {"label": label, "target": target, "instruction": instruction, "name": name, "seed": seed}
        return new_task(self.context, Path(data), text, out=folder, **options)

    def learn(
        self, name: str, *, as_added: bool = False, settings: Mapping[str, Any] = MappingProxyType({})
    ) -> LearnReport:
        """Train a prompt for a task, evaluate it, check every other published prompt, and publish, hold or reject it.

        One transaction at the end stores the version. An interrupted call continues, when it is made again, from the
        last validation of its training. Raises StateError where the task file was edited since it was added, unless it
        is to be learned `as_added`.

        With `settings`, such as `{"training.steps": 40}`, it makes a candidate that is never published by itself. The
        task keeps its task file; the version keeps the changed one. Raises ConfigError for a setting that is none.
        """
        return next(iter(self.learn_each([name], as_added=as_added, settings=settings)))

    def learn_many(self, names: Sequence[str], *, as_added: bool = False) -> Listing[LearnReport]:
        """Train prompts for several tasks in the same passes over the base model, then admit one after another.

        Each comes out as `learn` would make it. One whose training fails raises TrainingError after the others are in.
        """
        return Listing(self.learn_each(names, as_added=as_added))

    def learn_each(
        self, names: Sequence[str], *, as_added: bool = False, settings: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[LearnReport]:
        """The same, a report at a time: an error of a later task does not lose the earlier reports."""
        from multiprompt.learning.pipeline import learn_each

        return learn_each(self.context, names, as_added=as_added, settings=settings)

    def import_adapter(self, name: str, folder: str | Path) -> LearnReport:
        """Take a PEFT adapter of any prompt method as a new version; it is gated and published like a trained one.

        Known bytes make no new version. Raises AdapterError when its method, shape or numbers cannot be a prompt for
        the base model. Raises BaseMismatchError when the folder's card shows the fingerprints of another base model;
        another name alone is a warning of the report.
        """
        from multiprompt.learning.importing import import_adapter

        return import_adapter(self.context, name, Path(folder))

    def rollback(self, name: str, to: int | None = None, reason: str = "", *, force: bool = False) -> VersionRecord:
        """Publish a retired version again, by default the one retired last.

        Raises StateError for a guarded task unless `force` and a reason are given.
        """
        return self.catalog.pointers.roll_back(name, to, reason, force=force)

    def publish(self, label: str, reason: str = "", *, force: bool = False) -> VersionRecord:
        """Publish a candidate that was held, as its task was guarded or it did not learn.

        The gate does not judge it again, so it raises StateError unless `force` and a reason are given.
        """
        return self.catalog.pointers.publish(*parse_label(label), reason, force=force)

    def guard(self, name: str, guarded: bool = True, reason: str = "") -> None:
        """Hold what a task would publish until it is published by force and with a reason."""
        self.catalog.tasks.guard(name, guarded, reason)

    def note(self, name: str, text: str) -> None:
        """Keep a note on a task among its events; the query function `matches` finds it."""
        self.catalog.tasks.note(name, text)

    # Inference

    @overload
    def predict(
        self,
        rows: Iterable[InputRow | str | Mapping[str, Any]],
        *,
        task: str | None = None,
        strict: bool = True,
        seed: int = 0,
    ) -> Listing[Prediction]: ...

    @overload
    def predict(self, rows: DataFrame | Series, *, task: str, strict: bool = True, seed: int = 0) -> Series: ...

    def predict(self, rows: Any, *, task: str | None = None, strict: bool = True, seed: int = 0) -> Any:
        """Answers for any mix of tasks; a row is a mapping of fields, or a text where the task reads one field.

        A name may carry a version: `sst2@2`. With `task` all rows are of one task and come without its name; a
        DataFrame, or a Series of texts, gives a Series of answers. A row that cannot be answered raises an error naming
        it. With `strict=False` its Prediction has an `error`, and the other rows have answers. `seed` is for sampling.
        """
        from multiprompt.serving.columns import asked_of, column, is_column
        from multiprompt.serving.labels import require_versions

        asked = as_rows(rows) if task is None else asked_of(self.catalog, task, rows)
        if strict and self.context.loaded is None:
            require_versions(self.catalog, asked)
        advance = self.context.counter("predicting", len(asked))
        found = Listing(self.predictor().predict(asked, strict=strict, seed=seed, advance=advance))
        return column(task, rows, found) if task is not None and is_column(rows) else found

    def stream(self, name: str, row: Mapping[str, Any] | str, *, seed: int = 0) -> Iterator[str]:
        """A generated answer piece by piece, as the model writes it and before the task's filters."""
        self.version(name)
        return self.predictor().stream(name, row, seed)

    def render(self, name: str, row: Mapping[str, Any] | str | int, *, split: str = "test") -> Rendering:
        """The model's exact input for a row: a mapping of fields, a text, or the number of a row of a split.

        A row of a split comes with its answer; splits are training, validation and test. Raises NotFoundError or
        DataError.
        """
        from multiprompt.serving.rendering import render_row

        return render_row(self.context, name, row, split)

    def predictor(self) -> Predictor:
        """The prompts in memory that `predict` and `stream` use; made again where the base model was reloaded."""
        from multiprompt.serving.predictor import Predictor

        base = self.context.base_model()
        with self._lock:
            if self._predictor is None or self._predictor.base is not base:
                self._predictor = Predictor(self.catalog, base)
            return self._predictor

    @property
    def location(self) -> str:
        """The catalog's path, or its URL without the password."""
        return self.catalog.location

    @property
    def actor(self) -> str:
        """The name that signs what is written here."""
        return self.catalog.actor

    def base_model(self) -> BaseModel:
        """The base model, loaded on first use. Raises BaseMismatchError where it is another than the catalog's."""
        return self.context.base_model()

    def plain_forward(self) -> str | None:
        """Why the base model runs by the plain forward; empty for the packed one, None before it was loaded."""
        return self.catalog.base_models.forward()

    # Regression

    def check(self, *, full: bool = False, dry_run: bool = False) -> CheckReport:
        """Compare every published prompt, as it is served, with its baseline, on its data as it is now; stored.

        Only here do prompts run on another base model than their own; the report names it as the cause. Changed files
        of the base model are loaded for the check alone. `full` runs all rows of all tasks. A task that regressed under
        the policy rollback gets the newest earlier version back that is better. With `dry_run`, or on another base
        model than the catalog's, it is a trial: nothing is stored, moved or triggered.
        """
        from multiprompt.gate.published import check_published

        return check_published(self.context, full=full, dry_run=dry_run)

    def report_html(self, report: CheckReport) -> str:
        """A check as one self-contained page."""
        from multiprompt.reports.check_page import gather_evidence, html

        base = self.context.loaded
        shown = "no base model" if base is None else str(base.record)
        evidence = gather_evidence(self.context, report)
        return html(report, self.matrix(), self.catalog.location, shown, self.catalog.now(), evidence)

    def report_junit(self, report: CheckReport) -> str:
        """A check as JUnit XML."""
        from multiprompt.reports.check_page import junit

        return junit(report, self.catalog.now())

    def bless(self, label: str, reason: str) -> Evaluation:
        """Make the score of a published version, as it is served on its data as it is now, its baseline; an event.

        Raises StateError without a reason, or for a version that is not published, and BaseMismatchError on another
        base model than the catalog's.
        """
        from multiprompt.gate.published import bless

        return bless(self.context, label, reason)

    def set_policy(self, policy: str, reason: str = "") -> None:
        """The effect of a regression where a task file names none: block, warn or rollback. Raises ConfigError."""
        if policy not in POLICIES:
            raise ConfigError(f"no policy {policy!r}; {nearest(policy, POLICIES)}")
        self.catalog.settings.set_policy(policy, reason)

    def policy(self) -> str:
        return self.catalog.settings.policy()

    def evaluate(self, name: str) -> Evaluation:
        """Score a task's published version, as it is served, on the rows that its data has now.

        A new score is stored; where the same one was taken before, that one is given.
        """
        from multiprompt.gate.published import evaluate_published

        return evaluate_published(self.context, name)

    # Looking up

    def tasks(
        self, query: str = "", *, after: str | None = None, limit: int | None = None, as_of: datetime | None = None
    ) -> Listing[TaskRecord]:
        """Tasks that match a query like `tag.team = 'nlp' and score.acc > 0.8`; QueryError says where it is wrong.

        `multiprompt docs query-language` describes the language and the fields. A page of `limit` records ends with the
        `after` that the next one is asked for with; `as_of` shows the published versions of a time.
        """
        return self.catalog.tasks.find(query, after=after, limit=limit, as_of=as_of)

    def task(self, label: str) -> Task:
        """A task as its newest file says, or as that of a version (`sst2@2`) does. Raises NotFoundError."""
        name, number = parse_label(label)
        return self.context.task(name) if number is None else self.catalog.versions.task(self.version(label))

    def task_record(self, name: str) -> TaskRecord:
        """The record of one task. Raises NotFoundError."""
        return self.catalog.tasks.get(name)

    def versions(
        self, query: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Listing[VersionRecord]:
        return self.catalog.versions.find(query, after=after, limit=limit)

    def version(self, label: str) -> VersionRecord:
        """`sst2@2`, or `sst2` for the published version."""
        return self.catalog.versions.labelled(label)

    def evaluations(
        self, query: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Listing[EvaluationRecord]:
        return self.catalog.evaluations.find(query, after=after, limit=limit)

    def baseline(self, label: str) -> Evaluation:
        """The evaluation that a version is compared with. Raises NotFoundError."""
        return self.catalog.baselines.evaluation_of(self.version(label))

    def evaluation(self, evaluation_id: int) -> EvaluationReport:
        """An evaluation of a listing, with each row as texts, wrong ones first, and scores of each class."""
        from multiprompt.reports.evaluation import report_evaluation

        return report_evaluation(self.context, evaluation_id)

    def events(self, query: str = "", *, after: str | None = None, limit: int | None = None) -> Listing[Event]:
        return self.catalog.events.find(query, after=after, limit=limit)

    def notes(self, name: str) -> Listing[Event]:
        """The notes on a task, oldest first. Raises NotFoundError."""
        return Listing(self.catalog.tasks.notes(name))

    def lineage(self, label: str) -> Listing[Edge]:
        """The lineage edges of a version, or of all versions of a task: parents, children, and materials."""
        from multiprompt.reports.lineage import named_lineage

        return Listing(named_lineage(self.catalog, *parse_label(label)))

    def provenance(self, label: str, form: str) -> str:
        """The lineage as "tree", "mermaid", "dot", "prov" (W3C PROV-JSON) or "openlineage" (a list of run events)."""
        from multiprompt.reports.lineage import draw

        return draw(self.catalog, label, form)

    def diff(self, before: str, after: str, *, tokens: bool = True) -> VersionDiff:
        """Compare two versions: settings, data, scores, flipped rows, and virtual tokens.

        The tokens need the base model; without `tokens` it is not loaded.
        """
        from multiprompt.reports.diff import compare_versions

        return compare_versions(self.context, before, after, tokens=tokens)

    def impact_of_base(self, name: str) -> Listing[Impact]:
        """The published prompts that a change of the base model would touch, with the cost of evaluating them again."""
        return Listing(self.catalog.lineage.impact_of_base(name))

    def impact_of_data(self, fingerprint: str) -> Listing[Impact]:
        """The published prompts that were trained, validated or scored on data; a fingerprint may be cut."""
        return Listing(self.catalog.lineage.impact_of_data(fingerprint))

    def matrix(self) -> Matrix:
        """R[i][j]: the score on task j after learning task i."""
        return self.catalog.matrix.get()

    def digest(self, label: str) -> str:
        """A version's digest, recomputed from its stored bytes."""
        return digest(self.catalog.versions.adapter(self.version(label)))

    def sql(self, statement: str, limit: int = 1000, *, seconds: float = 30.0) -> SqlResult:
        """The first rows of a SELECT over the views v_tasks, v_versions, v_evaluations, v_lineage, v_events and v_jobs.

        The last is there once there was a job. Raises QueryError, also for one that takes longer than `seconds`.
        """
        from multiprompt.jobs.dbos_tables import attached

        jobs = attached(self.catalog.path) if self.catalog.is_file else None
        return self.catalog.sql(statement, limit, jobs, seconds=seconds)

    # Keeping

    def verify(self) -> Listing[Problem]:
        """Every digest, reference and invariant that does not hold."""
        return Listing(self.catalog.verify(self.context.progress))

    def copy_to(self, url: str) -> str:
        """Copy the catalog into a new one, a path or a SQLAlchemy URL. Gives its place."""
        return self.catalog.copy_to(url, self.context.progress).location

    def backup(self, file: str | Path) -> Path:
        """Copy the catalog into a new SQLite file, while others work in it."""
        self.catalog.backup(Path(file), self.context.progress)
        return Path(file)

    def collect_garbage(self, *, days: float = 30, dry_run: bool = False) -> Garbage:
        """Delete stored files that nothing has referred to for so many days; a dry run only counts them.

        Files of a job that waits or runs stay. Raises ConfigError for days below 0 or NaN.
        """
        if not days >= 0:
            raise ConfigError(f"days is {days}; it must be 0 or more.")
        collect = self.catalog.garbage if dry_run else self.catalog.collect_garbage
        return collect(timedelta(days=min(days, MAX_DAYS)), self.jobs.live)

    def export(self, label: str, folder: str | Path) -> Path:
        """Write a version as a PEFT adapter folder that `PeftModel.from_pretrained` loads."""
        from multiprompt.reports.export import export

        return export(self.context, label, Path(folder))

    def push_to_hub(self, label: str, repo_id: str, *, private: bool = True) -> str:
        """Upload a version, as `export` writes it, to a repository of the hub; gives its URL. Raises HubError."""
        from multiprompt.reports.export import push_to_hub

        return push_to_hub(self.context, label, repo_id, private=private)

    # Jobs

    def submit(self, name: str | None = None, kind: str | None = None, *, priority: int = DEFAULT_PRIORITY) -> Job:
        """Queue a job for a worker; while one that learns this task waits or runs, that one is given back.

        Kinds are learn, retrain (which starts from the published version), evaluate, and check, which takes no task.
        By default a task is retrained where it has a published version, else learned; without a task all is checked.
        """
        if name is not None:
            published = self.catalog.tasks.get(name).published
            kind = kind or ("learn" if published is None else "retrain")
        return self.jobs.submit(kind or "check", name, priority)

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
        """Submit a job by a schedule: at the ticks of `cron` in a time zone, `every` so often, or `on` a change.

        `on` is data (files or hub revision), score (a check found a new regression), base (the base model's files) or
        age (the published version is older than `every`). Missed ticks become one job. A schedule of the same kind,
        task and trigger is replaced; give one a name (`called`) to keep both. Raises ConfigError.
        """
        if name is not None:
            self.catalog.tasks.get(name)
        kind = kind or ("check" if name is None else "retrain")
        return self.schedules.add(kind, name, cron, every, on, timezone, priority, called)

    def plan(self, days: float = 7) -> Listing[PlannedJob]:
        """The jobs that the schedules will submit in so many days, and the seconds that such jobs took last.

        Raises ConfigError for days that are none.
        """
        return Listing(self.schedules.plan(days))

    @cached_property
    def jobs(self) -> JobQueue:
        """The jobs: `ws.jobs("state = 'failed'")` lists them; get, wait, cancel, retry and logs take an id."""
        from multiprompt.jobs.queue import JobQueue

        return JobQueue(self.catalog)

    @cached_property
    def schedules(self) -> Schedules:
        """The schedules: `ws.schedules()` lists them; pause, resume, trigger and remove take a name."""
        from multiprompt.jobs.schedules import Schedules

        return Schedules(self.jobs)

    def close(self) -> None:
        """Close the database connections that are kept open."""
        self.catalog.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
