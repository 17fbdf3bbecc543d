"""Importing: a PEFT adapter enters the pipeline at its evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from multiprompt.context import Context
from multiprompt.engine.adapter import from_adapter, read_adapter, to_adapter, trainable
from multiprompt.gate.data_faults import few_rows
from multiprompt.gate.task_files import file_notes
from multiprompt.learning.pipeline import Snapshot, Trained, evaluate, publish
from multiprompt.records import LearnReport
from multiprompt.tasks.split import load_test_split


def import_adapter(context: Context, name: str, folder: Path) -> LearnReport:
    """Measure, gate and publish an adapter of any prompt method.

    Raises AdapterError when its method, shape or numbers cannot be a prompt for the base model.
    """
    task, base, before = context.task(name), context.base_model(), context.catalog.digests()
    adapter = read_adapter(folder)
    files = to_adapter(from_adapter(base, adapter, str(folder)))
    trainable(base, adapter, str(folder))
    if adapter.encoder is not None:
        files = replace(files, encoder=adapter.encoder)
    test = load_test_split(task)
    notes = (*file_notes(context.catalog, {name}), *few_rows(task, test))
    snapshot = Snapshot(task, test, None, before, notes=notes)
    imported = Trained(files, None, imported_from=str(folder))
    return publish(context, snapshot, imported, evaluate(context, snapshot, imported))
