"""Published prompts: checked together, scored alone, and given a new baseline."""

from __future__ import annotations

from dataclasses import replace

from multiprompt.context import Context
from multiprompt.errors import StateError
from multiprompt.gate.check import Checking
from multiprompt.gate.rollback import plan_rollbacks
from multiprompt.gate.scores import Scores
from multiprompt.gate.served import served_task
from multiprompt.gate.task_files import file_notes
from multiprompt.records import CheckReport, Evaluation, Rollback
from multiprompt.tasks.split import load_test_split


def check_published(context: Context, *, full: bool = False, dry_run: bool = False) -> CheckReport:
    """Compare every published prompt with its baseline, store the report, and roll back where the policy says so."""
    catalog = context.catalog
    report, served = CheckReport((), 0.0, trial=dry_run), catalog.versions.published()[1]
    rollbacks: list[Rollback] = []
    if served:
        base = context.base_model_to_check(dry_run=dry_run)
        trial = dry_run or context.is_foreign(base.record)
        checking = Checking(context, base, trial=trial)
        report = checking.check_published(full=full)
        notes = file_notes(catalog, {version.task for version in served})
        if trial:
            notes.append("this is a trial: nothing was stored, moved or triggered")
        else:
            rollbacks, stay = plan_rollbacks(checking, report)
            notes += stay
        report = replace(report, notes=(*report.notes, *notes), trial=trial)
    if report.trial:
        catalog.conclude(report.passed, f"trial: {report.summary}")
        return report
    return replace(report, notes=(*report.notes, *catalog.checks.save(report, rollbacks)))


def bless(context: Context, label: str, reason: str) -> Evaluation:
    """Make what a published version scores now its baseline. Raises StateError and BaseMismatchError."""
    version = context.catalog.versions.labelled(label)
    if version.state != "published":
        raise StateError(f"{version.label} is {version.state}; only a published version has a baseline to bless.")
    if not reason.strip():
        raise StateError("a baseline is blessed for a reason; give one with `reason='…'`.")
    task, split, evaluation = Checking(context).score_whole(version)
    context.catalog.baselines.bless(version, task, split, evaluation, reason)
    return evaluation


def evaluate_published(context: Context, name: str) -> Evaluation:
    """Score a task's published version on the rows that its data has now; a new score is stored."""
    catalog, scores = context.catalog, Scores(context)
    version = catalog.versions.labelled(name)
    task = catalog.snapshots.attach(served_task(version, catalog.baselines.of(version)))
    split = load_test_split(task)
    stored = scores.find_stored(task, split, scores.subject_of(version))
    if stored is not None:
        catalog.conclude(True, f"{version.label}: {stored.metric} {stored.score:.4f} (reused)")
        return stored
    evaluation = scores.score_version(version, task, split)
    catalog.evaluations.save(version, split, evaluation)
    return evaluation
