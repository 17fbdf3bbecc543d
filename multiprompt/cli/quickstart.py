"""The quickstart: a stream of real tasks through the workspace, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiprompt.cli.output import echo, print_matrix, print_table
from multiprompt.quickstart.samples import SAMPLES, write_sample
from multiprompt.records import LearnReport
from multiprompt.workspace import Workspace


def run(workspace: Workspace, folder: Path) -> dict[str, Any]:
    """Learn every sample task that is not published yet, then gather the whole story from the catalog."""
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


def print_summary(summary: dict[str, Any], workspace: Workspace) -> None:
    echo(f"\nBase model: {summary['base_model']}\n")
    print_table(
        ("task", "metric", "hard prompt", "soft prompt", "seconds"),
        [(r["version"], r["metric"], r["hard"], r["soft"], round(r["train_seconds"], 1)) for r in summary["tasks"]],
    )
    echo()
    print_matrix(workspace.matrix())
    state = "unchanged, byte for byte" if summary["untouched"] else "CHANGED"
    echo(f"\nEarlier prompts: {state}. Digests recomputed from the stored bytes:")
    for label, digest in summary["digests"].items():
        echo(f"  {label:<20} {digest}")
    path = summary["catalog"]
    echo(
        f"\nVerdict: {summary['verdict']}. The catalog is {path}\n\nNext:\n"
        f"  export MULTIPROMPT_CATALOG={path}\n"
        "  multiprompt tasks\n"
        '  multiprompt predict past_tense "write" "sing"\n'
        "  multiprompt check"
    )


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
