"""The summary of a quickstart, as text."""

from __future__ import annotations

from typing import Any

from multiprompt.cli.output import echo, print_matrix, print_table
from multiprompt.workspace import Workspace


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
