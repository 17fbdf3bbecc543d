"""Fixtures: a tiny random model on disk, a catalog over it, and small tasks with real files."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import multiprompt as mp
from multiprompt.engine.base import BaseModel
from multiprompt.engine.hub import locate
from multiprompt.engine.loading import load_base_model
from multiprompt.records import Edge
from multiprompt.reports.lineage import MATERIALS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
COLOURS = ("red", "green", "blue", "yellow")
MakeTask = Callable[..., Path]


def pytest_xdist_auto_num_workers() -> int:
    """One process more than processors, as some tests wait for others; several hold the base model."""
    return min(4, 1 + (os.cpu_count() or 1))


@pytest.fixture(scope="session", autouse=True)
def libraries(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `datasets` writes stays out of the user's cache, and tiny tensors are not spread over threads."""
    import datasets
    import torch

    torch.set_num_threads(1)

    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()


def write_model(folder: Path, config: PretrainedConfig, seed: int = 0) -> Path:
    """A random model with a byte-level tokenizer of its own, as a folder that transformers loads."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = ["the colour of the sky is blue", "Answer: red green yellow", "Which colour? Answer:"] * 4
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    config.vocab_size = len(fast)
    config.eos_token_id = config.bos_token_id = config.pad_token_id = 0
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def write_tiny_model(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A random Llama that `write_model` writes."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "initializer_range": 0.3,
            **settings,
        }
    )
    return write_model(folder, config, seed)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def base(tiny_model: Path) -> BaseModel:
    return load_base_model(locate(str(tiny_model)), "float32")


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> mp.Workspace:
    """A new catalog over the tiny model, with a clock that moves a second a look."""
    ticks = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in range(1_000_000))
    return mp.open(tmp_path / "catalog.db", str(tiny_model), dtype="float32", actor="tester", clock=lambda: next(ticks))


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    """Writes a task's data and task file; gives the task file's path. Keyword arguments overwrite keys of the file."""

    def make(name: str = "colour", kind: str = "choice", rows: tuple[int, int, int] = (24, 8, 12), **keys: Any) -> Path:
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(name)
        for split, count in zip(("train", "validation", "test"), rows, strict=True):
            lines = [json.dumps(_row(kind, number, rng)) + "\n" for number in range(count)]
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        path = folder / "task.yaml"
        mapping = without_floor(task_mapping(name, kind) | keys)
        path.write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")
        return path

    return make


def without_floor(mapping: dict[str, Any]) -> dict[str, Any]:
    """The same task with `floor: none`, unless it sets one: a tiny random model learns too little to beat anything."""
    settings = mapping.get("multiprompt") or {}
    if not isinstance(settings.get("regression", {}), dict):
        return mapping
    return mapping | {"multiprompt": settings | {"regression": {"floor": "none"} | settings.get("regression", {})}}


def task_mapping(name: str = "colour", kind: str = "choice") -> dict[str, Any]:
    """What a small task's file holds."""
    common: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: f"{split}.jsonl" for split in ("train", "validation", "test")}},
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "description": f"Which {name}?\n",
        "doc_to_text": "{{text}}\nAnswer:",
        "multiprompt": {
            "num_virtual_tokens": 4,
            "training": {"steps": 6, "batch_size": 4, "validate_every": 3},
            "regression": {"floor": "none"},
        },
    }
    if kind == "choice":
        return common | {
            "output_type": "multiple_choice",
            "doc_to_target": "label",
            "doc_to_choice": list(COLOURS),
            "metric_list": [{"metric": "acc"}],
        }
    return common | {
        "output_type": "generate_until",
        "doc_to_target": "{{label}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}],
    }


def between_versions(edges: Iterable[Edge]) -> list[Edge]:
    """The edges that lead to what a version came from, without what it is made of."""
    return [edge for edge in edges if edge.relation not in MATERIALS]


def nudged(folder: Path) -> Path:
    """An exported adapter with other bytes that answers as before."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * (1 + 1e-6) for name, tensor in load_file(file).items()}, file)
    return folder


def _row(kind: str, number: int, rng: random.Random) -> dict[str, str]:
    label = COLOURS[0] if kind != "choice" else COLOURS[number % 2]
    return {"text": f"{rng.choice(('sky', 'sea', 'rose'))} {number} {rng.random():.3f}", "label": label}
