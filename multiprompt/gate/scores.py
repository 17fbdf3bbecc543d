"""Scores of prompts: stored ones where nothing that moves them changed, else measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from multiprompt.context import Context
from multiprompt.engine.evaluation import Subject, evaluate, evaluate_as_served, evaluation_key
from multiprompt.records import Evaluation, VersionRecord
from multiprompt.serving.prompts import load_prompt

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split
    from multiprompt.tasks.task import Task


class Scores:
    """Scores of the prompts of a catalog on its base model."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.catalog = context.catalog
        self.base = context.base_model()

    def score(self, task: Task, split: Split, subject: Subject) -> Evaluation:
        """The stored score where every influence is the same, else a new one."""
        stored = self.find_stored(task, split, subject)
        return self._measure(task, split, subject) if stored is None else stored

    def find_stored(self, task: Task, split: Split, subject: Subject) -> Evaluation | None:
        """The score that was taken before where every influence was the same."""
        key = evaluation_key(self.base, task, split.fingerprint, subject)
        return self.catalog.evaluations.with_key(key, task.name)

    def score_version(self, version: VersionRecord, task: Task, split: Split) -> Evaluation:
        """A version's score on any rows."""
        return self.score(task, split, self.subject_of(version))

    def score_as_served(self, version: VersionRecord, task: Task, split: Split) -> Evaluation:
        """A version's answers, asked with its own task file, by the metric and right answers of another task file."""
        own = self.catalog.versions.task(version)
        if own.fingerprint == task.fingerprint:
            return self.score_version(version, task, split)
        subject = self.subject_of(version)
        return evaluate_as_served(self.base, own, subject, task, split, hub_metrics=self.context.hub_metrics)

    def subject_of(self, version: VersionRecord) -> Subject:
        return Subject.soft(load_prompt(self.catalog, self.base, version), version.digest)

    def _measure(self, task: Task, split: Split, subject: Subject) -> Evaluation:
        kind = "hard" if subject.prompt is None else "soft"
        advance = self.context.counter(f"{task.name}: evaluating the {kind} prompt", len(split.rows))
        return evaluate(self.base, task, split, subject, hub_metrics=self.context.hub_metrics, advance=advance)
