"""Learning through the workspace: several tasks at once, broken-off trainings, and prompts of every method in one
catalog, served by whichever thread asks."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import multiprompt as mp
from multiprompt.catalog.artifacts import digest
from multiprompt.catalog.candidates import Candidates
from multiprompt.errors import AdapterError, ConfigError, DataError, IntegrityError, NotFoundError, TrainingError
from multiprompt.learning import pipeline
from tests.conftest import MakeTask, between_versions, nudged

METHODS: dict[str, dict[str, Any]] = {
    "colour": {"method": "prompt-tuning", "num_virtual_tokens": 4},
    "shade": {"method": "prefix-tuning", "num_virtual_tokens": 7},
    "tint": {"method": "p-tuning", "encoder": "lstm", "num_virtual_tokens": 3},
    "hue": {"method": "multitask-prompt-tuning", "num_virtual_tokens": 5, "num_ranks": 2},
    "tone": {"method": "p-tuning", "num_virtual_tokens": 2},
    "blend": {"method": "prefix-tuning", "projection": True, "num_virtual_tokens": 6},
}
STEPS = {"steps": 6, "batch_size": 4, "validate_every": 3}
ROWS = (12, 4, 6)
# Whatever it scores, a candidate is published.
TOLERANT = {"max_drop": 1.0, "floor": "none"}


def settings(method: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    return {"num_virtual_tokens": 4, **(method or {}), "training": STEPS | training, "regression": TOLERANT}


def add(workspace: mp.Workspace, make_task: MakeTask, name: str, kind: str = "choice", **multiprompt: Any) -> Path:
    path = make_task(name, kind=kind, rows=ROWS, multiprompt=settings(**multiprompt))
    workspace.add_task(path)
    return path


def add_methods(workspace: mp.Workspace, make_task: MakeTask, names: Sequence[str] = tuple(METHODS)) -> list[str]:
    for name in names:
        kind = "generate" if name in ("tint", "blend") else "choice"
        add(workspace, make_task, name, method=METHODS[name], kind=kind)
    return list(names)


def another(tmp_path: Path, tiny_model: Path, **options: Any) -> mp.Workspace:
    return mp.open(tmp_path / "another.db", str(tiny_model), dtype="float32", **options)


def checkpoints(workspace: mp.Workspace) -> int:
    with sqlite3.connect(workspace.catalog.path) as raw:
        (count,) = raw.execute("SELECT count(*) FROM checkpoints").fetchone()
    raw.close()
    return int(count)


def damage_checkpoint(workspace: mp.Workspace) -> None:
    """Flip a bit of the last stored checkpoint, in its numbers."""
    with sqlite3.connect(workspace.catalog.path) as raw:
        ((data,),) = raw.execute("SELECT data FROM checkpoints").fetchall()
        raw.execute("UPDATE checkpoints SET data = ?", (data[:-9] + bytes([data[-9] ^ 0x80]) + data[-8:],))
    raw.close()


def change(workspace: mp.Workspace, path: Path, **multiprompt: Any) -> None:
    """Give a task other settings and add it again."""
    mapping = yaml.safe_load(path.read_text())
    mapping["multiprompt"] = settings(**multiprompt)
    path.write_text(yaml.safe_dump(mapping))
    workspace.add_task(path)


def test_an_import_of_a_held_version_does_not_say_that_a_task_is_guarded_which_is_no_more(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    add(workspace, make_task, "colour")
    workspace.guard("colour", reason="in a contract")
    assert workspace.learn("colour").reason.startswith("the task is guarded; ")
    workspace.guard("colour", False, "it ended")
    report = workspace.import_adapter("colour", workspace.export("colour@1", tmp_path / "out"))
    assert (report.state, report.is_new) == ("held", False)
    assert report.reason.startswith("nothing new to learn: the adapter has the bytes of colour@1, a candidate")


def publish_before(name: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something while a task's version is being published."""
    admit = pipeline.admit

    def acting(scores: Any, checking: Any, candidate: Any, trial: str) -> Any:
        if candidate.task.name == name:
            act()
        return admit(scores, checking, candidate, trial)

    monkeypatch.setattr(pipeline, "admit", acting)


