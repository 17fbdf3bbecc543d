"""Commands for jobs: submit, follow, cancel, schedule, plan, and the worker that does them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from multiprompt.cli.completion import complete_jobs, complete_schedules, complete_tasks
from multiprompt.cli.options import FiniteRange, catalog_option, hub_metrics_option, json_option
from multiprompt.cli.output import echo, print_json, print_result, print_table
from multiprompt.cli.words import in_shell_words
from multiprompt.config import DEFAULT_PRIORITY, LEASE_SECONDS
from multiprompt.errors import counted
from multiprompt.opening import open_workspace
from multiprompt.records import Job, PlannedJob
from multiprompt.workspace import Workspace

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_KINDS = ("learn", "retrain", "evaluate", "check")
_NEXT_TICKS = 5


if TYPE_CHECKING:
    _Durations = click.ParamType[timedelta]
else:  # before click 8.4 it takes no parameter
    _Durations = click.ParamType


class Duration(_Durations):
    """A number and a unit: 90s, 15m, 6h, 30d, 2w."""

    name = "duration"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        parts = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", str(value))
        if parts is None:
            self.fail(
                f"{value!r} is no duration: give a number and one of s, m, h, d, w, such as 6h", parameter, context
            )
        return timedelta(**{_UNITS[parts[2]]: float(parts[1])})


_kind_option = click.option(
    "--kind",
    type=click.Choice(_KINDS),
    help="By default retrain for a task with a published version, learn for one without, check without a task.",
)
_schedule_kind_option = click.option(
    "--kind", type=click.Choice(_KINDS), help="By default retrain for a task, check without one."
)
_priority_option = click.option(
    "--priority", type=click.IntRange(1, 2**31 - 1), default=DEFAULT_PRIORITY, show_default=True, help="1 runs first."
)


def _opened(catalog: str) -> Workspace:
    return open_workspace(catalog, create=False)


@click.command()
@click.argument("task", required=False, shell_complete=complete_tasks)
@_kind_option
@_priority_option
@click.option("--wait", is_flag=True, help="Wait until it has ended; then exit 1 unless it is done.")
@click.option(
    "--timeout", type=Duration(), metavar="TIME", help="With --wait, such as 6h: exit 2 when it lasts longer."
)
@catalog_option
@json_option
def submit(
    task: str | None,
    kind: str | None,
    priority: int,
    wait: bool,
    timeout: timedelta | None,
    catalog: str,
    as_json: bool,
) -> None:
    """Queue a job for `multiprompt worker`: to learn or retrain TASK, or to check all tasks."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    job = _opened(catalog).submit(task, kind, priority=priority)
    if wait:
        job = job.wait(None if timeout is None else timeout.total_seconds())
    _show(job, as_json)
    if wait and job.state != "done":
        raise click.exceptions.Exit(1)


@click.group()
def job() -> None:
    """Show, follow, cancel or retry one job."""


