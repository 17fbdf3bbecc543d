"""Importing: a PEFT adapter enters the pipeline at its evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from multiprompt.context import Context
from multiprompt.engine.adapter import from_adapter, named_base_model, read_adapter, to_adapter, trainable
from multiprompt.engine.base import BaseModel
from multiprompt.errors import BaseMismatchError
from multiprompt.gate.data_faults import few_rows
from multiprompt.gate.task_files import file_notes
from multiprompt.learning.pipeline import Snapshot, Trained, evaluate, publish
from multiprompt.records import Adapter, LearnReport
from multiprompt.reports.model_card import identity_on_card
from multiprompt.tasks.split import load_test_split


def import_adapter(context: Context, name: str, folder: Path) -> LearnReport:
    """Measure, gate and publish an adapter of any prompt method; known bytes make no new version."""
    task, base, before = context.task(name), context.base_model(), context.catalog.versions.digests()
    adapter = read_adapter(folder)
    doubts = _base_doubts(base, adapter, folder)
    files = to_adapter(from_adapter(base, adapter, str(folder)))
    trainable(base, adapter, str(folder))
    if adapter.encoder is not None:
        files = replace(files, encoder=adapter.encoder)
    test = load_test_split(task, to_learn=True)
    notes = (*file_notes(context.catalog, {name}), *doubts, *few_rows(task, test))
    snapshot = Snapshot(task, test, None, before, notes=notes)
    imported = Trained(files, None, imported_from=str(folder))
    return publish(context, snapshot, imported, evaluate(context, snapshot, imported))


def _base_doubts(base: BaseModel, adapter: Adapter, folder: Path) -> tuple[str, ...]:
    """Why an adapter may be of another base model or dtype. Raises BaseMismatchError where its card shows another."""
    record, card, named = base.record, identity_on_card(folder), named_base_model(adapter)
    if card:
        theirs = replace(record, name=named or "another base model", **card)
        if not base.is_of(replace(theirs, dtype=record.dtype)):
            raise BaseMismatchError(
                f"{folder} was made on {theirs}, but the catalog is open with {record}, with "
                f"{theirs.difference(record)}. Import it into a catalog of that base model, or delete its README.md to "
                "try it on this one."
            )
        differs = theirs.dtype != record.dtype
        return (f"{folder} was made in {theirs.dtype}, and this catalog runs {record.dtype}",) if differs else ()
    if named is None or named in (record.source, record.source.partition("@")[0], record.name):
        return ()
    return (f"{folder} says that it was made on {named}; whether that is {record} is not known",)
