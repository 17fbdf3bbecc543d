"""The steps of a job. The catalog holds the results of a finished step before the next one begins.

A job that was killed goes on with the step that it was at, and a training with its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from multiprompt.context import Context
from multiprompt.engine.training import Training
from multiprompt.errors import TrainingError
from multiprompt.gate.admission import find_existing
from multiprompt.gate.check import Checking
from multiprompt.gate.published import check_published, evaluate_published
from multiprompt.gate.task_files import require_as_added
from multiprompt.jobs.kinds import STEPS
from multiprompt.learning.pipeline import (
    Hooks,
    Measured,
    Snapshot,
    Trained,
    end_as_existing,
    evaluate,
    publish,
    take_snapshot,
    train,
)
from multiprompt.records import Adapter, Claim, Evaluation, Run
from multiprompt.tasks.data import Split
from multiprompt.tasks.task import Task

# The name of the result that says that a step is finished.
_FINISHED = "finished"


@dataclass(frozen=True, eq=False)
class JobContext:
    """One attempt at a job: the context under its claim, and the results of its steps so far.

    `out_of_memory` counts the processes that died of it in this job, after which a training takes smaller batches.
    """

    context: Context
    claim: Claim
    kind: str
    task: str | None
    out_of_memory: int = 0
    on_kept: Callable[[], None] = lambda: None

    def results(self, step: str) -> dict[str, bytes]:
        return self.context.catalog.ledger.results(self.claim.job, step)

    @property
    def ended(self) -> bool:
        return self.context.catalog.ledger.outcome(self.claim.job) is not None

    def keep(self, step: str, **results: bytes) -> None:
        self.context.catalog.ledger.save_results(self.claim, step, results)
        self.on_kept()

    def log(self, *lines: str) -> None:
        for line in lines:
            self.context.notify(line)

    @cached_property
    def snapshot(self) -> Snapshot:
        return _read_snapshot(self.results("snapshot"), str(self.task))

    @cached_property
    def trained(self) -> Trained:
        kept = self.results("train")
        adapter = Adapter(kept["config"], kept["weights"], kept.get("encoder"))
        return Trained(adapter, Run(**_tuples(_unpack(kept["run"]))))


def run_job(job: JobContext, on_step: Callable[[str], None]) -> None:
    """Do the steps of a job that are not finished, until one ends it."""
    for step in STEPS[job.kind]:
        if _FINISHED not in job.results(step):
            on_step(step)
            _STEPS[step](job)
            if job.ended:
                return


def _snapshot(job: JobContext) -> None:
    task = require_as_added(job.context, str(job.task))
    before = job.context.catalog.versions.digests()
    snapshot = take_snapshot(job.context, task, before, retrain=job.kind == "retrain")
    job.log(*snapshot.notes)
    job.keep("snapshot", finished=b"", **_pack_snapshot(snapshot))


def _train(job: JobContext) -> None:
    trained = _train_in_memory(job)
    known = find_existing(job.context.catalog, job.snapshot.task, trained.adapter, job.snapshot.test)
    if known is not None:
        end_as_existing(job.context, job.snapshot, known)
        return
    assert trained.run is not None
    adapter = trained.adapter
    files = {"config": adapter.config, "weights": adapter.weights}
    if adapter.encoder is not None:
        files["encoder"] = adapter.encoder
    job.keep("train", finished=b"", run=_pack(asdict(trained.run)), **files)


def _evaluate(job: JobContext) -> None:
    measured = evaluate(job.context, job.snapshot, job.trained)
    job.keep("evaluate", finished=b"", soft=_pack(asdict(measured.soft)), hard=_pack(asdict(measured.hard)))


def _gate(job: JobContext) -> None:
    """Compare the other tasks; publishing reuses the results, runs canaries again, and checks newer versions."""
    Checking(job.context).check_others(str(job.task), {})
    job.keep("gate", finished=b"")


def _publish(job: JobContext) -> None:
    kept = job.results("evaluate")
    soft, hard = (Evaluation(**_tuples(_unpack(kept[kind]))) for kind in ("soft", "hard"))
    publish(job.context, job.snapshot, job.trained, Measured(soft, hard))


def _score(job: JobContext) -> None:
    evaluate_published(job.context, str(job.task))


def _check(job: JobContext) -> None:
    report = check_published(job.context)
    open_or_worse = [found for found in report.results if found.verdict in ("regressed", "failed", "inconclusive")]
    job.log(*(f"{found.version} {found.told}" for found in open_or_worse), *report.notes)


_STEPS: Mapping[str, Callable[[JobContext], None]] = {
    "snapshot": _snapshot,
    "train": _train,
    "evaluate": _evaluate,
    "gate": _gate,
    "publish": _publish,
    "score": _score,
    "check": _check,
}


def _train_in_memory(job: JobContext) -> Trained:
    """Train, in twice as many parts a batch each time that memory runs out."""
    parts = 2**job.out_of_memory
    while True:
        try:
            return _train_once(job, parts)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error) or parts >= job.snapshot.task.config.training.batch_size:
                raise
        parts *= 2
        job.log(f"memory ran out; each batch is run in {parts} parts")


def _train_once(job: JobContext, parts: int) -> Trained:
    began = False

    def on_step(training: Training) -> None:
        nonlocal began
        if not began and training.step > 1:
            job.log(f"training goes on from step {training.step - 1}")
        began = True
        job.context.progress("training", training.step, training.config.steps)

    (outcome,) = train(job.context, [job.snapshot], Hooks(on_step, job.on_kept, parts))
    if isinstance(outcome, TrainingError):
        raise outcome
    return outcome


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _pack_snapshot(snapshot: Snapshot) -> dict[str, bytes]:
    assert snapshot.training is not None
    splits = (*snapshot.training, snapshot.test)
    said = {
        "source": snapshot.task.source,
        "folder": str(snapshot.task.folder),
        "splits": [split.name for split in splits],
        "start": snapshot.start,
        "replaced": snapshot.replaced,
        "before": dict(snapshot.before),
    }
    return {"said": _pack(said), **{f"rows{number}": split.pack() for number, split in enumerate(splits)}}


def _read_snapshot(results: Mapping[str, bytes], name: str) -> Snapshot:
    said = _unpack(results["said"])
    task = Task.from_source(said["source"], Path(said["folder"]), where=name)
    training, validation, test = (
        Split.unpack(split, results[f"rows{number}"]) for number, split in enumerate(said["splits"])
    )
    replaced = said.get("replaced", said["start"])  # earlier releases did not keep it
    return Snapshot(task, test, (training, validation), said["before"], said["start"], replaced)


def _pack(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _unpack(packed: bytes) -> Any:
    return json.loads(packed)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists alone; the records hold tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
