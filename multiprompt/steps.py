"""What a job does, step by step. What a step came to lies in the catalog before the next begins, so that a job that was
killed goes on with the step that it was at, and a training with its last checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from multiprompt.admission import (
    Admission,
    admit,
    candidate,
    end_known,
    existing,
    measure,
    parents,
    require_untouched,
)
from multiprompt.continual.data_faults import data_faults
from multiprompt.engine.adapter import from_adapter, to_adapter
from multiprompt.engine.learning import Learned, Lesson, learn_prompts
from multiprompt.engine.training import Training
from multiprompt.errors import IntegrityError
from multiprompt.jobs.kinds import STEPS
from multiprompt.records import Adapter, Claim, Evaluation, Run
from multiprompt.tasks.split import Split, TaskData, load_data
from multiprompt.tasks.task import Task
from multiprompt.workspace import Workspace

# In the results of a step: that it is finished.
_FINISHED = "finished"


@dataclass(frozen=True, eq=False)
class Desk:
    """One attempt at a job: the workspace under its claim, and what its steps came to so far.

    `out_of_memory` counts the processes that died of it in this job, after which a training takes smaller batches.
    """

    workspace: Workspace
    claim: Claim
    kind: str
    task: str | None
    out_of_memory: int
    actor: str
    clock: Callable[[], datetime]
    on_kept: Callable[[], None] = lambda: None

    def results(self, step: str) -> dict[str, bytes]:
        return self.workspace.catalog.ledger.results(self.claim.job, step)

    @property
    def ended(self) -> bool:
        return self.workspace.catalog.ledger.outcome(self.claim.job) is not None

    def keep(self, step: str, **results: bytes) -> None:
        self.workspace.catalog.ledger.save_results(self.claim, step, results)
        self.on_kept()

    def log(self, *lines: str) -> None:
        for line in lines:
            self.workspace.catalog.ledger.log(self.claim, line, self.clock())

    @cached_property
    def snapshot(self) -> Snapshot:
        return Snapshot.unpack(self.results("snapshot"), str(self.task))


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a job learns from, as it was when the job began: task file, rows, and what was published."""

    task: Task
    data: TaskData
    start: str | None
    replaced: str | None
    before: Mapping[str, str]

    def pack(self) -> dict[str, bytes]:
        splits = (self.data.training, self.data.validation, self.data.test)
        said = {
            "source": self.task.source,
            "folder": str(self.task.folder),
            "splits": [split.name for split in splits],
            "start": self.start,
            "replaced": self.replaced,
            "before": dict(self.before),
        }
        return {"said": _pack(said), **{f"rows{number}": split.pack() for number, split in enumerate(splits)}}

    @classmethod
    def unpack(cls, results: Mapping[str, bytes], name: str) -> Snapshot:
        said = _unpack(results["said"])
        task = Task.from_source(said["source"], Path(said["folder"]), where=name)
        splits = [Split.unpack(split, results[f"rows{number}"]) for number, split in enumerate(said["splits"])]
        replaced = said.get("replaced", said["start"])  # releases before did not keep it
        return cls(task, TaskData(*splits), said["start"], replaced, said["before"])


def run_job(desk: Desk, on_step: Callable[[str], None]) -> None:
    """Do the steps of a job that are not finished, until one ends it."""
    for step in STEPS[desk.kind]:
        if _FINISHED not in desk.results(step):
            on_step(step)
            _STEPS[step](desk)
            if desk.ended:
                return


def _snapshot(desk: Desk) -> None:
    workspace = desk.workspace
    before = workspace.catalog.digests()
    task = workspace.task_as_on_disk(str(desk.task))
    start, afresh = workspace.start(task, retrain=desk.kind == "retrain")
    replaced = workspace.published(task.name)
    data = load_data(task)
    desk.log(*([afresh] if afresh else []), *data_faults(task, data))
    first, last = (None if version is None else version.label for version in (start, replaced))
    snapshot = Snapshot(task, data, start=first, replaced=last, before=before)
    desk.keep("snapshot", finished=b"", **snapshot.pack())


