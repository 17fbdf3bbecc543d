"""Measuring prompts: scores of versions and candidates, reused where nothing that moves them did."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from multiprompt.catalog.catalog import Catalog
from multiprompt.continual.gate import compare, failure
from multiprompt.engine.base import BaseModel
from multiprompt.engine.evaluation import Subject, evaluate, evaluation_key
from multiprompt.errors import MultipromptError, SupersededError, UnavailableError
from multiprompt.inference import load_prompt
from multiprompt.records import CheckReport, CheckResult, Evaluation, Progress, VersionRecord

if TYPE_CHECKING:
    from multiprompt.tasks.split import Split
    from multiprompt.tasks.task import Task

# A version against its baseline, and the evaluation that was taken for it.
Checked = tuple[CheckResult, Evaluation | None]


class Measuring:
    """Scores of prompts of one catalog on its base model."""

    def __init__(self, catalog: Catalog, base: BaseModel, *, hub_metrics: bool, progress: Progress) -> None:
        self.catalog = catalog
        self.base = base
        self._hub_metrics = hub_metrics
        self._progress = progress

    def evaluate(self, task: Task, split: Split, subject: Subject) -> Evaluation:
        """A score: the stored one where every influence is the same, else measured."""
        stored = self.catalog.evaluation_with_key(evaluation_key(self.base, task, split, subject))
        if stored is not None and stored.task == task.name:
            return stored
        what = f"{task.name}: evaluating the {'hard' if subject.prompt is None else 'soft'} prompt"
        return self._measure(task, split, subject, what)

    def version(self, version: VersionRecord, task: Task, split: Split) -> Evaluation:
        """A version's score on any rows."""
        return self.evaluate(task, split, self.subject(version))

    def check(self, version: VersionRecord) -> Checked:
        """Measure a published version on its baseline's rows; what cannot be measured has failed."""
        max_drop = 0.0
        try:
            task = self.catalog.task_file(version)
            max_drop = task.config.regression.max_drop
            baseline = self.catalog.baseline(version)
            rows = self.catalog.evaluation_rows(version)
            current = self._measure(task, rows, self.subject(version), f"{version.label}: checking")
            return compare(version.label, baseline, current, max_drop), current
        except (SupersededError, UnavailableError):
            raise
        except (MultipromptError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            return failure(version.label, version.metric or "", version.score or 0.0, max_drop, reason), None

    def check_published(
        self, known: Mapping[str, Checked], keep: Callable[[str, Checked], None] = lambda label, checked: None
    ) -> tuple[CheckReport, dict[str, Evaluation]]:
        """Check every published prompt but those `known`. Gives the report and the evaluations by version label."""
        started = time.perf_counter()
        results, taken = [], {}
        for version in self.catalog.published()[1]:
            checked = known.get(version.label)
            if checked is None:
                checked = self.check(version)
                keep(version.label, checked)
            result, evaluation = checked
            results.append(result)
            if evaluation is not None:
                taken[version.label] = evaluation
        return CheckReport(tuple(results), time.perf_counter() - started), taken

    def subject(self, version: VersionRecord) -> Subject:
        return Subject.soft(load_prompt(self.catalog, self.base, version), version.digest)

    def _measure(self, task: Task, split: Split, subject: Subject, what: str) -> Evaluation:
        advance = counter(self._progress, what, len(split.rows))
        return evaluate(self.base, task, split, subject, hub_metrics=self._hub_metrics, advance=advance)


def counter(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    """Turns counts of what was just done into progress."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(what, done, total)

    return advance
