"""Commands that move or keep versions: rollback, publish, guard, note, export."""

from __future__ import annotations

from pathlib import Path

import click

from multiprompt.cli.options import (
    catalog_option,
    force_option,
    reason_option,
    working,
)
from multiprompt.cli.output import (
    echo,
)
from multiprompt.workspace import open_workspace


@click.command()
@click.argument("task")
@click.option("--to", type=int, metavar="V", help="The version to publish again; by default the one retired last.")
@reason_option
@force_option
@catalog_option
def rollback(task: str, to: int | None, reason: str, force: bool, catalog: str) -> None:
    """Publish an earlier version of a task again."""
    version = open_workspace(catalog, create=False).rollback(task, to, reason, force=force)
    echo(f"{version.label} is published")


@click.command()
@click.argument("label", metavar="TASK[@V]")
@reason_option
@force_option
@catalog_option
def publish(label: str, reason: str, force: bool, catalog: str) -> None:
    """Publish a candidate that was held: its task was guarded, or it did not learn. It takes --force and a --reason."""
    version = open_workspace(catalog, create=False).publish(label, reason, force=force)
    echo(f"{version.label} is published")


@click.command()
@click.argument("task")
@click.option("--off", is_flag=True, help="Guard it no longer.")
@reason_option
@catalog_option
def guard(task: str, off: bool, reason: str, catalog: str) -> None:
    """Hold new versions of TASK until `publish --force --reason` publishes one."""
    open_workspace(catalog, create=False).guard(task, not off, reason)
    echo(f"{task} is {'guarded no longer' if off else 'guarded'}")


@click.command()
@click.argument("task")
@click.argument("text")
@catalog_option
def note(task: str, text: str, catalog: str) -> None:
    """Keep a note on TASK among its events; `tasks "matches('…')"` finds it."""
    open_workspace(catalog, create=False).note(task, text)
    echo(f"noted on {task}")


@click.command()
@click.argument("label", metavar="TASK[@V]")
@click.argument("folder", type=click.Path(path_type=Path))
@catalog_option
def export(label: str, folder: Path, catalog: str) -> None:
    """Write a version as a PEFT adapter folder."""
    with working(catalog) as workspace:
        target = workspace.export(label, folder)
    echo(f"wrote {target}")


COMMANDS = (rollback, publish, guard, note, export)
