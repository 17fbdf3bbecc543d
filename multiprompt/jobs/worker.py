"""The worker: takes the jobs of a catalog, has its children do them, and tells what it does."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from multiprompt.config import LEASE_SECONDS
from multiprompt.context import Context
from multiprompt.errors import ConfigError, UnavailableError
from multiprompt.jobs.processes import Processes, WorkerOptions, visible_devices
from multiprompt.jobs.queue import JobQueue
from multiprompt.jobs.runner import run_jobs
from multiprompt.records import Claim, WorkerRecord

_log = logging.getLogger("multiprompt.worker")
_PROGRESS_SECONDS = 1.0
HEALTH_SECONDS = 60.0


def work(
    jobs: JobQueue,
    options: WorkerOptions,
    *,
    name: str | None = None,
    slots: int = 1,
    until_idle: bool = False,
    lease: float = LEASE_SECONDS,
    grace: float = 20.0,
    stop: threading.Event | None = None,
) -> None:
    """Do jobs until SIGTERM or Ctrl-C, or until none waits. What runs then has `grace` seconds to end.

    Raises StateError when others took this worker for dead, ConfigError when it has no such device, and NotFoundError
    where the base model is not on this machine, as every job would fail.
    """
    _require_device(options.device)
    if options.base_model is not None or jobs.catalog.base_models.get()[0] is not None:
        Context(jobs.catalog, options.base_model).locate_base_model()
    stop = stop or threading.Event()
    now = datetime.now(UTC)
    host = socket.gethostname()
    record = WorkerRecord(uuid4().hex, name or f"{host}-{os.getpid()}", host, os.getpid(), slots, 0, now, now)
    processes = Processes(options)
    tally = _Tally(record, processes)
    threading.Thread(target=tally.report, args=(stop,), daemon=True).start()
    _log.info("worker %s: %d slots", record.name, slots)
    try:
        do = partial(_do, jobs, processes, tally)
        run_jobs(jobs, record, do, stop, until_idle=until_idle, lease=lease, grace=grace)
    finally:
        processes.close()
        _log.info("worker %s: %s", record.name, tally)


def _require_device(device: str | None) -> None:
    """Raises ConfigError unless torch finds the GPU that was asked for; asked in a process of its own."""
    if device in (None, "cpu"):
        return
    visible = visible_devices(str(device), os.environ.get("CUDA_VISIBLE_DEVICES"))
    ask = "import torch; raise SystemExit(not torch.cuda.is_available())"
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": visible}
    if subprocess.run([sys.executable, "-c", ask], env=environment, check=False).returncode:
        raise ConfigError(f"`device={device!r}`, but torch finds no such GPU here: give `device='cpu'`, or none.")


def stop_on_signals() -> threading.Event:
    """Set by SIGTERM and Ctrl-C, so that a worker stops cleanly; a second Ctrl-C ends it at once."""
    stop = threading.Event()

    def heard(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heard)
    return stop


class JsonLines(logging.Formatter):
    """Log records as JSON, one a line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"at": at, "level": record.levelname.lower(), "message": record.getMessage()})


class _Tally:
    """The counts of a worker's health line."""

    def __init__(self, record: WorkerRecord, processes: Processes) -> None:
        self._record = record
        self._processes = processes
        self._lock = threading.Lock()
        self._running = self._ended = 0

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            self._ended += 1

    def __str__(self) -> str:
        megabytes = sum(map(_resident, [os.getpid(), *self._processes.pids])) / 1e6
        return f"{self._running} of {self._record.slots} slots busy, {self._ended} attempts ended, {megabytes:.0f} MB"

    def report(self, stop: threading.Event) -> None:
        while not stop.wait(HEALTH_SECONDS):
            _log.info("worker %s: %s", self._record.name, self)


def _do(jobs: JobQueue, processes: Processes, tally: _Tally, claim: Claim, kind: str, task: str | None) -> None:
    with tally:
        processes.do(
            claim,
            kind,
            task,
            is_mine=_undisturbed(jobs.is_mine, True),
            on_progress=_throttled(_undisturbed(partial(jobs.advance, claim))),
            on_kept=_undisturbed(partial(jobs.got_on, claim.job)),
        )


def _undisturbed(say: Callable[..., Any], otherwise: Any = None) -> Callable[..., Any]:
    """A progress update may be dropped while the catalog is unreachable; the job goes on."""

    def said(*what: Any) -> Any:
        try:
            return say(*what)
        except UnavailableError:
            return otherwise

    return said


def _throttled(say: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Passes on what is new at once, and counts of the same at most once a second."""
    last, said = "", 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last, said
        if what != last or time.monotonic() - said >= _PROGRESS_SECONDS:
            last, said = what, time.monotonic()
            say(what, done, total)

    return progress


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