@job.command("show")
@click.argument("identity", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def show_job(identity: str, catalog: str, as_json: bool) -> None:
    """Show a job: its state, how far it is, and what came of it."""
    found = _opened(catalog).jobs.get(identity)
    if as_json:
        print_json(found)
        return
    progress = found.progress
    lines = {
        "job": found.id,
        "kind": found.kind,
        "task": found.task or "-",
        "state": found.state,
        "priority": found.priority,
        "submitted": f"{found.created_at:%Y-%m-%d %H:%M:%S}",
        "updated": f"{found.updated_at:%Y-%m-%d %H:%M:%S}",
        "worker": "-" if progress is None else f"{progress.worker}, attempt {progress.attempt}",
        "progress": "-" if progress is None else f"{progress.step} {progress.done}/{progress.total}",
        "outcome": in_shell_words(found.outcome) or "-",
    }
    for name, value in lines.items():
        echo(f"{name:<10} {value}")


@job.command("logs")
@click.argument("identity", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def job_logs(identity: str, catalog: str, as_json: bool) -> None:
    """Print what the workers noted of a job."""
    lines = _opened(catalog).jobs.logs(identity)
    if as_json:
        print_json(lines)
        return
    for line in lines:
        echo(f"{line.at:%Y-%m-%d %H:%M:%S} {line.level:<7} {line.worker or '-'}: {in_shell_words(line.message)}")


@job.command("cancel")
@click.argument("identity", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def cancel_job(identity: str, catalog: str, as_json: bool) -> None:
    """Stop a job; only its log stays."""
    _show(_opened(catalog).jobs.cancel(identity), as_json)


@job.command("retry")
@click.argument("identity", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def retry_job(identity: str, catalog: str, as_json: bool) -> None:
    """Queue a job anew that failed, was parked or cancelled."""
    _show(_opened(catalog).jobs.retry(identity), as_json)


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
@_priority_option
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
    added = _opened(catalog).schedule(
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

    records = _opened(catalog).schedules()
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
    found = _opened(catalog).schedules.pause(name)
    print_result(found, f"{found.name} is paused", as_json)


@schedule.command("resume")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def resume_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Resume a paused schedule; missed ticks are not made up."""
    found = _opened(catalog).schedules.resume(name)
    print_result(found, f"{found.name} is active", as_json)


@schedule.command("trigger")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def trigger_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Submit a schedule's job now."""
    _show(_opened(catalog).schedules.trigger(name), as_json)


@schedule.command("remove")
@click.argument("name", shell_complete=complete_schedules)
@catalog_option
@json_option
def remove_schedule(name: str, catalog: str, as_json: bool) -> None:
    """Delete a schedule; jobs that it submitted stay."""
    _opened(catalog).schedules.remove(name)
    print_result({"removed": name}, f"{name} is removed", as_json)


@click.command()
@click.option("--days", type=FiniteRange(0, 366), default=7, show_default=True, help="How far to look.")
@catalog_option
@json_option
def plan(days: float, catalog: str, as_json: bool) -> None:
    """Print the jobs that the schedules will submit, and the last cost of such jobs."""
    from multiprompt.jobs.plan import TICKS_A_SCHEDULE

    workspace = _opened(catalog)
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


@click.command()
@click.option("--name", metavar="NAME", help="What it is called in logs; host and process by default.")
@click.option("--slots", type=click.IntRange(1, 256), default=1, show_default=True, help="Jobs at a time.")
@click.option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N; by default a GPU where there is one.")
@click.option("--until-idle", is_flag=True, help="End when no job waits, instead of staying.")
@click.option("--grace", type=FiniteRange(0, 86400), default=20, show_default=True, help="Seconds to end in.")
@click.option(
    "--lease",
    type=FiniteRange(1, 86400),
    default=LEASE_SECONDS,
    show_default=True,
    help="Seconds without a sign of life after which this worker takes another's jobs over; the same for all.",
)
@click.option(
    "--log", "log_format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Lines of what."
)
@click.option("--base-model", metavar="M", help="An alias, a folder, or a hub id; by default the catalog's.")
@catalog_option
@hub_metrics_option
def worker(
    name: str | None,
    slots: int,
    device: str | None,
    until_idle: bool,
    grace: float,
    lease: float,
    log_format: str,
    base_model: str | None,
    catalog: str,
    hub_metrics: bool,
) -> None:
    """Do the jobs of the catalog until SIGTERM or Ctrl-C; what a dead worker left is gone on with."""
    if device is not None and re.fullmatch(r"cpu|cuda(:\d+)?", device) is None:
        raise click.UsageError(f"--device is {device!r}; give cpu, cuda or cuda:N")
    from multiprompt.jobs.processes import WorkerOptions
    from multiprompt.jobs.worker import JsonLines, stop_on_signals, work

    workspace = _opened(catalog)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("multiprompt.worker")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    options = WorkerOptions(catalog, base_model, workspace.actor, device, hub_metrics)
    work(
        workspace.jobs,
        options,
        name=name,
        slots=slots,
        until_idle=until_idle,
        grace=grace,
        lease=lease,
        stop=stop_on_signals(),
    )


def _some(planned: Sequence[PlannedJob]) -> Iterator[tuple[object, ...]]:
    """Rows of the first jobs of one schedule, and one row of the rest."""
    for job in planned[:_NEXT_TICKS]:
        yield f"{job.at:%Y-%m-%d %H:%M}", job.schedule, job.kind, job.task, job.seconds
    rest = planned[_NEXT_TICKS:]
    if rest:
        yield f"and {len(rest)} more", f"until {rest[-1].at:%Y-%m-%d %H:%M}", None, None, None


def _show(job: Job, as_json: bool) -> None:
    print_result(
        job, f"{job.id} {job.kind} {job.task or 'of all'}: {in_shell_words(job.outcome) or job.state}", as_json
    )


COMMANDS = (submit, job, schedule, plan, worker)
