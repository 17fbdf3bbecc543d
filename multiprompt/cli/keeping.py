"""Commands that keep a catalog whole: verify, back up, move, migrate, clean, and look into it with SQL."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

import click

from multiprompt.cli.options import FiniteRange, catalog_option, json_option
from multiprompt.cli.output import echo, print_json, print_result, print_rows_csv, print_table, progress_bars
from multiprompt.errors import QueryError, counted
from multiprompt.opening import open_workspace


@click.command()
@catalog_option
@json_option
def verify(catalog: str, as_json: bool) -> None:
    """Recompute every digest and reference of the catalog; exit 1 when something is wrong."""
    with progress_bars() as progress:
        problems = open_workspace(catalog, create=False, progress=progress).verify()
    if as_json:
        print_json(problems)
    else:
        for problem in problems:
            echo(f"{problem.where}: {problem.what}")
        echo("all is well" if not problems else f"{counted(len(problems), 'problem')}; restore a backup")
    sys.exit(1 if problems else 0)


@click.command()
@catalog_option
@json_option
def upgrade(catalog: str, as_json: bool) -> None:
    """Bring a catalog to this release's schema, after making a copy."""
    from multiprompt.catalog import migration
    from multiprompt.catalog.database import database_engine

    engine = database_engine(catalog)
    try:
        old, new, copy = migration.upgrade(engine)
    finally:
        engine.dispose()
    moved = f"schema {old} → {new}" + (f"; copy: {copy}" if copy is not None else "")
    told = f"schema {new} already, nothing to do" if old == new else moved
    print_result({"before": old, "after": new, "copy": copy}, told, as_json)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@catalog_option
@json_option
def backup(file: Path, catalog: str, as_json: bool) -> None:
    """Copy the catalog into FILE, a SQLite catalog, while others work in it."""
    with progress_bars() as progress:
        workspace = open_workspace(catalog, create=False, progress=progress)
        left = workspace.jobs.live()
        written = workspace.backup(file)
    print_result({"file": written}, f"wrote {written}", as_json)
    _tell_left(left)


@click.command("export-catalog")
@click.argument("target", metavar="URL")
@catalog_option
@json_option
def export_catalog(target: str, catalog: str, as_json: bool) -> None:
    """Copy the whole catalog to a new one at URL, on SQLite or PostgreSQL, and compare every row."""
    _copy(catalog, target, as_json)


@click.command("import-catalog")
@click.argument("source", metavar="URL")
@catalog_option
@json_option
def import_catalog(source: str, catalog: str, as_json: bool) -> None:
    """Make the catalog a copy of the one at URL, and compare every row; there must be none yet."""
    _copy(source, catalog, as_json)


@click.command()
@click.option("--dry-run", is_flag=True, help="Delete nothing, only say what would be.")
@click.option("--days", type=FiniteRange(0), default=30, show_default=True, help="How long it must have lain unused.")
@catalog_option
@json_option
def gc(dry_run: bool, days: float, catalog: str, as_json: bool) -> None:
    """Delete stored files that nothing has referred to for some days, and checkpoints as old."""
    found = open_workspace(catalog, create=False).collect_garbage(days=days, dry_run=dry_run)
    if as_json:
        print_json(found)
        return
    verb = "is" if found.unused == 1 else "are"
    echo(f"{counted(found.unused, 'file')} ({found.unused_bytes} bytes) {verb} unused")
    echo(f"{found.deleted} ({found.deleted_bytes} bytes) {'would be' if dry_run else 'were'} deleted")


@click.command()
@click.argument("statement", metavar="SELECT")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, metavar="N", help="Rows at most.")
@click.option("--seconds", type=float, default=30, show_default=True, metavar="S", help="Time at most.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@catalog_option
@json_option
def sql(statement: str, limit: int, seconds: float, catalog: str, as_csv: bool, as_json: bool) -> None:
    """Run a SELECT over v_tasks, v_versions, v_evaluations, v_lineage, v_events, v_jobs; nothing can be changed."""
    found = open_workspace(catalog, create=False).sql(statement, limit, seconds=seconds)
    if as_json:
        twice = sorted({name for name in found.columns if found.columns.count(name) > 1})
        if twice:
            raise QueryError(
                f"SQL: several columns are called {', '.join(twice)}, and JSON holds one: name them with AS."
            )
        print_json([dict(zip(found.columns, row, strict=True)) for row in found.rows])
    elif as_csv:
        print_rows_csv(found.columns, found.rows)
    else:
        print_table(found.columns, found.rows)
    if found.cut:
        echo(f"more than {limit} rows: raise --limit", err=True)


def _copy(source: str, target: str, as_json: bool) -> None:
    with progress_bars() as progress:
        original = open_workspace(source, create=False, progress=progress)
        left = original.jobs.live()
        copied = original.copy_to(target)
    told = f"{copied} holds the same as {original.location}"
    print_result({"source": original.location, "copy": copied}, told, as_json)
    _tell_left(left)


def _tell_left(jobs: Collection[str]) -> None:
    """Tell of the jobs that a copy does not hold, as those that wait lie outside the catalog."""
    if jobs:
        verb = "waits or runs and is" if len(jobs) == 1 else "wait or run and are"
        echo(f"{counted(len(jobs), 'job')} {verb} not in the copy: submit what you need there", err=True)


COMMANDS = (verify, upgrade, backup, export_catalog, import_catalog, gc, sql)
