"""The catalog at size: what each question costs against its target, and beside MLflow's model registry.

    python -m benchmarks.catalog [--tasks 10000] [--versions 20] [--evaluations 1000000] [--database PATH]
                                 [--peer-tasks 1000] [--json FILE]

The catalog is built once, at PATH, and used again; measuring publishes a few hundred more versions into it. The peer
needs `pip install mlflow-skinny sqlparse`; it is built beside PATH, and left out with `--peer-tasks 0`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import BindParameter, Connection, Table, bindparam

from benchmarks.measure import compare, machine
from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import digest
from multiprompt.catalog.candidates import Candidate
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.database import database_engine
from multiprompt.catalog.database import writing as write_transaction
from multiprompt.catalog.evaluations import key_digest
from multiprompt.catalog.lineage import Parent
from multiprompt.catalog.query.search import words
from multiprompt.config import PromptConfig, TrainingConfig
from multiprompt.records import Adapter, BaseModelRecord, CheckReport, Evaluation, PromptKind, Run
from multiprompt.tasks.data import Split
from multiprompt.tasks.task import Task

# Milliseconds at p95.
READ, PUBLISH = 50.0, 10.0
PAGE = 100
WARM_UP = 3
MIN_REPEATS = 5
PEER_VERSIONS = 5

START, END = datetime(2024, 11, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
KINDS = ("sentiment", "topic", "entity", "intent", "summary", "translation", "paraphrase", "toxicity")
TEAMS = ("nlp", "search", "ads", "support", "legal", "finance", "health", "maps", "mail", "speech")
METHODS = ("prompt-tuning", "prompt-tuning", "prompt-tuning", "p-tuning", "prefix-tuning")
ROWS = 200
WEIGHTS_BYTES = 46_000
SHARED_DATA = 500
ACTOR = "benchmark"
BASE = BaseModelRecord(
    "smollm2-135m", "smollm2-135m", "main", "LlamaForCausalLM", "float32", *(f"sha256:{kind * 64}" for kind in "abc")
)
SOURCE = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{train: train.jsonl, test: test.jsonl}}
training_split: train
test_split: test
output_type: multiple_choice
description: "{description}"
doc_to_text: "{{{{text}}}}\\nAnswer:"
doc_to_target: label
doc_to_choice: ["yes", "no"]
metric_list: [{{metric: {metric}}}]
tag: {tags}
"""
ENVIRONMENT = {"torch": "2.13.0", "transformers": "5.24.0", "peft": "0.21.2", "python": "3.11.7", "forward": "packed"}


@dataclass(frozen=True)
class Size:
    """Versions of each task; evaluations of all, of which each version has equally many."""

    tasks: int
    versions: int
    evaluations: int

    @property
    def per_version(self) -> int:
        return self.evaluations // (self.tasks * self.versions)

    @property
    def names(self) -> list[str]:
        return [task_name(index) for index in range(self.tasks)]


@dataclass(frozen=True)
class Line:
    """A question, asked once with each argument; `target` is milliseconds at p95."""

    what: str
    target: float
    ask: Callable[[Any], Any]
    arguments: Iterable[Any]


@dataclass(frozen=True)
class Figure:
    """What a line took, in milliseconds; `found` is the number of records in the last answer."""

    what: str
    target: float
    p50: float
    p95: float
    repeats: int
    found: int

    def __str__(self) -> str:
        over = f"over {self.target:.0f} ms" if self.p95 > self.target else ""
        return f"{self.what:<66} {self.p50:9.2f} {self.p95:9.2f} {self.repeats:6} {self.found:6}  {over}"


