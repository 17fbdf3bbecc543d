"""Learning a task: snapshot → train → evaluate → gate → publish. A call and a job run the same functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from multiprompt.catalog.artifacts import digest
from multiprompt.catalog.candidates import Candidate
from multiprompt.catalog.lineage import Parent
from multiprompt.context import Context, log
from multiprompt.engine.adapter import from_adapter, to_adapter
from multiprompt.engine.evaluation import Subject
from multiprompt.engine.learning import TrainingInput, learn_prompts
from multiprompt.engine.training import OnTraining
from multiprompt.errors import ConfigError, IntegrityError, TrainingError
from multiprompt.gate.admission import (
    admit,
    end_known,
    find_existing,
    is_untouched,
    parents_of,
    require_untouched,
)
from multiprompt.gate.check import Checking
from multiprompt.gate.data_faults import data_faults
from multiprompt.gate.floor import interval
from multiprompt.gate.scores import Scores
from multiprompt.gate.task_files import require_as_added
from multiprompt.learning.start import find_start
from multiprompt.records import Adapter, CheckReport, Evaluation, LearnReport, LearnState, Run, VersionRecord
from multiprompt.serving.prompts import load_prompt
from multiprompt.tasks.data import Split
from multiprompt.tasks.split import load_data
from multiprompt.tasks.task import Task

# The state of a version that was just admitted.
_STATES: Mapping[str, LearnState] = {
    "published": "published",
    "candidate": "candidate",
    "rejected": "rejected",
    "retired": "retired",
}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The inputs of one learning, as they were when it began.

    `before` holds the digest of each published version, by label. `start` names the version that training starts from,
    `replaced` the task's published version. `notes` are warnings of what makes the scores doubtful. An import has no
    training rows. A `trial` names the settings that are not the task file's.
    """

    task: Task
    test: Split
    training: tuple[Split, Split] | None
    before: Mapping[str, str]
    start: str | None = None
    replaced: str | None = None
    notes: tuple[str, ...] = ()
    trial: str = ""


@dataclass(frozen=True, eq=False)
class Trained:
    """A prompt that asks to be published: its files, and its run; an imported one has its source in place of a run."""

    adapter: Adapter
    run: Run | None
    imported_from: str = ""

    @cached_property
    def digest(self) -> str:
        return digest(self.adapter)


@dataclass(frozen=True)
class Measured:
    """The scores of a prompt, and of the hard prompt on the same rows."""

    soft: Evaluation
    hard: Evaluation


@dataclass(frozen=True)
class Hooks:
    """The calls that a training makes at each step and each checkpoint; a batch is run in `parts`."""

    on_step: OnTraining
    on_checkpoint: Callable[[], None] = lambda: None
    parts: int = 1


def learn_each(
    context: Context, names: Sequence[str], *, as_added: bool, settings: Mapping[str, Any]
) -> Iterator[LearnReport]:
    """Train prompts in the same passes over the base model, then admit one after another, a report at a time.

    With `settings` in place of the task file's, they stay candidates. Raises TrainingError of a task that failed after
    the others are in.
    """
    if len(set(names)) < len(names):
        raise ConfigError(f"learn_many got a task twice: {', '.join(sorted(names))}.")
    tasks = [context.task(name) if as_added else require_as_added(context, name) for name in names]
    tasks = [task.with_settings(settings) for task in tasks] if settings else tasks
    before = context.catalog.versions.digests()
    trial = ", ".join(f"{name}={value}" for name, value in settings.items())
    snapshots = [replace(take_snapshot(context, task, before), trial=trial) for task in tasks]
    hooks = Hooks(lambda t: context.progress(f"{t.name}: training", t.step, t.config.steps))
    outcomes = train(context, snapshots, hooks)
    for snapshot, outcome in zip(snapshots, outcomes, strict=True):
        if isinstance(outcome, Trained):
            report = conclude(context, replace(snapshot, before=before), outcome)
            before = before | {report.version: outcome.digest}
            yield report
    for outcome in outcomes:
        if isinstance(outcome, TrainingError):
            raise outcome


def take_snapshot(context: Context, task: Task, before: Mapping[str, str], *, retrain: bool = False) -> Snapshot:
    """Read a task's rows; a retraining starts from the published version where it can."""
    number = context.catalog.tasks.get(task.name).published
    replaced = None if number is None else f"{task.name}@{number}"
    start, afresh = find_start(context, task, retrain=retrain)
    data = load_data(task)
    notes = (*([afresh] if afresh else []), *data_faults(task, data))
    label = None if start is None else start.label
    return Snapshot(task, data.test, (data.training, data.validation), before, label, replaced, notes)


def train(context: Context, snapshots: Sequence[Snapshot], hooks: Hooks) -> list[Trained | TrainingError]:
    """Train a prompt for each snapshot in the same passes, from its last checkpoint where it has one."""
    base, catalog = context.base_model(), context.catalog

    def keep(name: str, key: str, checkpoint: bytes) -> None:
        catalog.checkpoints.save(name, key, checkpoint)
        hooks.on_checkpoint()

    inputs = [_input(context, snapshot, hooks.parts) for snapshot in snapshots]
    outcomes = learn_prompts(base, inputs, hooks.on_step, lambda name, key: _checkpoint(context, name, key), keep)
    return [
        outcome if isinstance(outcome, TrainingError) else Trained(to_adapter(outcome.prompt), outcome.run)
        for outcome in outcomes
    ]


