"""What differs between two versions: how they were made, what they score, and the rows whose answer flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.gate.statistics import paired_interval
from multiprompt.records import Change, Evaluation, Flip, ScoreChange, TokenChange, VersionDiff, VersionRecord
from multiprompt.tasks.metric import per_example_scores
from multiprompt.tasks.task import Task


def diff(
    catalog: Catalog, before: VersionRecord, after: VersionRecord, tokens: Sequence[TokenChange] = ()
) -> VersionDiff:
    """Compare two versions by what the catalog holds of them, and `tokens`, which the caller compared."""
    old, new = (_made_with(catalog, version) for version in (before, after))
    changes = [Change(name, old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]
    scores, flips = _compare(catalog.task_file(after), catalog.baseline(before), catalog.baseline(after))
    return VersionDiff(
        before.label,
        after.label,
        tuple(change for change in changes if change.before != change.after),
        scores,
        flips,
        tuple(tokens),
    )


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
