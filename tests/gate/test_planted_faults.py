"""Every kind of forgetting, planted: each is caught, and named for what it is."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from multiprompt.engine import evaluation
from multiprompt.engine.answering import Answer
from multiprompt.errors import BaseMismatchError
from multiprompt.gate import check as checking
from multiprompt.gate.check import UNEXPLAINED
from multiprompt.records import CheckReport, CheckResult
from tests.conftest import COLOURS, write_tiny_model
from tests.gate.conftest import ROWS, Opened, write_rows


def by_task(report: CheckReport) -> dict[str, CheckResult]:
    return {result.version.partition("@")[0]: result for result in report.results}


def seen(report: CheckReport) -> dict[str, tuple[str, str]]:
    return {name: (result.verdict, result.cause) for name, result in by_task(report).items()}


def perturb(model: Path, scale: float) -> None:
    file = model / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor + scale * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})


def edit(folder: Path, name: str, old: str, new: str) -> None:
    file = folder / name / "task.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_nothing_planted_is_nothing_found(opened: Opened) -> None:
    report = opened().check()
    assert seen(report) == {"sky": ("identical", ""), "sea": ("identical", "")}
    assert (report.evaluated, report.canaries, report.reused) == (0, 8, 2 * ROWS)


def test_perturbed_base_weights(opened: Opened, folder: Path) -> None:
    perturb(folder / "model", 1.0)
    report = opened().check()
    assert not report.passed
    assert {cause for _, cause in seen(report).values()} == {"base"}
    assert "regressed" in {verdict for verdict, _ in seen(report).values()}


def test_base_weights_that_moved_by_nothing_that_matters_are_named_and_pass(opened: Opened, folder: Path) -> None:
    perturb(folder / "model", 1e-6)
    report = opened().check()
    assert report.passed
    assert seen(report) == {"sky": ("identical", "base"), "sea": ("identical", "base")}


def test_another_base_model_of_equal_width(opened: Opened, folder: Path) -> None:
    write_tiny_model(folder / "another", seed=1)
    workspace = opened("another")
    report = workspace.check()
    assert seen(report) == {"sky": ("regressed", "base"), "sea": ("regressed", "base")}
    assert not report.passed
    with pytest.raises(BaseMismatchError, match=r"model \(sha256:.*another \(sha256:"):
        workspace.predict([("sky", "x")])


def test_a_base_model_of_another_width_cannot_be_measured_and_never_passes(opened: Opened, folder: Path) -> None:
    write_tiny_model(folder / "wide", hidden_size=64)
    report = opened("wide").check()
    assert not report.passed
    assert {verdict for verdict, _ in seen(report).values()} == {"failed"}
    assert "32" in by_task(report)["sky"].cause
    assert "64" in by_task(report)["sky"].cause
    assert by_task(report)["sky"].max_drop == opened().context.task("sky").config.regression.max_drop == 0.01


def test_a_changed_tokenizer(opened: Opened, folder: Path) -> None:
    """The tokens of two answers swap their numbers, as they may when a tokenizer is trained anew."""
    file = folder / "model" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    encode = opened().base_model().tokenizer.tokenize
    for blue, green in zip(encode(" blue"), encode(" green"), strict=False):
        vocabulary[blue], vocabulary[green] = vocabulary[green], vocabulary[blue]
    file.write_text(json.dumps(tokenizer))
    report = opened().check()
    assert {cause for _, cause in seen(report).values()} == {"tokenizer"}
    assert not report.passed


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("Answer:", "Nothing of the kind, not blue, red? red! red:", "doc_to_text"),
        ("description:", "target_delimiter: ''\ndescription:", "target_delimiter"),
        ("test: test.jsonl", "test: train.jsonl", "dataset_kwargs.data_files.test"),
    ],
)
def test_an_edited_task_file_is_drift_and_the_served_prompt_is_measured(
    opened: Opened, folder: Path, old: str, new: str, keys: str
) -> None:
    edit(folder, "sky", old, new)
    workspace = opened()
    workspace.add_task(folder / "sky" / "task.yaml")
    report = workspace.check()
    assert seen(report) == {"sky": ("identical", ""), "sea": ("identical", "")}
    (note,) = report.notes
    assert note.startswith("sky@1 is served with the task file that it was made with")
    assert f"differs in {keys}: run `ws.learn('sky')`" in note
    assert workspace.evaluate("sky").score == by_task(report)["sky"].baseline


def test_moved_data_is_seen_through_an_edited_template(opened: Opened, folder: Path) -> None:
    edit(folder, "sky", "Answer:", "red red red:")
    workspace = opened()
    workspace.add_task(folder / "sky" / "task.yaml")
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    assert seen(workspace.check())["sky"] == ("regressed", "data")


def test_edited_test_data(opened: Opened, folder: Path) -> None:
    """The answer that is asked for is blue no longer."""
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    report = opened().check()
    assert seen(report) == {"sky": ("regressed", "data"), "sea": ("identical", "")}


def test_test_data_with_more_rows(opened: Opened, folder: Path) -> None:
    write_rows(folder / "sky", "test", 2 * ROWS, 0.2, random.Random(1))
    report = opened().check()
    assert seen(report)["sky"] == ("regressed", "data")
    evidence = by_task(report)["sky"].evidence
    assert evidence is not None
    assert (evidence.rows, evidence.lost) == (2 * ROWS, None)


def test_shuffled_labels(opened: Opened, folder: Path) -> None:
    file = folder / "sea" / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    labels = [(row["label"] + random.Random(0).choice([0, 1, 2])) % 4 for row in rows]
    random.Random(1).shuffle(labels)
    file.write_text("".join(json.dumps(row | {"label": label}) + "\n" for row, label in zip(rows, labels, strict=True)))
    report = opened().check()
    assert seen(report) == {"sky": ("identical", ""), "sea": ("regressed", "data")}
    evidence = by_task(report)["sea"].evidence
    assert evidence is not None
    assert evidence.flips[0].before == evidence.flips[0].after
    assert {flip.reference for flip in evidence.flips} <= set(COLOURS), "a choice is told by its text"


def test_rows_that_others_took_the_place_of_are_no_flips(opened: Opened, folder: Path) -> None:
    """Row 3 of other data says nothing of what row 3 was answered with before."""
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    rows = [json.loads(line) for line in (folder / "sky" / "test.jsonl").read_text().splitlines()]
    old = opened().catalog.evaluations.rows(opened().version("sky"))
    evidence = by_task(opened().check())["sky"].evidence
    assert evidence is not None
    assert evidence.lost
    assert all(old.rows[flip.row]["text"] == rows[flip.row]["text"] for flip in evidence.flips)


def test_data_that_is_away_is_told_and_the_stored_rows_are_used(opened: Opened, folder: Path) -> None:
    workspace = opened()
    (folder / "sky" / "test.jsonl").unlink()
    report = workspace.check()
    assert seen(report)["sky"] == ("identical", "")
    (note,) = report.notes
    assert note.startswith("sky@1 is checked on the rows of its baseline")


def test_a_flipped_bit_of_a_prompt_is_refused(opened: Opened, folder: Path) -> None:
    workspace = opened()
    with sqlite3.connect(folder / "catalog.db") as raw:
        raw.execute("DROP TRIGGER artifacts_frozen")
        (sha256, data) = raw.execute(
            "SELECT a.sha256, a.data FROM artifacts a JOIN prompt_versions v ON v.weights_sha256 = a.sha256"
        ).fetchone()
        flipped = bytearray(data)
        flipped[-7] ^= 1
        raw.execute("UPDATE artifacts SET data = ? WHERE sha256 = ?", (bytes(flipped), sha256))
    raw.close()
    report = workspace.check()
    assert not report.passed
    assert {verdict for verdict, _ in seen(report).values()} == {"failed", "identical"}
    assert "stored as sha256" in by_task(report)["sky"].cause + by_task(report)["sea"].cause


def test_another_dtype_is_drift_and_no_forgetting_while_scores_stay(opened: Opened) -> None:
    report = opened(dtype="bfloat16").check()
    assert report.passed
    assert {cause for _, cause in seen(report).values()} == {"dtype"}
    assert {verdict for verdict, _ in seen(report).values()} <= {"identical", "unchanged", "improved"}


def test_another_dtype_under_which_scores_fall_is_a_regression(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_always(monkeypatch, 0)
    report = opened(dtype="bfloat16").check()
    assert seen(report) == {"sky": ("regressed", "dtype"), "sea": ("regressed", "dtype")}


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_new_version_of_a_metric(opened: Opened, monkeypatch: pytest.MonkeyPatch, loss: float) -> None:
    real = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *given, **options: real(*given, **options) - loss)
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    report = opened().check()
    expected = ("regressed" if loss else "identical", "metric")
    assert seen(report) == {"sky": expected, "sea": expected}
    assert report.passed == (loss == 0)


def test_a_new_library(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_libraries", lambda: "torch==99.0")
    report = opened().check()
    assert report.passed
    assert seen(report) == {"sky": ("identical", "library"), "sea": ("identical", "library")}


def answer_always(monkeypatch: pytest.MonkeyPatch, output: int) -> None:
    """The model gives one answer to everything, which nothing in a score's key tells of."""
    monkeypatch.setattr(checking, "answer", lambda _, questions: [Answer((output,)) for _ in questions])


