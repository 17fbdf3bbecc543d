"""Candidates: a new prompt with its evidence, and its admission as a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection

from multiprompt.catalog import schema as s
from multiprompt.catalog.artifacts import digest, store_artifacts
from multiprompt.catalog.base_models import base_model_id
from multiprompt.catalog.checkpoints import drop_checkpoint
from multiprompt.catalog.checks import insert_check
from multiprompt.catalog.evaluations import evaluation_with_key, insert_evaluation, key_digest
from multiprompt.catalog.events import BELOW_FLOOR, append_event
from multiprompt.catalog.lineage import Parent, insert_edges
from multiprompt.catalog.pointers import point_at, read_standing, set_version
from multiprompt.catalog.runs import insert_run
from multiprompt.catalog.settings import epoch as read_epoch
from multiprompt.catalog.snapshots import store_snapshots
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.catalog.tasks import task_file_id, task_id
from multiprompt.catalog.versions import version_by_id
from multiprompt.errors import ConflictError
from multiprompt.records import Adapter, BaseModelRecord, CheckReport, Evaluation, Run, VersionRecord, VersionState
from multiprompt.tasks.canaries import canaries

if TYPE_CHECKING:
    from multiprompt.tasks.data import Split
    from multiprompt.tasks.task import Task

# A candidate that is kept or held stays one until somebody publishes it by force: a trial, or one that did not learn.
Decision = Literal["publish", "keep", "hold", "reject"]
# The outcome of a job by its decision and the state of its version.
_ENDED = {
    ("publish", "published"): "published",
    ("publish", "candidate"): "held, as its task is guarded",
    ("keep", "candidate"): "stays a candidate",
    ("hold", "candidate"): "stays a candidate",
    ("reject", "rejected"): "rejected",
}


@dataclass(frozen=True)
class Candidate:
    """All that becomes a prompt version: the adapter, its training and its scores."""

    task: Task
    base_model: BaseModelRecord
    adapter: Adapter
    method: str
    num_virtual_tokens: int
    run: Run | None
    parents: tuple[Parent, ...]
    hard: Evaluation
    soft: Evaluation
    data: Split
    training_data: tuple[Split, Split] | None
    job: str | None = None


class Candidates(Noun):
    def admit(
        self, candidate: Candidate, check: CheckReport, *, decision: Decision, reason: str, epoch: int
    ) -> VersionRecord:
        """Store a candidate with its evidence and its check, publish, hold or reject it, and end its job.

        All of it is one transaction. Raises ConflictError, with nothing written, when a pointer moved since `epoch`.
        """
        with self._store.write() as (connection, stamp):
            found = read_epoch(connection)
            if found != epoch:
                raise ConflictError(
                    f"{candidate.task.name}: another prompt was published meanwhile (epoch {found}, expected {epoch})."
                )
            version = _admit(connection, candidate, decision, reason, stamp)
            insert_check(connection, check, version.id, stamp)
            ended = f"{version.label} {_ENDED[decision, version.state]}: {reason}"
            self._store.end_job(connection, decision == "publish", ended, stamp)
            return version


def _admit(
    connection: Connection, candidate: Candidate, decision: Decision, reason: str, stamp: Stamp
) -> VersionRecord:
    model_id = base_model_id(connection, candidate.base_model, stamp)
    standing = read_standing(connection, task_id(connection, candidate.task.name), model_id)
    number = standing.highest + 1
    version_id, baseline_id = _store(connection, standing.id, number, candidate, reason, stamp)
    if decision == "publish" and not standing.guarded:
        point_at(connection, standing, version_id, number, reason, stamp, baseline_id=baseline_id)
    elif decision == "publish":
        set_version(connection, version_id, baseline_id=baseline_id)
        append_event(connection, "held", standing.id, None, number, f"the task is guarded; {reason}", stamp)
    elif decision == "keep":
        set_version(connection, version_id, baseline_id=baseline_id)
        append_event(connection, "held", standing.id, None, number, reason, stamp)
    elif decision == "hold":
        set_version(connection, version_id, baseline_id=baseline_id)
        append_event(connection, BELOW_FLOOR, standing.id, None, number, reason, stamp)
    else:
        set_version(connection, version_id, state="rejected", baseline_id=baseline_id)
        append_event(connection, "rejected", standing.id, None, number, reason, stamp)
    return version_by_id(connection, version_id)


def _store(
    connection: Connection, task_id: int, number: int, candidate: Candidate, reason: str, stamp: Stamp
) -> tuple[int, int]:
    """Store a candidate with its files, training, scores and parents. Gives its id and that of its baseline."""
    trained = () if candidate.run is None else candidate.training_data or ()
    snapshots = store_snapshots(connection, candidate.data, trained, stamp)
    version_id = _insert_version(connection, task_id, number, candidate, snapshots, reason, stamp)
    snapshot_id = snapshots[candidate.data.fingerprint]
    if evaluation_with_key(connection, key_digest(candidate.hard.key), candidate.task.name) is None:
        insert_evaluation(connection, task_id, None, snapshot_id, candidate.hard, stamp)
    watched = canaries(candidate.data, candidate.soft.predictions)
    baseline_id = insert_evaluation(connection, task_id, version_id, snapshot_id, candidate.soft, stamp, watched)
    insert_edges(connection, version_id, candidate.parents)
    if candidate.run is not None:
        drop_checkpoint(connection, candidate.task.name, candidate.job)
    return version_id, baseline_id


def _insert_version(
    connection: Connection,
    task_id: int,
    number: int,
    candidate: Candidate,
    snapshots: Mapping[str, int],
    reason: str,
    stamp: Stamp,
) -> int:
    state: VersionState = "candidate"
    adapter = candidate.adapter
    files = {"adapter-config": adapter.config, "adapter-weights": adapter.weights}
    if adapter.encoder is not None:
        files["prompt-encoder"] = adapter.encoder
    digests = store_artifacts(connection, files, stamp)
    return insert(
        connection,
        s.prompt_versions,
        task_id=task_id,
        number=number,
        state=state,
        method=candidate.method,
        num_virtual_tokens=candidate.num_virtual_tokens,
        settings={"method": candidate.method, "num_virtual_tokens": candidate.num_virtual_tokens},
        base_model_id=base_model_id(connection, candidate.base_model, stamp),
        task_file_id=task_file_id(connection, task_id, candidate.task, stamp),
        run_id=_run_id(connection, task_id, candidate, snapshots, stamp),
        config_sha256=digests["adapter-config"],
        weights_sha256=digests["adapter-weights"],
        encoder_sha256=digests.get("prompt-encoder"),
        digest=digest(adapter),
        reason=reason,
        created_at=stamp.at,
    )


def _run_id(
    connection: Connection, task_id: int, candidate: Candidate, snapshots: Mapping[str, int], stamp: Stamp
) -> int | None:
    """Store the training of a candidate, if it has one, and give its id."""
    if candidate.run is None:
        return None
    assert candidate.training_data is not None, "a run has training data"
    return insert_run(connection, task_id, candidate.run, candidate.training_data, snapshots, candidate.job, stamp)
