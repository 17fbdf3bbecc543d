"""Learning with other settings than the task file's: a candidate that a person may publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import multiprompt as mp
from multiprompt.config import SETTINGS
from multiprompt.errors import ConfigError
from multiprompt.tasks.task import Task
from tests.conftest import MakeTask

LENIENT = {"regression": {"floor": "none", "max_drop": 1.0}, "training": {"steps": 4, "batch_size": 4}}


def test_other_settings_make_a_candidate_and_leave_the_task_file(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour", multiprompt=LENIENT))
    first = workspace.learn("colour")
    source = workspace.task("colour").source
    report = workspace.learn("colour", settings={"training.steps": 2, "num_virtual_tokens": 3})
    assert (report.version, report.state, report.published) == ("colour@2", "held", False)
    assert report.reason.startswith("trial with training.steps=2, num_virtual_tokens=3: acc 0.")
    assert workspace.version("colour").label == first.version
    assert workspace.task("colour").source == source
    made = workspace.catalog.versions.task(workspace.version("colour@2"))
    assert (made.config.training.steps, made.config.prompt.num_virtual_tokens) == (2, 3)
    assert made.config.training.batch_size == 4
    changes = {change.name: (change.before, change.after) for change in workspace.diff("colour@1", "colour@2").changes}
    assert (4, 2) in changes.values()
    assert workspace.publish("colour@2", "it is better", force=True).state == "published"
    assert workspace.check(full=True).passed


def test_a_first_candidate_with_other_settings_is_not_published(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour", multiprompt=LENIENT))
    assert workspace.learn("colour", settings={"training.steps": 2}).state == "held"
    assert workspace.task_record("colour").published is None
    assert [event.kind for event in workspace.events("task = 'colour'")].count("held") == 1


def test_a_trial_of_the_same_bytes_keeps_no_learning_from_publishing(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    workspace.add_task(make_task("colour", multiprompt=LENIENT))
    same = {"training.steps": 4}
    assert workspace.learn("colour", settings=same).version == "colour@1"
    assert workspace.learn("colour", settings=same).is_new is False
    report = workspace.learn("colour")
    assert (report.version, report.state) == ("colour@2", "published")
    assert workspace.version("colour@1").digest == workspace.version("colour@2").digest
    assert workspace.learn("colour").is_new is False
    assert workspace.verify() == []


def test_the_gate_still_rejects_and_the_floor_still_holds(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour", multiprompt={"training": {"steps": 2}, "regression": {"floor": "hard"}}))
    report = workspace.learn("colour", settings={"training.steps": 1})
    assert (report.state, report.reason[:36]) == ("candidate", "trial with training.steps=1: did not")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"training.step": 4}, "colour: there is no setting 'training.step'; did you mean 'training.steps'?"),
        ({"steps": 4}, "there is no setting 'steps'; known: training.steps"),
        ({"training": {"steps": 4}}, "there is no setting 'training'"),
        ({"training.steps": "many"}, "multiprompt.training.steps is 'many', but it must be int"),
        ({"training.learning_rate": float("nan")}, "colour: training.learning_rate is nan, which is no value"),
        ({"training.steps": 0}, "training.steps is 0, but it must lie between 1 and"),
        ({"method": object()}, "colour: holds a object"),
        ("training.steps=4", "settings is a str"),
    ],
)
def test_a_setting_that_is_none_is_refused(
    workspace: mp.Workspace, make_task: MakeTask, settings: Any, says: str
) -> None:
    workspace.add_task(make_task("colour"))
    with pytest.raises(ConfigError) as refused:
        workspace.learn("colour", settings=settings)
    assert says in str(refused.value)
    assert workspace.versions() == []


def test_settings_under_metadata_stay_there(make_task: MakeTask) -> None:
    mapping = dict(Task.from_file(make_task("colour")).mapping)
    settings = mapping.pop("multiprompt")
    task = Task.from_mapping(mapping | {"metadata": {"multiprompt": settings}})
    changed = task.with_settings({"training.steps": 9, "max_input_tokens": 30})
    assert (changed.config.training.steps, changed.config.max_input_tokens) == (9, 30)
    assert "multiprompt" not in changed.mapping


def test_every_setting_of_the_task_file_page_has_a_name() -> None:
    page = (Path(mp.__file__).parent / "docs" / "reference" / "task-file.md").read_text(encoding="utf-8")
    assert [name for name in SETTINGS if name.rpartition(".")[2] not in page] == []
