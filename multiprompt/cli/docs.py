"""The command `docs`: the guide that ships with the package."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import multiprompt
from multiprompt.cli.options import json_option
from multiprompt.cli.output import echo, print_json
from multiprompt.errors import NotFoundError, nearest

_FOLDER = Path(multiprompt.__file__).parent / "docs"


def page_names() -> list[str]:
    """The pages by name, such as howto/schedule."""
    return sorted(path.relative_to(_FOLDER).with_suffix("").as_posix() for path in _FOLDER.rglob("*.md"))


def read_page(name: str) -> str:
    """A page's Markdown, by its name or the last part of it. Raises NotFoundError."""
    names = page_names()
    found = [known for known in names if name in (known, known.rpartition("/")[2])]
    if not found:
        holding = [known for known in names if name in known]
        hint = f"these hold it: {', '.join(holding)}" if holding else nearest(name, names)
        raise NotFoundError(f"no page {name!r}; {hint}; `multiprompt docs` lists all pages")
    return (_FOLDER / f"{found[0]}.md").read_text(encoding="utf-8")


@click.command()
@click.argument(
    "page", required=False, shell_complete=lambda _, __, begun: [n for n in page_names() if n.startswith(begun)]
)
@json_option
def docs(page: str | None, as_json: bool) -> None:
    """Print a PAGE of the guide, or the list of pages."""
    if as_json:
        print_json(page_names() if page is None else {"page": page, "text": read_page(page)})
    elif page is None:
        for name in page_names():
            echo(f"{name:<32} {read_page(name).splitlines()[0].removeprefix('# ')}")
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(read_page(page)))
    else:
        echo(read_page(page).rstrip())
