"""Options that commands share, and the workspace that long ones work in."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from multiprompt.cli.output import echo
from multiprompt.cli.progress import shown_progress
from multiprompt.config import DEFAULT_CATALOG, DEFAULT_PRIORITY
from multiprompt.opening import init_workspace, open_workspace
from multiprompt.workspace import Workspace

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A number between bounds, neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is no finite number", param, ctx)
        return number


def catalog_option(command: Command) -> Command:
    return click.option(
        "--catalog",
        envvar="MULTIPROMPT_CATALOG",
        default=DEFAULT_CATALOG,
        show_default=True,
        metavar="URL",
        help="The catalog: a path or a SQLAlchemy URL.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def reason_option(command: Command) -> Command:
    return click.option("--reason", default="", metavar="TEXT", help="Why; kept in the events.")(command)


def force_option(command: Command) -> Command:
    return click.option(
        "--force", is_flag=True, help="With --reason: do it though the task is guarded or the version did not learn."
    )(command)


def hub_metrics_option(command: Command) -> Command:
    return click.option(
        "--hub-metrics", is_flag=True, help="Allow metrics that the evaluate hub's code computes (hf_evaluate: true)."
    )(command)


@contextmanager
def working(
    catalog: str, base_model: str | None = None, *, create: bool = False, **options: Any
) -> Iterator[Workspace]:
    """A workspace for long work, with progress and quiet libraries; with `create` a missing catalog is made."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.disable_progress_bar()
    with shown_progress() as progress:
        options |= {"progress": progress, "notify": lambda message: echo(message, err=True)}
        if create:
            yield init_workspace(catalog, base_model, **options)
        else:
            yield open_workspace(catalog, base_model, create=False, **options)


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

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


priority_option = click.option(
    "--priority", type=click.IntRange(1, 2**31 - 1), default=DEFAULT_PRIORITY, show_default=True, help="1 runs first."
)
