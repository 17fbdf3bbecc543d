"""How many task files of lm-evaluation-harness are read, and whether they are scored as the harness scores them.

    python -m benchmarks.harness --tasks DIR [--compare 150]

DIR is a folder of task files; the wheel of lm_eval carries its own under lm_eval/tasks. Counts the files that are
accepted, and those that are refused by reason; files that name a Python function are counted apart.
Then runs accepted files that differ in their features, each on eight made-up rows, in float32 on a tiny random model at
batch size 1: as a hard prompt here, and by the harness's own task and model classes. Prompts must be equal, and every
metric to 1e-6.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import nodes

from benchmarks.harness_rows import PARSER, Row, answer_field, made_up
from multiprompt.engine.answering import budget
from multiprompt.engine.base import BaseModel
from multiprompt.engine.evaluation import Subject, evaluate
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.errors import MultipromptError
from multiprompt.tasks.example import examples
from multiprompt.tasks.split import load_test_split
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Column, Template
from tests.conftest import write_tiny_model

_STATEMENTS = {nodes.For: "for", nodes.If: "if", nodes.CondExpr: "if", nodes.Assign: "set", nodes.Slice: "slice"}
TOLERANCE = 1e-6
MAX_NEW_TOKENS = 16
FUNCTION = "a Python function"
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Scored:
    """What one side gave for a task."""

    contexts: tuple[str, ...]
    metrics: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--compare", type=int, default=150, help="how many task files are scored on both sides")
    arguments = parser.parse_args()
    accepted = count(sorted(arguments.tasks.rglob("*.yaml")))
    if importlib.util.find_spec("lm_eval") is None:
        print("To compare scores as well, install the harness with `pip install lm_eval==0.4.13`.")
        return 0
    with tempfile.TemporaryDirectory() as name, redirect_stderr(io.StringIO()):  # progress bars and warnings
        return 0 if compare(accepted, arguments.compare, Path(name)) else 1


def count(files: Iterable[Path]) -> list[Path]:
    """Print how many files are tasks that can be read, and why the others are refused; gives the first."""
    accepted: list[Path] = []
    refused: Counter[str] = Counter()
    for file in files:
        try:
            Task.from_file(file)
            accepted.append(file)
        except MultipromptError as error:
            refused[reason(str(error), file)] += 1
    print(f"{len(accepted) + refused.total()} files: {len(accepted)} accepted, {refused[FUNCTION]} with {FUNCTION},")
    print(f"{refused.total() - refused[FUNCTION]} refused for another reason:")
    for why, number in refused.most_common():
        if why != FUNCTION:
            print(f"{number:7}  {why}")
    return accepted


def reason(message: str, file: Path) -> str:
    """A refusal without what differs from file to file."""
    if "would run code from a task file" in message:
        return FUNCTION
    short = re.sub(r"^(?:FILE\.yaml|/.*?_?ya?ml):? ", "", message.replace(str(file), "FILE.yaml")).partition(";")[0]
    short = re.sub(r"\bline \d+", "line N", re.sub(r"/\S+", "…", short))
    return re.sub(r"'[^']{24,}'|\{.*\}|\[.*\]|(?<=for )\d+", "…", short)[:100]


def compare(files: list[Path], wanted: int, folder: Path) -> bool:
    """Score files on both sides, a line each; whether all are equal."""
    model = write_tiny_model(folder / "model", max_position_embeddings=8192)
    base = load_base_model(locate(str(model)), "float32")
    peer = harness_model(model)
    equal = number = 0
    print(f"\n{'equal':7}{'features':60} task: scores here (and in the harness, where they differ)")
    for file, mapping in subjects(files, wanted, base, folder):
        task = Task.from_mapping(mapping, folder)
        here, there = ours(base, task), theirs(peer, file, mapping, folder)
        same = agree(here, there)
        number, equal = number + 1, equal + same
        print(f"{'yes' if same else 'NO':7}{', '.join(features(task)):60} {task.name}: {told(here, there)}", flush=True)
    print(f"\n{equal} of {number} task files have equal prompts and scores in lm_eval and here")
    return equal == number


def subjects(files: list[Path], wanted: int, base: BaseModel, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files that differ in features, or else in folder, each with its task on made-up rows."""
    seen: set[Any] = set()
    number_of_tasks = 0
    for key in (features, lambda task: task.folder):
        for number, file in enumerate(files):
            task = Task.from_file(file)
            rows = made_up(task, number) if key(task) not in seen and repeatable(task) else None
            if rows is None:
                continue
            seen |= {features(task), task.folder}
            number_of_tasks += 1
            yield file, on_rows(base, task, rows, folder)
            if number_of_tasks == wanted:
                return


def repeatable(task: Task) -> bool:
    """Whether two programs must give the same: greedily decoded, without metrics of the hub or of our own."""
    ours_alone = any(metric.from_hub or metric.metric in ("rouge_l", "macro_f1") for metric in task.metrics)
    return task.generation.temperature == 0 and not ours_alone


