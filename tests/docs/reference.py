"""The reference pages of the guide, written from the code.

    python -m tests.docs.reference

writes `multiprompt/docs/reference/{cli,python,errors,sql-views}.md`. A test fails where a page is behind the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from sqlalchemy import inspect as inspect_database

import multiprompt as mp
from multiprompt import errors, records
from multiprompt.catalog.catalog import Catalog
from multiprompt.cli.main import cli
from multiprompt.jobs.dbos_tables import JobTable
from multiprompt.jobs.queue import JobQueue
from multiprompt.jobs.schedules import Schedules

FOLDER = Path(mp.__file__).parent / "docs" / "reference"


def cli_page() -> str:
    """Every command with its usage, its help and its options."""
    lines = ["# Commands", "", "Exit status: 0 done, 1 a regression or a version that was not published, 2 an error."]
    lines += ["An interrupted command ends with 130. Commands take `--json`. `--catalog` names the catalog;"]
    lines += ["by default it is MULTIPROMPT_CATALOG or `multiprompt.db`."]
    for name, command in _commands(cli, "multiprompt"):
        context = click.Context(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        lines += ["", f"## {name}", "", f"`{usage}`", "", inspect.cleandoc(command.help or ""), *_options(command)]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _options(command: click.Command) -> list[str]:
    options = [found for found in command.params if isinstance(found, click.Option) and found.name != "help"]
    told = [option for option in options if option.help and option.name not in ("catalog", "as_json")]
    rows = [f"| `{', '.join(option.opts + option.secondary_opts)}` | {option.help} |" for option in told]
    return ["", "| option | |", "|---|---|", *rows] if rows else []


def python_page() -> str:
    """The signatures and docstrings of what `import multiprompt` gives, and the records that come back."""
    lines = [
        "# Python",
        "",
        "```text",
        "import multiprompt as mp",
        "```",
        "",
        "## mp.open",
        *_function(mp.open, "mp.open"),
    ]
    lines += ["", "## mp.Task", "", inspect.getdoc(mp.Task) or ""]
    for name in ("from_file", "from_rows", "from_dataframe", "from_dataset", "from_mapping", "with_settings"):
        lines += ["", f"### mp.Task.{name}", *_function(getattr(mp.Task, name), f"mp.Task.{name}")]
    for kind, name in ((mp.Workspace, "ws"), (JobQueue, "ws.jobs"), (Schedules, "ws.schedules")):
        lines += ["", f"## {name}", "", inspect.getdoc(kind) or ""]
        for method in (value for key, value in vars(kind).items() if not key.startswith("_")):
            if inspect.isfunction(method):
                lines += ["", f"### {name}.{method.__name__}", *_function(method, f"{name}.{method.__name__}")]
    lines += ["", "## Records", "", "Frozen dataclasses of `multiprompt.records`."]
    for record in (value for value in vars(records).values() if dataclasses.is_dataclass(value)):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(record))
        lines += ["", f"### {record.__name__}", "", inspect.getdoc(record) or "", "", f"Fields: {fields}."]
    return "\n".join(lines) + "\n"


def _function(function: Callable[..., Any], name: str) -> list[str]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    shown = inspect.signature(function).replace(
        parameters=[
            p.replace(default="…") if callable(p.default) and p.default is not p.empty else p for p in parameters
        ]
    )
    text = inspect.getdoc(function)
    return ["", "```text", f"{name}{shown}".replace("'…'", "…"), "```", *(["", text] if text else [])]


def errors_page() -> str:
    """The tree of errors."""
    tree = inspect.cleandoc(errors.__doc__ or "")
    head, _, rest = tree.partition("\n\n")
    drawn, _, tail = rest.partition("\n\n")
    return f"# Errors\n\n{head}\n\n```text\n{inspect.cleandoc(drawn)}\n```\n\n{tail}\n"


def views_page() -> str:
    """The views of `multiprompt sql` with their columns."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog.open(str(Path(folder) / "catalog.db"), create=True)
        database = inspect_database(catalog.engine)
        views = {name: [c["name"] for c in database.get_columns(name)] for name in sorted(database.get_view_names())}
    views["v_jobs"] = list(JobTable(None).fields.fixed)
    rows = [f"| {name} | {', '.join(columns)} |" for name, columns in sorted(views.items())]
    text = "`multiprompt sql` and `ws.sql` read these views. `v_jobs` is there after the first job."
    return "\n".join(["# SQL views", "", text, "", "| view | columns |", "|---|---|", *rows]) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "cli": cli_page, "python": python_page, "errors": errors_page, "sql-views": views_page,
}  # fmt: skip


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
