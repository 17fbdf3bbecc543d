"""Commands for schedules: add, list, pause, resume, trigger, remove, and the plan of the jobs to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import click

from multiprompt.cli.completion import complete_schedules, complete_tasks
from multiprompt.cli.options import Duration, FiniteRange, catalog_option, json_option, priority_option
from multiprompt.cli.output import echo, print_job, print_json, print_result, print_table
from multiprompt.errors import counted
from multiprompt.opening import open_workspace
from multiprompt.records import PlannedJob

_KINDS = ("learn", "retrain", "evaluate", "check")
_NEXT_TICKS = 5


_schedule_kind_option = click.option(
    "--kind", type=click.Choice(_KINDS), help="By default retrain for a task, check without one."
)


@click.group()
def schedule() -> None:
    """Submit jobs again and again: by cron, every so often, or on a change."""


@schedule.command("add")
@click.argument("task", required=False, shell_complete=complete_tasks)
@_schedule_kind_option
@click.option("--cron", metavar="EXPR", help="Five fields, for example '0 3 * * 0'; six with seconds first.")
@click.option("--every", type=Duration(), metavar="TIME", help="Such as 6h or 30d; with --on age, the age.")
@click.option(
    "--on",
    type=click.Choice(["data", "score", "base", "age"]),
    help="Its data changed, a check found a drop, the base model changed, or the published version is too old.",
)
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="An IANA time zone for --cron.")
@click.option("--name", metavar="NAME", help="Its name; by default one of kind, task and --on, and one of each.")
@priority_option
@catalog_option
@json_option
def add_schedule(
    task: str | None,
    kind: str | None,
    cron: str | None,
    every: timedelta | None,
    on: str | None,
    timezone: str,
    name: str | None,
    priority: int,
    catalog: str,
    as_json: bool,
) -> None:
    """Retrain TASK, or check all tasks, by a schedule.

    A schedule of the same name is replaced. So that a task has two by time, give one a --name.
    """
    added = open_workspace(catalog, create=False).schedule(
        task, kind, cron=cron, every=every, on=on, timezone=timezone, priority=priority, called=name
    )
    print_result(added, f"{added.name}: {added.when}", as_json)


@schedule.command("list")
@catalog_option
@json_option
def list_schedules(catalog: str, as_json: bool) -> None:
    """List the schedules with the next times of each."""
    from datetime import UTC, datetime
    from itertools import islice

    from multiprompt.jobs.ticks import coming

    records = open_workspace(catalog, create=False).schedules()
    if as_json:
        print_json(records)
        return
    now = datetime.now(UTC)
    print_table(
        ("schedule", "when", "state", "last job", "next (UTC)"),
        [
            (
                record.name,
                record.when,
                "active" if record.active else "paused",
                record.last_job,
                "-"
                if record.watch or not record.active
                else ", ".join(f"{tick:%m-%d %H:%M}" for tick in islice(coming(record, now), _NEXT_TICKS)) or "-",
            )
            for record in records
        ],
        ("last job", "next (UTC)"),
    )


@schedule.command("pause")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def pause_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Pause a schedule until it is resumed."""
    found = open_workspace(catalog, create=False).schedules.pause(name)
    print_result(found, f"{found.name} is paused", as_json)


@schedule.command("resume")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def resume_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Resume a paused schedule; missed ticks are not made up."""
    found = open_workspace(catalog, create=False).schedules.resume(name)
    print_result(found, f"{found.name} is active", as_json)


@schedule.command("trigger")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def trigger_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Submit a schedule's job now."""
    print_job(open_workspace(catalog, create=False).schedules.trigger(name), as_json)


@schedule.command("remove")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def remove_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Delete a schedule; jobs that it submitted stay."""
    open_workspace(catalog, create=False).schedules.remove(name)
    print_result({"removed": name}, f"{name} is removed", as_json)


@click.command()
@click.option("--days", type=FiniteRange(0, 366), default=7, show_default=True, help="How far to look.")
@catalog_option
@json_option
def plan(days: float, catalog: str, as_json: bool) -> None:
    """Print the jobs that the schedules will submit, and the last cost of such jobs."""
    from multiprompt.jobs.plan import TICKS_A_SCHEDULE

    workspace = open_workspace(catalog, create=False)
    planned = workspace.plan(days)
    of_each: dict[str, list[PlannedJob]] = {}
    for job in planned:
        of_each.setdefault(job.schedule, []).append(job)
    for name, jobs in of_each.items():
        if len(jobs) == TICKS_A_SCHEDULE:
            echo(f"{name}: its first {counted(len(jobs), 'job')}, to {jobs[-1].at:%Y-%m-%d %H:%M}", err=True)
    if as_json:
        print_json(planned)
        return
    print_table(
        ("at (UTC)", "schedule", "kind", "task", "seconds"), [row for jobs in of_each.values() for row in _some(jobs)]
    )
    known = [job.seconds for job in planned if job.seconds is not None]
    unknown = len(planned) - len(known)
    echo(f"{counted(len(planned), 'job')}, {sum(known):.0f} s" + (f" and {unknown} of unknown cost" if unknown else ""))
    watching = sum(schedule.active and schedule.watch is not None for schedule in workspace.schedules())
    if watching:
        echo(f"{counted(watching, 'schedule')} on a change, which nobody knows before")


def _some(planned: Sequence[PlannedJob]) -> Iterator[tuple[object, ...]]:
    """Rows of the first jobs of one schedule, and one row of the rest."""
    for job in planned[:_NEXT_TICKS]:
        yield f"{job.at:%Y-%m-%d %H:%M}", job.schedule, job.kind, job.task, job.seconds
    rest = planned[_NEXT_TICKS:]
    if rest:
        yield f"and {len(rest)} more", f"until {rest[-1].at:%Y-%m-%d %H:%M}", None, None, None


COMMANDS = (schedule, plan)