def swap_bytes(workspace: mp.Workspace, one: str, other: str) -> None:
    """Give the version of a task the files of another one, as no statement of the catalog can."""
    with sqlite3.connect(workspace.catalog.path) as raw:
        for (trigger,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f'DROP TRIGGER "{trigger}"')
        ids = "SELECT v.weights_sha256 FROM prompt_versions v JOIN tasks t ON t.id = v.task_id WHERE t.name = ?"
        raw.execute(
            f"UPDATE prompt_versions SET weights_sha256 = ({ids}) WHERE task_id = "
            "(SELECT id FROM tasks WHERE name = ?)",
            (other, one),
        )
    raw.close()


def test_a_version_that_changed_while_another_was_published_is_not_told_to_be_untouched(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("colour", "shape", "size"):
        add(workspace, make_task, name)
    workspace.learn("colour")
    workspace.learn("shape")
    publish_before("size", monkeypatch, lambda: swap_bytes(workspace, "colour", "shape"))
    assert not workspace.learn("size").untouched


def test_a_version_that_the_same_call_published_is_watched_while_the_next_is(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("colour", "shape", "size"):
        add(workspace, make_task, name)
    workspace.learn("colour")
    publish_before("size", monkeypatch, lambda: swap_bytes(workspace, "shape", "colour"))
    first, second = workspace.learn_many(["shape", "size"])
    assert (first.untouched, second.untouched) == (True, False)


def test_a_version_that_is_published_while_rows_are_read_is_no_parent(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lineage names what was published when the training began."""
    path = add(workspace, make_task, "colour")
    workspace.learn("colour")
    other = nudged(workspace.export("colour@1", tmp_path / "other"))
    change(workspace, path, learning_rate=0.1)
    load_data = pipeline.load_data

    def slow(task: Any) -> Any:
        assert workspace.import_adapter("colour", other).version == "colour@2"
        return load_data(task)

    monkeypatch.setattr(pipeline, "load_data", slow)
    assert workspace.learn("colour").version == "colour@3"
    edges = between_versions(workspace.lineage("colour@3"))
    assert [(edge.relation, edge.parent) for edge in edges if edge.child == "colour@3"] == [
        ("retrained-from", "colour@1")
    ]


def test_several_tasks_are_learned_at_once_and_published_in_order(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, tiny_model: Path
) -> None:
    alone = another(tmp_path, tiny_model)
    paths = [
        add(workspace, make_task, "shade", method=METHODS["shade"], batch_size=3),
        add(workspace, make_task, "colour", learning_rate=0.1, steps=4),
        add(workspace, make_task, "word", kind="generate", method=METHODS["tint"]),
    ]
    reports = workspace.learn_many(["shade", "colour", "word"])
    assert [report.version for report in reports] == ["shade@1", "colour@1", "word@1"]
    assert all(report.published and report.untouched for report in reports)
    assert [len(report.check.results) for report in reports] == [0, 1, 2], "each is gated against those before it"
    assert workspace.verify() == []
    assert checkpoints(workspace) == 0
    for path, report in zip(paths, reports, strict=True):
        by_itself = alone.learn(alone.add_task(path).name)
        assert (by_itself.version, by_itself.soft, by_itself.hard) == (report.version, report.soft, report.hard)
        ours, theirs = (w.catalog.runs.of(w.version(report.version)).losses for w in (workspace, alone))
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_task_named_twice_is_refused_before_anything_is_learned(workspace: mp.Workspace, make_task: MakeTask) -> None:
    add(workspace, make_task, "colour")
    with pytest.raises(ConfigError, match="got a task twice: colour, colour"):
        workspace.learn_many(["colour", "colour"])
    assert workspace.versions() == []


def test_an_unknown_task_among_several_stops_all_before_training(workspace: mp.Workspace, make_task: MakeTask) -> None:
    add(workspace, make_task, "colour")
    with pytest.raises(NotFoundError, match="no task 'colours'.*did you mean 'colour'"):
        workspace.learn_many(["colour", "colours"])
    assert workspace.versions() == []


def test_a_task_whose_training_fails_is_named_after_the_others_are_in(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    add(workspace, make_task, "colour")
    add(workspace, make_task, "shade", learning_rate=100.0, max_grad_norm=1e6, warmup=0.0, weight_decay=10.0, steps=60)
    add(workspace, make_task, "word", kind="generate")
    with pytest.raises(TrainingError, match="^shade: the loss is nan at step .* with learning rate"):
        workspace.learn_many(["colour", "shade", "word"])
    assert [version.label for version in workspace.versions("state = 'published'")] == ["colour@1", "word@1"]


class Interrupting:
    """A progress callback that breaks training off, once, and notes the steps that were taken."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step
        self.steps: list[int] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        if what.endswith(": training"):
            self.steps.append(done)
            if done == self.step:
                self.step = None
                raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["colour", "shade", "tint", "blend"])
def test_an_interrupted_training_goes_on_when_learned_again_and_ends_as_if_it_had_not_been(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, workspace: mp.Workspace, name: str
) -> None:
    path = add(workspace, make_task, name, method=METHODS[name])
    whole = workspace.learn(name)
    progress = Interrupting(step=5)
    broken_off = another(tmp_path, tiny_model, progress=progress)
    broken_off.add_task(path)
    with pytest.raises(KeyboardInterrupt):
        broken_off.learn(name)
    assert progress.steps == [1, 2, 3, 4, 5]
    assert checkpoints(broken_off) == 1
    assert broken_off.versions() == []

    later = another(tmp_path, tiny_model, progress=progress)
    progress.steps.clear()
    report = later.learn(name)
    assert progress.steps == [4, 5, 6], "it goes on from the validation after step 3"
    assert later.digest(report.version) == workspace.digest(whole.version)
    assert report.soft == whole.soft
    assert (
        later.catalog.runs.of(later.version(name)).losses == workspace.catalog.runs.of(workspace.version(name)).losses
    )
    assert checkpoints(later) == 0
    assert later.verify() == []


def test_an_interruption_while_candidates_are_checked_costs_no_training(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Interrupting()
    workspace = another(tmp_path, tiny_model, progress=progress)
    add(workspace, make_task, "colour")
    with monkeypatch.context() as patched:
        patched.setattr(Candidates, "admit", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            workspace.learn("colour")
    progress.steps.clear()
    assert workspace.learn("colour").version == "colour@1"
    assert progress.steps == []
    assert len(workspace.catalog.runs.of(workspace.version("colour")).losses) == 6


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.011},
        {"seed": 1},
        {"method": {"init": "random"}},
        {"method": METHODS["hue"]},
    ],
)
def test_other_settings_do_not_go_on_from_a_checkpoint(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, changed: dict[str, Any]
) -> None:
    progress = Interrupting(step=5)
    workspace = another(tmp_path, tiny_model, progress=progress)
    path = add(workspace, make_task, "colour")
    with pytest.raises(KeyboardInterrupt):
        workspace.learn("colour")
    change(workspace, path, **changed)
    progress.steps.clear()
    workspace.learn("colour")
    assert progress.steps[:3] == [1, 2, 3]
    assert checkpoints(workspace) == 0


def test_other_rows_do_not_go_on_from_a_checkpoint(tmp_path: Path, tiny_model: Path, make_task: MakeTask) -> None:
    progress = Interrupting(step=5)
    workspace = another(tmp_path, tiny_model, progress=progress)
    path = add(workspace, make_task, "colour")
    with pytest.raises(KeyboardInterrupt):
        workspace.learn("colour")
    with (path.parent / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "one more", "label": "red"}) + "\n")
    progress.steps.clear()
    workspace.learn("colour")
    assert progress.steps == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_is_reported_and_counts_as_none(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask
) -> None:
    progress, said = Interrupting(step=5), list[str]()
    workspace = another(tmp_path, tiny_model, progress=progress, notify=said.append)
    add(workspace, make_task, "colour")
    with pytest.raises(KeyboardInterrupt):
        workspace.learn("colour")
    damage_checkpoint(workspace)
    assert [(problem.where, "its checkpoint does not have" in problem.what) for problem in workspace.verify()] == [
        ("task colour", True)
    ]
    progress.steps.clear()
    assert workspace.learn("colour").published
    assert progress.steps == [1, 2, 3, 4, 5, 6]
    assert "the checkpoint of colour does not have the digest" in said[-1]


