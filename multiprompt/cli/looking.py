"""Commands that show one thing: evaluation, show, lineage, impact, diff, matrix."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from multiprompt.catalog.labels import parse_label
from multiprompt.cli.completion import complete_evaluations, complete_labels
from multiprompt.cli.options import (
    catalog_option,
    json_option,
    working,
)
from multiprompt.cli.output import (
    echo,
    print_diff,
    print_evaluation,
    print_json,
    print_matrix,
    print_result,
    print_table,
)
from multiprompt.errors import counted
from multiprompt.opening import open_workspace

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.command()
@click.argument("number", type=int, metavar="ID", shell_complete=complete_evaluations)
@catalog_option
@json_option
def evaluation(number: int, catalog: str, as_json: bool) -> None:
    """Show an evaluation: each row with its answers, wrong ones first, and scores of each class.

    `multiprompt evaluations` gives the IDs.
    """
    found = open_workspace(catalog, create=False).evaluation(number)
    if as_json:
        print_json(found)
        return
    print_evaluation(found)


@click.command()
@click.argument("label", metavar="TASK[@V]", shell_complete=complete_labels)
@catalog_option
@json_option
def show(label: str, catalog: str, as_json: bool) -> None:
    """Show a task with its published prompt, or one version."""
    workspace = open_workspace(catalog, create=False)
    name, number = parse_label(label)
    task = workspace.task_record(name)
    version = workspace.version(label) if number is not None or task.published is not None else None
    baseline = None if version is None or version.score is None else workspace.baseline(version.label)
    notes = workspace.notes(name)
    if as_json:
        evaluation = (
            None if baseline is None else {"metrics": baseline.metrics, "rows": baseline.rows, "key": baseline.key}
        )
        engine = {"fallback": workspace.plain_forward()}
        print_json({"task": task, "version": version, "baseline": evaluation, "engine": engine, "notes": notes})
        return
    echo(f"task         {task.name}\ninstruction  {task.description}\nmetric       {task.metric}")
    echo(f"guarded      {'yes' if task.guarded else 'no'}")
    for note in notes:
        echo(f"note         {note.at:%Y-%m-%d %H:%M} {note.actor}: {note.reason}")
    if version is None:
        echo(f"published    nothing yet; run `multiprompt learn {task.name}`")
        return
    echo(
        f"version      {version.label} ({version.state})\nmethod       {version.method}, "
        f"{version.num_virtual_tokens} virtual tokens\nbase model   {version.base_model}\n"
        f"digest       {version.digest}\n{_engine_line(workspace.plain_forward())}"
    )
    if baseline is not None:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in baseline.metrics.items())
        echo(f"baseline     {scores} on {counted(baseline.rows, 'row')} ({baseline.truncated} cut)")


@click.command()
@click.argument("label", metavar="TASK[@V]", shell_complete=complete_labels)
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "mermaid", "dot", "json", "prov", "openlineage"]),
    default="tree",
    show_default=True,
    help="How it is drawn.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@catalog_option
def lineage(label: str, form: str, as_json: bool, catalog: str) -> None:
    """Show what a version came from, and what came from it."""
    workspace = open_workspace(catalog, create=False)
    if as_json or form == "json":
        print_json(workspace.lineage(label))
    else:
        echo(workspace.provenance(label, form))


@click.command()
@click.argument("what", type=click.Choice(["base", "data"]))
@click.argument("name")
@catalog_option
@json_option
def impact(what: str, name: str, catalog: str, as_json: bool) -> None:
    """List the published prompts that a change would touch: of a base model (name or digest) or data (fingerprint)."""
    workspace = open_workspace(catalog, create=False)
    found = workspace.impact_of_base(name) if what == "base" else workspace.impact_of_data(name)
    if as_json:
        print_json(found)
        return
    print_table(("version", "relation", "rows", "seconds"), [(i.version, i.relation, i.rows, i.seconds) for i in found])
    touched = {i.version: i for i in found}.values()
    rows, seconds = sum(i.rows for i in touched), sum(i.seconds for i in touched)
    echo(
        f"{counted(len(touched), 'prompt')}, {counted(rows, 'row')} to evaluate again, which took {seconds:.1f} s last"
    )


@click.command()
@click.argument("before", metavar="TASK@V", shell_complete=complete_labels)
@click.argument("after", metavar="TASK[@V]", shell_complete=complete_labels)
@click.option("--no-tokens", is_flag=True, help="Leave the virtual tokens out; the base model is not loaded then.")
@catalog_option
@json_option
def diff(before: str, after: str, no_tokens: bool, catalog: str, as_json: bool) -> None:
    """Show what differs between two versions: how they were made, scores, rows that flipped, virtual tokens."""
    if no_tokens:
        found = open_workspace(catalog, create=False).diff(before, after, tokens=False)
    else:
        with working(catalog) as workspace:
            found = workspace.diff(before, after)
    if as_json:
        print_json(found)
    else:
        print_diff(found)


@click.command()
@click.option("--plot", "picture", type=_FILE, help="Draw it as a heat map instead: a .png, .svg or .pdf.")
@catalog_option
@json_option
def matrix(picture: Path | None, catalog: str, as_json: bool) -> None:
    """Print the accuracy matrix: the score on each task after learning each task, and the measures of forgetting."""
    from multiprompt.reports.measures import measures

    found = open_workspace(catalog, create=False).matrix()
    if picture is not None:
        from multiprompt.reports.plot import plot_matrix

        plot_matrix(found, picture)
        print_result({"picture": picture}, f"wrote {picture}", as_json)
    elif as_json:
        print_json({**asdict(found), "measures": measures(found)})
    else:
        print_matrix(found)
        print_table(
            ("measure", "value", "formula", "source"), [(m.name, m.value, m.formula, m.source) for m in measures(found)]
        )


def _engine_line(fallback: str | None) -> str:
    if fallback:
        return f"engine       plain forward, a row at a time, as the packed one is wrong here: {fallback}"
    return "engine       packed forward" if fallback == "" else "engine       not loaded yet"


COMMANDS = (evaluation, show, lineage, impact, diff, matrix)