def _train(desk: Desk) -> None:
    workspace, snapshot = desk.workspace, desk.snapshot
    start = None if snapshot.start is None else workspace.prompt(workspace.version(snapshot.start), to_train=True)
    outcome = _learn_in_memory(desk, Lesson(snapshot.task, snapshot.data, start, parts=2**desk.out_of_memory))
    adapter = to_adapter(outcome.prompt)
    known = existing(workspace.catalog, snapshot.task, adapter, snapshot.data.test)
    if known is not None:
        require_untouched(workspace.measuring(), snapshot.before)
        end_known(workspace.catalog, known, False, desk.actor, desk.clock())
        return
    files = {"config": adapter.config, "weights": adapter.weights}
    if adapter.encoder is not None:
        files["encoder"] = adapter.encoder
    desk.keep("train", finished=b"", run=_pack(asdict(outcome.run)), **files)


def _evaluate(desk: Desk) -> None:
    soft, hard = measure(desk.workspace.measuring(), _admission(desk))
    desk.keep("evaluate", finished=b"", soft=_pack(asdict(soft)), hard=_pack(asdict(hard)))


def _gate(desk: Desk) -> None:
    """What is compared here is kept in the catalog; publishing runs canaries again, and what came since."""
    desk.workspace.checking().others(str(desk.task), {})
    desk.keep("gate", finished=b"")


def _publish(desk: Desk) -> None:
    measuring, measured = desk.workspace.measuring(), desk.results("evaluate")
    require_untouched(measuring, desk.snapshot.before)
    soft, hard = (_evaluation(_unpack(measured[kind])) for kind in ("soft", "hard"))
    asking = candidate(measuring, _admission(desk), soft, hard)
    admit(measuring, desk.workspace.checking(), asking, desk.actor, desk.clock)


def _score(desk: Desk) -> None:
    desk.workspace.evaluate(str(desk.task))


def _check(desk: Desk) -> None:
    report = desk.workspace.check()
    open_or_worse = [found for found in report.results if found.verdict in ("regressed", "failed", "inconclusive")]
    desk.log(*(f"{found.version} {found.told}" for found in open_or_worse), *report.notes)


_STEPS: Mapping[str, Callable[[Desk], None]] = {
    "snapshot": _snapshot,
    "train": _train,
    "evaluate": _evaluate,
    "gate": _gate,
    "publish": _publish,
    "score": _score,
    "check": _check,
}


def _learn_in_memory(desk: Desk, lesson: Lesson) -> Learned:
    """Train, in twice as many parts a batch each time that memory runs out."""
    while True:
        try:
            return _learn(desk, lesson)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or lesson.parts >= lesson.task.config.training.batch_size:
                raise
        lesson = replace(lesson, parts=2 * lesson.parts)
        desk.log(f"memory ran out; each batch is run in {lesson.parts} parts")


def _learn(desk: Desk, lesson: Lesson) -> Learned:
    workspace, catalog = desk.workspace, desk.workspace.catalog

    def find(name: str, key: str) -> bytes | None:
        try:
            return catalog.checkpoint(name, key)
        except IntegrityError as error:
            desk.log(f"{error}; the training starts from its beginning")
            return None

    def keep(name: str, key: str, checkpoint: bytes) -> None:
        catalog.save_checkpoint(name, key, checkpoint, desk.actor, desk.clock())
        desk.on_kept()

    began = False

    def on_step(training: Training) -> None:
        nonlocal began
        if not began and training.step > 1:
            desk.log(f"training goes on from step {training.step - 1}")
        began = True
        workspace.progress("training", training.step, training.config.steps)

    outcome = learn_prompts(
        workspace.base_model(),
        [lesson],
        on_step,
        find,
        keep,
    )[0]
    if isinstance(outcome, Learned):
        return outcome
    raise outcome


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _admission(desk: Desk) -> Admission:
    workspace, snapshot, trained = desk.workspace, desk.snapshot, desk.results("train")
    adapter = Adapter(trained["config"], trained["weights"], trained.get("encoder"))
    prompt = from_adapter(workspace.base_model(), adapter, str(desk.task))
    start, replaced = (
        None if label is None else workspace.version(label) for label in (snapshot.start, snapshot.replaced)
    )
    data = snapshot.data
    return Admission(
        snapshot.task,
        prompt,
        adapter,
        Run(**_tuples(_unpack(trained["run"]))),
        parents(replaced, start),
        data.test,
        (data.training, data.validation),
    )


def _evaluation(said: Mapping[str, Any]) -> Evaluation:
    return Evaluation(**_tuples(said))


def _pack(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _unpack(packed: bytes) -> Any:
    return json.loads(packed)


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists alone; the records hold tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
