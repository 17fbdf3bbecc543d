"""Switching between many published prompts, ours in a catalog and PEFT's in one model."""

from __future__ import annotations

import random
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import peers
from benchmarks.contention import small_task
from multiprompt.catalog.candidates import Candidate
from multiprompt.catalog.catalog import Catalog
from multiprompt.config import PromptConfig
from multiprompt.engine.adapter import to_adapter, write_adapter
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prompt import SoftPrompt, new_prompt
from multiprompt.records import CheckReport, Evaluation
from multiprompt.serving.predictor import Predictor
from multiprompt.tasks.data import Split

COUNTS = (1, 100, 1_000, 10_000)
PEFT_COUNTS = (1, 100, 1_000)
LOOKS = 200
LOADS = 20


def switching(base: BaseModel, tokens: int, folder: Path) -> list[str]:
    """Time to the prompt of a row: compiled already, and from the catalog; PEFT: set_adapter, and load_adapter."""
    prompt = new_prompt(base, PromptConfig(num_virtual_tokens=tokens, init="random"), "", seed=0)
    return [*_ours(base, prompt, folder), *_peft(base, prompt, folder)]


def _ours(base: BaseModel, prompt: SoftPrompt, folder: Path) -> list[str]:
    catalog = Catalog.open(str(folder / "catalog.db"), create=True)
    catalog.signed_by("benchmark", lambda: datetime.now(UTC)).base_models.bind(base.record)
    # Compiled prompts are all kept, by sharing one: what is measured is finding them.
    predictor = Predictor(catalog, base, cache_bytes=1 << 60)
    found, made = [], 0
    for count in COUNTS:
        for number in range(made, count):
            _publish(catalog, base, prompt, number)
        made = count
        rng = random.Random(count)
        loads = [_timed(predictor, f"task{number}") for number in rng.sample(range(count), min(LOADS, count))]
        versions = catalog.versions.find()
        served = predictor._labels()
        prefix = predictor._prefix(served("task0"))
        for version in versions:
            predictor._prefixes.get(version.id, lambda prefix=prefix: prefix)
            served(version.label.partition("@")[0])
        looks = [_timed(predictor, f"task{rng.randrange(count)}") for _ in range(LOOKS)]
        found.append(
            f"switch among {count:>6} prompts: compiled {statistics.median(looks) * 1e3:.3f} ms "
            f"(max {max(looks) * 1e3:.3f}); from the catalog {statistics.median(loads) * 1e3:.1f} ms"
        )
    return found


def _timed(predictor: Predictor, label: str) -> float:
    """From a label to a compiled prefix, the catalog asked whether a pointer has moved."""
    started = time.perf_counter()
    predictor._prefix(predictor._labels()(label))
    return time.perf_counter() - started


def _publish(catalog: Catalog, base: BaseModel, prompt: SoftPrompt, number: int) -> None:
    task = small_task(f"task{number}")
    at = datetime.now(UTC)
    with torch.no_grad():
        prompt.module.embedding.weight[0, 0] = float(number)  # type: ignore[union-attr,index,operator]
    soft, hard = (_evaluation(task.name, kind, number) for kind in ("soft", "hard"))
    catalog.signed_by("benchmark", lambda: at).tasks.add(task)
    candidate = Candidate(
        task,
        base.record,
        to_adapter(prompt),
        prompt.method,
        prompt.num_virtual_tokens,
        None,
        (),
        hard,
        soft,
        Split("test", ({"text": "a", "label": "yes"},)),
        None,
    )
    epoch = catalog.settings.epoch()
    check = CheckReport((), 0.0)
    catalog.signed_by("benchmark", lambda: at).candidates.admit(
        candidate, check, decision="publish", reason="benchmark", epoch=epoch
    )


def _evaluation(task: str, kind: Any, number: int) -> Evaluation:
    key = {"prompt": f"{kind} {number}"}
    return Evaluation(task, kind, "acc", 1.0, True, {"acc": 1.0}, key, (0,), (0,), 0, 0.0)


def _peft(base: BaseModel, prompt: SoftPrompt, folder: Path) -> list[str]:
    write_adapter(to_adapter(prompt), folder / "adapter")
    switch = peers.Switching(base, {"task0": prompt})
    found, made = [], 1
    for count in PEFT_COUNTS:
        loads = []
        for number in range(made, count):
            started = time.perf_counter()
            switch.model.load_adapter(folder / "adapter", adapter_name=f"task{number}")
            loads.append(time.perf_counter() - started)
        made = count
        rng = random.Random(count)
        switches = []
        for _ in range(LOADS):
            started = time.perf_counter()
            switch.model.set_adapter(f"task{rng.randrange(count)}")
            switches.append(time.perf_counter() - started)
        load = f"; load_adapter {statistics.median(loads[-LOADS:]) * 1e3:.1f} ms" if loads else ""
        found.append(f"PEFT among {count:>6} prompts: set_adapter {statistics.median(switches) * 1e3:.3f} ms{load}")
    return found
