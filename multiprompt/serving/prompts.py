"""Prompts of the catalog, loaded on a base model."""

from __future__ import annotations

from multiprompt.catalog.catalog import Catalog
from multiprompt.engine.adapter import from_adapter, trainable
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.errors import BaseMismatchError
from multiprompt.records import VersionRecord


def load_prompt(
    catalog: Catalog, base: BaseModel, version: VersionRecord, *, to_train: bool = False, foreign: bool = False
) -> SoftPrompt:
    """A version's prompt. Raises BaseMismatchError, naming both, when it is of another base model.

    With `foreign` only its shapes must fit: a check measures it on another base model.
    """
    if not base.is_of(version.base_model) and not foreign:
        raise BaseMismatchError(
            f"{version.label} was trained on {version.base_model}, but the catalog is open with {base.record}. "
            f"Open it with that base model, or run `ws.learn({version.task!r})`."
        )
    return (trainable if to_train else from_adapter)(base, catalog.versions.adapter(version), version.label)
