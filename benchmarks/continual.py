"""Learn the tasks of an order one after another, in six ways, and print what each way forgets.

    python -m benchmarks.continual --data DIR [--order 4] [--seeds 0 1 2] [--steps 150] [--batch 16] [--rows 1000]
        [--tokens 512] [--ways ours shared lora joint] [--plot DIR] [--json FILE]

DIR holds orders.json and a folder a task with its task.yaml. The ways: the answer that is most frequent (majority), the
instruction alone (hard prompt), a soft prompt a task in a catalog (ours), one soft prompt that is trained on one task
after another (shared), one LoRA that is trained so, and one soft prompt trained on all tasks at the same time (joint).
After its last task the shared prompt is offered to the catalog as the prompt of each earlier task, for the gate to say.
`--rows` cuts test splits, `--steps` trainings and `--tokens` the texts, for all ways alike; the joint one takes the
steps of all tasks in one go.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

import multiprompt as mp
from benchmarks import peers
from benchmarks.measure import machine
from multiprompt.cli.output import print_table
from multiprompt.config import PromptConfig
from multiprompt.engine.adapter import to_adapter, write_adapter
from multiprompt.engine.answering import budget
from multiprompt.engine.base import BaseModel
from multiprompt.engine.evaluation import Subject, evaluate
from multiprompt.engine.inputs import taught
from multiprompt.engine.learning import TrainedPrompt, TrainingInput, learn_prompts
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.engine.training import picks
from multiprompt.records import Matrix
from multiprompt.reports.measures import measures
from multiprompt.reports.plot import plot_matrix
from multiprompt.serving.prompts import load_prompt
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Budget, examples
from multiprompt.tasks.split import TaskData, load_data
from multiprompt.tasks.task import Task

LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
LORA_LEARNING_RATE = 5e-3
_NO_BUDGET = Budget(tokens=1, count=lambda _: 0)


@dataclass(frozen=True)
class Course:
    """The tasks in order, with their rows, and the base model."""

    base: BaseModel
    tasks: tuple[Task, ...]
    data: tuple[TaskData, ...]
    hard: tuple[float, ...]

    def row(self, base: BaseModel, prompt: SoftPrompt | None) -> tuple[float, ...]:
        """The score on each task."""
        return tuple(score(base, task, data.test, prompt) for task, data in zip(self.tasks, self.data, strict=True))

    def matrix(self, rows: Sequence[Sequence[float | None]]) -> Matrix:
        return Matrix(tuple(task.name for task in self.tasks), tuple(tuple(row) for row in rows), self.hard)


@dataclass(frozen=True)
class Way:
    """What one way of learning came to; `bytes_a_task` is what it stores for each task."""

    name: str
    matrix: Matrix
    seconds: float
    bytes_a_task: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--base-model", default="smollm2-135m")
    parser.add_argument("--ways", nargs="+", default=["ours", "shared", "lora", "joint"])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    names = json.loads((arguments.data / "orders.json").read_text())[f"order{arguments.order}"]
    results: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            workspace = mp.open(Path(folder) / "catalog.db", arguments.base_model)
            course = prepare(workspace, arguments, names, seed, Path(folder))
            print(
                f"order {arguments.order}, seed {seed}, {arguments.steps} steps of {arguments.batch} rows a task, "
                f"{arguments.rows} test rows, "
                f"{arguments.tokens} tokens of text"
            )
            for way in ways(workspace, course, arguments, seed, Path(folder)):
                tell(way)
                results.append({"seed": seed, **asdict(way)})
                if arguments.plot is not None and len(way.matrix.scores) > 1:
                    plot_matrix(way.matrix, arguments.plot / f"order{arguments.order}-{way.name.split()[0]}.svg")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))
    return 0


def prepare(
    workspace: mp.Workspace, arguments: argparse.Namespace, names: list[str], seed: int, folder: Path
) -> Course:
    """The tasks with fewer test rows, and the settings of this run."""
    tasks = []
    for name in names:
        task = Task.from_file(arguments.data / name / "task.yaml")
        data = load_data(task)
        mapping = _mapping(task, arguments, seed)
        tasks.append(Task.from_mapping(mapping, _written(folder / name, data, arguments.rows)))
        workspace.add_task(tasks[-1])
    data = tuple(load_data(task) for task in tasks)
    base = workspace.base_model()
    hard = tuple(score(base, task, one.test, None) for task, one in zip(tasks, data, strict=True))
    return Course(base, tuple(tasks), data, hard)


def ways(
    workspace: mp.Workspace, course: Course, arguments: argparse.Namespace, seed: int, folder: Path
) -> Iterator[Way]:
    yield Way(
        "majority", course.matrix([[majority(t, d) for t, d in zip(course.tasks, course.data, strict=True)]]), 0, 0
    )
    yield Way("hard prompt", course.matrix([course.hard]), 0, 0)
    if "ours" in arguments.ways:
        yield ours(workspace, course)
    if "shared" in arguments.ways:
        yield shared(workspace, course, folder)
    if "lora" in arguments.ways:
        yield lora(course, arguments.steps, seed)
    if "joint" in arguments.ways:
        yield joint(course, arguments.steps, seed)


def ours(workspace: mp.Workspace, course: Course) -> Way:
    started = time.perf_counter()
    for task in course.tasks:
        report = workspace.learn(task.name)
        print(f"  {report.version}: {report.reason}; {report.check.summary}; {report.check.cost}", flush=True)
    seconds = time.perf_counter() - started
    adapters = [workspace.catalog.versions.adapter(workspace.version(task.name)) for task in course.tasks]
    size = sum(len(adapter.config) + len(adapter.weights) for adapter in adapters) / len(adapters)
    prompts = [load_prompt(workspace.catalog, course.base, workspace.version(task.name)) for task in course.tasks]
    again = [
        score(course.base, t, d.test, prompt) for t, d, prompt in zip(course.tasks, course.data, prompts, strict=True)
    ]
    found = workspace.matrix()
    assert list(found.scores[-1]) == again, "a score of the matrix is not what is measured at the end"
    return Way("ours (a soft prompt a task)", found, seconds, size)


def shared(workspace: mp.Workspace, course: Course, folder: Path) -> Way:
    """One prompt for all tasks, trained on one after another; it starts as ours does for the first."""
    rows, prompt, seconds = [], None, 0.0
    for task, data in zip(course.tasks, course.data, strict=True):
        started = time.perf_counter()
        prompt = trained(course.base, task, data, prompt)
        seconds += time.perf_counter() - started
        rows.append(course.row(course.base, prompt))
        print(f"  shared, after {task.name}: {rows[-1]}", flush=True)
    assert prompt is not None, "an order has tasks"
    adapter = to_adapter(prompt)
    write_adapter(adapter, folder / "shared")
    for task in course.tasks[:-1]:
        if workspace.catalog.tasks.get(task.name).published is not None:
            report = workspace.import_adapter(task.name, folder / "shared")
            print(f"  the gate, of the shared prompt for {task.name}: {report.version} "
                  f"{'published' if report.published else 'rejected'}: {report.reason}", flush=True)  # fmt: skip
    return Way("shared (in sequence)", course.matrix(rows), seconds, len(adapter.weights) / len(course.tasks))


def lora(course: Course, steps: int, seed: int) -> Way:
    """Low-rank updates of the attention (Hu et al. 2021) by PEFT's plain forward, trained on one task after another."""
    torch.manual_seed(seed)
    model = get_peft_model(peers.load(course.base), LoraConfig(task_type="CAUSAL_LM", **LORA))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows, seconds = [], 0.0
    for task, data in zip(course.tasks, course.data, strict=True):
        started = time.perf_counter()
        train_lora(course.base, model, parameters, task, data.training, steps)
        seconds += time.perf_counter() - started
        merged = deepcopy(model).merge_and_unload().eval().requires_grad_(False)
        rows.append(course.row(replace(course.base, model=merged), None))
        print(f"  LoRA, after {task.name}: {rows[-1]}", flush=True)
    size = sum(p.numel() * p.element_size() for p in parameters)
    return Way("LoRA (in sequence)", course.matrix(rows), seconds, size / len(course.tasks))


