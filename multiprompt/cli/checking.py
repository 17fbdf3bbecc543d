"""Commands of the gate: check, bless, policy."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from multiprompt.cli.completion import complete_labels
from multiprompt.cli.options import (
    catalog_option,
    hub_metrics_option,
    json_option,
    reason_option,
    working,
)
from multiprompt.cli.output import (
    echo,
    print_check,
    print_json,
    print_result,
)
from multiprompt.errors import ConfigError, counted
from multiprompt.opening import open_workspace

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.command()
@click.option("--full", is_flag=True, help="Run every row of every task, whether anything changed or not.")
@click.option("--base-model", metavar="M", help="Try another base model: an alias, a folder, or a hub id.")
@click.option("--dry-run", is_flag=True, help="A trial: store nothing, move nothing, trigger nothing.")
@click.option("--html", "page", type=_FILE, help="Write the report as a page that needs no network.")
@click.option("--junit", type=_FILE, help="Write JUnit XML for a build server.")
@catalog_option
@hub_metrics_option
@json_option
def check(
    full: bool,
    base_model: str | None,
    dry_run: bool,
    page: Path | None,
    junit: Path | None,
    catalog: str,
    hub_metrics: bool,
    as_json: bool,
) -> None:
    """Compare every published prompt with its baseline. Exit 0: no regression, 1: a regression, 2: an error.

    An unchanged key needs a few canary rows only; otherwise rows run until the verdict is certain. A drop counts where
    the task does not tolerate it and chance does not explain it. On another base model the check is a trial.
    """
    for file in (page, junit):
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{file.parent} does not exist: create the folder, or write the report elsewhere.")
    with working(catalog, base_model, hub_metrics=hub_metrics) as workspace:
        report = workspace.check(full=full, dry_run=dry_run)
        for file, text in ((page, workspace.report_html), (junit, workspace.report_junit)):
            if file is not None:
                file.write_text(text(report), encoding="utf-8")
    if as_json:
        print_json({"passed": report.passed, **asdict(report)})
    else:
        print_check(report)
        echo(f"{'pass' if report.passed else 'REGRESSION'}: {report.summary}; {report.cost}")
    sys.exit(0 if report.passed else 1)


@click.command()
@click.argument("label", metavar="TASK[@V]", shell_complete=complete_labels)
@reason_option
@catalog_option
@hub_metrics_option
@json_option
def bless(label: str, reason: str, catalog: str, hub_metrics: bool, as_json: bool) -> None:
    """Make the present score of a published version its baseline; nothing else changes a baseline."""
    with working(catalog, hub_metrics=hub_metrics) as workspace:
        version = workspace.version(label).label
        evaluation = workspace.bless(label, reason)
    score = f"{evaluation.metric} {evaluation.score:.4f} on {counted(evaluation.rows, 'row')}"
    print_result(evaluation, f"{version} has a new baseline: {score}", as_json)


@click.command()
@click.argument("policy", required=False, metavar="[block|warn|rollback]")
@reason_option
@catalog_option
@json_option
def policy(policy: str | None, reason: str, catalog: str, as_json: bool) -> None:
    """Show or set the effect of a regression where a task file names none.

    block: a new regression rejects candidates of other tasks, and a check fails. warn: it is reported only.
    rollback: as block, and a check gives the task the newest earlier version back that is better now.
    """
    workspace = open_workspace(catalog, create=False)
    if policy is not None:
        workspace.set_policy(policy, reason)
    print_result({"policy": workspace.policy()}, workspace.policy(), as_json)


COMMANDS = (check, bless, policy)
