"""Exporting: a version as a PEFT adapter folder with its model card."""

from __future__ import annotations

from pathlib import Path

from multiprompt.context import Context
from multiprompt.engine.adapter import write_adapter
from multiprompt.errors import StateError
from multiprompt.reports.model_card import model_card


def export(context: Context, label: str, folder: Path) -> Path:
    """Write a version into a new or empty folder. Raises StateError for any other."""
    version = context.catalog.version_labelled(label)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StateError(f"{folder} exists and is no empty folder: choose another, nothing was written.")
    adapter, card = context.catalog.adapter(version), model_card(context.catalog, version)
    write_adapter(adapter, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder
