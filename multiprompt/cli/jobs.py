"""Commands for jobs: submit, list, schedule, and the worker that does them."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from multiprompt.cli.options import catalog_option, hub_metrics_option, json_option, working
from multiprompt.cli.output import print_json, print_table
from multiprompt.workspace import open_workspace


@click.command()
@click.argument("task")
@catalog_option
@json_option
def submit(task: str, catalog: str, as_json: bool) -> None:
    """Queue the learning of a task for `multiprompt worker`."""
    job = open_workspace(catalog, create=False).submit(task)
    if as_json:
        print_json(job)
    else:
        click.echo(f"{job.id} {job.state}")


@click.group()
def schedule() -> None:
    """Learn tasks again and again, by cron."""


@schedule.command("add")
@click.argument("task")
@click.option("--cron", required=True, metavar="EXPR", help="Five fields, for example '0 3 * * 0'.")
@click.option("--timezone", metavar="ZONE", help="An IANA time zone; UTC by default.")
@catalog_option
def add_schedule(task: str, cron: str, timezone: str | None, catalog: str) -> None:
    """Submit the learning of TASK at each tick of EXPR."""
    added = open_workspace(catalog, create=False).schedule(task, cron=cron, timezone=timezone)
    click.echo(f"{added.name}: {added.cron} {added.timezone}")


@schedule.command("list")
@catalog_option
@json_option
def list_schedules(catalog: str, as_json: bool) -> None:
    """List the schedules with the next time of each."""
    from multiprompt.jobs.durable import next_ticks

    records = open_workspace(catalog, create=False).schedules()
    if as_json:
        print_json(records)
        return
    now = datetime.now(UTC)
    print_table(
        ("schedule", "task", "cron", "zone", "state", "next"),
        [
            (s.name, s.task, s.cron, s.timezone, "active" if s.active else "paused", next_ticks(s, now, 1)[0])
            for s in records
        ],
    )


@schedule.command("pause")
@click.argument("name")
@catalog_option
def pause_schedule(name: str, catalog: str) -> None:
    """Let a schedule rest until it is resumed."""
    click.echo(f"{open_workspace(catalog, create=False).job_store.pause(name).name} is paused")


@schedule.command("resume")
@click.argument("name")
@catalog_option
def resume_schedule(name: str, catalog: str) -> None:
    """Wake a paused schedule."""
    click.echo(f"{open_workspace(catalog, create=False).job_store.resume(name).name} is active")


@schedule.command("remove")
@click.argument("name")
@catalog_option
def remove_schedule(name: str, catalog: str) -> None:
    """Delete a schedule; jobs that it submitted stay."""
    open_workspace(catalog, create=False).job_store.remove(name)
    click.echo(f"{name} is removed")


@click.command()
@click.option("--until-idle", is_flag=True, help="End when no job waits, instead of staying.")
@catalog_option
@hub_metrics_option
def worker(until_idle: bool, catalog: str, hub_metrics: bool) -> None:
    """Do the jobs of the catalog until SIGTERM or Ctrl-C; a job that a dead worker left is done again."""
    from multiprompt.worker import work

    with working(catalog, hub_metrics=hub_metrics) as workspace:
        work(workspace, until_idle=until_idle)


COMMANDS = (submit, schedule, worker)
