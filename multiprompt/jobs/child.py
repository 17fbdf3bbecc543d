"""A child process of a worker: it keeps the base model loaded, does jobs, and dies with its worker.

It reads messages from standard input and writes messages to standard output, each a line of JSON.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from multiprompt import errors
from multiprompt.errors import UnavailableError
from multiprompt.jobs.kinds import LOADING
from multiprompt.jobs.processes import visible_devices
from multiprompt.records import Claim

if TYPE_CHECKING:
    from multiprompt.context import Context

# A full disk, and no memory, processes or open files left.
_SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)


class _StoppedError(BaseException):
    """The worker asks the child to let go of its job; no step takes this for a failure of its own."""


def main() -> None:
    """The child: do the jobs that come in on standard input until it closes; when to stop is its worker's to say."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    inbox, outbox = sys.stdin, os.fdopen(os.dup(1), "w")
    # Output of libraries must not get between the lines.
    os.dup2(2, 1)
    messages: queue.Queue[Mapping[str, Any]] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(inbox, messages, stop), daemon=True).start()
    with suppress(BrokenPipeError):  # the worker is gone
        _serve(messages.get()["options"], messages, stop, outbox)


def _listen(inbox: IO[str], messages: queue.Queue[Mapping[str, Any]], stop: threading.Event) -> None:
    for line in inbox:
        message = json.loads(line)
        if "stop" in message:
            stop.set()
        else:
            messages.put(message)
    # The worker is gone, and with it the right to go on.
    os._exit(1)


def _open(options: Mapping[str, Any]) -> Context:
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if options["device"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(options["device"], os.environ.get("CUDA_VISIBLE_DEVICES"))
    from multiprompt.catalog.catalog import Catalog
    from multiprompt.context import Context

    catalog = Catalog.open(options["catalog"]).signed_by(options["actor"], lambda: datetime.now(UTC))
    return Context(catalog, options["base_model"], hub_metrics=options["hub_metrics"])


def _serve(
    options: Mapping[str, Any], messages: queue.Queue[Mapping[str, Any]], stop: threading.Event, outbox: IO[str]
) -> None:
    def say(message: Mapping[str, Any]) -> None:
        outbox.write(json.dumps(message) + "\n")
        outbox.flush()

    def progress(what: str, done: int, total: int) -> None:
        if stop.is_set():
            raise _StoppedError
        say({"progress": [what, done, total]})

    context: Context | None = None
    while True:
        said, kind, task, deaths = messages.get()["do"]
        try:
            stop.clear()
            progress(LOADING, 0, 1)
            # A catalog that cannot be opened is an error of the job that waits for it.
            context = context or _open(options)
            from multiprompt.jobs.steps import JobContext, run_job

            context.reload_base_model()
            if kind != "check":
                context.base_model()
            claim = Claim(**said)
            claimed = context.claimed_by(claim, progress)
            job = JobContext(claimed, claim, kind, task, deaths, on_kept=lambda: say({"kept": True}))
            run_job(job, lambda step: progress(step, 0, 1))
            say({"done": True})
        except BrokenPipeError:
            raise
        except (Exception, _StoppedError) as error:
            if not isinstance(error, errors.MultipromptError | _StoppedError):
                traceback.print_exc()
            kind_of = "UnavailableError" if _may_pass(error) else type(error).__name__
            say({"error": kind_of, "text": " ".join(str(error).split())})
        _free()


def _may_pass(error: BaseException) -> bool:
    scarce = isinstance(error, OSError) and error.errno in _SCARCE
    return scarce or isinstance(error, UnavailableError)


def _free() -> None:
    """Give back what a job held beside the base model."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
