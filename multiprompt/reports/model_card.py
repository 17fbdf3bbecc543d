"""The model card of an exported prompt: what it is for, what it runs on, what it scored, where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from multiprompt.catalog.catalog import Catalog
from multiprompt.records import Run, VersionRecord
from multiprompt.reports.lineage import MATERIALS

_MOST_CHARACTERS = 100_000


def model_card(catalog: Catalog, version: VersionRecord) -> str:
    """README.md of an adapter folder, with the front matter that the Hugging Face hub reads."""
    task, baseline, run = (
        catalog.versions.task(version),
        catalog.baselines.evaluation_of(version),
        catalog.runs.of(version),
    )
    base = version.base_model
    edges = [edge for edge in catalog.lineage.of(version.task, version.number) if edge.child == version.label]
    scores = "".join(f"| {name} | {value:.4f} |\n" for name, value in baseline.metrics.items())
    came_from = [f"- {edge.relation} {_code(edge.parent)}" for edge in edges if edge.relation not in MATERIALS]
    parts = ("weights", "tokenizer", "config", "dtype")
    front = {
        "base_model": base.source,
        "library_name": "peft",
        "tags": ["prompt-tuning", "multiprompt", *task.tags],
        "multiprompt": dict(zip(parts, base.identity, strict=True)),
    }
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---
# {_code(version.label)}

A soft prompt of {version.num_virtual_tokens} virtual tokens ({version.method}) for the frozen model {_code(base.name)}.
It stands in front of this instruction and of the text of each row:

{_quoted(task.description.source)}

| {baseline.rows} rows of {baseline.key.get("data", "")[:19]}… | score |
|---|---|
{scores}
## Made of

- state: {version.state}, made {version.created_at:%Y-%m-%d}, digest {version.digest}
- base model: {_code(base.source)}, revision {base.revision or "unknown"}, {base.dtype}, weights {base.weights}
- tokenizer: {base.tokenizer}
- task file: {task.fingerprint}
{_training(run)}
## Came from

{chr(10).join(came_from) or "- nothing before it: it was trained anew"}

## Load it

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained({base.source!r}, revision={(base.revision or None)!r})
    model = PeftModel.from_pretrained(base, "this folder")
"""


def identity_on_card(folder: Path) -> Mapping[str, str]:
    """The fingerprints and the dtype of the base model, from the card of an export; empty where it holds none."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            front: Any = yaml.safe_load(file.read(_MOST_CHARACTERS).split("---")[1])
        found = front["multiprompt"]
        return {part: str(found[part]) for part in ("weights", "tokenizer", "config", "dtype")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError):
        return {}


def _training(run: Run | None) -> str:
    if run is None:
        return "- training: none here, it was imported\n"
    return (
        f"- training data: {run.training_data}\n- validation data: {run.validation_data}\n"
        f"- training: {len(run.losses)} steps, {run.seconds:.0f} s, the best at step {run.best_step}\n"
    )


def _code(text: str) -> str:
    """A name on one line, none of which is Markdown or HTML."""
    line = " ".join(text.split()).replace("`", "'")
    return f"`{line}`"


def _quoted(text: str) -> str:
    """A text as a block of code, in which nothing is Markdown or HTML."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()) or "    (none)"