def conclude(context: Context, snapshot: Snapshot, trained: Trained) -> LearnReport:
    """Evaluate, gate and publish; a prompt with the bytes of an existing version makes no new one."""
    is_trial = bool(snapshot.trial)
    known = find_existing(context.catalog, snapshot.task, trained.adapter, snapshot.test, is_trial=is_trial)
    if known is not None:
        return report_existing(context, snapshot, trained, known)
    return publish(context, snapshot, trained, evaluate(context, snapshot, trained))


def evaluate(context: Context, snapshot: Snapshot, trained: Trained) -> Measured:
    """Score a prompt and its hard prompt on the test rows."""
    scores, task = Scores(context), snapshot.task
    prompt = from_adapter(scores.base, trained.adapter, task.name)
    soft = scores.score(task, snapshot.test, Subject.soft(prompt, trained.digest))
    return Measured(soft, scores.score(task, snapshot.test, Subject.hard(task)))


def publish(context: Context, snapshot: Snapshot, trained: Trained, measured: Measured) -> LearnReport:
    """Gate a prompt, and publish, hold or reject it in one transaction."""
    require_untouched(context.catalog, snapshot.before)
    scores = Scores(context)
    candidate = make_candidate(context, snapshot, trained, measured)
    admission = admit(scores, Checking(context), candidate, snapshot.trial)
    state = _state(context, admission.version)
    log.info("%s %s: %s", admission.version.label, state, admission.reason)
    most = admission.yardsticks.get("majority answer")
    return replace(
        _report(snapshot, trained, measured, admission.version, state),
        reason=f"the task is guarded; {admission.reason}" if admission.is_guarded else admission.reason,
        check=admission.check,
        untouched=is_untouched(context.catalog, snapshot.before),
        majority=None if most is None else most.score,
        p_value=admission.yardsticks["hard prompt"].p_value,
        is_new=admission.is_new,
    )


def report_existing(context: Context, snapshot: Snapshot, trained: Trained, known: VersionRecord) -> LearnReport:
    """End a training that gave the bytes of an existing version; only its checkpoint changes."""
    measured = evaluate(context, snapshot, trained)
    reason = end_as_existing(context, snapshot, known)
    report = _report(snapshot, trained, measured, known, _state(context, known))
    return replace(report, reason=reason, is_new=False)


def end_as_existing(context: Context, snapshot: Snapshot, known: VersionRecord) -> str:
    """Drop the checkpoint of a training that gave the bytes of an existing version, and give the reason."""
    require_untouched(context.catalog, snapshot.before)
    return end_known(context.catalog, known)


def _input(context: Context, snapshot: Snapshot, parts: int) -> TrainingInput:
    assert snapshot.training is not None
    catalog, base = context.catalog, context.base_model()
    version = None if snapshot.start is None else catalog.versions.labelled(snapshot.start)
    start = None if version is None else load_prompt(catalog, base, version, to_train=True)
    return TrainingInput(snapshot.task, *snapshot.training, start, parts)


def _checkpoint(context: Context, name: str, key: str) -> bytes | None:
    """The state of a training that broke off; a damaged checkpoint counts as none."""
    try:
        return context.catalog.checkpoints.get(name, key)
    except IntegrityError as error:
        context.notify(f"{error}; the training starts from its beginning")
        return None


def make_candidate(context: Context, snapshot: Snapshot, trained: Trained, measured: Measured) -> Candidate:
    """All that becomes a version."""
    base = context.base_model()
    prompt = from_adapter(base, trained.adapter, snapshot.task.name)
    return Candidate(
        snapshot.task,
        base.record,
        trained.adapter,
        prompt.method,
        prompt.num_virtual_tokens,
        trained.run,
        _parents(context, snapshot, trained),
        measured.hard,
        measured.soft,
        snapshot.test,
        snapshot.training,
        context.catalog.job,
    )


def _parents(context: Context, snapshot: Snapshot, trained: Trained) -> tuple[Parent, ...]:
    if trained.imported_from:
        return (Parent("imported-from", trained.imported_from),)
    labels = (snapshot.replaced, snapshot.start)
    replaced, start = (None if label is None else context.catalog.versions.labelled(label) for label in labels)
    return parents_of(replaced, start)


def _state(context: Context, version: VersionRecord) -> LearnState:
    """The state of a version; a candidate is held by its task's guard unless it is below the floor."""
    held = version.state == "candidate" and not context.catalog.versions.is_below_floor(version)
    return "held" if held else _STATES[version.state]


def _report(
    snapshot: Snapshot, trained: Trained, measured: Measured, version: VersionRecord, state: LearnState
) -> LearnReport:
    soft = measured.soft
    return LearnReport(
        version=version.label,
        published=version.state == "published",
        reason="",
        metric=soft.metric,
        hard=measured.hard.score,
        soft=soft.score,
        train_seconds=trained.run.seconds if trained.run else 0.0,
        truncated=soft.truncated,
        check=CheckReport((), 0.0),
        untouched=True,
        state=state,
        rows=soft.rows,
        interval=interval(soft, snapshot.task.metrics[0]),
        warnings=snapshot.notes,
    )
