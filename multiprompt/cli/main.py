"""The command line. Exit status: 0 done, 1 a regression or a rejected prompt, 2 an error, 130 interrupted."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

import click

from multiprompt.cli import checking, jobs, keeping, learning, listings, looking, publishing, schedules, serving
from multiprompt.cli.docs import docs
from multiprompt.cli.new import new
from multiprompt.cli.output import (
    echo,
)
from multiprompt.cli.rendering import render
from multiprompt.cli.words import in_shell_words
from multiprompt.errors import MultipromptError


def main() -> NoReturn:
    """Run the command line; every expected failure is one line on standard error."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; no prompt was changed, run the command again to go on", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" (see `{context.command_path} --help`)" if context is not None else ""
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')}{where}", 2)
    except MultipromptError as error:
        _fail(in_shell_words(" ".join(str(error).split())), 2)
    except BrokenPipeError:
        # The reader went away, as with `| head`; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 2)
    except Exception as error:  # a fault of ours, told in full, and not to be taken for a regression
        traceback.print_exc()
        _fail(f"{type(error).__name__}: {error}", 2)


def _fail(message: str, status: int) -> NoReturn:
    echo(f"error: {message}", err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="multiprompt")
def cli() -> None:
    """One frozen language model, many soft prompts: a catalog of them, and a gate that checks for forgetting."""


for command in (
    *learning.COMMANDS,
    *serving.COMMANDS,
    *checking.COMMANDS,
    *publishing.COMMANDS,
    *looking.COMMANDS,
    *listings.COMMANDS,
    *keeping.COMMANDS,
    *jobs.COMMANDS,
    *schedules.COMMANDS,
    render,
    docs,
    new,
):
    cli.add_command(command)