def test_a_training_that_gives_the_bytes_of_a_version_stores_and_publishes_nothing(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    path = add(workspace, make_task, "colour")
    first = workspace.learn("colour")
    again = workspace.learn("colour")
    assert (again.version, again.is_new, again.published) == ("colour@1", False, True)
    assert (again.soft, again.hard) == (first.soft, first.hard)
    assert again.reason == "nothing new to learn: the training gave the bytes of colour@1"
    change(workspace, path, method={"num_virtual_tokens": 5})
    workspace.learn("colour")
    change(workspace, path)
    assert "which is retired; `ws.rollback('colour', to=1)`" in workspace.learn("colour").reason
    assert [version.label for version in workspace.versions()] == ["colour@1", "colour@2"]
    assert checkpoints(workspace) == 0


def test_the_same_bytes_for_another_task_file_are_a_new_version(workspace: mp.Workspace, make_task: MakeTask) -> None:
    add(workspace, make_task, "colour", learning_rate=0.0)
    workspace.learn("colour")
    workspace.add_task(make_task("colour", rows=ROWS, target_delimiter="", multiprompt=settings(learning_rate=0.0)))
    assert workspace.learn("colour").version == "colour@2"
    assert workspace.digest("colour@1") == workspace.digest("colour@2")


def swap(workspace: mp.Workspace, label: str) -> None:
    """Put other bytes and their digests in place of a version's, as who may write to the file can."""
    name, _, number = label.partition("@")
    old = workspace.catalog.versions.adapter(workspace.version(label))
    weights = old.weights[:-1] + bytes([old.weights[-1] ^ 1])
    sha256 = hashlib.sha256(weights).hexdigest()
    with sqlite3.connect(workspace.catalog.path) as raw:
        for (trigger,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {trigger}")
        columns = [row[1] for row in raw.execute("PRAGMA table_info(artifacts)")]
        copied = ", ".join({"sha256": "?", "data": "?"}.get(column, column) for column in columns)
        raw.execute(
            f"INSERT INTO artifacts SELECT {copied} FROM artifacts WHERE sha256 = ?",
            (
                *[{"sha256": sha256, "data": weights}[c] for c in columns if c in ("sha256", "data")],
                hashlib.sha256(old.weights).hexdigest(),
            ),
        )
        raw.execute(
            "UPDATE prompt_versions SET weights_sha256 = ?, digest = ? WHERE number = ?"
            " AND task_id = (SELECT id FROM tasks WHERE name = ?)",
            (sha256, digest(replace(old, weights=weights)), number, name),
        )
    raw.close()


@pytest.mark.parametrize("is_new", [True, False])
def test_bytes_that_are_swapped_with_their_digests_during_a_training_are_seen(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, is_new: bool
) -> None:
    swapped: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "colour: training" and not swapped:
            swapped.append(what)
            swap(workspace, "shape@1")

    workspace = another(tmp_path, tiny_model, progress=progress)
    for name in ("shape", "colour"):
        add(workspace, make_task, name)
    workspace.learn("shape")
    if not is_new:
        another(tmp_path, tiny_model).learn("colour")
    versions = [version.label for version in workspace.versions()]
    with pytest.raises(IntegrityError, match="has other bytes now; nothing was published"):
        workspace.learn("colour")
    assert swapped
    assert [version.label for version in workspace.versions()] == versions


def test_several_interrupted_trainings_go_on_each_from_where_it_was(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, workspace: mp.Workspace
) -> None:
    paths = [add(workspace, make_task, name, method=METHODS[name]) for name in ("colour", "tint", "shade")]
    whole = workspace.learn_many(["colour", "tint", "shade"])
    progress = Interrupting(step=5)
    broken_off = another(tmp_path, tiny_model, progress=progress)
    for path in paths:
        broken_off.add_task(path)
    with pytest.raises(KeyboardInterrupt):
        broken_off.learn_many(["colour", "tint", "shade"])
    assert checkpoints(broken_off) == 3
    progress.steps.clear()
    broken_off.learn_many(["shade", "colour"])
    assert progress.steps == [4, 4, 5, 5, 6, 6]
    assert checkpoints(broken_off) == 1
    broken_off.learn("tint")
    for report in whole:
        assert broken_off.version(report.version).score == report.soft


def test_prompts_of_every_method_answer_in_one_call_as_each_would_alone(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    names = add_methods(workspace, make_task)
    workspace.learn_many(names)
    described = {version.task: (version.method, version.num_virtual_tokens) for version in workspace.versions()}
    assert described == {name: (method["method"], method["num_virtual_tokens"]) for name, method in METHODS.items()}
    rows: list[Any] = [(name, text) for text in ("sky", "a long rose in the sea") for name in names]
    together = workspace.predict(rows)
    for row, among_others in zip(rows, together, strict=True):
        (alone,) = workspace.predict([row])
        assert (alone.output, alone.version) == (among_others.output, among_others.version)
        assert alone.probabilities == pytest.approx(among_others.probabilities, abs=1e-5)
    assert workspace.check().passed


def test_an_exported_version_imports_as_the_same_prompt(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    reports = workspace.learn_many(add_methods(workspace, make_task, ("colour", "tint", "blend")))
    for report in reports:
        name = report.version.partition("@")[0]
        folder = workspace.export(report.version, tmp_path / "out" / name)
        imported = workspace.import_adapter(name, folder)
        assert (imported.version, imported.soft, imported.is_new) == (f"{name}@1", report.soft, False)


def test_an_import_without_its_encoder_serves_the_same_answers(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    add(workspace, make_task, "tint", method=METHODS["tint"])
    report = workspace.learn("tint")
    folder = workspace.export("tint", tmp_path / "out")
    (folder / "prompt_encoder.safetensors").unlink()
    assert workspace.import_adapter("tint", folder).soft == report.soft
    one, two = workspace.predict([("tint@1", "sky"), ("tint@2", "sky")])
    assert one.probabilities == two.probabilities


def test_an_import_whose_encoder_is_damaged_is_refused(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    add(workspace, make_task, "tint", method=METHODS["tint"])
    workspace.learn("tint")
    folder = workspace.export("tint", tmp_path / "out")
    (folder / "prompt_encoder.safetensors").write_bytes(b"junk")
    with pytest.raises(AdapterError, match="prompt_encoder.safetensors"):
        workspace.import_adapter("tint", folder)


@pytest.mark.parametrize("method", ["colour", "tint", "hue", "blend"])
def test_a_version_that_another_starts_from_is_named_in_its_lineage(
    workspace: mp.Workspace, make_task: MakeTask, method: str
) -> None:
    add(workspace, make_task, "first", method=METHODS[method])
    workspace.learn("first")
    start = {"init": "version", "init_version": "first@1"}
    add(workspace, make_task, "second", method=METHODS[method] | start, learning_rate=0.0)
    workspace.learn("second")
    (edge,) = between_versions(workspace.lineage("second"))
    assert (edge.child, edge.relation, edge.parent) == ("second@1", "initialised-from", "first@1")
    assert edge in workspace.lineage("first@1")
    ours, theirs = (workspace.catalog.versions.adapter(workspace.version(label)) for label in ("second@1", "first@1"))
    assert (ours.weights, ours.encoder) == (theirs.weights, theirs.encoder), "a learning rate of 0 moves nothing"


def test_a_prompt_starts_from_the_published_version_of_a_task(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = add(workspace, make_task, "first", method=METHODS["tint"])
    workspace.learn("first")
    change(workspace, path, method=METHODS["tint"], steps=4)
    workspace.learn("first")
    start = {"num_virtual_tokens": 3, "init": "version", "init_version": "first"}
    add(workspace, make_task, "second", method=start)
    workspace.learn("second")
    assert ("initialised-from", "first@2") in [(e.relation, e.parent) for e in workspace.lineage("second@1")]


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("nothing", NotFoundError, "no task 'nothing'"),
        ("first@9", NotFoundError, "no version 9"),
        ("first@1", AdapterError, "cannot start from prefix-tuning with 7 tokens"),
    ],
)
def test_a_start_that_cannot_be_is_named_and_nothing_is_learned(
    workspace: mp.Workspace, make_task: MakeTask, start: str, error: type[Exception], message: str
) -> None:
    add(workspace, make_task, "first", method=METHODS["shade"])
    workspace.learn("first")
    add(workspace, make_task, "second", method={"init": "version", "init_version": start})
    with pytest.raises(error, match=message):
        workspace.learn("second")
    assert [version.label for version in workspace.versions()] == ["first@1"]


def test_a_version_record_and_an_export_say_the_method(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    add(workspace, make_task, "shade", method=METHODS["shade"])
    workspace.learn("shade")
    assert workspace.version("shade").method == "prefix-tuning"
    assert [v.label for v in workspace.versions("method = 'prefix-tuning'")] == ["shade@1"]
    folder = workspace.export("shade", tmp_path / "out")
    assert "7 virtual tokens (prefix-tuning)" in (folder / "README.md").read_text()


def test_rows_that_cannot_be_answered_get_an_error_and_the_others_their_answers(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    add(workspace, make_task, "colour")
    add(workspace, make_task, "word", kind="generate")
    add(workspace, make_task, "shade")
    workspace.learn_many(["colour", "word"])
    rows: list[Any] = [
        ("colour", "sky"),
        ("colours", "sky"),
        ("word", {"text": "sea"}),
        ("colour", {"txt": "sky"}),
        ("shade", "sky"),
        ("colour@9", "sky"),
        ("colour@1", "sky"),
    ]
    found = workspace.predict(rows, strict=False)
    assert [bool(one.error) for one in found] == [False, True, False, True, True, True, False]
    assert "no task 'colours'" in found[1].error
    assert "lacks the field 'text'" in found[3].error
    assert "run `ws.learn('shade')`" in found[4].error
    assert (found[5].task, found[5].version, found[5].output) == ("colour", "colour@9", "")
    good = [0, 2, 6]
    assert [found[i] for i in good] == workspace.predict([rows[i] for i in good])
    for number, error in ((1, NotFoundError), (3, DataError), (4, NotFoundError)):
        with pytest.raises(error, match="row 1 of the call: "):
            workspace.predict([rows[0], rows[number]])


@pytest.mark.parametrize(
    "row", [None, 5, ["sky"], b"sky", {"text": None}, {}], ids=["null", "number", "list", "bytes", "none", "empty"]
)
def test_what_is_no_row_is_an_error_of_that_row(workspace: mp.Workspace, make_task: MakeTask, row: Any) -> None:
    add(workspace, make_task, "colour")
    workspace.learn("colour")
    wrong, right = workspace.predict([("colour", row), ("colour", "sky")], strict=False)
    assert wrong.error
    assert right.output


def add_bare(workspace: mp.Workspace, make_task: MakeTask, name: str, kind: str) -> None:
    """A task that shows a row's text and nothing else."""
    random_start = settings({"init": "random"})
    workspace.add_task(
        make_task(name, kind=kind, rows=ROWS, description="", doc_to_text="{{text}}", multiprompt=random_start)
    )


@pytest.mark.parametrize("kind", ["choice", "generate"])
@pytest.mark.parametrize("text", ["", " "])
def test_a_text_without_a_token_of_its_own_is_refused_or_answered_whatever_stands_beside_it(
    workspace: mp.Workspace, make_task: MakeTask, kind: str, text: str
) -> None:
    add_bare(workspace, make_task, "colour", kind)
    workspace.learn("colour")
    (alone,) = workspace.predict([("colour", text)], strict=False)
    for neighbour in ("a long rose in the sea", "x"):
        beside, among_others = workspace.predict([("colour", neighbour), ("colour", text)], strict=False)
        assert beside.output == workspace.predict([("colour", neighbour)])[0].output
        assert among_others.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert among_others.output == alone.output


@pytest.mark.parametrize("kind", ["choice", "generate"])
def test_a_training_row_without_a_token_of_its_own_is_refused_or_learned_from(
    workspace: mp.Workspace, make_task: MakeTask, kind: str
) -> None:
    add_bare(workspace, make_task, "colour", kind)
    rows = Path(workspace.tasks()[0].folder) / "train.jsonl"
    rows.write_text('{"text": "", "label": "red"}\n' * 8)
    try:
        report = workspace.learn("colour")
    except DataError as error:
        assert "row 0 of split 'train'" in str(error)
    else:
        losses = workspace.catalog.runs.of(workspace.version(report.version)).losses
        assert len(losses) == 6
        assert len(set(losses)) == 6, "the prompt moves"


@pytest.mark.parametrize("method", ["colour", "shade"])
def test_a_stream_joined_is_the_whole_answer(workspace: mp.Workspace, make_task: MakeTask, method: str) -> None:
    untouched = [{"name": "none", "filter": [{"function": "take_first"}]}]
    for until in (["\n"], ["e", "a b"]):
        name = f"word{len(until)}"
        generation = {"until": until, "max_gen_toks": 24}
        path = make_task(
            name,
            kind="generate",
            rows=ROWS,
            filter_list=untouched,
            generation_kwargs=generation,
            multiprompt=settings(METHODS[method]),
        )
        workspace.add_task(path)
        workspace.learn(name)
        pieces = list(workspace.stream(name, "a long rose in the sea"))
        (whole,) = workspace.predict([(name, "a long rose in the sea")])
        assert "".join(pieces) == whole.output
        assert all(pieces)


def test_a_stream_of_a_choice_comes_whole_and_a_bad_row_raises(workspace: mp.Workspace, make_task: MakeTask) -> None:
    add(workspace, make_task, "colour")
    workspace.learn("colour")
    assert list(workspace.stream("colour", "sky")) == [workspace.predict([("colour", "sky")])[0].output]
    with pytest.raises(DataError, match="lacks the field 'text'"):
        workspace.stream("colour", {"txt": "sky"})


def test_answers_from_several_threads_are_those_of_one(workspace: mp.Workspace, make_task: MakeTask) -> None:
    names = add_methods(workspace, make_task, ("colour", "shade", "tint"))
    workspace.learn_many(names)
    calls: list[Any] = [[(name, f"{text} {n}") for name in names] for n, text in enumerate(("sky", "sea", "rose") * 4)]
    one = mp.open(workspace.catalog.path)
    expected = [one.predict(rows) for rows in calls]
    fresh = mp.open(workspace.catalog.path)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(fresh.predict, calls)) == expected
        streamed = list(threads.map(lambda rows: "".join(fresh.stream("tint", rows[2][1])), calls))
    assert [text.strip() for text in streamed] == [answers[2].output for answers in expected]


def served(workspace: mp.Workspace) -> str:
    return workspace.predict([("colour", "sky")])[0].version


def test_a_new_version_and_a_rollback_are_served_at_once(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = add(workspace, make_task, "colour")
    workspace.learn("colour")
    beside = mp.open(workspace.catalog.path)
    assert [served(workspace), served(beside)] == ["colour@1"] * 2
    first = workspace.predict([("colour", "sky")])
    change(workspace, path, method=METHODS["shade"], learning_rate=0.1)
    assert served(workspace) == "colour@1", "a new task file alone changes nothing"
    assert workspace.learn("colour").published
    assert [served(workspace), served(beside)] == ["colour@2"] * 2
    assert workspace.predict([("colour@1", "sky")]) == first
    workspace.rollback("colour")
    assert [served(workspace), served(beside)] == ["colour@1"] * 2
    assert workspace.predict([("colour", "sky")]) == beside.predict([("colour", "sky")]) == first
    assert beside.predict([("colour@2", "sky")])[0].version == "colour@2"


def test_a_catalog_that_is_moved_keeps_its_checkpoint(tmp_path: Path, tiny_model: Path, make_task: MakeTask) -> None:
    progress = Interrupting(step=5)
    workspace = another(tmp_path, tiny_model, progress=progress)
    add(workspace, make_task, "colour")
    with pytest.raises(KeyboardInterrupt):
        workspace.learn("colour")
    for file in tmp_path.glob("another.db*"):
        shutil.copy(file, tmp_path / file.name.replace("another", "moved"))
    progress.steps.clear()
    mp.open(tmp_path / "moved.db", progress=progress).learn("colour")
    assert progress.steps == [4, 5, 6]


def test_a_rollback_during_a_training_is_not_undone_by_it(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_task("colour")
    workspace.add_task(path)
    workspace.learn("colour")
    change(workspace, path, method={"num_virtual_tokens": 5})
    assert workspace.learn("colour").version == "colour@2"
    change(workspace, path, method={"num_virtual_tokens": 6})
    with monkeypatch.context() as patched:
        publish_before("colour", patched, lambda: workspace.rollback("colour", reason="users complain"))
        report = workspace.learn("colour")
    assert (report.version, report.state) == ("colour@3", "held")
    assert report.reason == "colour@2 was rolled back to colour@1 while this one was trained"
    assert workspace.version("colour").label == "colour@1"
    change(workspace, path, method={"num_virtual_tokens": 7})
    assert workspace.learn("colour").published
