"""Commands that move or keep versions: rollback, publish, guard, note, export."""

from __future__ import annotations

from pathlib import Path

import click

from multiprompt.cli.completion import complete_labels, complete_numbers, complete_tasks
from multiprompt.cli.options import (
    catalog_option,
    force_option,
    json_option,
    reason_option,
    working,
)
from multiprompt.cli.output import print_result
from multiprompt.opening import open_workspace


@click.command()
@click.argument("task", shell_complete=complete_tasks)
@click.option(
    "--to",
    type=int,
    metavar="V",
    shell_complete=complete_numbers,
    help="The version to publish again; by default the one retired last.",
)
@reason_option
@force_option
@catalog_option
@json_option
def rollback(task: str, to: int | None, reason: str, force: bool, catalog: str, as_json: bool) -> None:
    """Publish an earlier version of a task again."""
    version = open_workspace(catalog, create=False).rollback(task, to, reason, force=force)
    print_result(version, f"{version.label} is published", as_json)


@click.command()
@click.argument("label", metavar="TASK[@V]", shell_complete=complete_labels)
@reason_option
@force_option
@catalog_option
@json_option
def publish(label: str, reason: str, force: bool, catalog: str, as_json: bool) -> None:
    """Publish a candidate, by default the newest: its task was guarded, or it did not learn.

    The gate does not judge it again, so it takes --force and a --reason.
    """
    version = open_workspace(catalog, create=False).publish(label, reason, force=force)
    print_result(version, f"{version.label} is published", as_json)


@click.command()
@click.argument("task", shell_complete=complete_tasks)
@click.option("--off", is_flag=True, help="Guard it no longer.")
@reason_option
@catalog_option
@json_option
def guard(task: str, off: bool, reason: str, catalog: str, as_json: bool) -> None:
    """Hold new versions of TASK until `publish --force --reason` publishes one."""
    workspace = open_workspace(catalog, create=False)
    workspace.guard(task, not off, reason)
    told = f"{task} is {'guarded no longer' if off else 'guarded'}"
    print_result(workspace.task_record(task), told, as_json)


@click.command()
@click.argument("task", shell_complete=complete_tasks)
@click.argument("text")
@catalog_option
@json_option
def note(task: str, text: str, catalog: str, as_json: bool) -> None:
    """Keep a note on TASK among its events; `tasks "matches('…')"` finds it."""
    workspace = open_workspace(catalog, create=False)
    workspace.note(task, text)
    print_result(workspace.notes(task)[-1], f"noted on {task}", as_json)


@click.command()
@click.argument("label", metavar="TASK[@V]", shell_complete=complete_labels)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--push", "repo", metavar="REPO", help="Upload it to this repository of the hub, too: owner/name.")
@click.option("--public", is_flag=True, help="With --push: a new repository is public.")
@catalog_option
@json_option
def export(label: str, folder: Path, repo: str | None, public: bool, catalog: str, as_json: bool) -> None:
    """Write a version as a PEFT adapter folder with a model card."""
    if public and repo is None:
        raise click.UsageError("--public is for --push")
    with working(catalog) as workspace:
        target = workspace.export(label, folder)
        url = None if repo is None else workspace.push_to_hub(label, repo, private=not public)
    told = f"wrote {target}" if url is None else f"wrote {target}\nuploaded to {url}"
    print_result({"folder": target, "url": url}, told, as_json)


COMMANDS = (rollback, publish, guard, note, export)
