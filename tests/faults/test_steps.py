"""A job that is cut off at any point goes on from there, does nothing twice, and a zombie writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import multiprompt as mp
from multiprompt.catalog.baselines import Baselines
from multiprompt.engine import evaluation
from multiprompt.engine.adapter import to_adapter
from multiprompt.errors import StateError, SupersededError, UnavailableError
from multiprompt.jobs import steps
from multiprompt.jobs.kinds import STEPS
from multiprompt.jobs.steps import JobContext, run_job
from multiprompt.learning import pipeline
from multiprompt.learning.start import find_start
from multiprompt.records import Outcome, VersionRecord
from tests.catalog.databases import contents
from tests.conftest import MakeTask, between_versions
from tests.test_learning import METHODS, change, damage_checkpoint, settings

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """What a SIGKILL is to the code that it hits: nothing runs after it."""


def new_attempt(workspace: mp.Workspace, owner: str, kind: str = "learn", task: str | None = "colour") -> JobContext:
    """A new attempt at the job."""
    claim, _ = workspace.catalog.ledger.claim("job", owner, owner, AT)
    claimed = workspace.context.claimed_by(claim, lambda what, done, total: None)
    return JobContext(claimed, claim, kind, task)


def ignore(_: str) -> None:
    pass


def dies_at(step: str) -> Callable[[str], None]:
    def on_step(name: str) -> None:
        if name == step:
            raise Killed

    return on_step


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which steps were run from here on."""
    ran: list[str] = []

    def noting(name: str, step: Callable[[JobContext], None]) -> Callable[[JobContext], None]:
        return lambda attempt: (ran.append(name), step(attempt))[1]

    monkeypatch.setattr(steps, "_STEPS", {name: noting(name, step) for name, step in steps._STEPS.items()})
    return ran


@pytest.fixture
def ready(workspace: mp.Workspace, make_task: MakeTask) -> mp.Workspace:
    workspace.add_task(make_task("shape"))
    workspace.learn("shape")
    workspace.add_task(make_task("colour"))
    return workspace


