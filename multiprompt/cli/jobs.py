"""Commands for jobs: submit, follow, cancel, retry, and the worker that does them."""

from __future__ import annotations

import logging
import re
from datetime import timedelta

import click

from multiprompt.cli.completion import complete_jobs, complete_tasks
from multiprompt.cli.options import (
    Duration,
    FiniteRange,
    catalog_option,
    hub_metrics_option,
    json_option,
    priority_option,
)
from multiprompt.cli.output import echo, print_job, print_json
from multiprompt.cli.words import in_shell_words
from multiprompt.config import LEASE_SECONDS
from multiprompt.opening import open_workspace

_KINDS = ("learn", "retrain", "evaluate", "check")
_kind_option = click.option(
    "--kind",
    type=click.Choice(_KINDS),
    help="By default retrain for a task with a published version, learn for one without, check without a task.",
)


@click.command()
@click.argument("task", required=False, shell_complete=complete_tasks)
@_kind_option
@priority_option
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
    job = open_workspace(catalog, create=False).submit(task, kind, priority=priority)
    if wait:
        job = job.wait(None if timeout is None else timeout.total_seconds())
    print_job(job, as_json)
    if wait and job.state != "done":
        raise click.exceptions.Exit(1)


@click.group()
def job() -> None:
    """Show, follow, cancel or retry one job."""


@job.command("show")
@click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def show_job(job_id: str, catalog: str, as_json: bool) -> None:
    """Show a job: its state, how far it is, and what came of it."""
    found = open_workspace(catalog, create=False).jobs.get(job_id)
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
@click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def job_logs(job_id: str, catalog: str, as_json: bool) -> None:
    """Print what the workers noted of a job."""
    lines = open_workspace(catalog, create=False).jobs.logs(job_id)
    if as_json:
        print_json(lines)
        return
    for line in lines:
        echo(f"{line.at:%Y-%m-%d %H:%M:%S} {line.level:<7} {line.worker or '-'}: {in_shell_words(line.message)}")


@job.command("cancel")
@click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def cancel_job(job_id: str, catalog: str, as_json: bool) -> None:
    """Stop a job; only its log stays."""
    print_job(open_workspace(catalog, create=False).jobs.cancel(job_id), as_json)


@job.command("retry")
@click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)
@catalog_option
@json_option
def retry_job(job_id: str, catalog: str, as_json: bool) -> None:
    """Queue a job anew that failed, was parked or cancelled."""
    print_job(open_workspace(catalog, create=False).jobs.retry(job_id), as_json)


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

    workspace = open_workspace(catalog, create=False)
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


COMMANDS = (submit, job, worker)
