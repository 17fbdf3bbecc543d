"""The command `new`: a task from a data file."""

from __future__ import annotations

from pathlib import Path

import click

from multiprompt.cli.options import catalog_option, json_option
from multiprompt.cli.output import echo, print_added, print_json
from multiprompt.opening import open_workspace


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--text", required=True, metavar="COLUMN", help="The column of the texts.")
@click.option("--label", metavar="COLUMN", help="The column of the labels; makes a multiple-choice task.")
@click.option("--target", metavar="COLUMN", help="The column of the answers; makes a generation task.")
@click.option("--instruction", metavar="TEXT", help="The hard prompt; by default it names the columns and labels.")
@click.option("--name", metavar="NAME", help="The task's name; by default that of the file.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="By default a folder of the task's name."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The seed of the split.")
@catalog_option
@json_option
def new(
    data: Path,
    text: str,
    label: str | None,
    target: str | None,
    instruction: str | None,
    name: str | None,
    out: Path | None,
    seed: int,
    catalog: str,
    as_json: bool,
) -> None:
    """Make a task from DATA: a csv, tsv, json, parquet or arrow file, or the train split of a folder of `datasets`.

    Writes a stratified split and a task file, and adds the task to the catalog, which is made where there is none.
    """
    if (label is None) == (target is None):
        raise click.UsageError("give --label or --target")
    with open_workspace(catalog) as workspace:
        made = workspace.new_task(
            data, text=text, label=label, target=target, instruction=instruction, name=name, out=out, seed=seed
        )
    added = made.added
    if as_json:
        print_json({"new": {key: value for key, value in vars(made).items() if key != "added"}, "added": added})
        return
    rows = ", ".join(f"{count} {split}" for split, count in made.rows.items())
    labels = f" of {len(made.labels)} labels" if made.labels else ""
    echo(f"wrote {made.file}: {rows} rows{labels} (seed {seed})")
    for note in made.notes:
        echo(f"note: {note}")
    print_added(added)
    echo(f"next: multiprompt learn {added.name}")
