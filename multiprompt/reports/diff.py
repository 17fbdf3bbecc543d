"""Two versions compared: settings, data, scores, and the rows whose answer flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.context import Context
from multiprompt.gate.statistics import paired_interval
from multiprompt.records import Change, Evaluation, Flip, ScoreChange, TokenChange, VersionDiff, VersionRecord
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import answer_text, row_text
from multiprompt.tasks.file_change import template_difference
from multiprompt.tasks.metric import per_example_scores
from multiprompt.tasks.task import Task


def compare_versions(context: Context, before: str, after: str, *, tokens: bool = True) -> VersionDiff:
    """Compare two versions by what the catalog holds of them, and their virtual tokens, which takes the base model."""
    catalog = context.catalog
    old, new = catalog.versions.labelled(before), catalog.versions.labelled(after)
    compared = _compare_tokens(context, old, new) if tokens else ()
    was, now = (_made_with(catalog, version) for version in (old, new))
    changes = [Change(name, was.get(name), now.get(name)) for name in dict.fromkeys([*was, *now])]
    sides = [
        _Side(catalog.versions.task(v), catalog.baselines.evaluation_of(v), catalog.evaluations.rows(v))
        for v in (old, new)
    ]
    scores, flips = _compare(*sides)
    differences = tuple(change for change in changes if change.before != change.after)
    template = template_difference(sides[0].task, sides[1].task, (old.label, new.label))
    return VersionDiff(old.label, new.label, differences, scores, flips, compared, template)


def _compare_tokens(context: Context, before: VersionRecord, after: VersionRecord) -> tuple[TokenChange, ...]:
    from multiprompt.engine.inspection import compare_tokens
    from multiprompt.serving.prompts import load_prompt

    base = context.base_model()
    old, new = (load_prompt(context.catalog, base, version) for version in (before, after))
    return tuple(compare_tokens(base, old, new))


def _made_with(catalog: Catalog, version: VersionRecord) -> dict[str, Any]:
    """The settings and data that made a version, by name."""
    found: dict[str, Any] = {
        "method": version.method,
        "num_virtual_tokens": version.num_virtual_tokens,
        "base model": str(version.base_model),
        "task file": catalog.versions.task(version).fingerprint,
        "evaluation data": catalog.evaluations.rows(version).fingerprint,
    }
    run = catalog.runs.of(version)
    if run is not None:
        found |= {"training data": run.training_data, "validation data": run.validation_data}
        found |= _flat("", run.settings) | _flat("library ", run.environment)
        found |= {"best step": run.best_step, "seconds": round(run.seconds, 1)}
    return found


def _flat(head: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(f"{head}{name}.", value) if isinstance(value, Mapping) else {f"{head}{name}": value}
    return flat


@dataclass(frozen=True)
class _Side:
    """A version's baseline, with the task file and the rows that it was taken with."""

    task: Task
    evaluation: Evaluation
    rows: Split

    def hits(self, name: str) -> list[float] | None:
        """A score a row by a metric of its task file, where that reads the predictions that were kept."""
        metrics = {metric.name: metric for metric in self.task.metrics}
        metric, main = metrics.get(name), metrics.get(self.evaluation.metric)
        if metric is None or main is None or not metric.reads_as(main):
            return None
        return per_example_scores(metric, self.evaluation.predictions, self.evaluation.references)

    @property
    def right(self) -> list[Any]:
        return [self.text(row, answer) for row, answer in enumerate(self.evaluation.references)]

    def text(self, row: int, answer: Any) -> Any:
        return answer_text(self.task, self.rows.rows[row], answer)


def _compare(before: _Side, after: _Side) -> tuple[tuple[ScoreChange, ...], tuple[Flip, ...]]:
    """Each metric that both have, with an interval where both were taken on the same rows and are means over these."""
    same_rows = before.rows.fingerprint == after.rows.fingerprint and before.right == after.right
    scores, flips = [], []
    for metric in after.task.metrics:
        values = [side.evaluation.metrics.get(metric.name) for side in (before, after)]
        if values[0] is None or values[1] is None:
            continue
        old, new = before.hits(metric.name), after.hits(metric.name)
        if not (same_rows and old and new):
            scores.append(ScoreChange(metric.name, values[0], values[1], None))
            continue
        scores.append(ScoreChange(metric.name, values[0], values[1], paired_interval(old, new)))
        if metric is after.task.metrics[0]:
            flips = _flips(before, after, old, new)
    return tuple(scores), tuple(flips)


def _flips(before: _Side, after: _Side, old: Sequence[float], new: Sequence[float]) -> list[Flip]:
    """The rows whose score differs, those that got worse first; choices are shown as texts."""
    flips = [
        Flip(
            row,
            after.text(row, after.evaluation.references[row]),
            before.text(row, before.evaluation.predictions[row]),
            after.text(row, after.evaluation.predictions[row]),
            (was < now) == after.evaluation.higher_is_better,
            row_text(after.task, after.rows.rows[row]),
        )
        for row, (was, now) in enumerate(zip(old, new, strict=True))
        if was != now
    ]
    return sorted(flips, key=lambda flip: flip.better)