@dataclass(frozen=True)
class PeerFigure:
    """Milliseconds of both sides; `ratio` is the median of the pairs' ratios, above 1 where ours is faster."""

    what: str
    ours_p50: float
    ours_p95: float
    peer_p50: float
    peer_p95: float
    ratio: float
    repeats: int

    def __str__(self) -> str:
        return (
            f"{self.what:<50} {self.ours_p50:9.2f} {self.ours_p95:9.2f} {self.peer_p50:9.2f} {self.peer_p95:9.2f} "
            f"{self.ratio:7.2f} {self.repeats:6}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=20, help="of each task")
    parser.add_argument("--evaluations", type=int, default=1_000_000, help="of all tasks together")
    parser.add_argument("--database", type=Path)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--line-seconds", type=float, default=20, help="a slow line is repeated less often than asked")
    parser.add_argument("--peer-tasks", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    size = Size(arguments.tasks, arguments.versions, arguments.evaluations)
    if size.versions < 3 or size.per_version < 2:
        parser.error("a task needs three versions, and a version two evaluations")
    if arguments.peer_tasks and find_spec("mlflow") is None:
        parser.error("the peer needs MLflow: pip install mlflow-skinny sqlparse, or leave it out with --peer-tasks 0")
    logging.disable(logging.WARNING)

    print(" ".join(f"{key}={value}" for key, value in machine().items()))
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.database or Path(folder) / "catalog.db"
        build(path, size)
        figures = measure(path, size, arguments.repeats, arguments.line_seconds)
        peer = compare_with_mlflow(path, arguments.peer_tasks, arguments.repeats) if arguments.peer_tasks else []
    if arguments.json:
        found = {"machine": machine(), "size": asdict(size), "figures": figures, "peer": peer}
        arguments.json.write_text(json.dumps(found, indent=2, default=asdict), encoding="utf-8")
    return 0


def build(path: Path, size: Size) -> None:
    """Fill a new catalog, a round of versions a transaction, in the order in which the years would have done it."""
    if not path.exists():
        started = time.perf_counter()
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        Catalog.open(str(part), create=True)
        engine = database_engine(str(part))
        with write_transaction(engine) as connection:
            history = _History(size, connection)
        for number in range(1, size.versions + 1):
            with write_transaction(engine) as connection:
                history.add_round(connection, number)
            taken = time.perf_counter() - started
            print(f"  built version {number} of {size.tasks} tasks, {taken:.0f} s", file=sys.stderr, flush=True)
        part.rename(path)
    shown = f"{size.tasks} tasks x {size.versions} versions, {size.evaluations} evaluations"
    print(f"{path}: {shown}, {path.stat().st_size / 1e6:.0f} MB", flush=True)


class _History:
    """Tasks, and then round after round a new version of each, with what a real learning would have left."""

    def __init__(self, size: Size, connection: Connection) -> None:
        self._size = size
        self._rng = random.Random(0)
        self._tasks = [_task_file(index, self._rng) for index in range(size.tasks)]
        self._adapters = [_adapter(random.Random(number)) for number in range(16)]
        self._digests = [digest(adapter) for adapter in self._adapters]
        self._results = [_results(self._rng) for _ in range(64)]
        self._tests = [_test_split(task.name) for task in self._tasks]
        self._skill = [self._rng.betavariate(5, 2) for _ in self._tasks]
        self._serving: list[int | None] = [None] * size.tasks
        self._evaluations = 0
        self._epoch = 0
        self._add_shared(connection)
        self._add_tasks(connection)

    def _at(self, number: int, index: int = 0) -> datetime:
        return START + (END - START) * ((number - 1 + index / self._size.tasks) / self._size.versions)

    def _id(self, number: int, index: int) -> int:
        return (number - 1) * self._size.tasks + index + 1

    def _add_shared(self, connection: Connection) -> None:
        connection.execute(s.base_models.insert(), {"id": 1, "created_at": START, **asdict(BASE)})
        connection.execute(s.settings.update().values(base_model_id=1, base_model_source=BASE.source, dtype=BASE.dtype))
        blobs = {"adapter-config": {adapter.config for adapter in self._adapters}}
        blobs["adapter-weights"] = {adapter.weights for adapter in self._adapters}
        blobs["rows"] = {split.pack() for split in self._tests}
        rows = [
            {"sha256": _sha256(data), "kind": kind, "data": data, "created_at": START}
            for kind, some in blobs.items()
            for data in some
        ]
        connection.execute(s.artifacts.insert(), rows)
        shared = [split for number in range(SHARED_DATA) for split in _shared_splits(number)]
        snapshots = [_snapshot(split, _sha256(split.pack())) for split in self._tests]
        connection.execute(s.data_snapshots.insert(), snapshots + [_snapshot(split, None) for split in shared])

    def _add_tasks(self, connection: Connection) -> None:
        times = [START - timedelta(days=1) + timedelta(seconds=index) for index in range(self._size.tasks)]
        rows = [
            {"id": index + 1, "name": task.name, "guarded": int(is_guarded(index)), "created_at": at}
            for index, (task, at) in enumerate(zip(self._tasks, times, strict=True))
        ]
        files = [
            {
                "id": index + 1,
                "task_id": index + 1,
                "fingerprint": task.fingerprint,
                "source": task.source,
                "folder": "/srv/tasks",
                "description": task.description,
                "metric": task.metric,
                "tags": task.tags,
                "created_at": at,
            }
            for index, (task, at) in enumerate(zip(self._tasks, times, strict=True))
        ]
        texts = [
            {"task_id": index + 1, "words": " ".join(words([task.name, task.description, *task.tags]))}
            for index, task in enumerate(self._tasks)
        ]
        pointers = [{"key": index + 1, "task_file_id": index + 1} for index in range(self._size.tasks)]
        events = [_event(at, "task-added", index + 1) for index, at in enumerate(times)]
        connection.execute(s.tasks.insert(), rows)
        connection.execute(s.task_files.insert(), files)
        _update(connection, s.tasks, "task_file_id", pointers)
        connection.execute(s.task_texts.insert(), texts)
        tags = [{"task_file_id": index + 1, "tag": tag} for index, task in enumerate(self._tasks) for tag in task.tags]
        connection.execute(s.task_tags.insert(), tags)
        connection.execute(s.events.insert(), events)

    def add_round(self, connection: Connection, number: int) -> None:
        """Version `number` of every task, and then a check of all that is published."""
        self._add_versions(connection, number)
        self._move_pointers(connection, number)
        self._check(connection, number)

    def _add_versions(self, connection: Connection, number: int) -> None:
        indices = range(self._size.tasks)
        hard = self._evaluate(connection, number, "hard", [None] * self._size.tasks)
        connection.execute(s.runs.insert(), [self._run(number, index) for index in indices])
        connection.execute(s.prompt_versions.insert(), [self._version(number, index) for index in indices])
        soft = self._evaluate(connection, number, "soft", [self._id(number, index) for index in indices])
        assert len(hard) == len(soft)
        baselines = [{"key": self._id(number, index), "baseline_id": soft[index]} for index in indices]
        _update(connection, s.prompt_versions, "baseline_id", baselines)
        if number > 1:
            connection.execute(s.lineage.insert(), [self._edge(number, index) for index in indices])
        checks = [
            {"version_id": self._id(number, index), "passed": 1, "seconds": 0.0, "created_at": self._at(number, index)}
            for index in indices
        ]
        connection.execute(s.checks.insert(), checks)

    def _run(self, number: int, index: int) -> dict[str, Any]:
        run = _run(self._rng, index % SHARED_DATA)
        return {
            "id": self._id(number, index),
            "task_id": index + 1,
            "training_snapshot_id": self._size.tasks + 2 * (index % SHARED_DATA) + 1,
            "validation_snapshot_id": self._size.tasks + 2 * (index % SHARED_DATA) + 2,
            "settings": run.settings,
            "environment": run.environment,
            "losses": run.losses,
            "validations": run.validations,
            "best_step": run.best_step,
            "truncated": run.truncated,
            "seconds": run.seconds,
            "created_at": self._at(number, index),
        }

    def _version(self, number: int, index: int) -> dict[str, Any]:
        which = (number + index) % len(self._adapters)
        return {
            "id": self._id(number, index),
            "task_id": index + 1,
            "number": number,
            "state": "candidate",
            "method": METHODS[(number + index) % len(METHODS)],
            "num_virtual_tokens": 20,
            "base_model_id": 1,
            "task_file_id": index + 1,
            "run_id": self._id(number, index),
            "config_sha256": _sha256(self._adapters[which].config),
            "weights_sha256": _sha256(self._adapters[which].weights),
            "digest": self._digests[which],
            "reason": "nothing got worse",
            "created_at": self._at(number, index),
        }

    def _edge(self, number: int, index: int) -> dict[str, Any]:
        return {
            "child_id": self._id(number, index),
            "relation": "retrained-from",
            "parent_id": self._id(number - 1, index),
            "parent_label": f"{self._tasks[index].name}@{number - 1}",
        }

    def _evaluate(
        self, connection: Connection, number: int, kind: PromptKind, versions: Sequence[int | None]
    ) -> list[int]:
        """An evaluation of each task, by the version with that id; gives the evaluations' ids."""
        first = self._evaluations + 1
        self._evaluations += self._size.tasks
        rows = [self._evaluation(first + index, kind, number, index, version) for index, version in enumerate(versions)]
        results = [
            {"evaluation_id": row["id"], "results": self._results[row["id"] % len(self._results)]} for row in rows
        ]
        scores = [
            {"evaluation_id": row["id"], "metric": metric, "score": score}
            for row in rows
            for metric, score in row["metrics"].items()
        ]
        connection.execute(s.evaluations.insert(), rows)
        connection.execute(s.evaluation_results.insert(), results)
        connection.execute(s.evaluation_scores.insert(), scores)
        return [row["id"] for row in rows]

    def _evaluation(
        self, identity: int, kind: PromptKind, number: int, index: int, version: int | None
    ) -> dict[str, Any]:
        task, rng = self._tasks[index], self._rng
        score = rng.betavariate(2, 3) if version is None else (self._skill[index] + rng.betavariate(5, 2)) / 2
        parts = _key(task.fingerprint, self._tests[index], "hard" if version is None else f"{version}")
        return {
            "id": identity,
            "task_id": index + 1,
            "version_id": version,
            "snapshot_id": index + 1,
            "kind": kind,
            "metric": task.metric,
            "score": round(score, 4),
            "higher_is_better": 1,
            "metrics": {"macro_f1": round(score * 0.97, 4), task.metric: round(score, 4)},
            "key": key_digest(parts),
            "key_parts": parts,
            "rows": ROWS,
            "truncated": 0,
            "seconds": round(rng.uniform(1, 30), 2),
            "created_at": self._at(number, index),
        }

    def _move_pointers(self, connection: Connection, number: int) -> None:
        """Publish, reject or hold the versions of a round, and roll a few back after the last."""
        published: list[dict[str, Any]] = []
        retired: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        for index in range(self._size.tasks):
            at, old, key = self._at(number, index), self._serving[index], self._id(number, index)
            if number == self._size.versions and is_guarded(index):
                events.append(_event(at, "held", index + 1, None, number))
            elif old is not None and number < self._size.versions and (number + index) % 17 == 0:
                rejected.append({"key": key, "state": "rejected"})
                events.append(_event(at, "rejected", index + 1, None, number))
            else:
                published.append({"key": key, "state": "published", "published_at": at, "retired_at": None})
                if old is not None:
                    retired.append({"key": self._id(old, index), "state": "retired", "retired_at": at})
                events.append(_event(at, "published", index + 1, old, number))
                self._serving[index] = number
        self._move(connection, published, retired, rejected)
        connection.execute(s.events.insert(), events)
        if number == self._size.versions:
            self._roll_back(connection, [row["key"] for row in retired if row["key"] % 100 == 3])

    def _roll_back(self, connection: Connection, versions: Sequence[int]) -> None:
        at = END - timedelta(seconds=1)
        published, retired, events = [], [], []
        for key in versions:
            index, number = (key - 1) % self._size.tasks, (key - 1) // self._size.tasks + 1
            old = self._serving[index]
            assert old is not None, "it was retired, so another version serves"
            published.append({"key": key, "state": "published", "published_at": at, "retired_at": None})
            retired.append({"key": self._id(old, index), "state": "retired", "retired_at": at})
            events.append(_event(at, "rolled-back", index + 1, old, number))
            self._serving[index] = number
        self._move(connection, published, retired, [])
        if events:
            connection.execute(s.events.insert(), events)

    def _move(
        self,
        connection: Connection,
        published: list[dict[str, Any]],
        retired: list[dict[str, Any]],
        rejected: list[dict[str, Any]],
    ) -> None:
        _update(connection, s.prompt_versions, "state retired_at", retired)
        _update(connection, s.prompt_versions, "state published_at retired_at", published)
        _update(connection, s.prompt_versions, "state", rejected)
        self._epoch += len(published)
        connection.execute(s.settings.update().values(epoch=self._epoch))

    def _check(self, connection: Connection, number: int) -> None:
        """Evaluate what is published again, and store the first of these evaluations as a check."""
        serving = [self._id(old or number, index) for index, old in enumerate(self._serving)]
        again = [self._evaluate(connection, number, "soft", serving) for _ in range(self._size.per_version - 2)]
        if again:
            at = self._at(number + 1) - timedelta(seconds=2)
            check = connection.execute(
                s.checks.insert().values(version_id=None, passed=0, seconds=1.0, created_at=at)
            ).inserted_primary_key
            assert check is not None
            results = [
                _check_result(check[0], version, evaluation, self._rng)
                for version, evaluation in zip(serving, again[0], strict=True)
            ]
            connection.execute(s.check_results.insert(), results)


def task_name(index: int) -> str:
    return f"t{index:05}_{KINDS[index % len(KINDS)]}"


def is_guarded(index: int) -> bool:
    return index % 50 == 7


@dataclass(frozen=True)
class _TaskFile:
    """What the catalog holds of a task file; reading ten thousand of them as a `Task` would take minutes."""

    name: str
    source: str
    description: str
    metric: str
    tags: list[str]

    @property
    def fingerprint(self) -> str:
        return f"sha256:{_sha256(self.source.encode())}"


def _task_file(index: int, rng: random.Random) -> _TaskFile:
    name, kind, metric = task_name(index), KINDS[index % len(KINDS)], "acc" if index % 4 else "macro_f1"
    description = f"Which {kind} is it? {' '.join(_pseudo_word(rng.randrange(2_000)) for _ in range(8))}"
    tags = [kind, f"team:{_team(name)}", f"language:{rng.choice(('de', 'en', 'fr'))}"]
    source = SOURCE.format(name=name, description=description, metric=metric, tags=json.dumps(tags))
    return _TaskFile(name, source, description, metric, tags)


def _pseudo_word(number: int) -> str:
    """One of the words that descriptions are made of."""
    syllables = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so")
    return "".join(syllables[number // len(syllables) ** place % len(syllables)] for place in range(3))


def _test_split(name: str) -> Split:
    return Split("test", tuple({"text": f"row {row} of {name}", "label": "yes"} for row in range(4)))


def _shared_splits(number: int) -> tuple[Split, Split]:
    """Training and validation data that several tasks learn from."""
    row = {"text": f"shared row of {number}", "label": "no"}
    return Split("train", (row, row)), Split("train[validation]", (row,))


def _adapter(rng: random.Random) -> Adapter:
    return Adapter(json.dumps({"peft_type": "PROMPT_TUNING"}).encode(), rng.randbytes(WEIGHTS_BYTES))


def _run(rng: random.Random, data: int) -> Run:
    training, validation = _shared_splits(data)
    return Run(
        settings={"prompt": asdict(PromptConfig()), "training": asdict(TrainingConfig())},
        environment=ENVIRONMENT,
        training_data=training.fingerprint,
        validation_data=validation.fingerprint,
        losses=tuple(round(2 * rng.random(), 4) for _ in range(30)),
        validations=((25, 0.7, 1.1), (50, 0.8, 0.9)),
        best_step=50,
        truncated=0,
        seconds=60.0,
    )


def _key(task_file: str, data: Split, prompt: str) -> dict[str, str]:
    """The parts of a score's key, as long as real ones are."""
    return {
        "prompt": f"sha256:{_sha256(prompt.encode())}/20",
        "base": f"{BASE.weights}/{BASE.config}",
        "tokenizer": BASE.tokenizer,
        "task file": task_file,
        "data": data.fingerprint,
        "metric": "acc 1",
        "decoding": "greedy",
        "dtype": BASE.dtype,
        "device": "cpu",
        "library": "multiprompt==0.2.0, torch==2.13.0, transformers==5.24.0, tokenizers==0.23.1",
    }


def _results(rng: random.Random) -> bytes:
    results = {"predictions": rng.choices((0, 1), k=ROWS), "references": rng.choices((0, 1), k=ROWS)}
    return zlib.compress(json.dumps(results).encode())


def _snapshot(split: Split, sha256: str | None) -> dict[str, Any]:
    row = {"fingerprint": split.fingerprint, "split": split.name, "rows": len(split.rows)}
    return {**row, "sha256": sha256, "created_at": START}


def _event(at: datetime, kind: str, task: int, old: int | None = None, new: int | None = None) -> dict[str, Any]:
    moved = {"task_id": task, "from_version": old, "to_version": new}
    return {"at": at, "actor": ACTOR, "kind": kind, "reason": "nothing got worse", **moved}


def _check_result(check: int, version: int, evaluation: int, rng: random.Random) -> dict[str, Any]:
    worse = rng.random() < 0.002
    found = {"check_id": check, "version_id": version, "evaluation_id": evaluation, "baseline": 0.8, "max_drop": 0.01}
    verdict = {"verdict": "regressed", "cause": "library"} if worse else {"verdict": "unchanged", "cause": ""}
    return {**found, "score": 0.7 if worse else 0.8, **verdict}


def _update(connection: Connection, table: Table, columns: str, rows: list[dict[str, Any]]) -> None:
    """Set columns of the rows whose id is `key`."""
    values: dict[str, BindParameter[Any]] = {column: bindparam(column) for column in columns.split()}
    if rows:
        connection.execute(table.update().where(table.c.id == bindparam("key")).values(values), rows)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def measure(path: Path, size: Size, repeats: int, line_seconds: float) -> list[Figure]:
    """Print and give what each line takes, over a warm file cache."""
    catalog = Catalog.open(str(path))
    names = random.Random(1).sample(size.names, min(size.tasks, repeats + WARM_UP))
    figures = []
    print(f"{'':<66} {'p50 ms':>9} {'p95 ms':>9} {'n':>6} {'found':>6}")
    for line in itertools.chain(
        [Line("open", READ, lambda _: Catalog.open(str(path)), names)],
        listings(catalog),
        deep_pages(catalog, names, size),
        searches(catalog, names),
        histories(catalog, names),
        publishing(catalog, [name for name in names if not is_guarded(int(name[1:6]))]),
    ):
        figures.append(_measured(line, repeats, line_seconds))
        print(figures[-1], flush=True)
    return figures


def _measured(line: Line, repeats: int, line_seconds: float) -> Figure:
    taken: list[float] = []
    answer: Any = None
    for argument in itertools.islice(line.arguments, repeats + WARM_UP):
        started = time.perf_counter()
        answer = line.ask(argument)
        taken.append((time.perf_counter() - started) * 1e3)
        if sum(taken) > line_seconds * 1e3 and len(taken) >= MIN_REPEATS + WARM_UP:
            break
    counted = taken[WARM_UP:]
    found = len(answer) if isinstance(answer, list) else 1
    return Figure(line.what, line.target, statistics.median(counted), _p95(counted), len(counted), found)


def _p95(taken: Sequence[float]) -> float:
    return statistics.quantiles(taken, n=20, method="inclusive")[-1]


def listings(catalog: Catalog) -> Iterator[Line]:
    """First pages, in default order and in those that people ask for."""
    for what, listing, orders in (
        ("tasks", catalog.tasks.find, ("published_at desc",)),
        ("versions", catalog.versions.find, ("published_at desc", "created_at desc")),
        ("evaluations", catalog.evaluations.find, ("created_at desc", "score desc")),
        ("events", catalog.events.find, ("at desc",)),
    ):
        for query in ("", *(f"order by {order}" for order in orders)):
            yield Line(f"{what}({query!r}), first page", READ, _page(listing), itertools.repeat(query))


def deep_pages(catalog: Catalog, names: Sequence[str], size: Size) -> Iterator[Line]:
    """Pages from the middle of a listing: behind the middle one of the rows of a task, or one of two tasks."""
    pairs = [f"name in ('{one}', '{other}')" for one, other in itertools.pairwise(names)]
    tasks = [f"task = '{name}'" for name in names]
    half = size.versions // 2
    for what, listing, filters, middle, orders in (
        ("tasks", catalog.tasks.find, pairs, 1, ("", "order by published_at desc")),
        (
            "versions",
            catalog.versions.find,
            tasks,
            half,
            ("", "order by published_at desc", "order by created_at desc"),
        ),
        (
            "evaluations",
            catalog.evaluations.find,
            tasks,
            half * size.per_version,
            ("", "order by created_at desc", "order by score desc"),
        ),
        ("events", catalog.events.find, tasks, half, ("", "order by at desc")),
    ):
        for order in orders:
            places = _places(listing, filters, order, middle)
            yield Line(f"{what}({order!r}), deep page", READ, _page_after(listing, order), places)


def _places(listing: Callable[..., Any], filters: Iterable[str], order: str, limit: int) -> Iterator[str | None]:
    """Where each filter's first page ends, which is a place in the whole listing of that order too."""
    return (listing(f"{some} {order}", limit=limit).after for some in filters)


def searches(catalog: Catalog, names: Sequence[str]) -> Iterator[Line]:
    teams, kinds = itertools.cycle(TEAMS), itertools.cycle(KINDS)
    learned = [split.fingerprint for number in range(SHARED_DATA) for split in _shared_splits(number)]
    said = [_pseudo_word(number * 19) for number in range(len(names))]
    days = [END - timedelta(days=day) for day in range(1, len(names) + 1)]
    tasks, versions, evaluations = (
        _page(catalog.tasks.find),
        _page(catalog.versions.find),
        _page(catalog.evaluations.find),
    )
    for ask, what, queries in (
        (tasks, "tasks(score.acc > x and tag.team = y)", (f"score.acc > 0.9 and tag.team = '{t}'" for t in teams)),
        (tasks, "tasks(name like 't012%')", (f"name like '{name[:4]}%'" for name in names)),
        (tasks, "tasks(name like '%kind')", (f"name like '%{kind}'" for kind in kinds)),
        (tasks, "tasks(matches(word))", (f"matches('{word}')" for word in said)),
        (tasks, "tasks(descendant_of(t@1))", (f"descendant_of('{name}@1')" for name in names)),
        (tasks, "tasks(regressed_since(day))", (f"regressed_since('{day:%Y-%m-%d}')" for day in days)),
        (tasks, "tasks(learned_from(data))", (f"learned_from('{data}')" for data in learned)),
        (versions, "versions(task = t)", (f"task = '{name}'" for name in names)),
        (versions, "versions(state = 'candidate')", itertools.repeat("state = 'candidate'")),
        (versions, "versions(state and method)", itertools.cycle(_states_and_methods())),
        (versions, "versions(tag.team = y and score > 0.9)", (f"tag.team = '{t}' and score > 0.9" for t in teams)),
        (versions, "versions(score > 0.985), rare", itertools.repeat("score > 0.985")),
        (versions, "versions(descendant_of(t@1))", (f"descendant_of('{name}@1')" for name in names)),
        (versions, "versions(regressed_since(day))", (f"regressed_since('{day:%Y-%m-%d}')" for day in days)),
        (versions, "versions(learned_from(data))", (f"learned_from('{data}')" for data in learned)),
        (evaluations, "evaluations(task = t)", (f"task = '{name}'" for name in names)),
        (evaluations, "evaluations(kind = 'soft' and score < 0.5)", itertools.repeat("kind = 'soft' and score < 0.5")),
        (evaluations, "evaluations(score > 0.99), rare", itertools.repeat("score > 0.99")),
        (evaluations, "evaluations(score.acc > 0.99), rare", itertools.repeat("score.acc > 0.99")),
        (_page(catalog.events.find), "events(kind = 'rolled-back')", itertools.repeat("kind = 'rolled-back'")),
        (_page(catalog.events.find), "events(task = t)", (f"task = '{name}'" for name in names)),
    ):
        yield Line(what, READ, ask, queries)


def _states_and_methods() -> list[str]:
    return [
        f"state = '{state}' and method = '{method}'"
        for state in ("published", "retired", "rejected")
        for method in sorted(set(METHODS))
    ]


def histories(catalog: Catalog, names: Sequence[str]) -> Iterator[Line]:
    """One task with its versions, its lineage, and what there was at a time."""
    times = [START + (END - START) * (place / len(names)) for place in range(1, len(names) + 1)]
    asked = "score.acc > 0.9 and tag.team = 'nlp'"
    yield Line("task with all its versions", READ, catalog.versions.of, names)
    yield Line("lineage of a task", READ, catalog.lineage.of, names)
    yield Line("tasks(as_of), first page", READ, lambda at: catalog.tasks.find(as_of=at, limit=PAGE), times)
    yield Line(f"tasks({asked!r}, as_of)", READ, lambda at: catalog.tasks.find(asked, as_of=at, limit=PAGE), times)


def publishing(catalog: Catalog, names: Sequence[str]) -> Iterator[Line]:
    """Moves of pointers in the full catalog; each call is a transaction that reaches the disk."""
    yield Line("publish a candidate", PUBLISH, lambda made: _publish(catalog, made), _candidates(catalog, names))
    yield Line("roll back", PUBLISH, lambda name: _roll_back(catalog, name), names)


def _candidates(catalog: Catalog, names: Iterable[str]) -> Iterator[tuple[Candidate, int]]:
    """Retrained prompts, and the epoch that each is published in."""
    rng = random.Random()
    for index, name in enumerate(names):
        parent = catalog.versions.get(name)
        task = catalog.versions.task(parent)
        soft, hard = (_measured_score(task, kind, rng) for kind in ("soft", "hard"))
        data = catalog.evaluations.rows(parent)
        training = _shared_splits(index % SHARED_DATA)
        made = Candidate(
            task,
            BASE,
            _adapter(rng),
            "prompt-tuning",
            20,
            _run(rng, index % SHARED_DATA),
            (Parent("retrained-from", parent.label, parent),),
            hard,
            soft,
            data,
            training,
        )
        yield made, catalog.settings.epoch()


def _measured_score(task: Task, kind: Any, rng: random.Random) -> Evaluation:
    score, metric = round(rng.random(), 4), task.metrics[0].name
    key = _key(task.fingerprint, _test_split(task.name), f"{kind} {score}")
    predictions, references = (tuple(rng.choices((0, 1), k=ROWS)) for _ in range(2))
    return Evaluation(task.name, kind, metric, score, True, {metric: score}, key, predictions, references, 0, 1.0)


def _publish(catalog: Catalog, made: tuple[Candidate, int]) -> None:
    candidate, epoch = made
    check, at = CheckReport((), 0.0), datetime.now(UTC)
    catalog.signed_by(ACTOR, lambda: at).candidates.admit(
        candidate, check, decision="publish", reason="benchmark", epoch=epoch
    )


def _roll_back(catalog: Catalog, name: str) -> None:
    catalog.signed_by(ACTOR, lambda: datetime.now(UTC)).pointers.roll_back(name, None, "benchmark")


def _page(listing: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda query: listing(query, limit=PAGE)


def _page_after(listing: Callable[..., Any], query: str) -> Callable[[str], Any]:
    return lambda after: listing(query, after=after, limit=PAGE)


def compare_with_mlflow(path: Path, tasks: int, repeats: int) -> list[PeerFigure]:
    """The same questions to a catalog and to MLflow's registry of the same size, one after the other."""
    size = Size(tasks, PEER_VERSIONS, tasks * PEER_VERSIONS * 2)
    ours_path = path.with_name(f"{path.name}.{tasks}x{PEER_VERSIONS}")
    build(ours_path, size)
    registry = _Registry(path.with_name(f"{path.name}.{tasks}x{PEER_VERSIONS}.mlflow"), size)
    catalog = Catalog.open(str(ours_path))
    names = [name for name in random.Random(2).choices(size.names, k=2 * repeats) if not is_guarded(int(name[1:6]))]
    print(f"\n{'':<50} {'ours p50':>9} {'ours p95':>9} {'peer p50':>9} {'peer p95':>9} {'ratio':>7} {'n':>6}")
    figures = []
    for what, ours, peer in (
        ("open", lambda _: Catalog.open(str(ours_path)), lambda _: registry.open()),
        ("first page of 100", lambda _: catalog.tasks.find(limit=PAGE), lambda _: registry.search("")),
        (
            "search by tag, first page of 100",
            lambda name: catalog.tasks.find(f"tag.team = '{_team(name)}'", limit=PAGE),
            lambda name: registry.search(f"tags.team = '{_team(name)}'"),
        ),
        (
            "search by name, first page of 100",
            lambda name: catalog.tasks.find(f"name like '{name[:5]}%'", limit=PAGE),
            lambda name: registry.search(f"name LIKE '{name[:5]}%'"),
        ),
        (
            "one task with its versions",
            lambda name: (catalog.tasks.get(name), catalog.versions.of(name)),
            registry.versions,
        ),
        ("move what is published (roll back; set alias)", lambda name: _roll_back(catalog, name), registry.move_alias),
    ):
        figures.append(_compared(what, ours, peer, names[: repeats + WARM_UP]))
        print(figures[-1], flush=True)
    return figures


def _compared(what: str, ours: Callable[[str], Any], peer: Callable[[str], Any], names: Sequence[str]) -> PeerFigure:
    found = compare(
        what,
        [lambda name=name: _ignore(ours(name)) for name in names],  # type: ignore[misc]
        [lambda name=name: _ignore(peer(name)) for name in names],  # type: ignore[misc]
        warm_up=WARM_UP,
    )
    mine, theirs = ([seconds * 1e3 for seconds in side] for side in (found.ours, found.peer))
    ratio = statistics.median(found.ratios)
    medians = statistics.median(mine), _p95(mine), statistics.median(theirs), _p95(theirs)
    return PeerFigure(what, *medians, ratio, len(mine))


class _Registry:
    """MLflow's model registry on SQLite: a registered model a task, a run with a metric for each of its versions."""

    def __init__(self, path: Path, size: Size) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # type: ignore[import-not-found,unused-ignore]

        self._mlflow = mlflow
        self._moves = itertools.count()
        if not path.exists():
            part = path.with_name(path.name + ".part")
            part.unlink(missing_ok=True)
            self._build(self._connect(part), size)
            part.rename(path)
        self._uri = f"sqlite:///{path.resolve()}"
        self._client = self._connect(path)
        print(f"{path}: MLflow {mlflow.__version__}, {path.stat().st_size / 1e6:.0f} MB", flush=True)

    def _connect(self, path: Path) -> Any:
        uri = f"sqlite:///{path.resolve()}"
        return self._mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)

    def _build(self, client: Any, size: Size) -> None:
        started, rng = time.perf_counter(), random.Random(0)
        experiment = client.create_experiment("benchmark")
        for index, name in enumerate(size.names):
            client.create_registered_model(name, tags={"team": _team(name), "kind": KINDS[index % len(KINDS)]})
            for _ in range(size.versions):
                run = client.create_run(experiment).info.run_id
                client.log_metric(run, "acc", rng.random())
                client.create_model_version(name, f"runs:/{run}/model", run_id=run)
            client.set_registered_model_alias(name, "champion", str(size.versions))
            if index % 100 == 99:
                taken = time.perf_counter() - started
                print(f"  registered {index + 1} models with MLflow, {taken:.0f} s", file=sys.stderr, flush=True)

    def open(self) -> None:
        """As a new client does; MLflow keeps its engine for as long as the process lives."""
        from mlflow.store.model_registry.sqlalchemy_store import (  # type: ignore[import-not-found,unused-ignore]
            SqlAlchemyStore,
        )

        SqlAlchemyStore(self._uri)

    def search(self, query: str) -> None:
        self._client.search_registered_models(query, max_results=PAGE)

    def versions(self, name: str) -> None:
        self._client.get_registered_model(name)
        self._client.search_model_versions(f"name = '{name}'")

    def move_alias(self, name: str) -> None:
        self._client.set_registered_model_alias(name, "champion", str(next(self._moves) % PEER_VERSIONS + 1))


def _team(name: str) -> str:
    return TEAMS[int(name[1:6]) % len(TEAMS)]


def _ignore(_: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
