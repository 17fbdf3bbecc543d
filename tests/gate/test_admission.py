"""What may be published, what stays a candidate, and what a trial leaves as it was."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import multiprompt as mp
from multiprompt.errors import MetricError, StateError
from multiprompt.gate import admission
from multiprompt.tasks.data import Split
from tests.catalog.samples import a_candidate, a_task, new_catalog
from tests.catalog.samples import learn as learn_scored
from tests.conftest import COLOURS, MakeTask, nudged, write_tiny_model
from tests.gate.conftest import Opened, write_rows, write_task

HARD: dict[str, Any] = {"num_virtual_tokens": 4, "training": {"steps": 2}, "regression": {"floor": "hard"}}


def dump(catalog: Path) -> list[str]:
    with sqlite3.connect(catalog) as raw:
        lines = list(raw.iterdump())
    raw.close()
    return lines


def spoil(adapter: Path) -> None:
    """Random numbers in place of what was learned."""
    file = adapter / "adapter_model.safetensors"
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def test_a_first_version_that_learned_nothing_stays_a_candidate(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour", rows=(24, 8, 40), multiprompt=HARD))
    report = workspace.learn("colour")
    assert (report.state, report.published) == ("candidate", False)
    assert report.reason.startswith(f"did not learn: acc {report.soft:.4f}, the ")
    assert "on the same 40 rows (p " in report.reason
    assert (report.majority, report.rows) == (0.5, 40)
    assert report.interval is not None
    assert report.interval.low <= report.soft <= report.interval.high
    assert workspace.version("colour@1").state == "candidate"
    (event,) = workspace.events("kind = 'below-floor'")
    assert event.reason == report.reason
    for forced in ({}, {"force": True}, {"reason": "it will do"}):
        with pytest.raises(StateError, match="colour@1 did not learn.*only with `force=True` and"):
            workspace.publish("colour@1", **forced)
    assert workspace.publish("colour@1", "it will do", force=True).state == "published"
    again = workspace.learn("colour")
    assert "did not learn" not in again.reason, "a later version is held against the published one"


def test_a_prompt_that_did_not_learn_is_judged_again_once_the_task_file_asks_for_another_floor(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    workspace.add_task(make_task("colour", rows=(24, 8, 40), multiprompt=HARD))
    assert workspace.learn("colour").state == "candidate"
    assert workspace.learn("colour").reason.startswith("nothing new to learn"), "the floor is the same"
    workspace.add_task(make_task("colour", rows=(24, 8, 40), multiprompt=HARD | {"regression": {"floor": "none"}}))
    report = workspace.learn("colour")
    assert (report.version, report.state) == ("colour@2", "published"), report.reason


@pytest.mark.parametrize(("floor", "state"), [("hard", "candidate"), ("majority", "candidate"), ("none", "published")])
def test_three_rows_show_nothing_unless_nothing_is_asked(
    workspace: mp.Workspace, make_task: MakeTask, floor: str, state: str
) -> None:
    settings = HARD | {"regression": {"floor": floor}}
    workspace.add_task(make_task("colour", rows=(24, 8, 3), multiprompt=settings))
    report = workspace.learn("colour")
    assert report.state == state
    assert ("3 rows are too few to show that a prompt is better" in report.reason) is (state == "candidate")


def test_an_imported_adapter_is_held_to_the_floor_too(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    workspace.export("colour", tmp_path / "out")
    workspace.add_task(make_task("shade", rows=(24, 8, 40), multiprompt=HARD))
    report = workspace.import_adapter("shade", tmp_path / "out")
    assert (report.version, report.state) == ("shade@1", "candidate")


def test_what_beats_the_floor_is_published_with_rows_and_interval(opened: Opened, folder: Path) -> None:
    workspace = opened()
    file = write_task(folder, "red", 0.0, floor="hard")
    file.write_text(file.read_text().replace("steps: 40", "steps: 120"))
    for split, count in (("train", 200), ("validation", 40), ("test", 200)):
        rows = [json.dumps({"text": COLOURS[n % 2] * 3, "label": n % 2}) + "\n" for n in range(count)]
        (folder / "red" / f"{split}.jsonl").write_text("".join(rows))
    workspace.add_task(file)
    report = workspace.learn("red")
    assert report.published, report.reason
    assert report.reason == report.measured
    assert report.measured.startswith(f"acc {report.soft:.4f} (95 % 0.")
    assert report.measured.endswith(", 200 rows)")


def test_ten_retrainings_cannot_lose_ten_times_what_is_tolerated(
    opened: Opened,
    folder: Path,
    tmp_path: Path,
) -> None:
    workspace = opened()
    file = folder / "sky" / "task.yaml"
    workspace.export("sky", tmp_path / "poor")
    spoil(tmp_path / "poor")
    tolerant = file.read_text()
    file.write_text(tolerant.replace("floor: none", "floor: none\n    max_drop: 1.0"))
    workspace.add_task(file)
    assert workspace.import_adapter("sky", tmp_path / "poor").version == "sky@2"
    file.write_text(tolerant)
    workspace.add_task(file)
    report = workspace.import_adapter("sky", nudged(tmp_path / "poor"))
    assert report.state == "rejected"
    assert report.reason.startswith("sky@1 is better: acc 0."), "sky@2 has the same score"
    workspace.bless("sky", "the task became harder")
    assert workspace.import_adapter("sky", tmp_path / "poor").published


def test_a_high_score_on_other_rows_hides_no_better_version(tmp_path: Path) -> None:
    catalog = new_catalog(tmp_path)
    harder = Split("test", ({"text": "sea", "label": "red"},))
    learn_scored(catalog, score=0.9)
    for score in (0.8, 0.79, 0.7):
        learn_scored(catalog, score=score, data=harder)
    rivals = admission._rivals(catalog, a_candidate(a_task(), 0.69, data=harder))
    assert [version.label for version in rivals] == ["colour@4", "colour@1", "colour@2"]


def test_a_version_that_was_rolled_back_is_no_measure_any_more(
    opened: Opened,
    folder: Path,
    tmp_path: Path,
) -> None:
    workspace = opened()
    assert [v.label for v in workspace.catalog.versions.served_since_blessed("sky")] == ["sky@1"]
    workspace.export("sky", tmp_path / "same")
    workspace.import_adapter("sky", nudged(tmp_path / "same"))
    assert [v.label for v in workspace.catalog.versions.served_since_blessed("sky")] == ["sky@1", "sky@2"]
    workspace.rollback("sky")
    assert [v.label for v in workspace.catalog.versions.served_since_blessed("sky")] == ["sky@1"]


def test_a_trial_on_another_base_model_changes_nothing(opened: Opened, folder: Path) -> None:
    write_tiny_model(folder / "another", seed=1)
    opened().set_policy("rollback")
    before = dump(folder / "catalog.db")
    report = opened("another").check()
    assert report.trial
    assert not report.passed
    assert {result.verdict for result in report.results} == {"regressed"}
    assert opened(dtype="bfloat16").check().trial
    assert dump(folder / "catalog.db") == before


def test_a_dry_run_changes_nothing(opened: Opened, folder: Path) -> None:
    workspace = opened()
    workspace.set_policy("rollback")
    workspace.export("sky", folder / "same")
    workspace.import_adapter("sky", nudged(folder / "same"))
    write_rows(folder / "sky", "test", 300, 0.0, random.Random(1))
    before = dump(folder / "catalog.db")
    report = workspace.check(dry_run=True)
    assert (report.trial, report.passed) == (True, False)
    assert dump(folder / "catalog.db") == before
    assert not workspace.check().trial
    assert dump(folder / "catalog.db") != before


def test_the_own_base_model_that_changed_in_place_is_checked_for_real(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    workspace = mp.open(tmp_path / "catalog.db", str(model), dtype="float32")
    workspace.learn(workspace.add_task(make_task("colour", rows=(24, 8, 40))).name)
    write_tiny_model(model, seed=1)
    for reopened in (mp.open(tmp_path / "catalog.db"), mp.open(tmp_path / "catalog.db", str(model))):
        report = reopened.check()
        assert (report.trial, report.results[0].cause) == (False, "base")
    with workspace.catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM checks WHERE version_id IS NULL").scalar() == 2


def test_a_score_that_is_known_is_not_stored_again(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    before = dump(workspace.catalog.path)
    assert workspace.evaluate("colour").score == workspace.version("colour").score
    assert dump(workspace.catalog.path) == before
    workspace.learn("colour")
    assert len(workspace.evaluations("kind = 'hard'")) == 1


def test_an_edited_task_file_is_not_learned_until_it_is_added(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = make_task("colour")
    assert workspace.add_task(path).change == "new"
    assert workspace.add_task(path).change == "unchanged"
    path.write_text(path.read_text().replace("Answer:", "Reply:"))
    with pytest.raises(StateError, match=r"was edited since it was added \(-doc_to_text: .*Reply.*`as_added=True`"):
        workspace.learn("colour")
    assert workspace.versions() == []
    assert workspace.learn("colour", as_added=True).published
    (note,) = workspace.check().notes
    assert note.startswith(f"colour: its task file {path} was edited since it was added (-doc_to_text: ")
    added = workspace.add_task(path)
    assert (added.change, len(added.difference)) == ("changed", 2)
    assert workspace.learn("colour").version == "colour@2"


def test_an_edited_file_that_a_task_file_includes_is_an_edit_of_the_task(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    base = make_task("colour")
    leaf = base.with_name("leaf.yaml")
    leaf.write_text("include: task.yaml\ntask: leaf\n")
    workspace.add_task(leaf)
    base.write_text(base.read_text().replace("Answer:", "Reply:"))
    with pytest.raises(StateError, match=r"leaf: .* was edited since it was added \(-doc_to_text: .*Reply"):
        workspace.learn("leaf")
    base.unlink()
    assert workspace.learn("leaf", as_added=True).published


def test_a_task_file_that_is_gone_or_was_never_there_stops_nobody(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = make_task("colour")
    workspace.add_task(path)
    path.unlink()
    assert workspace.learn("colour").published
    (note,) = workspace.check().notes
    assert note == "1 task file gone, so that an edit is not seen: colour"
    path = make_task("shade")
    workspace.add_task(mp.Task.from_mapping(mp.Task.from_file(path).mapping, path.parent))
    assert workspace.learn("shade").published
    assert len(workspace.check().notes) == 1


def test_adding_a_task_warns_of_what_learning_would_stumble_over(workspace: mp.Workspace, make_task: MakeTask) -> None:
    start = {"init": "version", "init_version": "shade@1"}
    added = workspace.add_task(make_task("colour", multiprompt=start))
    assert [w for w in added.warnings if "init_version cannot be started from yet: no task 'shade'" in w]
    added = workspace.add_task(make_task("tint", training_split=None))
    assert "tint: it names no training_split, so it can be imported only" in added.warnings
    report = workspace.learn(workspace.add_task(make_task("word")).name)
    assert [w for w in report.warnings if w.startswith("word: the 12 rows of split 'test' can show a drop of 0.5000")]


def test_a_regression_that_stood_before_keeps_no_candidate_out(
    opened: Opened,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from multiprompt.engine import evaluation

    workspace = opened()
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    real = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *given, **options: real(*given, **options) - 0.2)
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    assert workspace.learn("third").state == "rejected", "it is new: something changed since the last check"
    report = workspace.learn("third")
    assert report.published
    assert "sky@1 regressed before: metric; sea@1 regressed before: metric" in report.reason
    assert not workspace.check().passed
    assert workspace.learn("sky").published, "two regressed tasks do not keep each other from being mended"


def test_a_floor_that_cannot_be_measured_is_not_passed(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undefined(*_: Any, **__: Any) -> Any:
        raise MetricError("a correlation with a constant is no number")

    monkeypatch.setattr(admission, "majority", undefined)
    workspace.add_task(make_task("colour", multiprompt=HARD | {"regression": {"floor": "majority"}}))
    report = workspace.learn("colour")
    assert report.state == "candidate"
    assert report.reason.endswith(", acc cannot score the majority answer")


def write_echo(folder: Path, **regression: Any) -> Path:
    """A task whose answer is the text, which a tiny model learns."""
    file = write_task(folder, "red", 0.0, **regression)
    file.write_text(file.read_text().replace("steps: 40", "steps: 120"))
    for split, count in (("train", 200), ("validation", 40), ("test", 200)):
        rows = [json.dumps({"text": COLOURS[n % 2] * 3, "label": n % 2}) + "\n" for n in range(count)]
        (folder / "red" / f"{split}.jsonl").write_text("".join(rows))
    return file


def test_a_candidate_is_held_against_the_published_version_as_that_is_served(opened: Opened, folder: Path) -> None:
    workspace = opened()
    file = write_echo(folder)
    workspace.add_task(file)
    assert workspace.learn("red").soft > 0.9
    file.write_text(file.read_text().replace("{{text}}", "{{text[:0]}}"))
    workspace.add_task(file)
    report = workspace.learn("red")
    assert (report.soft, report.state) == (0.5, "rejected")
    assert report.reason.startswith("red@1 is better: acc 1.0")


def test_a_version_is_asked_as_it_is_served_where_the_choices_have_another_order(opened: Opened, folder: Path) -> None:
    workspace = opened()
    file = write_echo(folder)
    for data in (folder / "red").glob("*.jsonl"):
        data.write_text(
            data.read_text().replace('"label": 0', '"label": "red"').replace('"label": 1', '"label": "green"')
        )
    workspace.add_task(file)
    assert workspace.learn("red").soft > 0.9
    mapping = yaml.safe_load(file.read_text()) | {"doc_to_choice": [*COLOURS[::-1]], "doc_to_text": "{{text[:0]}}\n"}
    file.write_text(yaml.safe_dump(mapping))
    workspace.add_task(file)
    report = workspace.learn("red")
    assert report.state == "rejected"
    assert report.reason.startswith("red@1 is better: acc 1.0")


def test_a_version_with_other_right_answers_must_beat_the_floor_as_a_first_one(opened: Opened, folder: Path) -> None:
    workspace = opened()
    file = write_echo(folder, floor="hard")
    workspace.add_task(file)
    assert workspace.learn("red").published
    mapping = yaml.safe_load(file.read_text())
    mapping |= {"doc_to_choice": ["rouge", "vert", "bleu", "jaune"], "doc_to_text": "{{text[:0]}}\nAnswer:"}
    file.write_text(yaml.safe_dump(mapping))
    workspace.add_task(file)
    report = workspace.learn("red")
    assert (report.soft, report.state) == (0.5, "candidate"), report.reason
    assert report.reason.startswith("did not learn: acc 0.5000, the ")


def test_a_later_version_may_not_fall_below_the_floor(opened: Opened, folder: Path, tmp_path: Path) -> None:
    workspace = opened()
    file = write_echo(folder, floor="hard", max_drop=1.0)
    workspace.add_task(file)
    assert workspace.learn("red").published
    workspace.export("red", tmp_path / "poor")
    spoil(tmp_path / "poor")
    report = workspace.import_adapter("red", tmp_path / "poor")
    assert report.majority is not None
    assert report.soft < report.majority
    assert (report.version, report.state) == ("red@2", "candidate")
    assert "the majority answer has 0.5000 on the same 200 rows" in report.reason
    workspace.publish("red@2", "it is faster", force=True)
    spoil(tmp_path / "poor")
    assert workspace.import_adapter("red", tmp_path / "poor").published, "a version below the floor was let in"


def test_a_published_version_that_cannot_read_the_rows_is_asked_as_the_candidate_is(
    opened: Opened, folder: Path
) -> None:
    workspace = opened()
    file = write_echo(folder)
    workspace.add_task(file)
    workspace.learn("red")
    file.write_text(file.read_text().replace("{{text}}", "{{words}}"))
    for data in (folder / "red").glob("*.jsonl"):
        data.write_text(data.read_text().replace('"text"', '"words"'))
    workspace.add_task(file)
    assert workspace.learn("red").published


def test_a_prompt_that_did_not_learn_is_tried_again_on_other_rows(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = make_task("colour", rows=(24, 8, 4), multiprompt=HARD)
    workspace.add_task(path)
    workspace.learn("colour")
    report = workspace.learn("colour")
    assert (report.is_new, report.version) == (False, "colour@1")
    assert report.reason.endswith("a candidate; `ws.publish('colour@1', force=True, reason='…')` publishes it")
    make_task("colour", rows=(24, 8, 40), multiprompt=HARD)
    report = workspace.learn("colour")
    assert (report.is_new, report.version, report.rows) == (True, "colour@2", 40)
    assert "on the same 40 rows" in report.reason


@pytest.mark.parametrize("blessed", [False, True])
def test_a_regression_of_another_cause_than_the_standing_one_is_new(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch, blessed: bool
) -> None:
    from multiprompt.engine import evaluation

    workspace = opened()
    write_rows(folder / "sky", "test", 300, 0.3, random.Random(1))
    assert [r.cause for r in workspace.check().results if r.blocks] == ["data"]
    if blessed:
        workspace.bless("sky", "the labels are better")
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    real = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *given, **options: real(*given, **options) - 0.2)
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    report = workspace.learn("third")
    assert (report.state, report.reason) == ("rejected", "sky@1 regressed: metric")
    assert [r.cause for r in workspace.check().results if r.blocks] == [
        *["metric"] * blessed,
        *["data, metric"] * (not blessed),
        "metric",
    ]
    assert workspace.learn("third").published, "what the check before found is told only"


def test_wrong_answers_that_became_other_wrong_ones_keep_their_cause(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    workspace = mp.open(tmp_path / "catalog.db", str(model), dtype="float32")
    workspace.learn(workspace.add_task(make_task("hue", kind="generate", rows=(24, 8, 40))).name)
    write_tiny_model(model, seed=1)
    for _ in range(2):
        (found,) = mp.open(tmp_path / "catalog.db").check().results
        assert (found.verdict, found.cause) == ("unchanged", "base")
        assert found.evidence is not None
        assert (found.evidence.lost, found.evidence.gained, found.evidence.moved) == (0, 0, 40)