def features(task: Task) -> tuple[str, ...]:
    """What of a task file its score depends on, in short."""
    found = [task.output_type.partition("_")[0]]
    found += [f"choices {kind(task, 'doc_to_choice')}"] if task.doc_to_choice is not None else []
    found += [f"target {kind(task, 'doc_to_target')}"]
    found += [f"text {kind(task, 'doc_to_text')}"] if isinstance(task.doc_to_text, Column) else []
    found += sorted({"+".join([metric.metric, *metric.options]) for metric in task.metrics})
    if task.mapping.get("filter_list"):
        found += ["|".join(sorted({step.function for line in task.pipelines for step in line.filters}))]
    found += [f"{len(task.pipelines)} pipelines"] if len(task.pipelines) > 1 else []
    for key, default in (("target_delimiter", " "), ("fewshot_delimiter", "\n\n"), ("description", ""), ("repeats", 1)):
        found += [key] if task.mapping.get(key, default) != default else []
    return tuple(found) + constructs(task.description, task.doc_to_text, task.doc_to_target, task.doc_to_choice)


def constructs(*templates: Any) -> tuple[str, ...]:
    """The statements, filters, tests and methods that templates use."""
    found: set[str] = set()
    for source in (one.source for one in templates if isinstance(one, Template) and not isinstance(one, Column)):
        for node in PARSER.parse(source).find_all(nodes.Node):
            if type(node) in _STATEMENTS:
                found.add(_STATEMENTS[type(node)])
            elif isinstance(node, (nodes.Filter, nodes.Test)):
                found.add(node.name)
            elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
                found.add(f".{node.node.attr}()")
    return tuple(sorted(found))


def kind(task: Task, key: str) -> str:
    value = getattr(task, key)
    if isinstance(value, Column):
        return "column"
    return "template" if isinstance(value, Template) else type(task.mapping[key]).__name__


def on_rows(base: BaseModel, task: Task, rows: tuple[Row, ...], folder: Path) -> dict[str, Any]:
    """The task file with rows of our own; where answers are generated, half of them are what the model answers."""
    names = {task.data.training, task.data.validation, task.data.test, task.mapping.get("fewshot_split")}
    names |= {(task.mapping.get("fewshot_config") or {}).get("split")}
    file = folder / "rows.jsonl"
    given = {key: value for key, value in task.mapping.items() if key not in ("dataset_name", "dataset_kwargs")}
    given |= {"dataset_path": "json", "dataset_kwargs": {"data_files": {n: file.name for n in names if n}}}
    if not task.is_multiple_choice:
        options = dict(task.mapping.get("generation_kwargs") or {})
        given["generation_kwargs"] = options | {next((k for k in _LIMITS if k in options), _LIMITS[0]): MAX_NEW_TOKENS}
    write(file, rows)
    field = answer_field(task)
    if not task.is_multiple_choice and task.doc_to_choice is None and field is not None:
        made = Task.from_mapping(given, folder)
        answers = evaluate(base, made, load_test_split(made), Subject.hard(made)).predictions
        write(file, [row | {field: right(row[field], answers[n])} if n % 2 else row for n, row in enumerate(rows)])
    return given


def right(before: Any, answer: Any) -> Any:
    """What the model answers, of the same type as the right answer before; a data file holds no NUL."""
    if "\0" in answer or isinstance(before, int):
        return before
    return [*before[1:], answer] if isinstance(before, list) else answer


def write(file: Path, rows: Iterable[Row]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def ours(base: BaseModel, task: Task) -> Scored:
    split = load_test_split(task)
    subject = Subject.hard(task)
    rows = examples(task, split, budget(base, task, subject.num_virtual_tokens))
    scores = evaluate(base, task, split, subject).metrics
    first = task.pipelines[0].name
    named = {name if "," in name else f"{name},{first}": score for name, score in scores.items()}
    return Scored(tuple(row.query.context for row in rows), named)


def harness_model(folder: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)


def theirs(model: Any, file: Path, mapping: dict[str, Any], folder: Path) -> Scored:
    """The harness's task, from its own reading of the file, on the same rows."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate as evaluate_there
    from lm_eval.tasks._yaml_loader import load_yaml

    config = dict(load_yaml(file))
    for key in ("include", "dataset_name", "multiprompt", "group"):
        config.pop(key, None)
    files = mapping["dataset_kwargs"]["data_files"]
    data = {split: str(folder / name) for split, name in files.items()}
    config |= {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": data, "cache_dir": tempfile.mkdtemp(dir=folder)},
    }
    if "generation_kwargs" in mapping:
        config["generation_kwargs"] = dict(mapping["generation_kwargs"])
    task = ConfigurableTask(config=config)
    tasks = {"tasks": {task.task_name: task}, "groups": {}, "group_map": {}}
    found = evaluate_there(model, tasks, bootstrap_iters=0, log_samples=False)["results"][task.task_name]
    scores = {name: value for name, value in found.items() if "," in name and "_stderr," not in name}
    contexts = tuple(one.args[0] for one in task.instances if one.idx == 0)
    return Scored(contexts, {name: float(value) for name, value in scores.items()})


def agree(here: Scored, there: Scored) -> bool:
    if here.contexts != there.contexts or here.metrics.keys() != there.metrics.keys():
        return False
    return all(abs(score - there.metrics[name]) <= TOLERANCE for name, score in here.metrics.items())


def told(here: Scored, there: Scored) -> str:
    parts = [] if here.contexts == there.contexts else ["other prompts"]
    for name in {**here.metrics, **there.metrics}:
        one, other = here.metrics.get(name), there.metrics.get(name)
        same = one is not None and other is not None and abs(one - other) <= TOLERANCE
        parts.append(f"{name} {one}" if same else f"{name} {one} (harness: {other})")
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
