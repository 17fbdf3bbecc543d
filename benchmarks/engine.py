"""The engine against PEFT: same base model, dtype, rows, batch order and optimizer, side by side in one process.

    python -m benchmarks.engine --data DIR [--sections step score prediction rows …] [--json FILE]

DIR holds a folder a task with its task.yaml. Each line gives the medians of both sides, and the median, least and
greatest ratio of interleaved repeats.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn

from benchmarks import peers
from benchmarks.measure import Comparison, compare, machine, matmul_rate, seconds
from benchmarks.prompts import switching
from multiprompt.config import PromptConfig, TrainingConfig
from multiprompt.engine import training as engine
from multiprompt.engine.answering import Question, answer, budget, compile_task
from multiprompt.engine.base import DTYPES, BaseModel
from multiprompt.engine.encoding import constant_tokens
from multiprompt.engine.generation import GenerationRequest, generate
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.engine.prompt import SoftPrompt, new_prompt
from multiprompt.engine.teaching import TrainingExample, encode_examples
from multiprompt.engine.training import Training
from multiprompt.tasks.example import constant_text, examples
from multiprompt.tasks.split import load_data
from multiprompt.tasks.task import Task

SECTIONS = ("step", "score", "prediction", "rows", "generation", "switch", "memory")
RECIPE = TrainingConfig(steps=150, batch_size=16, learning_rate=0.03, validate_every=5, patience=1000)
CHOOSING = ("trec", "sst2", "subj", "rte", "cb", "sms_spam", "tweet_emotion", "wic")
WRITING = ("antonym", "present_past", "singular_plural", "country_capital")
# Slower than this share of float32's rate, bfloat16 is emulated and only wastes time.
WORTH_MEASURING = 0.5
# Log-likelihoods of a few nats are less precise than this in bfloat16.
NEAR_TIE = 0.05
# Logits lie between 16 and 32, where the dtype's last place counts so many of its epsilons.
_LOGIT = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base-model", default="smollm2-135m")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--tokens", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--rows-a-task", type=int, default=16, help="of the section rows")
    parser.add_argument("--emulated", action="store_true", help="measure a dtype that the machine only emulates, too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", choices=["ours", "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)

    if arguments.memory_of:
        return print_memory(arguments)
    results: list[dict[str, Any]] = []
    print(" ".join(f"{key}={value}" for key, value in machine().items()))
    for dtype in arguments.dtypes:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        plain, rate = (matmul_rate(kind, device, size=512) for kind in (torch.float32, DTYPES[dtype]))
        if rate < WORTH_MEASURING * plain and not arguments.emulated:
            print(f"\n{dtype}: {rate / 1e9:.1f} GFLOP/s against float32's {plain / 1e9:.0f}: not native here, skipped")
            continue
        base = load_base_model(locate(arguments.base_model), dtype)
        print(
            f"\n{base.record}, {matmul_rate(base.dtype, device) / 1e9:.0f} GFLOP/s in products of 1024 x 1024 matrices"
        )
        for tokens in arguments.tokens:
            print(f"{tokens} virtual tokens, {dtype}")
            for section in arguments.sections:
                for result in MEASURE[section](base, tokens, arguments):
                    print(f"  {result}", flush=True)
                    results.append({"dtype": dtype, "tokens": tokens, "section": section, **_plain(result)})
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2), encoding="utf-8")
    return 0


def step(base: BaseModel, tokens: int, arguments: Any) -> list[Comparison | str]:
    """One training step, with the constant text in the prefix and without any."""
    task, rows, constant = _rows(base, arguments.data / "trec", tokens)
    return [
        *_step(base, "constant text", _training(base, task, rows, constant, tokens), arguments.repeats),
        *_step(base, "no constant text", _training(base, task, rows, [], tokens), arguments.repeats),
    ]


def _step(base: BaseModel, what: str, training: Training, repeats: int) -> list[Comparison | str]:
    loop = peers.PlainLoop(base, training.prompt, 0.03)
    batches = [training.parts() for _ in range(repeats + 2)]
    rates: list[float] = []
    compared = compare(
        f"training step, trec, 16 rows, {what}",
        [lambda parts=parts: _our_step(base, training, parts) for parts in batches],
        [lambda parts=parts: loop.step(parts[0][1]) for parts in batches],
        warm_up=2,
        before=lambda: rates.append(matmul_rate(base.dtype, base.device)),
    )
    needed = [_step_flops(base, training, parts[0][1]) for parts in batches[2:]]
    return [compared, _roofline(needed, rates[2:], compared.ours)]


def score(base: BaseModel, tokens: int, arguments: Any) -> list[Comparison | str]:
    """Time to a validation loss, both sides taking the same rows in the same order."""
    task, rows, constant = _rows(base, arguments.data / "trec", tokens)
    held_out, rows = rows[:64], rows[64:]
    prompt = _prompt(base, task, tokens)
    training = Training("trec", prompt, constant, rows, held_out, RECIPE)
    target = 1.3
    ours = seconds(lambda: _train_until(base, training, target))
    settings = {
        "learning_rate": 0.03,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 16,
        "max_steps": RECIPE.steps,
        "warmup_steps": 15,
        "eval_steps": RECIPE.validate_every,
    }
    steps = itertools.islice(engine.picks([len(row) for row in rows], RECIPE), RECIPE.steps)
    order = [rows[i] for step in steps for i in step]
    reached: list[tuple[int, float]] = []
    peer = seconds(lambda: reached.append(peers.train_until(base, prompt, order, held_out, settings, target)))
    return [
        Comparison(f"time to validation loss {target} on trec, against Trainer", (ours,), (peer,)),
        f"  ours {training.step} steps to {training.validations[-1].loss:.3f}; "
        f"Trainer {reached[0][0]} steps to {reached[0][1]:.3f}",
    ]


def prediction(base: BaseModel, tokens: int, arguments: Any) -> list[Comparison | str]:
    """128 rows of 8 multiple-choice tasks, shuffled together; the peer takes them task by task."""
    prompts, questions = _questions(base, tokens, arguments.data, 16)
    peer = peers.Switching(base, prompts)
    ours: list[list[int]] = []
    theirs: list[list[int]] = []

    def run_ours() -> None:
        ours.append([int(found.output) for found in answer(base, [question for _, question in questions])])

    def run_peer() -> None:
        picked: list[int] = []
        for name in CHOOSING:
            mine = [question for task, question in questions if task == name]
            contexts = base.encode_batch([question.query.context for question in mine])
            logits = peer.next_logits(name, contexts)
            for row, question in zip(logits, mine, strict=True):
                delimiter = question.task.target_delimiter
                firsts = [base.encode(delimiter + choice)[0] for choice in question.query.choices or ()]
                picked.append(int(row[firsts].argmax()))
        theirs.append(picked)

    repeats = min(arguments.repeats, 5)
    rates: list[float] = []
    compared = compare(
        f"prediction, {len(questions)} rows of {len(CHOOSING)} tasks",
        [run_ours] * repeats,
        [run_peer] * repeats,
        before=lambda: rates.append(matmul_rate(base.dtype, base.device)),
    )
    positions = sum(base.count_tokens(q.query.context) - len(q.prefix.tokens) for _, q in questions)
    flops = 2.0 * positions * _weights(base) + 2.0 * len(questions) * _head(base)
    same = sum(a == b for a, b in zip(ours[-1], theirs[-1], strict=True))
    return [
        compared,
        _roofline([flops] * len(compared.ours), rates[1:], compared.ours),
        f"  {same} of {len(questions)} answers equal (the peer looks at each choice's first token alone)",
    ]


def rows(base: BaseModel, tokens: int, arguments: Any) -> list[str]:
    """Each row of a mixed batch against its run alone; in bfloat16 answers may differ where choices nearly tie."""
    _, found = _questions(base, tokens, arguments.data, arguments.rows_a_task)
    questions = [question for _, question in found]
    together = answer(base, questions)
    alone = [answer(base, [question])[0] for question in questions]
    apart = max(
        abs(one - other)
        for a, b in zip(together, alone, strict=True)
        for one, other in zip(a.scores or (), b.scores or (), strict=True)
    )
    best = [sorted(one.scores or (), reverse=True) for one in alone]
    gaps = [first - second for first, second, *_ in best]
    near = max(NEAR_TIE, _LOGIT * torch.finfo(base.dtype).eps)
    changed = [gap for a, b, gap in zip(together, alone, gaps, strict=True) if a.output != b.output]
    return [
        f"rows: {len(questions)} of {len(CHOOSING)} tasks, mixed against alone: log-likelihoods at most {apart:.1e} "
        f"nats apart; {len(gaps) - len(changed)} answers equal; {sum(gap < near for gap in gaps)} near-ties (best two "
        f"choices less than {near:.3g} nats apart); {sum(gap >= near for gap in changed)} answers differ without one"
        + "".join(f"; {gap:.2g} nats apart where an answer differs" for gap in changed)
    ]


def generation(base: BaseModel, tokens: int, arguments: Any) -> list[Comparison | str]:
    """16 rows of 4 generating tasks, 8 tokens each, greedy; the peer row by row, as it is wrong on padded batches."""
    requests: list[tuple[str, GenerationRequest]] = []
    prompts: dict[str, SoftPrompt] = {}
    for name in WRITING:
        task = Task.from_file(arguments.data / name / "task.yaml")
        prompts[name] = _prompt(base, task, tokens)
        prefix = compile_task(base, task, prompts[name])
        rows = examples(task, load_data(task).test, budget(base, task, tokens))[:4]
        requests += [(name, GenerationRequest(prefix, row.query.context, ("\0",), 8)) for row in rows]
    peer = peers.Switching(base, prompts)

    def run_peer() -> None:
        for name, request in requests:
            peer.generate(name, base.encode(request.context), request.max_new_tokens)

    ours = [lambda: _ignore(generate(base, [request for _, request in requests]))] * 4
    return [compare(f"generation, {len(requests)} rows of {len(WRITING)} tasks, 8 tokens", ours, [run_peer] * 4)]


def memory(_: BaseModel, tokens: int, arguments: Any) -> list[str]:
    """Peak resident memory of a process that loads the model and takes three training steps."""
    peak = {}
    for side in ("ours", "peer"):
        command = [sys.executable, "-m", "benchmarks.engine", "--data", str(arguments.data), "--memory-of", side]
        command += ["--tokens", str(tokens), "--base-model", arguments.base_model]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak[side] = int(done.stdout.split()[-1]) / 1024
    return [f"peak memory, 3 training steps, float32: ours {peak['ours']:.0f} MiB, peer {peak['peer']:.0f} MiB"]


def print_memory(arguments: Any) -> int:
    base = load_base_model(locate(arguments.base_model), "float32")
    task, rows, constant = _rows(base, arguments.data / "trec", arguments.tokens[0])
    training = _training(base, task, rows, constant, arguments.tokens[0])
    batches = [training.parts() for _ in range(3)]
    loop = peers.PlainLoop(base, training.prompt, 0.03) if arguments.memory_of == "peer" else None
    for parts in batches:
        if loop is None:
            _our_step(base, training, parts)
        else:
            loop.step(parts[0][1])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return 0


def switch(base: BaseModel, tokens: int, _: Any) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return switching(base, tokens, Path(folder))


MEASURE: dict[str, Any] = {
    "step": step,
    "score": score,
    "prediction": prediction,
    "rows": rows,
    "generation": generation,
    "switch": switch,
    "memory": memory,
}


def _questions(
    base: BaseModel, tokens: int, data: Path, count: int
) -> tuple[dict[str, SoftPrompt], list[tuple[str, Question]]]:
    """A prompt a multiple-choice task, and its first `count` test rows of at most 128 tokens."""
    prompts: dict[str, SoftPrompt] = {}
    questions: list[tuple[str, Question]] = []
    for name in CHOOSING:
        task = Task.from_file(data / name / "task.yaml")
        prompts[name] = _prompt(base, task, tokens)
        prefix = compile_task(base, task, prompts[name])
        rows = examples(task, load_data(task).test, budget(base, task, tokens))
        short = [row for row in rows if base.count_tokens(row.query.context) <= 128][:count]
        questions += [(name, Question(task, prefix, row.query)) for row in short]
    return prompts, questions


def _rows(base: BaseModel, folder: Path, tokens: int) -> tuple[Task, list[TrainingExample], list[int]]:
    """A task's training rows as tokens, and its constant text."""
    task = Task.from_file(folder / "task.yaml")
    rows = examples(task, load_data(task).training, budget(base, task, tokens))
    answers = [task.target_delimiter + row.answer for row in rows]
    encoded = encode_examples(base, [row.query.context for row in rows], answers)
    return task, encoded, constant_tokens(base, constant_text(task))


