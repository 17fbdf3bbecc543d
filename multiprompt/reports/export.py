"""Exporting: a version as a PEFT adapter folder with its model card."""

from __future__ import annotations

from pathlib import Path

from multiprompt.context import Context
from multiprompt.engine.adapter import is_free, write_adapter
from multiprompt.errors import StateError
from multiprompt.reports.model_card import model_card


def export(context: Context, label: str, folder: Path) -> Path:
    """Write a version into a new or empty folder. Raises StateError for any other."""
    version = context.catalog.version_labelled(label)
    if not is_free(folder):
        raise StateError(f"{folder} exists and is no empty folder: choose another, nothing was written.")
    write_adapter(context.catalog.adapter(version), folder, model_card(context.catalog, version))
    return folder
