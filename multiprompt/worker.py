"""The worker: takes the jobs of a catalog and does them through a workspace."""

from __future__ import annotations

import signal
import threading

from multiprompt.errors import JobError
from multiprompt.workspace import Workspace


def work(workspace: Workspace, *, until_idle: bool = False) -> None:
    """Do jobs until SIGTERM or Ctrl-C, or until none waits; the base model is loaded once and kept."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    workspace.job_store.work(lambda kind, task: run_job(workspace, kind, task), stop, until_idle=until_idle)


def run_job(workspace: Workspace, kind: str, task: str) -> str:
    """Do one job and say what came of it. Raises JobError, which fails the job, when the prompt was rejected."""
    if kind != "learn":
        raise JobError(f"this release knows no jobs of kind {kind!r}; it was queued by another one.")
    report = workspace.learn(task)
    if not report.published:
        raise JobError(f"{report.version} was rejected: {report.reason}")
    return f"{report.version} published: {report.reason}"
