"""What the scheduler itself costs: of a job, of an idle worker, and of listing many jobs.

    python -m benchmarks.jobs [--postgresql] [--queued 10000]

Jobs do nothing here but end, so that all of their time is the scheduler's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import uuid4

from multiprompt.catalog.catalog import Catalog
from multiprompt.config import DEFAULT_PRIORITY
from multiprompt.jobs.queue import JobQueue
from multiprompt.jobs.runner import run_jobs
from multiprompt.records import Claim, Outcome, WorkerRecord
from tests.catalog.databases import new_database

JOBS, IDLE_SECONDS, REPEATS = 100, 20.0, 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", action="store_true", help="on a server from a wheel")
    parser.add_argument("--queued", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = new_database() if arguments.postgresql else str(Path(folder) / "catalog.db")
        catalog = Catalog.open(url, create=True)
        run(catalog, JobQueue(catalog), arguments.queued)
        catalog.close()
    return 0


def run(catalog: Catalog, queue: JobQueue, queued: int) -> None:
    stop = threading.Event()
    now = datetime.now(UTC)
    worker = WorkerRecord(uuid4().hex, "worker", "here", 0, 1, 0, now, now)

    def do(claim: Claim, kind: str, task: str | None) -> None:
        catalog.ledger.finish(claim, Outcome(True, f"{kind} of {task}"), datetime.now(UTC))

    thread = threading.Thread(target=run_jobs, args=(queue, worker, do, stop))
    thread.start()
    time.sleep(3)
    began, used = time.monotonic(), time.process_time()
    time.sleep(IDLE_SECONDS)
    print(f"an idle worker: {(time.process_time() - used) / (time.monotonic() - began):.2%} of a processor")
    submitted = [
        timed(lambda number=number: queue.submit("learn", f"a{number}", DEFAULT_PRIORITY)) for number in range(JOBS)
    ]
    began = time.monotonic()
    while queue("state in ('queued', 'running')", limit=1):
        time.sleep(0.05)
    each = (sum(submitted) + time.monotonic() - began) / JOBS
    submitting = statistics.median(submitted)
    print(f"a job: {each * 1000:.0f} ms (mean of {JOBS}), of which {submitting * 1000:.1f} ms to submit it")
    stop.set()
    thread.join()
    for number in range(queued):
        queue.submit("learn", f"b{number}", DEFAULT_PRIORITY)
    pages = (("all", "", None), ("the first page", "", 100), ("a filtered page", "task = 'b77'", 100))
    for what, query, limit in pages:
        taken = [timed(partial(queue, query, limit=limit)) * 1000 for _ in range(REPEATS)]
        print(f"{what} of {queued + JOBS} jobs: {statistics.median(taken):.0f} ms (at most {max(taken):.0f})")


def timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
