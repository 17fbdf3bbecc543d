"""Adding: a task enters the catalog after everything that learning it needs was checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from multiprompt.context import Context
from multiprompt.errors import MultipromptError, NotFoundError, StateError
from multiprompt.gate.data_faults import data_faults, few_rows
from multiprompt.records import AddedTask, NewTask, TaskChange
from multiprompt.tasks.example import UNCOUNTED, Example, examples
from multiprompt.tasks.file_change import difference
from multiprompt.tasks.metric import score
from multiprompt.tasks.new_task import name_of, remove_written, write_new_task
from multiprompt.tasks.split import load_data, load_test_split
from multiprompt.tasks.task import Task

# The number of test rows that show whether a metric can score the task's choices.
_SCORED = 100


def add_task(context: Context, task: Task | str | Path) -> AddedTask:
    """Check a task and put it into the catalog; nothing is added where a check fails."""
    read = task if isinstance(task, Task) else Task.from_file(task)
    if read.read_snapshot is None:
        read = context.catalog.snapshots.attach(read)
    warnings = _check(context, read)
    if context.loaded is not None:
        from multiprompt.engine.prompt import require_method

        require_method(context.loaded, read.config.prompt)
    changed = _changes(context, read)
    record = context.catalog.tasks.add(read)
    change: TaskChange = "new" if changed is None else "changed" if changed else "unchanged"
    return AddedTask(**vars(record), change=change, difference=changed or (), warnings=warnings)


def new_task(context: Context, data: Path, text: str, **options: Any) -> NewTask:
    """Write a task of a data file and add it. The files are removed where it cannot be added.

    Raises StateError for the name of a known task.
    """
    name = options["name"] or name_of(data)
    with suppress(NotFoundError):
        context.catalog.tasks.get(name)
        raise StateError(f"the catalog has a task {name!r}: choose another with `name='…'`, or add the new file.")
    written = write_new_task(data, text, **options)
    try:
        added = add_task(context, written.file)
    except BaseException:
        remove_written(written)
        raise
    return NewTask(**vars(written), added=added)


def _changes(context: Context, task: Task) -> tuple[str, ...] | None:
    """The changes of a task since it was added before; None for a new one."""
    try:
        return difference(context.task(task.name).mapping, task.mapping)
    except NotFoundError:
        return None
    except MultipromptError as error:
        return (f"the file that was added before cannot be read any more: {error}",)


def _check(context: Context, task: Task) -> tuple[str, ...]:
    """Read every row once. Gives warnings of what makes the scores doubtful."""
    if task.data.training is None:
        test = load_test_split(task, to_learn=True)
        _require_scores(task, examples(task, test, UNCOUNTED))
        _tell(context, task, test.notes)
        return (f"{task.name}: it names no training_split, so it can be imported only", *few_rows(task, test))
    data = load_data(task)
    for split in (data.training, data.validation):
        examples(task, split, UNCOUNTED)
    _require_scores(task, examples(task, data.test, UNCOUNTED))
    _tell(context, task, data.notes)
    return (*_start_faults(context, task), *data_faults(task, data))


def _require_scores(task: Task, rows: Sequence[Example]) -> None:
    """Score each choice of the first rows, as a prompt may give it. Raises MetricError, as after a training."""
    some = rows[:_SCORED] if task.is_multiple_choice else ()
    given = [(choice, row.target) for row in some for choice in range(len(row.query.choices or ()))]
    if given:
        for metric in (metric for metric in task.metrics if not metric.from_hub):
            score(metric, *zip(*given, strict=True))


def _tell(context: Context, task: Task, notes: Iterable[str]) -> None:
    for note in notes:
        context.notify(f"{task.name}: {note}")


def _start_faults(context: Context, task: Task) -> tuple[str, ...]:
    """Whether the version that a task's prompt starts from is missing; it may be learned later."""
    label = task.config.prompt.init_version
    try:
        if label is not None:
            context.catalog.versions.labelled(label)
    except NotFoundError as error:
        return (f"{task.name}: its init_version cannot be started from yet: {error}",)
    return ()