def _prompt(base: BaseModel, task: Task, tokens: int) -> SoftPrompt:
    return new_prompt(base, PromptConfig(num_virtual_tokens=tokens), task.description.source, seed=0)


def _training(base: BaseModel, task: Task, rows: list[TrainingExample], constant: list[int], tokens: int) -> Training:
    return Training(task.name, _prompt(base, task, tokens), constant, rows, rows[:16], RECIPE)


def _our_step(base: BaseModel, training: Training, parts: list[engine.Part]) -> None:
    engine._backward(base, parts)
    training.update()


class _ReachedError(Exception):
    """The validation loss is low enough."""


def _train_until(base: BaseModel, training: Training, target: float) -> None:
    def stop(running: Training) -> None:
        if running.validations[-1].loss <= target:
            raise _ReachedError

    with suppress(_ReachedError):
        engine.train(base, [training], on_validation=stop)


def _roofline(needed: Sequence[float], rates: Sequence[float], taken: Sequence[float]) -> str:
    """What the machine's measured rate of matrix products would have taken, as a share of what was taken."""
    reached = [flops / rate / time for flops, rate, time in zip(needed, rates, taken, strict=True)]
    work, rate = statistics.median(needed), statistics.median(rates)
    return (
        f"  roofline: {work / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s: "
        f"{statistics.median(reached):.0%} reached (min {min(reached):.0%}, max {max(reached):.0%})"
    )


def _step_flops(base: BaseModel, training: Training, rows: list[TrainingExample]) -> float:
    """What a step needs: products with the weights forward and backward, attention forward and twice backward."""
    ahead = training.prompt.num_virtual_tokens + len(training.constant)
    lengths = [len(row) - 1 - len(training.constant) for row in rows]
    answers = sum(len(row.answer) for row in rows)
    seen = ahead**2 / 2 + sum(length * (ahead + length / 2) for length in lengths)
    config = base.model.config
    attention = 4.0 * seen * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    return 4.0 * (ahead + sum(lengths)) * _weights(base) + 4.0 * answers * _head(base) + 3 * attention


def _weights(base: BaseModel) -> int:
    linear = (module for module in base.model.base_model.modules() if isinstance(module, nn.Linear))
    return sum(module.weight.numel() for module in linear)


def _head(base: BaseModel) -> int:
    return int(base.model.get_output_embeddings().weight.numel())


def _plain(result: Comparison | str) -> dict[str, Any]:
    if isinstance(result, str):
        return {"text": result.strip()}
    return {**asdict(result), "ratio": statistics.median(result.ratios)}


def _ignore(_: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
