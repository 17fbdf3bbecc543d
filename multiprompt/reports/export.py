"""Exporting: a version as a PEFT adapter folder with its model card."""

from __future__ import annotations

from pathlib import Path

from multiprompt.context import Context
from multiprompt.engine.adapter import CONFIG_FILE, claim_folder, write_adapter
from multiprompt.errors import AdapterError, StateError
from multiprompt.reports.model_card import model_card


def export(context: Context, label: str, folder: Path) -> Path:
    """Write a version into a new or empty folder. Raises StateError for any other."""
    version = context.catalog.versions.labelled(label)
    adapter, card = context.catalog.versions.adapter(version), model_card(context.catalog, version)
    if not claim_folder(folder):
        raise StateError(f"{folder} exists and is no empty folder: choose another, nothing was written.")
    try:
        write_adapter(adapter, folder, card)
    except AdapterError:
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        raise
    return folder
