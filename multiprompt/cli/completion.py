"""Completion in the shell: tasks, versions, evaluations, jobs, schedules and pages, quickly and without errors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps

import click
from click.shell_completion import CompletionItem

from multiprompt.config import DEFAULT_CATALOG
from multiprompt.opening import open_workspace
from multiprompt.records import VersionRecord
from multiprompt.workspace import Workspace

# A catalog that does not answer by then completes nothing.
SECONDS = 2.0

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
# Names with a help text, from a workspace, what else was typed, and the beginning of the name.
Find = Callable[[Workspace, click.Context, str], Iterable[tuple[object, str]]]


def _completion(find: Find) -> Complete:
    """Complete by what `find` gives; a missing catalog, or one that cannot be read, completes nothing."""

    @wraps(find)
    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with _in_time(), open_workspace(context.params.get("catalog") or DEFAULT_CATALOG, create=False) as opened:
                found = [(str(name), told) for name, told in find(opened, context, incomplete)]
        except Exception:  # a shell shows nothing in place of an error
            return []
        return [CompletionItem(name, help=told or None) for name, told in found if name.startswith(incomplete)]

    return complete


@contextmanager
def _in_time() -> Iterator[None]:
    """Raises TimeoutError when it takes longer than SECONDS."""

    def stop(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@_completion
def complete_tasks(workspace: Workspace, _: click.Context, __: str) -> Iterator[tuple[object, str]]:
    yield from ((task.name, task.metric) for task in workspace.tasks())


@_completion
def complete_labels(workspace: Workspace, _: click.Context, incomplete: str) -> Iterator[tuple[object, str]]:
    """Tasks, and behind an @ the versions of one."""
    if "@" in incomplete:
        yield from ((found.label, found.state) for found in _versions(workspace, incomplete.partition("@")[0]))
    else:
        yield from ((task.name, task.metric) for task in workspace.tasks())


@_completion
def complete_numbers(workspace: Workspace, context: click.Context, _: str) -> Iterator[tuple[object, str]]:
    """The numbers of the versions of the task that was typed; click leaves it among `args` before an option's value."""
    task = context.params.get("task") or context.args[0]
    yield from ((found.number, found.state) for found in _versions(workspace, task))


@_completion
def complete_evaluations(workspace: Workspace, _: click.Context, __: str) -> Iterator[tuple[object, str]]:
    newest = workspace.evaluations("order by created_at desc", limit=100)
    yield from ((one.id, f"{one.version or one.task} {one.metric} {one.score:.4f}") for one in newest)


@_completion
def complete_jobs(workspace: Workspace, _: click.Context, __: str) -> Iterator[tuple[object, str]]:
    yield from ((job.id, f"{job.kind} {job.task} {job.state}") for job in workspace.jobs())


@_completion
def complete_schedules(workspace: Workspace, _: click.Context, __: str) -> Iterator[tuple[object, str]]:
    yield from ((schedule.name, schedule.when) for schedule in workspace.schedules())


def _versions(workspace: Workspace, task: str) -> Iterable[VersionRecord]:
    quoted = task.replace("'", "''")
    return workspace.versions(f"task = '{quoted}'")
