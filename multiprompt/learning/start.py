"""The version that a training starts from."""

from __future__ import annotations

from multiprompt.config import PromptConfig
from multiprompt.context import Context
from multiprompt.engine.prompt import empty_prompt
from multiprompt.records import VersionRecord
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
        wanted = empty_prompt(base, asked)
        if load_prompt(catalog, base, published, to_train=True).has_shape_of(wanted):
            return published, ""
        lost_encoder = wanted.is_encoded and catalog.versions.adapter(published).encoder is None
        afresh = f"learning afresh: {_difference(published, asked, lost_encoder)}"
    return (None if asked.init_version is None else catalog.versions.labelled(asked.init_version)), afresh


def _difference(published: VersionRecord, asked: PromptConfig, lost_encoder: bool) -> str:
    """The difference of a version from the prompt that a task file asks for."""
    if (published.method, published.num_virtual_tokens) != (asked.method, asked.num_virtual_tokens):
        return (
            f"{published.label} is {published.method} with {published.num_virtual_tokens} virtual tokens, "
            f"and the task file asks for {asked.method} with {asked.num_virtual_tokens}"
        )
    if lost_encoder:
        return f"{published.label} has no encoder to go on with, as it was imported or made without one"
    return f"the parameters of {published.label} have other shapes than the task file asks for"
