"""Many processes publish and roll back in one catalog at once; afterwards the events must replay to what is published.

    python -m benchmarks.contention [--seconds 60] [--processes 8] [--catalog URL] [--json FILE]

Without --catalog a new SQLite file is made. Exit 1 when an update was lost, a move was no event, a task had two
published versions at any time, or a process met an error other than a refused move.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from multiprompt.catalog.candidates import Candidate
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConflictError, MultipromptError, StateError
from multiprompt.records import Adapter, BaseModelRecord, CheckReport, Evaluation
from multiprompt.tasks.data import Split
from multiprompt.tasks.task import Task

TASKS = 5
BASE = BaseModelRecord("contended", "contended", "main", "Llama", "float32", "sha256:" + "a" * 64, "sha256:b", "c")


@dataclass(frozen=True)
class Outcome:
    """What all processes did together, and what is wrong with the catalog afterwards."""

    seconds: float
    published: int
    rolled_back: int
    conflicts: int
    refused: int
    looks: int
    problems: tuple[str, ...]


def contend(url: str, seconds: float, processes: int) -> Outcome:
    """Let processes move pointers in a catalog for some time, watched by this one."""
    catalog = Catalog.open(url, create=True).signed_by("contention", lambda: datetime.now(UTC))
    catalog.base_models.bind(BASE)
    for number in range(TASKS):
        catalog.tasks.add(small_task(f"task{number}"))
    command = [sys.executable, "-m", "benchmarks.contention", "--catalog", url, "--seconds", str(seconds)]
    started = time.monotonic()
    movers = [
        subprocess.Popen([*command, "--mover", str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(processes)
    ]
    looks, problems = 0, []
    while any(mover.poll() is None for mover in movers):
        found = [version.task for version in catalog.versions.published()[1]]
        looks += 1
        if len(set(found)) < len(found):
            problems.append(f"a task had two published versions: {found}")
    counts: Counter[str] = Counter()
    for mover in movers:
        output, errors = mover.communicate()
        if mover.returncode != 0:
            problems.append(f"a process failed: {errors.strip().splitlines()[-1] if errors else mover.returncode}")
        else:
            counts += Counter(json.loads(output))
    problems += _wrong(catalog, counts)
    catalog.close()
    return Outcome(
        time.monotonic() - started,
        counts["published"],
        counts["rolled-back"],
        counts["conflict"],
        counts["refused"],
        looks,
        tuple(problems),
    )


def _wrong(catalog: Catalog, counts: Counter[str]) -> list[str]:
    """What the events, the pointers and the counts of the processes disagree on."""
    epoch, published = catalog.versions.published()
    moves = catalog.events.find("kind in ('published', 'rolled-back')")
    current: dict[str | None, int | None] = {}
    problems = [f"{problem.where}: {problem.what}" for problem in catalog.verify()]
    for event in moves:
        if current.get(event.task) != event.from_version:
            problems.append(f"event {event.id} moves {event.task} from {event.from_version}, not {current[event.task]}")
        current[event.task] = event.to_version
    if current != {version.task: version.number for version in published}:
        problems.append("the events do not replay to what is published")
    if not len(moves) == epoch == counts["published"] + counts["rolled-back"]:
        problems.append(f"{len(moves)} events and epoch {epoch} for {counts} moves")
    return problems


def move(url: str, seconds: float, number: int) -> Counter[str]:
    """Publish and roll back at random until time is up."""
    catalog = Catalog.open(url)
    rng = random.Random(number)
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        task = small_task(f"task{rng.randrange(TASKS)}")
        try:
            if rng.random() < 0.5:
                epoch = catalog.settings.epoch()
                candidate = _candidate(task, f"{number} {sum(counts.values())}")
                catalog.signed_by(f"mover {number}", lambda: datetime.now(UTC)).candidates.admit(
                    candidate, CheckReport((), 0.0), decision="publish", reason="contention", epoch=epoch
                )
                counts["published"] += 1
            else:
                catalog.signed_by(f"mover {number}", lambda: datetime.now(UTC)).pointers.roll_back(
                    task.name, None, "contention"
                )
                counts["rolled-back"] += 1
        except ConflictError:
            counts["conflict"] += 1
        except StateError:
            counts["refused"] += 1
    catalog.close()
    return counts


def small_task(name: str) -> Task:
    """A multiple-choice task that no data stands behind."""
    return Task.from_mapping(
        {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "test.jsonl"}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}\nAnswer:",
            "doc_to_target": "label",
            "doc_to_choice": ["yes", "no"],
            "metric_list": [{"metric": "acc"}],
        }
    )


def _candidate(task: Task, weights: str) -> Candidate:
    soft, hard = (
        Evaluation(task.name, kind, "acc", 1.0, True, {"acc": 1.0}, {"prompt": f"{kind} {weights}"}, (0,), (0,), 0, 0.0)
        for kind in ("soft", "hard")
    )
    rows = Split("test", ({"text": "a", "label": "yes"},))
    adapter = Adapter(b"{}", weights.encode())
    return Candidate(task, BASE, adapter, "prompt-tuning", 4, None, (), hard, soft, rows, None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--catalog", metavar="URL")
    parser.add_argument("--mover", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    if options.mover is not None:
        try:
            print(json.dumps(move(options.catalog, options.seconds, options.mover)))
        except MultipromptError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    with tempfile.TemporaryDirectory() as folder:
        outcome = contend(options.catalog or f"{folder}/catalog.db", options.seconds, options.processes)
    print(
        f"{options.processes} processes, {outcome.seconds:.0f} s: {outcome.published} published, "
        f"{outcome.rolled_back} rolled back, {outcome.conflicts} conflicts, {outcome.refused} refused for want of a "
        f"retired version; {outcome.looks} looks by a reader; {len(outcome.problems)} problems"
    )
    for problem in outcome.problems:
        print(f"  {problem}")
    if options.json:
        options.json.write_text(json.dumps(asdict(outcome), indent=2), encoding="utf-8")
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
