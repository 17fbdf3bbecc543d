"""The version that a training starts from."""

from __future__ import annotations

from multiprompt.config import PromptConfig
from multiprompt.context import Context
from multiprompt.engine.prompt import has_shape
from multiprompt.records import Adapter, VersionRecord
from multiprompt.serving.prompts import load_prompt
from multiprompt.tasks.task import Task


def find_start(context: Context, task: Task, *, retrain: bool = False) -> tuple[VersionRecord | None, str]:
    """The version that a training starts from, and the reason where a retraining starts afresh.

    A retraining starts from the published version while the task file asks for its shape. Any other training starts
    from the version that `init: version` names, if any. Raises NotFoundError.
    """
    catalog, asked, afresh = context.catalog, task.config.prompt, ""
    number = catalog.tasks.get(task.name).published if retrain else None
    if number is not None:
        published, base = catalog.versions.get(task.name, number), context.base_model()
        if has_shape(base, load_prompt(catalog, base, published, to_train=True), asked):
            return published, ""
        afresh = f"learning afresh: {_difference(published, catalog.versions.adapter(published), asked)}"
    return (None if asked.init_version is None else catalog.versions.labelled(asked.init_version)), afresh


def _difference(published: VersionRecord, adapter: Adapter, asked: PromptConfig) -> str:
    """The difference of a version from the prompt that a task file asks for."""
    if (published.method, published.num_virtual_tokens) != (asked.method, asked.num_virtual_tokens):
        return (
            f"{published.label} is {published.method} with {published.num_virtual_tokens} virtual tokens, "
            f"and the task file asks for {asked.method} with {asked.num_virtual_tokens}"
        )
    if adapter.encoder is None and (asked.method == "p-tuning" or asked.projection):
        return f"{published.label} has no encoder to go on with, as it was imported or made without one"
    return f"the parameters of {published.label} have other shapes than the task file asks for"
