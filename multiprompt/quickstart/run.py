"""The quickstart: learns the sample tasks one after another, and sums up what the catalog holds then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiprompt.quickstart.samples import SAMPLES, write_sample
from multiprompt.records import LearnReport
from multiprompt.workspace import Workspace


def run(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Learn every sample task that is not published yet. Gives scores, matrix, digests and the verdict."""
    reports: list[LearnReport] = []
    published = {record.name for record in workspace.tasks() if record.published is not None}
    for sample in SAMPLES:
        if sample.name not in published:
            workspace.add_task(write_sample(sample, folder))
            reports.append(workspace.learn(sample.name))
    matrix = workspace.matrix()
    return {
        "catalog": workspace.location,
        "base_model": str(workspace.base_model().record),
        "tasks": [_row(workspace, sample.name) for sample in SAMPLES],
        "matrix": {"tasks": list(matrix.tasks), "scores": [list(row) for row in matrix.scores]},
        "digests": workspace.catalog.versions.digests(),
        "untouched": all(report.untouched for report in reports),
        "verdict": "pass" if all(report.published and report.check.passed for report in reports) else "regression",
    }


def _row(workspace: Workspace, name: str) -> dict[str, Any]:
    """A task's line: its newest version, and the hard prompt on the same rows."""
    version = workspace.catalog.versions.of(name)[-1]
    run = workspace.catalog.runs.of(version)
    (hard,) = workspace.evaluations(f"task = '{name}' and kind = 'hard' order by created_at desc limit 1")
    return {
        "task": name,
        "version": version.label,
        "metric": version.metric,
        "hard": hard.score,
        "soft": version.score,
        "train_seconds": None if run is None else run.seconds,
    }
