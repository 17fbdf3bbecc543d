"""The command that shows the model's exact input."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from multiprompt.cli.completion import complete_labels
from multiprompt.cli.options import catalog_option, json_option, working
from multiprompt.cli.output import echo, print_json, print_table
from multiprompt.records import RenderedAnswer, Rendering, Token


@click.command()
@click.argument("label", metavar="TASK[@V]", shell_complete=complete_labels)
@click.argument("texts", nargs=-1, metavar="TEXT…")
@click.option("--row", type=int, metavar="N", help="A row of the task's data, counted from 0, with its answer.")
@click.option("--split", default="test", show_default=True, help="The split of --row: training, validation or test.")
@click.option("--tokens", is_flag=True, help="Print each token with its id.")
@catalog_option
@json_option
def render(
    label: str, texts: tuple[str, ...], row: int | None, split: str, tokens: bool, catalog: str, as_json: bool
) -> None:
    """Print the model's exact input for TEXTs, or for a row with its answer."""
    if bool(texts) == (row is not None):
        raise click.UsageError("give TEXT…, or --row")
    with working(catalog) as workspace:
        asked: Sequence[str | int] = texts if row is None else (row,)
        renderings = [workspace.render(label, one, split=split) for one in asked]
    if as_json:
        print_json(renderings)
        return
    for rendering in renderings:
        _print(rendering, tokens)


def _print(rendering: Rendering, tokens: bool) -> None:
    source = f" of {rendering.version}" if rendering.version else f" of {rendering.task}, not learned yet"
    echo(f"[soft prompt: {rendering.num_virtual_tokens} virtual tokens{source}]")
    if tokens:
        _print_tokens(rendering.tokens)
    else:
        echo(rendering.text)
    for choice in rendering.choices:
        _print_answer("right choice" if choice.right else "choice", choice, tokens)
    if rendering.answer is not None:
        _print_answer("answer", rendering.answer, tokens)
    if rendering.truncated:
        echo("[the text was cut at its end to fit the model's context]")


def _print_answer(what: str, answer: RenderedAnswer, tokens: bool) -> None:
    count = "1 token" if len(answer.tokens) == 1 else f"{len(answer.tokens)} tokens"
    echo(f"[{what}: {_quoted(answer.text)}, {count}]")
    if tokens:
        _print_tokens(answer.tokens)


def _print_tokens(tokens: Sequence[Token]) -> None:
    print_table(("place", "id", "token"), [(n, token.id, _quoted(token.text)) for n, token in enumerate(tokens)])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
