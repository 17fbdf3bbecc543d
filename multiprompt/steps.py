"""What a job does, step by step. What a step came to lies in the catalog before the next begins, so that a job that was
killed goes on with the step that it was at, and a training with its last checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from multiprompt.admission import Admission, admit, candidate, measure, parents, untouched
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

    def keep(self, step: str, **results: bytes) -> None:
        self.workspace.catalog.ledger.save_results(self.claim, step, results)
        self.on_kept()

    def log(self, lines: Sequence[str]) -> None:
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
    before: Mapping[str, str]

    def pack(self) -> dict[str, bytes]:
        splits = (self.data.training, self.data.validation, self.data.test)
        said = {
            "source": self.task.source,
            "folder": str(self.task.folder),
            "splits": [split.name for split in splits],
            "start": self.start,
            "before": dict(self.before),
        }
        return {"said": _pack(said), **{f"rows{number}": split.pack() for number, split in enumerate(splits)}}

    @classmethod
    def unpack(cls, results: Mapping[str, bytes], name: str) -> Snapshot:
        said = _unpack(results["said"])
        task = Task.from_source(said["source"], Path(said["folder"]), where=name)
        splits = [Split.unpack(split, results[f"rows{number}"]) for number, split in enumerate(said["splits"])]
        return cls(task, TaskData(*splits), said["start"], said["before"])


def run_job(desk: Desk, on_step: Callable[[str], None]) -> None:
    """Do the steps of a job that are not finished."""
    for step in STEPS[desk.kind]:
        if _FINISHED not in desk.results(step):
            on_step(step)
            _STEPS[step](desk)


def _snapshot(desk: Desk) -> None:
    workspace = desk.workspace
    task = workspace.task_as_on_disk(str(desk.task))
    data = load_data(task)
    desk.log(data_faults(task, data))
    snapshot = Snapshot(task, data, _start(desk, task), workspace.catalog.digests())
    desk.keep("snapshot", finished=b"", **snapshot.pack())


def _train(desk: Desk) -> None:
    workspace, snapshot = desk.workspace, desk.snapshot
    start = None if snapshot.start is None else workspace.prompt(workspace.version(snapshot.start), to_train=True)
    share = 2**desk.out_of_memory
    while True:
        try:
            outcome = _learn(desk, Lesson(_in_shares(snapshot.task, share), snapshot.data, start))
            break
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or share >= snapshot.task.config.training.batch_size:
                raise
        share *= 2
    adapter = to_adapter(outcome.prompt)
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
    if not untouched(measuring, desk.snapshot.before):
        raise IntegrityError("a version that was published when the job began has other bytes now; run verify.")
    soft, hard = (_evaluation(_unpack(measured[kind])) for kind in ("soft", "hard"))
    asking = candidate(measuring, _admission(desk), soft, hard)
    admit(measuring, desk.workspace.checking(), asking, desk.actor, desk.clock)


def _score(desk: Desk) -> None:
    desk.workspace.evaluate(str(desk.task))


def _check(desk: Desk) -> None:
    desk.log(desk.workspace.check().notes)


_STEPS: Mapping[str, Callable[[Desk], None]] = {
    "snapshot": _snapshot,
    "train": _train,
    "evaluate": _evaluate,
    "gate": _gate,
    "publish": _publish,
    "score": _score,
    "check": _check,
}


def _start(desk: Desk, task: Task) -> str | None:
    """What a prompt starts from: the published version where it is retrained in that shape, else what its file says."""
    published = desk.workspace.catalog.task(task.name).published
    if desk.kind == "retrain" and published is not None:
        version = desk.workspace.catalog.version(task.name, published)
        prompt = task.config.prompt
        if (version.method, version.num_virtual_tokens) == (prompt.method, prompt.num_virtual_tokens):
            return version.label
    return task.config.prompt.init_version


def _learn(desk: Desk, lesson: Lesson) -> Learned:
    workspace, catalog = desk.workspace, desk.workspace.catalog

    def keep(name: str, key: str, checkpoint: bytes) -> None:
        catalog.save_checkpoint(name, key, checkpoint, desk.actor, desk.clock())
        desk.on_kept()

    began = False

    def on_step(training: Training) -> None:
        nonlocal began
        if not began and training.step > 1:
            catalog.ledger.log(desk.claim, f"training goes on from step {training.step - 1}", desk.clock())
        began = True
        workspace.progress("training", training.step, training.config.steps)

    outcome = learn_prompts(
        workspace.base_model(),
        [lesson],
        on_step,
        catalog.checkpoint,
        keep,
    )[0]
    if isinstance(outcome, Learned):
        return outcome
    raise outcome


def _in_shares(task: Task, share: int) -> Task:
    """The same training in batches of a part of their size, with as many more of them to a step."""
    training = task.config.training
    smaller = replace(
        training,
        batch_size=max(1, training.batch_size // share),
        gradient_accumulation_steps=training.gradient_accumulation_steps * min(share, training.batch_size),
    )
    return replace(task, config=replace(task.config, training=smaller))


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _admission(desk: Desk) -> Admission:
    workspace, snapshot, trained = desk.workspace, desk.snapshot, desk.results("train")
    adapter = Adapter(trained["config"], trained["weights"], trained.get("encoder"))
    prompt = from_adapter(workspace.base_model(), adapter, str(desk.task))
    start = None if snapshot.start is None else workspace.version(snapshot.start)
    data = snapshot.data
    return Admission(
        snapshot.task,
        prompt,
        adapter,
        Run(**_tuples(_unpack(trained["run"]))),
        parents(workspace.catalog, str(desk.task), start),
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