def train_lora(
    base: BaseModel, model: Any, parameters: list[torch.Tensor], task: Task, training: Split, steps: int
) -> None:
    rows = taught(base, task, examples(task, training, budget(base, task, 0)))
    config = replace(task.config.recipe, steps=steps)
    optimizer = torch.optim.AdamW(parameters, lr=LORA_LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _, picked in zip(range(steps), picks([len(row) for row in rows], config), strict=False):
        loss = model(**peers.padded([rows[row] for row in picked], base.device)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def joint(course: Course, steps: int, seed: int) -> Way:
    """One prompt trained on the rows of all tasks together: what no order can forget."""
    pairs = list(zip(course.tasks, course.data, strict=True))
    rows = [row for task, data in pairs for row in _rendered(course.base, task, data.training)]
    held = [row for task, data in pairs for row in _rendered(course.base, task, data.validation)[:32]]
    random.Random(seed).shuffle(rows)
    mixture = Task.from_mapping(
        {
            "task": "all",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"train": "none", "test": "none"}},
            "training_split": "train",
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc"}],
            "multiprompt": {
                "init_text": course.tasks[0].description.source,
                "training": {
                    "steps": steps * len(course.tasks),
                    "batch_size": course.tasks[0].config.training.batch_size,
                    "validate_every": steps,
                    "validation_rows": 16,
                    "seed": seed,
                },
            },
        }
    )
    data = TaskData(Split("train", tuple(rows)), Split("validation", tuple(held)), Split("test", tuple(held)))
    started = time.perf_counter()
    prompt = trained(course.base, mixture, data, None)
    seconds = time.perf_counter() - started
    size = len(to_adapter(prompt).weights) / len(course.tasks)
    return Way("joint", course.matrix([course.row(course.base, prompt)]), seconds, size)


