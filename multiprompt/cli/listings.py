"""Commands that list what the catalog holds: tables a page at a time, or JSON and CSV of everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import wraps
from typing import Any

import click

from multiprompt.catalog.query.values import parse_time
from multiprompt.cli.options import catalog_option, json_option
from multiprompt.cli.output import echo, print_csv, print_json, print_table
from multiprompt.cli.words import in_shell_words
from multiprompt.opening import open_workspace
from multiprompt.records import JobProgress, Listing
from multiprompt.workspace import Workspace

PAGE = 100
_WATCH_SECONDS = 1.0

List = Callable[..., Listing[Any]]
# Column headings, and what stands under them.
Columns = Mapping[str, Callable[[Any], Any]]


def listing(
    columns: Columns, *, changing: bool = False, optional: Sequence[str] = ()
) -> Callable[[List], click.Command]:
    """Make a command of a function that lists: it gets the workspace, the query and the page's limits.

    A listing that keeps `changing` can be watched. A narrow terminal leaves `optional` columns out.
    """

    def print_records(records: Listing[Any]) -> None:
        print_table(list(columns), [[value(record) for value in columns.values()] for record in records], optional)

    def make(list_records: List) -> click.Command:
        @wraps(list_records)
        def command(
            query: str,
            catalog: str,
            limit: int | None,
            after: str | None,
            as_json: bool,
            as_csv: bool,
            watch: bool = False,
            **options: Any,
        ) -> None:
            page = limit if as_json or as_csv else limit or PAGE
            workspace = open_workspace(catalog, create=False)
            while watch:
                records = list_records(workspace, query, after=after, limit=page, **options)
                click.clear()
                print_records(records)
                time.sleep(_WATCH_SECONDS)
            records = list_records(workspace, query, after=after, limit=page, **options)
            if as_json:
                print_json(records)
            elif as_csv:
                print_csv(records)
            else:
                print_records(records)
            if records.after is not None:
                echo(f"more: --after {records.after}", err=True)

        watching = [click.option("--watch", is_flag=True, help="Print it anew each second, until Ctrl-C.")]
        for decorate in (
            *(watching if changing else []),
            json_option,
            click.option("--csv", "as_csv", is_flag=True, help="Print CSV."),
            click.option("--after", metavar="PLACE", help="Go on behind a page; each page ends with its place."),
            click.option(
                "--limit", type=click.IntRange(1), metavar="N", help=f"Records a page; {PAGE} for a table, else all."
            ),
            catalog_option,
            click.argument("query", default=""),
        ):
            command = decorate(command)
        return click.command()(command)

    return make


def _time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_time(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@listing(
    {
        "task": lambda r: r.name,
        "published": lambda r: r.published,
        "since": lambda r: r.published_at,
        "metric": lambda r: r.metric,
        "score": lambda r: r.score,
        "tags": lambda r: r.tags,
    },
    optional=("tags", "since"),
)
@click.option("--as-of", callback=_time, metavar="TIME", help="What was published then, such as 2026-11-01.")
def tasks(workspace: Workspace, query: str, **page: Any) -> Listing[Any]:
    """List the tasks that match a QUERY: what is published, since when, how good.

    For example: multiprompt tasks "tag = 'nlp' and score.acc > 0.8 order by published_at desc"
    """
    return workspace.tasks(query, **page)


@listing(
    {
        "version": lambda r: r.label,
        "state": lambda r: r.state,
        "method": lambda r: r.method,
        "tokens": lambda r: r.num_virtual_tokens,
        "metric": lambda r: r.metric,
        "score": lambda r: r.score,
        "created": lambda r: r.created_at,
        "digest": lambda r: r.digest[:19],
    },
    optional=("digest", "tokens", "method"),
)
def versions(workspace: Workspace, query: str, **page: Any) -> Listing[Any]:
    """List the prompt versions that match a QUERY, for example "task = 'sst2' and state = 'retired'"."""
    return workspace.versions(query, **page)


@listing(
    {
        "id": lambda r: r.id,
        "task": lambda r: r.task,
        "version": lambda r: r.version,
        "prompt": lambda r: r.kind,
        "metric": lambda r: r.metric,
        "score": lambda r: r.score,
        "rows": lambda r: r.rows,
        "cut": lambda r: r.truncated,
        "seconds": lambda r: r.seconds,
        "at": lambda r: r.created_at,
    },
    optional=("cut", "seconds", "at"),
)
def evaluations(workspace: Workspace, query: str, **page: Any) -> Listing[Any]:
    """List the scores that match a QUERY, for example "kind = 'soft' and score < 0.8"."""
    return workspace.evaluations(query, **page)


@listing(
    {
        "at": lambda r: r.at,
        "actor": lambda r: r.actor,
        "event": lambda r: r.kind,
        "task": lambda r: r.task,
        "from": lambda r: r.from_version,
        "to": lambda r: r.to_version,
        "reason": lambda r: r.reason[:60],
    },
    optional=("from", "actor"),
)
def events(workspace: Workspace, query: str, **page: Any) -> Listing[Any]:
    """List events with time, actor and reason, for example "at > '2026-11-01' and kind = 'rolled-back'"."""
    return workspace.events(query, **page)


@listing(
    {
        "job": lambda r: r.id,
        "kind": lambda r: r.kind,
        "task": lambda r: r.task or None,
        "state": lambda r: r.state,
        "submitted": lambda r: r.created_at,
        "updated": lambda r: r.updated_at,
        "outcome": lambda r: in_shell_words(r.outcome)[:60] or _progress(r.progress),
    },
    changing=True,
    optional=("updated", "submitted", "kind"),
)
def jobs(workspace: Workspace, query: str, **page: Any) -> Listing[Any]:
    """List the jobs that match a QUERY, such as "state = 'failed'": what waits, runs, is done or failed, and why."""
    return workspace.jobs(query, **page)


def _progress(progress: JobProgress | None) -> str:
    return "" if progress is None else f"{progress.step} {progress.done}/{progress.total} on {progress.worker}"


COMMANDS = (tasks, versions, evaluations, events, jobs)
