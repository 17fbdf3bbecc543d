"""Workers that are killed again and again: every job ends once, and no prompt is ever half published.

    python -m benchmarks.chaos --kills 100 --jobs 60 [--postgresql] [--seed N]

Two workers of one name do jobs on a tiny random model, each in a folder of its own, on SQLite or on PostgreSQL. At
random moments one of them, or the child that trains for it, gets SIGKILL, or SIGSTOP for longer than its lease; what
died is started anew. A reader polls all the while. Exit status 1 when anything is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import yaml

import multiprompt as mp
from multiprompt.catalog.artifacts import digest
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import MultipromptError
from multiprompt.jobs.queue import JobQueue
from multiprompt.records import Job
from tests.catalog.databases import new_database
from tests.conftest import task_mapping, write_tiny_model

LEASE = 3.0
STEPS, CHECKPOINT = 800, 20


@dataclass
class Seen:
    """What the reader saw: how often it looked, what was wrong, and how far trainings were, by job and attempt."""

    looks: int = 0
    problems: list[str] = field(default_factory=list)
    reached: dict[tuple[str, int], int] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgresql", action="store_true", help="on a server from a wheel")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), arguments)


def run(folder: Path, arguments: argparse.Namespace) -> int:
    rng = random.Random(arguments.seed)
    url = new_database() if arguments.postgresql else str(folder / "catalog.db")
    workspace = mp.open(url, str(write_tiny_model(folder / "tiny")), dtype="float32")
    workspace.base_model()
    jobs = [submit(workspace, folder, number) for number in range(arguments.jobs)]
    seen, over = Seen(), threading.Event()
    reader = threading.Thread(target=read, args=(url, seen, over))
    reader.start()
    began = time.monotonic()
    workers = [start(folder, url, number) for number in range(arguments.workers)]
    done: Counter[str] = Counter()
    while sum(done.values()) < arguments.kills:
        time.sleep(rng.uniform(1.0, 8.0))
        number = rng.randrange(len(workers))
        done[hurt(rng, workers, number)] += 1
        workers[number] = workers[number] if workers[number].poll() is None else start(folder, url, number)
        if sum(done.values()) < arguments.kills and rng.random() < 0.5:
            submit_again(workspace, rng, arguments.jobs, jobs)
    while workspace.jobs("state in ('queued', 'running')", limit=1):
        for number, worker in enumerate(workers):
            if worker.poll() is not None:
                workers[number] = start(folder, url, number)
        time.sleep(0.5)
    seconds = time.monotonic() - began
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(60)
    over.set()
    reader.join()
    return report(workspace, jobs, seen, done, seconds)


def submit(workspace: mp.Workspace, folder: Path, number: int) -> Job:
    """A new task with data and settings of its own, and the job that learns it."""
    name = f"task{number}"
    place = folder / "tasks" / name
    place.mkdir(parents=True)
    rng = random.Random(name)
    for split, rows in (("train", 40), ("validation", 8), ("test", 12)):
        lines = [
            json.dumps({"text": f"{rng.choice(('sky', 'sea', 'rose'))} {row}", "label": ("red", "green")[row % 2]})
            for row in range(rows)
        ]
        (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    training = {"steps": STEPS, "batch_size": 8, "validate_every": CHECKPOINT, "patience": 1000}
    settings = {"num_virtual_tokens": 4, "training": training, "regression": {"max_drop": 1.0, "floor": "none"}}
    file = place / "task.yaml"
    file.write_text(yaml.safe_dump(task_mapping(name) | {"multiprompt": settings}), encoding="utf-8")
    workspace.add_task(file)
    return workspace.submit(name)


def submit_again(workspace: mp.Workspace, rng: random.Random, tasks: int, jobs: list[Job]) -> None:
    """A second submit of a task, which is the job that it has, or a new one."""
    job = workspace.submit(f"task{rng.randrange(tasks)}")
    if job.id not in {known.id for known in jobs}:
        jobs.append(job)


def start(folder: Path, url: str, number: int) -> subprocess.Popen[bytes]:
    place = folder / f"host{number}"
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "multiprompt", "worker", "--catalog", url, "--name", "twin", "--lease", str(LEASE)]
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    with (place / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=place, stderr=log, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        )


def hurt(rng: random.Random, workers: list[subprocess.Popen[bytes]], number: int) -> str:
    worker = workers[number]
    children = child_pids(worker.pid)
    what = rng.choices(("worker killed", "child killed", "worker stopped"), (6, 3, 1))[0]
    if what == "child killed" and children:
        os.kill(rng.choice(children), signal.SIGKILL)
        return what
    if what == "worker stopped":
        worker.send_signal(signal.SIGSTOP)
        time.sleep(2 * LEASE)
        worker.send_signal(signal.SIGCONT)
        return what
    worker.kill()
    worker.wait()
    return "worker killed"


def child_pids(parent: int) -> list[int]:
    try:
        found = [(thread / "children").read_text(encoding="ascii") for thread in Path(f"/proc/{parent}/task").iterdir()]
    except OSError:
        return []
    return [int(pid) for pid in " ".join(found).split()]


def read(url: str, seen: Seen, over: threading.Event) -> None:
    """Look at everything published as somebody would who answers requests with it."""
    catalog = Catalog.open(url)
    queue = JobQueue(catalog)
    while not over.wait(0.05):
        try:
            _, published = catalog.versions.published()
            if len({version.task for version in published}) < len(published):
                seen.problems.append("two versions of a task are published")
            for version in published:
                if version.score is None or digest(catalog.versions.adapter(version)) != version.digest:
                    seen.problems.append(f"{version.label} is half published")
            for job in queue("state = 'running'"):
                if job.progress is not None and job.progress.step == "training":
                    attempt = (job.id, job.progress.attempt)
                    seen.reached[attempt] = max(seen.reached.get(attempt, 0), job.progress.done)
            seen.looks += 1
        except MultipromptError as error:
            seen.problems.append(f"the reader met: {error}")
    catalog.close()


def report(workspace: mp.Workspace, jobs: list[Job], seen: Seen, done: Counter[str], seconds: float) -> int:
    ended = {job.id: job for job in workspace.jobs()}
    states = Counter(ended[job.id].state for job in jobs)
    problems = [*dict.fromkeys(seen.problems)]
    problems += [f"{job.id} is unknown" for job in jobs if job.id not in ended]
    problems += [f"{job.id} {job.state}: {job.outcome}" for job in ended.values() if job.state != "done"]
    made = Counter(version.task for version in workspace.versions())
    wanted = Counter(job.task for job in ended.values())
    problems += [f"{task}: {made[task]} versions, {wanted[task]} jobs" for task in wanted if made[task] != wanted[task]]
    problems += [f"{problem.where}: {problem.what}" for problem in workspace.verify()]
    attempts, repeated = repeats(workspace, jobs, seen)
    problems += [f"a training repeated {steps} steps" for steps in repeated if steps > CHECKPOINT]
    print(f"{', '.join(f'{count} {what}' for what, count in sorted(done.items()))} in {seconds:.0f} s")
    print(f"{len(jobs)} jobs: {', '.join(f'{count} {state}' for state, count in states.items())}; {attempts} attempts")
    print(f"{sum(made.values())} versions; {seen.looks} looks of the reader")
    print(
        f"{len(repeated)} trainings begun again: at most {max(repeated, default=0)} steps of {STEPS} repeated, as far "
        f"as the reader saw ({CHECKPOINT} between checkpoints)"
    )
    print(f"{len(problems)} problems")
    for problem in problems[:20]:
        print(f"  {problem}")
    return 1 if problems else 0


def repeats(workspace: mp.Workspace, jobs: list[Job], seen: Seen) -> tuple[int, list[int]]:
    """How many attempts there were, and the steps that each training repeated of the attempt before."""
    attempts, repeated = 0, []
    for job in jobs:
        attempt, went_on = 0, dict[int, int]()
        for line in workspace.jobs.logs(job.id):
            attempts += line.message.startswith("attempt")
            if line.message.startswith("attempt "):
                attempt = int(line.message.split()[1])
            if line.message.startswith("training goes on from step "):
                went_on[attempt] = int(line.message.split()[-1])
        trained = [number for number in range(1, attempt + 1) if (job.id, number) in seen.reached]
        for before, after in pairwise(trained):
            repeated.append(max(0, seen.reached[job.id, before] - went_on.get(after, 0)))
    return attempts, repeated


if __name__ == "__main__":
    sys.exit(main())