def trained(base: BaseModel, task: Task, data: TaskData, start: SoftPrompt | None) -> SoftPrompt:
    if start is not None:
        config = PromptConfig(init="version", init_version="shared@1")
        task = replace(task, config=replace(task.config, prompt=config))
    (learned,) = learn_prompts(base, [TrainingInput(task, data.training, data.validation, start)])
    if not isinstance(learned, TrainedPrompt):
        raise learned
    return learned.prompt


def score(base: BaseModel, task: Task, test: Split, prompt: SoftPrompt | None) -> float:
    subject = Subject.hard(task) if prompt is None else Subject.soft(prompt, "benchmark")
    return evaluate(base, task, test, subject).score


def majority(task: Task, data: TaskData) -> float:
    """The share of test rows whose answer is the one that is most frequent in training."""
    right, test = ([e.target for e in examples(task, split, _NO_BUDGET)] for split in (data.training, data.test))
    return test.count(Counter(right).most_common(1)[0][0]) / len(test)


def tell(way: Way) -> None:
    found = {measure.name: measure.value for measure in measures(way.matrix)}
    print(f"\n{way.name}")
    print_table(
        ("ACC", "BWT", "forgetting", "FWT", "just learned", "seconds", "bytes a task"),
        [
            (
                *(found[name] for name in ("ACC", "BWT", "forgetting", "FWT", "just learned")),
                way.seconds,
                way.bytes_a_task,
            )
        ],
    )
    print_table(("", *way.matrix.tasks), [("after " + str(i + 1), *row) for i, row in enumerate(way.matrix.scores)])
    sys.stdout.flush()


def _mapping(task: Task, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    import yaml

    mapping = dict(yaml.safe_load(task.source))
    mapping.pop("metadata", None)
    mapping["dataset_kwargs"] = {"data_files": {name: f"{name}.jsonl" for name in ("train", "validation", "test")}}
    steps = arguments.steps
    training = {"steps": steps, "batch_size": arguments.batch, "validate_every": steps, "validation_rows": 16}
    # What each way forgets is measured of what it learned, however little that was.
    mapping["multiprompt"] = {
        "training": training | {"seed": seed},
        "max_input_tokens": arguments.tokens,
        "regression": {"floor": "none"},
    }
    return mapping


def _written(folder: Path, data: TaskData, rows: int) -> Path:
    folder.mkdir()
    test = Split("test", data.test.rows[:rows])
    for name, split in (("train", data.training), ("validation", data.validation), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split.rows))
    return folder


def _rendered(base: BaseModel, task: Task, split: Split) -> list[dict[str, Any]]:
    return [
        {"text": row.query.context, "choices": list(row.query.choices or ()), "label": row.target}
        for row in examples(task, split, budget(base, task, task.config.prompt.num_virtual_tokens))
    ]


if __name__ == "__main__":
    sys.exit(main())
