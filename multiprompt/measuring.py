"""Measuring prompts: scores of versions and candidates, reused where nothing that moves them did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from multiprompt.catalog.catalog import Catalog
from multiprompt.engine.base import BaseModel
from multiprompt.engine.evaluation import Subject, evaluate, evaluate_as_served, evaluation_key
from multiprompt.inference import load_prompt
from multiprompt.records import Evaluation, Progress, VersionRecord

if TYPE_CHECKING:
    from multiprompt.tasks.split import Split
    from multiprompt.tasks.task import Task


class Measuring:
    """Scores of prompts of one catalog on its base model."""

    def __init__(self, catalog: Catalog, base: BaseModel, *, hub_metrics: bool, progress: Progress) -> None:
        self.catalog = catalog
        self.base = base
        self.hub_metrics = hub_metrics
        self._progress = progress

    def evaluate(self, task: Task, split: Split, subject: Subject) -> Evaluation:
        """A score: the stored one where every influence is the same, else measured."""
        stored = self.stored(task, split, subject)
        if stored is not None:
            return stored
        what = f"{task.name}: evaluating the {'hard' if subject.prompt is None else 'soft'} prompt"
        return self._measure(task, split, subject, what)

    def stored(self, task: Task, split: Split, subject: Subject) -> Evaluation | None:
        """The score that was taken before where every influence was the same."""
        key = evaluation_key(self.base, task, split.fingerprint, subject)
        return self.catalog.evaluation_with_key(key, task.name)

    def version(self, version: VersionRecord, task: Task, split: Split) -> Evaluation:
        """A version's score on any rows."""
        return self.evaluate(task, split, self.subject(version))

    def as_served(self, version: VersionRecord, task: Task, split: Split) -> Evaluation:
        """A version's answers, asked with its own task file, by the metric and right answers of another task file."""
        own = self.catalog.task_file(version)
        if own.fingerprint == task.fingerprint:
            return self.version(version, task, split)
        subject = self.subject(version)
        return evaluate_as_served(self.base, own, subject, task, split, hub_metrics=self.hub_metrics)

    def subject(self, version: VersionRecord) -> Subject:
        return Subject.soft(load_prompt(self.catalog, self.base, version), version.digest)

    def _measure(self, task: Task, split: Split, subject: Subject, what: str) -> Evaluation:
        advance = counter(self._progress, what, len(split.rows))
        return evaluate(self.base, task, split, subject, hub_metrics=self.hub_metrics, advance=advance)


def counter(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    """Turns counts of what was just done into progress."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(what, done, total)

    return advance
