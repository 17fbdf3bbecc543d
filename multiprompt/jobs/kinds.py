"""The kinds of jobs: the steps that each is a chain of, and which jobs stand in each other's way."""

from __future__ import annotations

from collections.abc import Mapping

from multiprompt.errors import ConfigError, nearest

# The step of a job while its process starts. A process that dies then is no fault of the job.
LOADING = "loading"
_LEARNING = ("snapshot", "train", "evaluate", "gate", "publish")
STEPS: Mapping[str, tuple[str, ...]] = {
    "learn": _LEARNING,
    "retrain": _LEARNING,
    "evaluate": ("score",),
    "check": ("check",),
}


def check_kind(kind: str, task: str | None) -> None:
    """Raises ConfigError unless there is such a kind, and it has a task where it takes one."""
    if kind not in STEPS:
        raise ConfigError(f"no kind of job {kind!r}; {nearest(kind, STEPS)}")
    if (kind == "check") != (task is None):
        raise ConfigError(f"a job of kind {kind} takes {'no' if kind == 'check' else 'a'} task.")


def live_key(kind: str, task: str | None) -> str:
    """The key that one live job at most may have: one job at a time learns or retrains a task."""
    return f"{'learn' if kind == 'retrain' else kind}:{task or ''}"
