"""The difference of two versions: how they were made, what they score, which rows flipped, how their tokens moved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.nn import functional

import multiprompt as mp
from multiprompt.errors import NotFoundError
from multiprompt.serving.prompts import load_prompt
from tests.conftest import COLOURS, MakeTask, nudged


def two_versions(workspace: mp.Workspace, path: Path) -> None:
    """colour@1, and colour@2 of more steps and more virtual tokens; both keep their numbers, whichever is better."""
    workspace.add_task(path)
    workspace.learn("colour")
    text = path.read_text().replace("steps: 6", "steps: 12").replace("num_virtual_tokens: 4", "num_virtual_tokens: 5")
    path.write_text(text)
    workspace.add_task(path)
    workspace.learn("colour")


def test_a_diff_names_what_the_versions_were_made_with(workspace: mp.Workspace, make_task: MakeTask) -> None:
    two_versions(workspace, make_task("colour"))
    found = workspace.diff("colour@1", "colour@2", tokens=False)
    changes = {change.name: (change.before, change.after) for change in found.changes}
    assert changes["num_virtual_tokens"] == (4, 5)
    assert (6, 12) in changes.values()
    assert not {"training data", "validation data", "evaluation data", "base model"} & changes.keys()
    assert found.tokens == ()


def test_a_version_does_not_differ_from_itself(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    found = workspace.diff("colour@1", "colour")
    (score,) = found.scores
    assert (found.changes, found.flips, score.before - score.after) == ((), (), 0)
    assert score.interval is not None
    assert (score.interval.low, score.interval.high) == (0, 0)
    assert all(token.cosine == pytest.approx(1) for token in found.tokens)


def test_flips_are_the_rows_that_one_version_has_right(workspace: mp.Workspace, make_task: MakeTask) -> None:
    two_versions(workspace, make_task("colour"))
    found = workspace.diff("colour@1", "colour@2", tokens=False)
    old, new = (
        workspace.catalog.baselines.evaluation_of(workspace.version(label)) for label in ("colour@1", "colour@2")
    )
    for flip in found.flips:
        right = (flip.after if flip.better else flip.before, flip.before if flip.better else flip.after)
        assert right[0] == flip.reference != right[1]
        answers = (COLOURS[int(side.predictions[flip.row])] for side in (old, new))
        assert (flip.before, flip.after) == tuple(answers), "a choice is told by its text"
    better = sum(flip.better for flip in found.flips)
    gained = (better - (len(found.flips) - better)) / old.rows
    assert gained == pytest.approx(new.score - old.score)
    (score,) = found.scores
    assert score.interval is not None
    assert score.interval.low <= gained <= score.interval.high


def edited(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys, sort_keys=False))
    return path


def test_versions_of_files_with_other_orders_of_choices_are_compared_by_the_texts(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    path = make_task("colour")
    workspace.add_task(path)
    workspace.learn("colour")
    workspace.add_task(edited(path, doc_to_choice=[*COLOURS[::-1]]))
    workspace.learn("colour")
    old, new = (
        workspace.catalog.baselines.evaluation_of(workspace.version(label)) for label in ("colour@1", "colour@2")
    )
    found = workspace.diff("colour@1", "colour@2", tokens=False)
    hits = [[p == r for p, r in zip(side.predictions, side.references, strict=True)] for side in (old, new)]
    assert [flip.row for flip in found.flips] == [row for row in range(12) if hits[0][row] != hits[1][row]]
    assert {flip.reference for flip in found.flips} <= set(COLOURS[:2])
    assert found.scores[0].interval is not None


def test_versions_of_other_rows_with_the_same_answers_have_no_flips(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    path = make_task("colour")
    workspace.add_task(path)
    workspace.learn("colour")
    file = path.parent / "test.jsonl"
    file.write_text(file.read_text().replace("sky", "a").replace("sea", "b").replace("rose", "c"))
    workspace.add_task(edited(path, description="Name the colour.\n"))
    workspace.learn("colour")
    found = workspace.diff("colour@1", "colour@2", tokens=False)
    assert "evaluation data" in {change.name for change in found.changes}
    assert (found.flips, found.scores[0].interval) == ((), None)


def test_a_metric_whose_answers_were_not_kept_has_no_interval(workspace: mp.Workspace, make_task: MakeTask) -> None:
    """acc@1 keeps what acc reads of the choices, and acc@2 what acc_norm does."""
    metrics = [{"metric": "acc"}, {"metric": "acc_norm"}]
    path = make_task("colour", metric_list=metrics)
    workspace.add_task(path)
    workspace.learn("colour")
    workspace.add_task(edited(path, metric_list=metrics[::-1]))
    workspace.learn("colour")
    found = workspace.diff("colour@1", "colour@2", tokens=False)
    assert [(score.metric, score.interval) for score in found.scores] == [("acc_norm", None), ("acc", None)]
    assert found.flips == ()


def test_tokens_are_compared_and_read(workspace: mp.Workspace, make_task: MakeTask) -> None:
    two_versions(workspace, make_task("colour"))
    tokens = workspace.diff("colour@1", "colour@2").tokens
    assert [token.index for token in tokens] == [0, 1, 2, 3, 4]
    assert (tokens[4].before, tokens[4].cosine) == (None, None)
    assert tokens[4].after is not None
    embeddings = (
        load_prompt(workspace.catalog, workspace.base_model(), workspace.version("colour@1"))
        .virtual_tokens()
        .embeddings
    )
    assert embeddings is not None
    words = functional.normalize(workspace.base_model().model.get_input_embeddings().weight.detach(), dim=-1)
    for token, vector in zip(tokens, embeddings.detach(), strict=False):
        assert token.before is not None
        assert token.cosine is not None
        assert -1.001 < token.cosine < 1.001
        assert token.before.norm == pytest.approx(float(vector.norm()))
        best = int((words @ vector).argmax())
        assert token.before.nearest[0] == workspace.base_model().tokenizer.decode([best])


def test_prefix_tuning_has_no_tokens_to_compare(workspace: mp.Workspace, make_task: MakeTask) -> None:
    settings = {"method": "prefix-tuning", "num_virtual_tokens": 3, "training": {"steps": 2, "batch_size": 4}}
    workspace.add_task(make_task("colour", multiprompt=settings))
    workspace.learn("colour")
    assert workspace.diff("colour@1", "colour@1").tokens == ()


def test_an_imported_version_is_compared_without_a_training(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    workspace.export("colour@1", tmp_path / "out")
    workspace.import_adapter("colour", nudged(tmp_path / "out"))
    shutil.rmtree(tmp_path / "out")
    changes = {change.name for change in workspace.diff("colour@1", "colour@2", tokens=False).changes}
    assert "training data" in changes
    assert "evaluation data" not in changes


def test_a_missing_version_is_named(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    with pytest.raises(NotFoundError, match="no version 9"):
        workspace.diff("colour@1", "colour@9")
