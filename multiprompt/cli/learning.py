"""Commands that make versions: quickstart, init, add, learn, import."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from multiprompt.cli.completion import complete_tasks
from multiprompt.cli.options import (
    catalog_option,
    hub_metrics_option,
    json_option,
    working,
)
from multiprompt.cli.output import (
    print_added,
    print_json,
    print_learned,
    print_result,
    told_in_json,
)
from multiprompt.records import AddedTask, LearnReport

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="multiprompt-quickstart")
@json_option
def quickstart(folder: Path, as_json: bool) -> None:
    """Learn three real tasks on a real model into FOLDER, and check the earlier ones each time.

    An interrupted run continues when it runs again.
    """
    from multiprompt.cli.quickstart import print_summary
    from multiprompt.quickstart.run import run

    folder.mkdir(parents=True, exist_ok=True)
    with working(str(folder / "catalog.db"), create=True) as workspace:
        summary = run(workspace, folder)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, workspace)
    sys.exit(0 if summary["verdict"] == "pass" else 1)


@click.command()
@catalog_option
@click.option("--base-model", metavar="M", help="An alias, a folder, or a hub id (owner/name[@revision]).")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="What the weights are held in; auto is bfloat16 where the hardware has it.",
)
@json_option
def init(catalog: str, base_model: str | None, dtype: str, as_json: bool) -> None:
    """Make a catalog and bind it to a base model."""
    with working(catalog, base_model, create=True, dtype=None if dtype == "auto" else dtype) as workspace:
        base = workspace.base_model()
    told = f"{workspace.location} is bound to {base.record}"
    print_result({"catalog": workspace.location, "base_model": base.record}, told, as_json)


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="TASK.yaml…")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME_OR_FILE",
    help="Add the tasks of a group file, or of a group or tag named in a file at or below the current folder.",
)
@catalog_option
@json_option
def add(files: tuple[Path, ...], groups: tuple[str, ...], catalog: str, as_json: bool) -> None:
    """Add tasks, or give known ones a new task file; says which are new, changed (and how) or unchanged.

    What learning needs is checked, and warned of where a task's rows are too few, or used twice.
    """
    from multiprompt.tasks.group import group_files

    if not files and not groups:
        raise click.UsageError("Give a task file or --group.")
    files = (*files, *(file for group in groups for file in group_files(group)))
    added: list[AddedTask] = []
    with working(catalog) as workspace, told_in_json(added, as_json):
        for file in files:
            added.append(workspace.add_task(file))
            if not as_json:
                print_added(added[-1])


@click.command()
@click.argument("tasks", nargs=-1, metavar="TASK…", shell_complete=complete_tasks)
@click.option("--all", "everything", is_flag=True, help="Every task that has no published version yet.")
@click.option("--together", is_flag=True, help="Train them in the same passes over the base model.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Make a candidate with another setting, such as training.steps=40; it is never published by itself.",
)
@click.option("--as-added", is_flag=True, help="Learn from the task file that was added, though it was edited since.")
@catalog_option
@hub_metrics_option
@json_option
def learn(
    tasks: tuple[str, ...],
    everything: bool,
    together: bool,
    changes: tuple[str, ...],
    as_added: bool,
    catalog: str,
    hub_metrics: bool,
    as_json: bool,
) -> None:
    """Train a prompt for each task, check the others, publish, hold or reject it.

    A first version that beats neither its instruction nor the most frequent answer stays a candidate.
    """
    if bool(tasks) == everything:
        raise click.UsageError("name tasks, or give --all")
    settings = dict(map(_setting, changes))
    reports: list[LearnReport] = []
    with working(catalog, hub_metrics=hub_metrics) as workspace, told_in_json(reports, as_json):
        known = {record.name: record for record in workspace.tasks()}
        for name in tasks:
            workspace.task_record(name)
        names = list(tasks) or [name for name, record in known.items() if record.published is None]
        for group in [names] if together else [[name] for name in names]:
            for report in workspace.learn_each(group, as_added=as_added, settings=settings):
                reports.append(report)
                if not as_json:
                    print_learned(report)
    good = ("published", "retired", "held") if settings else ("published", "retired")
    sys.exit(0 if all(report.state in good for report in reports) else 1)


def _setting(change: str) -> tuple[str, Any]:
    """A setting and its value, which is read as JSON where it is such, else as text."""
    name, equals, text = change.partition("=")
    if not equals:
        raise click.UsageError(f"--set {change} has no value; write it as training.steps=40")
    try:
        return name.strip(), json.loads(text)
    except (ValueError, RecursionError):
        return name.strip(), text.strip()


@click.command("import")
@click.argument("task", shell_complete=complete_tasks)
@click.argument("folder", type=click.Path(path_type=Path))
@catalog_option
@hub_metrics_option
@json_option
def import_adapter(task: str, folder: Path, catalog: str, hub_metrics: bool, as_json: bool) -> None:
    """Take a PEFT adapter of any prompt method as a new version; it is checked like a trained one."""
    with working(catalog, hub_metrics=hub_metrics) as workspace:
        report = workspace.import_adapter(task, folder)
    if as_json:
        print_json(report)
    else:
        print_learned(report)
    sys.exit(0 if report.published else 1)


COMMANDS = (quickstart, init, add, learn, import_adapter)