@pytest.mark.parametrize("kind", ["learn", "retrain"])
@pytest.mark.parametrize("step", STEPS["learn"])
def test_a_job_killed_before_a_step_goes_on_with_it(
    ready: mp.Workspace, step: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        run_job(new_attempt(ready, "first", kind), dies_at(step))
    ran = counted(monkeypatch)
    run_job(new_attempt(ready, "second", kind), ignore)
    assert ran == list(STEPS["learn"][STEPS["learn"].index(step) :])
    assert [version.label for version in ready.versions("task = 'colour'")] == ["colour@1"]
    assert ready.catalog.ledger.outcome("job") == Outcome(True, f"colour@1 published: {ready.version('colour').reason}")
    assert ready.verify() == []


def test_an_ended_job_leaves_its_version_and_outcome_alone(ready: mp.Workspace) -> None:
    run_job(new_attempt(ready, "first"), ignore)
    found = contents(ready.catalog)
    assert [row[:3] for row in found["job_results"]] == [("job", "end", "good")]
    assert found["checkpoints"] == []


def test_evaluate_scores_what_is_published_on_the_rows_of_today(ready: mp.Workspace, make_task: MakeTask) -> None:
    before = len(ready.evaluations("task = 'shape'"))
    make_task("shape", rows=(24, 8, 9))
    run_job(new_attempt(ready, "first", "evaluate", "shape"), ignore)
    newest = ready.evaluations("task = 'shape' order by created_at desc", limit=1)[0]
    assert (newest.version, newest.rows, len(ready.evaluations("task = 'shape'"))) == ("shape@1", 9, before + 1)
    outcome = ready.catalog.ledger.outcome("job")
    assert outcome == Outcome(True, f"shape@1: acc {newest.score:.4f}")


def test_a_score_that_is_known_ends_its_job_and_is_not_stored_again(ready: mp.Workspace) -> None:
    before = len(ready.evaluations())
    run_job(new_attempt(ready, "first", "evaluate", "shape"), ignore)
    assert len(ready.evaluations()) == before
    score = ready.version("shape").score
    assert ready.catalog.ledger.outcome("job") == Outcome(True, f"shape@1: acc {score:.4f} (reused)")


@pytest.mark.parametrize("kind", ["learn", "retrain"])
def test_a_job_does_not_learn_from_a_task_file_that_was_edited_since(
    ready: mp.Workspace, make_task: MakeTask, kind: str
) -> None:
    make_task("colour", doc_to_text="{{text}} Reply:")
    with pytest.raises(StateError, match="colour: its task file .* was edited since it was added"):
        run_job(new_attempt(ready, "first", kind), ignore)
    assert ready.versions("task = 'colour'") == []


def test_a_job_logs_what_is_wrong_with_the_data_and_what_a_check_notes(
    ready: mp.Workspace, make_task: MakeTask
) -> None:
    run_job(new_attempt(ready, "first"), ignore)
    assert "colour: the 12 rows of split 'test' can show" in ready.catalog.ledger.logs("job")[1].message
    make_task("colour", doc_to_text="{{text}} Reply:")
    claim, _ = ready.catalog.ledger.claim("check", "second", "second", AT)
    claimed = ready.context.claimed_by(claim, lambda what, done, total: None)
    run_job(JobContext(claimed, claim, "check", None), ignore)
    assert any("colour: its task file" in line.message for line in ready.catalog.ledger.logs("check"))


def test_a_check_as_a_job_logs_what_regressed_and_why(ready: mp.Workspace, make_task: MakeTask) -> None:
    folder = make_task("shape").parent
    folder.joinpath("test.jsonl").write_text('{"text": "sea", "label": "none"}\n')
    run_job(new_attempt(ready, "first", "check", None), ignore)
    (found,) = [result for result in ready.check().results if result.blocks]
    lines = [line.message for line in ready.catalog.ledger.logs("job")]
    assert f"shape@1 {found.told}" in lines
    assert found.told.startswith("failed: acc ")


def test_a_job_whose_prompt_learned_nothing_says_so_and_is_no_success(ready: mp.Workspace, make_task: MakeTask) -> None:
    settings = {"num_virtual_tokens": 4, "training": {"steps": 2}, "regression": {"floor": "hard"}}
    ready.add_task(make_task("colour", multiprompt=settings))
    run_job(new_attempt(ready, "first"), ignore)
    outcome = ready.catalog.ledger.outcome("job")
    assert outcome is not None
    assert (outcome.good, outcome.text.startswith("colour@1 stays a candidate: did not learn: acc ")) == (False, True)
    claim, _ = ready.catalog.ledger.claim("again", "second", "second", AT)
    claimed = ready.context.claimed_by(claim, lambda what, done, total: None)
    run_job(JobContext(claimed, claim, "learn", "colour"), ignore)
    again = ready.catalog.ledger.outcome("again")
    assert again is not None
    assert (again.good, "the bytes of colour@1, a candidate" in again.text) == (False, True)


@pytest.mark.parametrize("step", STEPS["learn"])
def test_a_zombie_writes_nothing_that_counts(ready: mp.Workspace, step: str) -> None:
    zombie = new_attempt(ready, "zombie")
    with pytest.raises(Killed):
        run_job(zombie, dies_at(step))
    new_attempt(ready, "living")
    before = contents(ready.catalog)
    with pytest.raises(SupersededError, match="job job was taken over by another worker; nothing was written"):
        run_job(zombie, ignore)
    assert contents(ready.catalog) == before


def test_a_cancelled_job_leaves_nothing_but_its_log(ready: mp.Workspace) -> None:
    attempt = new_attempt(ready, "first")
    with pytest.raises(Killed):
        run_job(attempt, dies_at("gate"))
    assert ready.catalog.ledger.revoke("job", "cancelled", AT) is None
    with pytest.raises(SupersededError, match="was cancelled"):
        run_job(attempt, ignore)
    found = contents(ready.catalog)
    assert [row[:3] for row in found["job_results"]] == [("job", "end", "bad")]
    assert ready.versions("task = 'colour'") == []


def test_a_killed_training_goes_on_from_its_checkpoint_and_ends_as_if_nothing_was(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    path = make_task("colour", multiprompt=settings(steps=9))
    workspace.add_task(path)
    beside = mp.open(tmp_path / "beside.db", workspace.base_model().record.source, dtype="float32")
    beside.add_task(path)
    whole = beside.digest(beside.learn("colour").version)
    kept = 0

    def dies() -> None:
        nonlocal kept
        kept += 1
        if kept == 3:  # after the snapshot and two checkpoints, of three
            raise Killed

    first = new_attempt(workspace, "first")
    first = JobContext(first.context, first.claim, "learn", "colour", on_kept=dies)
    with pytest.raises(Killed):
        run_job(first, ignore)
    run_job(new_attempt(workspace, "second"), ignore)
    assert workspace.digest("colour@1") == whole
    assert any("goes on from step" in line.message for line in workspace.catalog.ledger.logs("job"))


def test_a_full_disk_at_a_checkpoint_is_waited_out_from_the_checkpoint_before(
    ready: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"steps": 6, "batch_size": 4, "validate_every": 3}
    ready.add_task(make_task("colour", multiprompt={"num_virtual_tokens": 100, "training": training}))
    attempt = new_attempt(ready, "first")
    engine = attempt.context.catalog.engine

    def fill_disk(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    def when_training(step: str) -> None:
        if step == "train":
            event.listen(engine, "connect", fill_disk)

    with pytest.raises(UnavailableError, match="the disk is full"):
        run_job(attempt, when_training)
    event.remove(engine, "connect", fill_disk)
    ran = counted(monkeypatch)
    run_job(new_attempt(ready, "second"), ignore)
    assert ran == ["train", "evaluate", "gate", "publish"]
    assert (ready.version("colour").number, ready.verify()) == (1, [])


def test_what_is_edited_while_a_job_runs_does_not_count(ready: mp.Workspace, make_task: MakeTask) -> None:
    with pytest.raises(Killed):
        run_job(new_attempt(ready, "first"), dies_at("train"))
    before = ready.task("colour").fingerprint
    path = make_task("colour", description="Another instruction\n", rows=(30, 8, 14))
    ready.add_task(path)
    run_job(new_attempt(ready, "second"), ignore)
    version = ready.version("colour")
    assert ready.catalog.versions.task(version).fingerprint == before
    assert len(ready.catalog.evaluations.rows(version).rows) == 12


def test_steps_that_an_upgrade_adds_are_done_by_who_goes_on(
    ready: mp.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        run_job(new_attempt(ready, "first"), dies_at("evaluate"))
    longer = ("snapshot", "inspect", *STEPS["learn"][1:])
    inspected: list[str | None] = []
    monkeypatch.setattr(steps, "STEPS", {"learn": longer})
    monkeypatch.setitem(steps._STEPS, "inspect", lambda attempt: inspected.append(attempt.task))  # type: ignore[arg-type]
    run_job(new_attempt(ready, "second"), ignore)
    assert (inspected, ready.version("colour").number) == (["colour"], 1)


def test_a_check_goes_on_with_the_tasks_that_it_has_not_checked(
    ready: mp.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.learn("colour")
    monkeypatch.setattr(evaluation, "_libraries", lambda: "torch==9.9")
    compared: list[str] = []
    save = Baselines.save_comparison

    def save_and_die(baselines: Baselines, version: VersionRecord, *rest: Any) -> None:
        save(baselines, version, *rest)
        compared.append(version.label)
        if len(compared) == 1:
            raise Killed

    monkeypatch.setattr(Baselines, "save_comparison", save_and_die)
    with pytest.raises(Killed):
        run_job(new_attempt(ready, "first", "check", None), ignore)
    run_job(new_attempt(ready, "second", "check", None), ignore)
    assert sorted(compared) == ["colour@1", "shape@1"]
    assert ready.catalog.ledger.outcome("job") == Outcome(True, "2 checked: 2 identical")


def test_a_published_prompt_that_changed_fails_the_job(ready: mp.Workspace) -> None:
    with pytest.raises(Killed):
        run_job(new_attempt(ready, "first"), dies_at("publish"))
    stored = ready.catalog.ledger.results("job", "snapshot")["said"]
    said = json.loads(stored)
    said["before"]["shape@1"] = "sha256:other"
    attempt = new_attempt(ready, "second")
    attempt.keep("snapshot", said=json.dumps(said).encode())
    with pytest.raises(mp.MultipromptError, match="has other bytes now"):
        run_job(attempt, ignore)


def test_a_training_that_ran_out_of_memory_takes_smaller_batches(
    ready: mp.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []
    learn = pipeline.learn_prompts

    def starved(base: Any, inputs: Any, *rest: Any) -> Any:
        parts.append(inputs[0].parts)
        if inputs[0].parts < 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9999999 bytes.")
        return learn(base, inputs, *rest)

    monkeypatch.setattr(pipeline, "learn_prompts", starved)
    run_job(new_attempt(ready, "first"), ignore)
    assert parts == [1, 2, 4]
    assert ready.version("colour").number == 1
    said = [line.message for line in ready.catalog.ledger.logs("job")]
    assert "memory ran out; each batch is run in 4 parts" in said


def learned(workspace: mp.Workspace, make_task: MakeTask, **multiprompt: Any) -> Path:
    path = make_task("colour", multiprompt=settings(**multiprompt))
    workspace.add_task(path)
    workspace.learn("colour")
    return path


@pytest.mark.parametrize("name", METHODS)
def test_a_retraining_that_moves_nothing_gives_the_published_bytes_and_publishes_nothing(
    workspace: mp.Workspace, make_task: MakeTask, name: str
) -> None:
    path = learned(workspace, make_task, method=METHODS[name])
    change(workspace, path, method=METHODS[name], learning_rate=1e-30)
    run_job(new_attempt(workspace, "first", "retrain"), ignore)
    assert workspace.catalog.ledger.outcome("job") == Outcome(
        True, "nothing new to learn: the training gave the bytes of colour@1"
    )
    assert [version.label for version in workspace.versions()] == ["colour@1"]
    assert workspace.verify() == []


def test_a_retraining_goes_on_from_the_published_version_and_says_so(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = learned(workspace, make_task)
    change(workspace, path, learning_rate=0.1, steps=12)
    started: list[Any] = []
    learn = pipeline.learn_prompts

    def noting(base: Any, inputs: Any, *rest: Any) -> Any:
        started.append(inputs[0].start)
        return learn(base, inputs, *rest)

    monkeypatch.setattr(pipeline, "learn_prompts", noting)
    run_job(new_attempt(workspace, "first", "retrain"), ignore)
    assert to_adapter(started[0]).weights == workspace.catalog.versions.adapter(workspace.version("colour@1")).weights
    edges = {(edge.relation, edge.parent) for edge in between_versions(workspace.lineage("colour@2"))}
    assert edges == {("retrained-from", "colour@1"), ("initialised-from", "colour@1")}


def test_a_rollback_while_a_task_is_retrained_leaves_its_lineage_true(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    path = learned(workspace, make_task)
    change(workspace, path, learning_rate=0.1)
    assert workspace.learn("colour").version == "colour@2"
    with pytest.raises(Killed):
        run_job(new_attempt(workspace, "first", "retrain"), dies_at("evaluate"))
    workspace.rollback("colour", to=1)
    run_job(new_attempt(workspace, "second", "retrain"), ignore)
    edges = between_versions(workspace.lineage("colour@3"))
    found = {(edge.relation, edge.parent) for edge in edges if edge.child == "colour@3"}
    assert found == {("retrained-from", "colour@2"), ("initialised-from", "colour@2")}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (METHODS["colour"], METHODS["colour"] | {"num_virtual_tokens": 5}),
        (METHODS["colour"], METHODS["shade"]),
        (METHODS["tint"], METHODS["tint"] | {"encoder_layers": 1}),
        (METHODS["tone"], METHODS["tone"] | {"encoder": "lstm"}),
        (METHODS["tone"], METHODS["tone"] | {"encoder_hidden_size": 8}),
        (METHODS["blend"], METHODS["blend"] | {"projection": False}),
        (METHODS["hue"], METHODS["hue"] | {"num_ranks": 1}),
    ],
)
def test_a_retraining_in_another_shape_learns_afresh_and_says_so(
    workspace: mp.Workspace, make_task: MakeTask, before: dict[str, Any], after: dict[str, Any]
) -> None:
    path = learned(workspace, make_task, method=before)
    change(workspace, path, method=after)
    run_job(new_attempt(workspace, "first", "retrain"), ignore)
    assert any(line.message.startswith("learning afresh: ") for line in workspace.catalog.ledger.logs("job"))
    (edge,) = between_versions(workspace.lineage("colour@2"))
    assert (edge.relation, edge.parent) == ("retrained-from", "colour@1")


@pytest.mark.parametrize("name", ["tint", "tone", "blend"])
def test_a_retraining_of_an_import_without_its_encoder_says_that_it_is_missing(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, name: str
) -> None:
    learned(workspace, make_task, method=METHODS[name])
    workspace.export("colour", tmp_path / "out")
    (tmp_path / "out" / "prompt_encoder.safetensors").unlink()
    assert workspace.import_adapter("colour", tmp_path / "out").published
    run_job(new_attempt(workspace, "first", "retrain"), ignore)
    told = "learning afresh: colour@2 has no encoder to go on with, as it was imported or made without one"
    assert told in [line.message for line in workspace.catalog.ledger.logs("job")]


def test_a_first_learning_by_a_job_starts_where_one_by_hand_does(workspace: mp.Workspace, make_task: MakeTask) -> None:
    learned(workspace, make_task)
    start = {"init": "version", "init_version": "colour@1"}
    for name in ("hand", "job"):
        workspace.add_task(make_task(name, multiprompt=settings(start, learning_rate=0.0)))
    workspace.learn("hand")
    for kind in ("learn", "retrain"):
        start_of, afresh = find_start(workspace.context, workspace.context.task("job"), retrain=kind == "retrain")
        assert (start_of and start_of.label, afresh) == ("colour@1", "")
    run_job(new_attempt(workspace, "first", "learn", "job"), ignore)
    weights = {
        workspace.catalog.versions.adapter(workspace.version(label)).weights for label in ("hand", "job", "colour@1")
    }
    assert len(weights) == 1


def test_a_damaged_checkpoint_is_none_and_the_job_says_so(ready: mp.Workspace, make_task: MakeTask) -> None:
    kept = 0

    def dies() -> None:
        nonlocal kept
        kept += 1
        if kept == 2:  # after the snapshot and a checkpoint
            raise Killed

    first = new_attempt(ready, "first")
    first = JobContext(first.context, first.claim, "learn", "colour", on_kept=dies)
    with pytest.raises(Killed):
        run_job(first, ignore)
    damage_checkpoint(ready)
    run_job(new_attempt(ready, "second"), ignore)
    said = [line.message for line in ready.catalog.ledger.logs("job")]
    assert any(line.startswith("the checkpoint of colour does not have the digest") for line in said)
    assert ready.version("colour").number == 1


def _die() -> None:
    raise Killed
