"""What differs between two versions: how they were made, what they score, and the rows whose answer flipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.context import Context
from multiprompt.gate.statistics import paired_interval
from multiprompt.records import Change, Evaluation, Flip, ScoreChange, TokenChange, VersionDiff, VersionRecord
from multiprompt.tasks.metric import per_example_scores
from multiprompt.tasks.task import Task


def compare_versions(context: Context, before: str, after: str, *, tokens: bool = True) -> VersionDiff:
    """Compare two versions by what the catalog holds of them, and their virtual tokens, which takes the base model."""
    catalog = context.catalog
    old, new = catalog.version_labelled(before), catalog.version_labelled(after)
    compared = _compare_tokens(context, old, new) if tokens else ()
    was, now = (_made_with(catalog, version) for version in (old, new))
    changes = [Change(name, was.get(name), now.get(name)) for name in dict.fromkeys([*was, *now])]
    scores, flips = _compare(catalog.task_file(new), catalog.baseline(old), catalog.baseline(new))
    differences = tuple(change for change in changes if change.before != change.after)
    return VersionDiff(old.label, new.label, differences, scores, flips, compared)


def _compare_tokens(context: Context, before: VersionRecord, after: VersionRecord) -> tuple[TokenChange, ...]:
    from multiprompt.engine.inspection import compare_tokens
    from multiprompt.serving.prompts import load_prompt

    base = context.base_model()
    old, new = (load_prompt(context.catalog, base, version) for version in (before, after))
    return tuple(compare_tokens(base, old, new))


def _made_with(catalog: Catalog, version: VersionRecord) -> dict[str, Any]:
    """What went into a version, by name."""
    found: dict[str, Any] = {
        "method": version.method,
        "num_virtual_tokens": version.num_virtual_tokens,
        "base model": str(version.base_model),
        "task file": catalog.task_file(version).fingerprint,
        "evaluation data": catalog.evaluation_rows(version).fingerprint,
    }
    run = catalog.run(version)
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


def _compare(task: Task, before: Evaluation, after: Evaluation) -> tuple[tuple[ScoreChange, ...], tuple[Flip, ...]]:
    """Each metric that both have, with an interval where both were taken on the same rows and are means over these."""
    same_rows = before.references == after.references
    scores, flips = [], []
    for metric in task.metrics:
        if metric.name not in before.metrics or metric.name not in after.metrics:
            continue
        hits = [
            per_example_scores(metric, side.predictions, side.references) if metric.reads_as(task.metrics[0]) else None
            for side in (before, after)
        ]
        interval = paired_interval(hits[0], hits[1]) if same_rows and hits[0] and hits[1] else None
        scores.append(ScoreChange(metric.name, before.metrics[metric.name], after.metrics[metric.name], interval))
        if metric is task.metrics[0] and same_rows and hits[0] and hits[1]:
            flips = [
                Flip(row, after.references[row], before.predictions[row], after.predictions[row], was < now)
                for row, (was, now) in enumerate(zip(hits[0], hits[1], strict=True))
                if was != now
            ]
    return tuple(scores), tuple(flips)
