"""What it costs to prove that nothing else got worse when one more task is added to many.

    python -m benchmarks.regression [--counts 10 100 1000] [--data DIR --rows 32]

On a tiny random model, with synthetic tasks of 100 rows: the gate of the Nth addition (what it ran, and for how long),
a check, a full check, and the same by PEFT, which loads one adapter after another and runs all rows (the last two at
the greatest count that is not over 100). With --data, the same for 25 real tasks on SmolLM2-135M, with so many rows
each. Prompts are not trained: what a check costs does not depend on what they are worth.
With --streams, how many of 1,000 simulated checks of 50 tasks of 500 rows find a drop of five points in one task, and
how many raise a false alarm where nothing was planted, for answers that flip by chance at several rates.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftModel

import multiprompt as mp
from benchmarks import peers
from benchmarks.measure import machine
from multiprompt.config import PromptConfig
from multiprompt.engine.adapter import to_adapter, write_adapter
from multiprompt.engine.answering import budget
from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import encode_pairs
from multiprompt.engine.prompt import new_prompt
from multiprompt.engine.teaching import TrainingExample
from multiprompt.gate.admission import admit
from multiprompt.gate.check import Checking
from multiprompt.gate.scores import Scores
from multiprompt.gate.verdict import compare
from multiprompt.learning.pipeline import Snapshot, Trained, evaluate, make_candidate
from multiprompt.records import CheckReport, Evaluation
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Example, examples, predicted
from multiprompt.tasks.metric import score
from multiprompt.tasks.split import load_test_split
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping, without_floor, write_tiny_model
from tests.gate.test_streams import stream

BATCH = 16
ROWS = 100
LEFT_OUT = ("e2e_nlg", "english_french")


@dataclass(frozen=True)
class Subject:
    """A task to be added, with the rows that it is scored on."""

    task: Task
    test: Split


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--streams", action="store_true")
    arguments = parser.parse_args()
    if arguments.streams:
        streams()
        return 0
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.data is None:
            model = write_tiny_model(folder / "tiny")
            run(folder, str(model), synthetic(folder), sorted(arguments.counts))
        else:
            subjects = real(arguments.data, arguments.rows, folder)
            run(folder, "smollm2-135m", lambda number: subjects[number], [10, len(subjects)])
    return 0


def run(folder: Path, model: str, subject: Callable[[int], Subject], counts: Sequence[int]) -> None:
    workspace = mp.open(folder / "catalog.db", model, dtype="float32", actor="benchmark")
    base = workspace.base_model()
    made, shown = 0, 0.0
    compared = max([count for count in counts if count <= 100], default=0)
    for count in counts:
        for number in range(made, count - 1):
            add(workspace, subject(number), number, gated=False)
        check, seconds = add(workspace, subject(count - 1), count - 1, gated=True)
        made = count
        print(f"adding task {count:>5}: gate and publish {seconds:7.3f} s; {check.summary}; {check.cost}", flush=True)
        started = time.perf_counter()
        quick = workspace.check()
        print(f"    a check of all {count}: {time.perf_counter() - started:8.2f} s; {quick.cost}", flush=True)
        if count == compared:
            full = workspace.check(full=True)
            print(f"    a full check of all {count}: {full.seconds:8.2f} s; {full.cost}", flush=True)
            shown = seconds
            theirs, verdicts = by_peft(workspace, base, folder)
            ours = Counter(result.verdict for result in full.results)
            print(
                f"    PEFT, one adapter after another, all rows of {count - 1}: {theirs:8.2f} s, "
                f"{theirs / shown:.1f} times the gate; verdicts {dict(verdicts)}, ours {dict(ours)}",
                flush=True,
            )


def streams(number: int = 1000) -> None:
    for noise in (0.0, 0.001, 0.002, 0.005, 0.01, 0.02):
        caught = sum(stream(seed, 0.05, noise, True)[0] == "regressed" for seed in range(number))
        alarms = sum("regressed" in stream(seed, 0.0, noise, True) for seed in range(number))
        print(
            f"{noise:6.1%} of rows flip each way: {caught / number:6.1%} caught, {alarms / number:6.1%} false alarms",
            flush=True,
        )


def add(workspace: mp.Workspace, subject: Subject, number: int, *, gated: bool) -> tuple[CheckReport, float]:
    """Publish a prompt for a task. Gives what the gate looked at, and the seconds of gate and publishing."""
    base, task = workspace.base_model(), subject.task
    workspace.catalog.tasks.add(task)
    prompt = new_prompt(base, PromptConfig(init="random"), "", seed=number)
    context = workspace.context
    snapshot, trained = Snapshot(task, subject.test, None, {}), Trained(to_adapter(prompt), None)
    candidate = make_candidate(context, snapshot, trained, evaluate(context, snapshot, trained))
    started = time.perf_counter()
    if gated:
        check = admit(Scores(context), Checking(context), candidate).check
    else:
        check = CheckReport((), 0.0)
        workspace.catalog.candidates.admit(
            candidate, check, decision="publish", reason="", epoch=workspace.catalog.settings.epoch()
        )
    return check, time.perf_counter() - started


def by_peft(workspace: mp.Workspace, base: BaseModel, folder: Path) -> tuple[float, Counter[str]]:
    """Seconds and verdicts of running every row of every other task with its adapter in one PeftModel."""
    versions = workspace.catalog.versions.published()[1][:-1]
    for version in versions:
        write_adapter(workspace.catalog.versions.adapter(version), folder / "adapters" / version.label)
    loaded: Any = peers.load(base)
    verdicts: Counter[str] = Counter()
    started = time.perf_counter()
    model: Any = None
    for version in versions:
        path = folder / "adapters" / version.label
        if model is None:
            model = PeftModel.from_pretrained(loaded, path, adapter_name=version.label).eval()
        else:
            model.load_adapter(path, adapter_name=version.label)
            model.set_adapter(version.label)
        task, baseline = workspace.catalog.versions.task(version), workspace.catalog.baselines.evaluation_of(version)
        rows = examples(
            task, workspace.catalog.evaluations.rows(version), budget(base, task, version.num_virtual_tokens)
        )
        found = _chosen(model, base, task, rows) if task.is_multiple_choice else _written(model, base, task, rows)
        verdicts[_verdict(task, baseline, found)] += 1
        if len(model.peft_config) > 1:
            model.delete_adapter(next(name for name in model.peft_config if name != version.label))
    return time.perf_counter() - started, verdicts


def _verdict(task: Task, baseline: Evaluation, predictions: Sequence[Any]) -> str:
    value = score(task.metrics[0], predictions, baseline.references)
    current = replace(baseline, predictions=tuple(predictions), score=value)
    return compare("", baseline, current, task.metrics[0], task.config.regression).verdict


def _chosen(model: Any, base: BaseModel, task: Task, rows: Sequence[Example]) -> list[int]:
    """The choice of greatest log-likelihood for each row, sixteen sequences at a time."""
    contexts = [row.query.context for row in rows for _ in row.query.choices or ()]
    answers = [task.target_delimiter + choice for row in rows for choice in row.query.choices or ()]
    pairs = [TrainingExample(tuple(c), tuple(a)) for c, a in encode_pairs(base, contexts, answers)]
    order = sorted(range(len(pairs)), key=lambda pair: len(pairs[pair]))
    scores = [0.0] * len(pairs)
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        batch = peers.padded([pairs[pair] for pair in some], base.device)
        labels = batch.pop("labels")
        with torch.inference_mode():
            logits = model(**batch).logits[:, -labels.shape[1] - 1 : -1]
        picked = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        for pair, value in zip(some, (picked * (labels >= 0)).sum(1).tolist(), strict=True):
            scores[pair] = value
    found, at = [], 0
    for row in rows:
        count = len(row.query.choices or ())
        found.append(max(range(count), key=scores[at : at + count].__getitem__))
        at += count
    return found


def _written(model: Any, base: BaseModel, task: Task, rows: Sequence[Example]) -> list[str]:
    """Greedy answers, row by row; without a cache, with which PEFT 0.21 generates other text on transformers 5.24."""
    found = []
    for row in rows:
        tokens = base.tokenizer(row.query.context, return_tensors="pt").to(base.device)
        with torch.inference_mode():
            made = model.generate(
                **tokens,
                max_new_tokens=task.generation.max_new_tokens,
                do_sample=False,
                use_cache=False,
                stop_strings=list(task.generation.until),
                tokenizer=base.tokenizer,
                pad_token_id=base.tokenizer.eos_token_id,
            )
        text = base.tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)
        for stop in task.generation.until:
            text = text.partition(stop)[0]
        found += predicted(task, row.query, text)[:1]
    return found


def synthetic(folder: Path) -> Callable[[int], Subject]:
    def make(number: int) -> Subject:
        rng = random.Random(number)
        rows = [
            {"text": f"{rng.choice(['sky', 'sea', 'sun'])} {rng.randrange(1000)}", "label": rng.randrange(4)}
            for _ in range(ROWS)
        ]
        place = folder / "tasks" / f"task{number}"
        place.mkdir(parents=True)
        (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        mapping = without_floor(task_mapping(f"task{number}"))
        mapping |= {"dataset_kwargs": {"data_files": {"test": "test.jsonl"}}}
        del mapping["training_split"], mapping["validation_split"]
        return Subject(Task.from_mapping(mapping, place), Split("test", tuple(rows)))

    return make


def real(data: Path, count: int, folder: Path) -> list[Subject]:
    subjects = []
    for path in sorted(data.glob("*/task.yaml")):
        if path.parent.name in LEFT_OUT:
            continue
        task = Task.from_file(path)
        mapping = dict(yaml.safe_load(task.source))
        test = Split("test", load_test_split(task).rows[:count])
        place = folder / "tasks" / task.name
        place.mkdir(parents=True)
        (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test.rows))
        mapping |= {"dataset_kwargs": {"data_files": {"test": "test.jsonl"}}, "test_split": "test"}
        for key in ("training_split", "validation_split", "metadata"):
            mapping.pop(key, None)
        subjects.append(Subject(Task.from_mapping(without_floor(mapping), place), test))
    return subjects


if __name__ == "__main__":
    sys.exit(main())
