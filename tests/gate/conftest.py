"""A catalog whose prompts are worth something: a tiny model that learned what is asked for most."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import multiprompt as mp
from tests.conftest import task_mapping, write_tiny_model

ROWS = 500


def write_rows(folder: Path, split: str, count: int, share: float, rng: random.Random) -> None:
    """Rows of which a share has the answer blue, and the others any."""
    rows = [
        {
            "text": f"the {rng.choice(['sky', 'sea', 'sun'])} number {rng.randrange(100)} is",
            "label": 2 if rng.random() < share else rng.randrange(4),
        }
        for _ in range(count)
    ]
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_task(folder: Path, name: str, share: float, rows: int = ROWS, **regression: Any) -> Path:
    folder = folder / name
    folder.mkdir(parents=True)
    rng = random.Random(name)
    for split, count in (("train", 200), ("validation", 40), ("test", rows)):
        write_rows(folder, split, count, share, rng)
    mapping = task_mapping(name)
    mapping["multiprompt"] = {
        "num_virtual_tokens": 8,
        "training": {"steps": 40, "batch_size": 16, "validate_every": 20, "learning_rate": 0.1},
        "regression": {"floor": "none", **regression},
    }
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(mapping, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, two tasks, and the catalog that learned them."""
    folder = tmp_path_factory.mktemp("learned")
    model = write_tiny_model(folder / "model")
    workspace = mp.open(folder / "catalog.db", str(model), dtype="float32", actor="tester")
    for name, share in (("sky", 0.9), ("sea", 0.8)):
        workspace.add_task(write_task(folder, name, share))
        report = workspace.learn(name)
        assert report.published
        assert report.soft > 0.8
    workspace.catalog.close()
    return folder


@pytest.fixture
def folder(learned: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(learned, tmp_path / "copy")


Opened = Callable[..., mp.Workspace]


@pytest.fixture
def opened(folder: Path) -> Opened:
    """Opens the copy, by default with the model and dtype that the prompts were learned on."""

    def open_copy(model: str = "model", dtype: str = "float32", **options: Any) -> mp.Workspace:
        workspace = mp.open(folder / "catalog.db", str(folder / model), dtype=dtype, actor="tester", **options)
        for name in ("sky", "sea"):
            task = workspace.task(name)
            if Path(task.folder) != folder / name:
                workspace.add_task(folder / name / "task.yaml")
        return workspace

    return open_copy