def test_what_no_part_of_the_key_explains_is_found_by_the_canaries(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_always(monkeypatch, 0)
    report = opened().check()
    assert seen(report) == {"sky": ("regressed", UNEXPLAINED), "sea": ("regressed", UNEXPLAINED)}
    assert (report.evaluated, report.noise) == (2 * ROWS, 0.0)


def test_answers_that_differ_from_run_to_run_are_noise(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    monkeypatch.setattr(checking, "answer", lambda _, questions: [Answer((rng.randrange(4),)) for _ in questions])
    report = opened().check()
    assert seen(report) == {"sky": ("regressed", "noise"), "sea": ("regressed", "noise")}
    assert report.noise is not None
    assert report.noise > 0.4


def test_one_prompt_for_two_tasks_is_kept_out_by_the_gate(opened: Opened, folder: Path, tmp_path: Path) -> None:
    """The control: what is trained on one task after another forgets the first, and may not serve it."""
    red = folder / "red"
    red.mkdir()
    for split, count in (("train", 200), ("validation", 40), ("test", ROWS)):
        write_rows(red, split, count, 0.0, random.Random(split))
        rows = [json.loads(line) for line in (red / f"{split}.jsonl").read_text().splitlines()]
        (red / f"{split}.jsonl").write_text("".join(json.dumps(row | {"label": 0}) + "\n" for row in rows))
    task = (folder / "sky" / "task.yaml").read_text().replace("task: sky", "task: red")
    task = task.replace("multiprompt:\n", "multiprompt:\n  init: version\n  init_version: sky@1\n", 1)
    (red / "task.yaml").write_text(task)
    workspace = opened()
    workspace.add_task(red / "task.yaml")
    assert workspace.learn("red").published
    workspace.export("red", tmp_path / "shared")
    report = workspace.import_adapter("sky", tmp_path / "shared")
    assert not report.published
    assert "sky@1 is better" in report.reason
    assert seen(workspace.check()) == dict.fromkeys(("sky", "sea", "red"), ("identical", ""))
    assert workspace.matrix().scores[-1][:2] == workspace.matrix().scores[1][:2]
