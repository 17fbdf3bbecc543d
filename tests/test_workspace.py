"""The workspace from end to end on a tiny model: learn, predict, check, retrain, roll back, export, import."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import MambaConfig

import multiprompt as mp
from multiprompt.catalog.candidates import Candidates
from multiprompt.engine.fingerprint import former_identity
from multiprompt.errors import (
    AdapterError,
    BaseMismatchError,
    BaseModelError,
    CatalogError,
    ConfigError,
    DataError,
    IntegrityError,
    MetricError,
    NotFoundError,
    QueryError,
    StateError,
    TaskFileError,
)
from multiprompt.opening import init_workspace
from multiprompt.records import BaseModelRecord
from multiprompt.tasks.task import Task
from tests.catalog.databases import by, new_database
from tests.conftest import MakeTask, between_versions, nudged, write_model, write_tiny_model


def learn(workspace: mp.Workspace, path: Path) -> Any:
    return workspace.learn(workspace.add_task(path).name)


def damage(catalog: Path, version: str) -> None:
    """Flip one byte of a version's weights behind the catalog's back."""
    name, _, number = version.partition("@")
    with sqlite3.connect(catalog) as raw:
        raw.execute("DROP TRIGGER artifacts_frozen")
        (sha256,) = raw.execute(
            "SELECT v.weights_sha256 FROM prompt_versions v JOIN tasks t ON t.id = v.task_id"
            " WHERE t.name = ? AND v.number = ?",
            (name, number),
        ).fetchone()
        (data,) = raw.execute("SELECT data FROM artifacts WHERE sha256 = ?", (sha256,)).fetchone()
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        raw.execute("UPDATE artifacts SET data = ? WHERE sha256 = ?", (flipped, sha256))
    raw.close()


def snapshot(catalog: Path) -> list[str]:
    with sqlite3.connect(catalog) as raw:
        lines = list(raw.iterdump())
    raw.close()
    return lines


def test_learning_publishes_a_version_with_its_evidence(workspace: mp.Workspace, make_task: MakeTask) -> None:
    report = learn(workspace, make_task("colour"))
    assert (report.version, report.published, report.metric) == ("colour@1", True, "acc")
    assert 0 <= report.hard <= 1
    assert report.train_seconds > 0
    version = workspace.version("colour")
    assert (version.label, version.state, version.num_virtual_tokens) == ("colour@1", "published", 4)
    assert version.score == report.soft
    assert len(workspace.catalog.runs.of(version).losses) == 6
    soft, hard = (
        workspace.evaluation(workspace.evaluations(f"task = 'colour' and kind = '{kind}'")[0].id)
        for kind in ("soft", "hard")
    )
    assert (soft.score, hard.score) == (report.soft, report.hard)
    assert soft.references == hard.references == tuple(n % 2 for n in range(12))
    assert sum(p == r for p, r in zip(soft.predictions, soft.references, strict=True)) / 12 == soft.score


def test_learning_a_task_leaves_older_prompts_untouched(workspace: mp.Workspace, make_task: MakeTask) -> None:
    first = learn(workspace, make_task("colour"))
    second = learn(workspace, make_task("word", kind="generate"))
    digests = {label: workspace.digest(label) for label in (first.version, second.version)}
    third = learn(workspace, make_task("shade"))
    assert third.untouched
    assert {label: workspace.digest(label) for label in digests} == digests
    assert {result.version: result.verdict for result in third.check.results} == dict.fromkeys(digests, "identical")
    matrix = workspace.matrix()
    assert matrix.tasks == ("colour", "word", "shade")
    assert [row[0] for row in matrix.scores] == [first.soft] * 3
    assert matrix.scores[0][1:] == (None, None)


def test_predictions_of_any_mix_equal_those_of_each_row_alone(workspace: mp.Workspace, make_task: MakeTask) -> None:
    for path in (make_task("colour"), make_task("word", kind="generate")):
        learn(workspace, path)
    rows: list[Any] = [
        ("colour", {"text": "sky"}),
        ("word", "a long rose in the sea"),
        ("colour@1", "rose 2"),
        ("word", "x"),
    ]
    together = workspace.predict(rows)
    for row, among_others in zip(rows, together, strict=True):
        (alone,) = workspace.predict([row])
        assert (alone.output, alone.version) == (among_others.output, among_others.version)
        assert alone.probabilities == pytest.approx(among_others.probabilities, abs=1e-5)
    assert [prediction.task for prediction in together] == ["colour", "word", "colour", "word"]
    assert set(together[0].probabilities or {}) == {"red", "green", "blue", "yellow"}
    assert sum((together[0].probabilities or {}).values()) == pytest.approx(1)
    assert together[0].output == max(together[0].probabilities or {}, key=(together[0].probabilities or {}).get)
    assert together[1].probabilities is None


def test_predictions_are_those_the_evaluation_scored(workspace: mp.Workspace, make_task: MakeTask) -> None:
    learn(workspace, make_task("colour"))
    rows = workspace.catalog.evaluations.rows(workspace.version("colour")).rows
    predicted = workspace.predict([("colour", {"text": row["text"]}) for row in rows])
    soft = workspace.evaluation(workspace.evaluations("kind = 'soft'")[0].id)
    assert [p.output for p in predicted] == [("red", "green", "blue", "yellow")[i] for i in soft.predictions]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([("colours", "x")], NotFoundError, "no task 'colours'.*did you mean 'colour'"),
        ([("colour@7", "x")], NotFoundError, r"no version 7; its versions: 1 \(published\)"),
        ([("colour@x", "x")], NotFoundError, "write task@number"),
        ([("colour", "x"), ("colour", {"txt": "x"})], DataError, "row 1 of the call: .* lacks the field 'text'"),
    ],
)
def test_a_bad_row_of_a_prediction_is_named(
    workspace: mp.Workspace, make_task: MakeTask, rows: Any, error: type[Exception], message: str
) -> None:
    learn(workspace, make_task("colour"))
    with pytest.raises(error, match=message):
        workspace.predict(rows)


def test_a_task_without_a_published_version_says_how_to_get_one(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    with pytest.raises(NotFoundError, match=r"run `ws.learn\(.colour.\)`"):
        workspace.predict([("colour", "x")])


def test_a_check_passes_on_an_unchanged_catalog_and_is_stored(workspace: mp.Workspace, make_task: MakeTask) -> None:
    learn(workspace, make_task("colour"))
    report = workspace.check()
    assert report.passed
    assert [(r.version, r.verdict, r.drop) for r in report.results] == [("colour@1", "identical", 0.0)]
    assert (report.evaluated, report.canaries, report.reused) == (0, 4, 12)
    again = workspace.check(full=True)
    assert [(r.version, r.verdict, r.drop) for r in again.results] == [("colour@1", "identical", 0.0)]
    assert (again.evaluated, again.canaries, again.reused) == (12, 0, 0)
    assert len(workspace.evaluations("kind = 'soft'")) == 1


def test_a_damaged_prompt_fails_the_check_and_blocks_the_next_task(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    learn(workspace, make_task("colour"))
    learn(workspace, make_task("shade"))
    damage(workspace.catalog.path, "colour@1")
    report = workspace.check()
    assert not report.passed
    assert {r.version: r.verdict for r in report.results} == {"colour@1": "failed", "shade@1": "identical"}
    assert [problem.where for problem in workspace.verify()] == ["database", "artifacts", "colour@1"]
    workspace.add_task(make_task("shape"))
    with pytest.raises(IntegrityError, match="colour@1: stored as sha256"):
        workspace.learn("shape")


def test_a_regression_elsewhere_rejects_the_candidate(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric that starts to score everything zero stands for any change in the environment."""
    learn(workspace, make_task("word", kind="generate", doc_to_target="{{label}}", metric_list=[{"metric": "rouge_l"}]))
    assert (workspace.version("word").score or 0) >= 0
    baseline = workspace.version("word").score
    learn(workspace, make_task("colour"))
    from multiprompt.engine import evaluation

    real = evaluation.score
    monkeypatch.setattr(
        evaluation, "score", lambda metric, *rest, **kw: real(metric, *rest, **kw) - (metric.name == "acc")
    )
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    report = learn(workspace, make_task("shape", kind="generate"))
    assert not report.published
    assert "colour@1 regressed" in report.reason
    assert workspace.version("shape@1").state == "rejected"
    assert workspace.version("word").score == baseline
    with pytest.raises(NotFoundError, match=r"1 \(rejected\)"):
        workspace.predict([("shape", "x")])


def test_relearning_makes_a_new_version_with_its_lineage(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = make_task("colour")
    learn(workspace, path)
    path.write_text(path.read_text().replace("steps: 6", "steps: 8"))
    report = learn(workspace, path)
    assert report.version == "colour@2"
    (edge,) = between_versions(workspace.lineage("colour@1"))
    assert (edge.child, edge.relation, edge.parent) == ("colour@2", "retrained-from", "colour@1")
    states = {version.number: version.state for version in workspace.versions("task = 'colour'")}
    assert states in ({1: "retired", 2: "published"}, {1: "published", 2: "rejected"})
    if report.published:
        assert workspace.rollback("colour").label == "colour@1"
        assert workspace.version("colour").label == "colour@1"
        assert [event.kind for event in workspace.events("task = 'colour'")][-1] == "rolled-back"


def test_a_rollback_without_a_retired_version_says_so(workspace: mp.Workspace, make_task: MakeTask) -> None:
    learn(workspace, make_task("colour"))
    with pytest.raises(StateError, match="no retired version"):
        workspace.rollback("colour")
    with pytest.raises(StateError, match="colour@1 is published"):
        workspace.rollback("colour", to=1)


def test_an_interrupted_training_leaves_the_catalog_as_it_was(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask
) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what.endswith("training") and done == 3:
            raise KeyboardInterrupt

    workspace = mp.open(tmp_path / "catalog.db", str(tiny_model), progress=interrupt)
    workspace.add_task(make_task("colour"))
    workspace.base_model()
    before = snapshot(workspace.catalog.path)
    with pytest.raises(KeyboardInterrupt):
        workspace.learn("colour")
    assert snapshot(workspace.catalog.path) == before


def before_admission(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Act once, when the first candidate is about to be admitted."""
    admit = Candidates.admit
    acts = [act]

    def racing(self: Candidates, *args: Any, **kwargs: Any) -> Any:
        if acts:
            acts.pop()()
        return admit(self, *args, **kwargs)

    monkeypatch.setattr(Candidates, "admit", racing)


def test_a_prompt_published_meanwhile_is_gated_before_publishing(
    workspace: mp.Workspace, make_task: MakeTask, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add_task(make_task("colour"))
    other = mp.open(workspace.catalog.path, str(tiny_model), dtype="float32")
    before_admission(monkeypatch, lambda: learn(other, make_task("shade")))
    report = workspace.learn("colour")
    assert report.published
    assert [result.version for result in report.check.results] == ["shade@1"]


def test_another_base_model_is_refused_by_name(workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path) -> None:
    learn(workspace, make_task("colour"))
    other = write_tiny_model(tmp_path / "another", seed=1)
    with pytest.raises(BaseMismatchError, match=r"tiny \(sha256:.*another \(sha256:"):
        mp.open(workspace.catalog.path, str(other), dtype="float32").predict([("colour", "x")])


def test_another_dtype_is_another_base_model(workspace: mp.Workspace, make_task: MakeTask, tiny_model: Path) -> None:
    learn(workspace, make_task("colour"))
    with pytest.raises(BaseMismatchError, match=r"float32\).*bfloat16\)"):
        mp.open(workspace.catalog.path, str(tiny_model), dtype="bfloat16").predict([("colour", "x")])


def test_a_base_model_that_was_moved_is_found_again_once_init_names_its_new_place(
    workspace: mp.Workspace, make_task: MakeTask, tiny_model: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(tiny_model, old)
    catalog = tmp_path / "moved.db"
    learned = mp.open(catalog, str(old), dtype="float32")
    learn(learned, make_task("colour"))
    answers = learned.predict([("colour", "x")])
    old.rename(new)
    with pytest.raises(NotFoundError, match=r"is bound to old \(.*/old'.*name its new place: `mp.open\(base_model="):
        mp.open(catalog).predict([("colour", "x")])
    init_workspace(catalog, str(new))
    again = mp.open(catalog)
    assert again.predict([("colour", "x")]) == answers
    assert len(again.events("kind = 'base-model-moved'")) == 1


def test_an_empty_catalog_is_said_to_be_bound_not_to_hold_prompts(tiny_model: Path, tmp_path: Path) -> None:
    init_workspace(tmp_path / "empty.db", str(tiny_model), "float32")
    with pytest.raises(BaseMismatchError, match=r"is bound to tiny .*float32\), but .*bfloat16.*another dtype"):
        init_workspace(tmp_path / "empty.db", str(tiny_model), "bfloat16")


def test_a_catalog_with_the_fingerprints_of_an_earlier_release_is_renewed_once(
    workspace: mp.Workspace, make_task: MakeTask, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    _, tokenizer, config, _ = former = former_identity(model, "float32")
    with monkeypatch.context() as patched:
        patched.setattr("multiprompt.engine.loading.tokenizer_fingerprint", lambda _: tokenizer)
        patched.setattr("multiprompt.engine.loading.config_fingerprint", lambda *_: config)
        learn(workspace, make_task("colour"))
        answers = workspace.predict([("colour", "x")])
    digests = workspace.catalog.versions.digests()

    for _ in range(2):
        again = mp.open(workspace.catalog.path, str(model), actor="tester")
        assert again.predict([("colour", "x")]) == answers
        assert again.check().passed
    (event,) = again.events("kind = 'base-model-renewed'")
    bound = again.catalog.base_models.get()[2]
    assert bound is not None
    assert bound.identity != former
    assert (event.actor, event.reason.endswith(f"is now identified as {bound}")) == ("tester", True)
    assert again.version("colour@1").base_model.identity == former
    assert (again.catalog.versions.digests(), again.catalog.verify()) == (digests, [])

    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"clean_up_tokenization_spaces": True}))
    with pytest.raises(BaseMismatchError):
        mp.open(workspace.catalog.path, str(model)).base_model()


def test_a_catalog_with_earlier_fingerprints_of_another_model_is_not_renewed(
    workspace: mp.Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    weights, _, config, dtype = former_identity(tiny_model, "float32")
    other = BaseModelRecord("other", "other", "local", "Llama", dtype, weights, "sha256:another", config)
    by(workspace.catalog, "tester", datetime(2026, 1, 1, tzinfo=UTC)).base_models.bind(other)
    before = snapshot(workspace.catalog.path)
    with pytest.raises(BaseMismatchError, match=r"tokenizer sha256:another"):
        workspace.base_model()
    assert snapshot(workspace.catalog.path) == before


def test_a_catalog_that_was_opened_with_an_unusable_model_does_not_take_the_default_one(
    tmp_path: Path, make_task: MakeTask
) -> None:
    (tmp_path / "empty").mkdir()
    mp.open(tmp_path / "catalog.db", str(tmp_path / "empty")).add_task(make_task("colour"))
    with pytest.raises(BaseModelError, match="empty holds no"):
        mp.open(tmp_path / "catalog.db").learn("colour")


def test_prefix_tuning_on_a_model_without_keys_and_values_is_refused_before_training(
    make_task: MakeTask, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    model = write_model(tmp_path / "mamba", MambaConfig(**sizes))
    task = make_task("colour", multiprompt={"method": "prefix-tuning", "init": "random"})
    workspace = mp.open(tmp_path / "catalog.db", str(model), dtype="float32")
    workspace.add_task(task)
    reason = r"prefix-tuning cannot be used on mamba \(MambaForCausalLM\), as 0 of its 2 layers keep keys and values"
    for refused in (lambda: workspace.learn("colour"), lambda: workspace.add_task(task)):
        with pytest.raises(AdapterError, match=reason):
            refused()
    assert workspace.versions() == []


def test_the_catalog_remembers_its_base_model(workspace: mp.Workspace, make_task: MakeTask) -> None:
    learn(workspace, make_task("colour"))
    again = mp.open(workspace.catalog.path)
    assert again.predict([("colour", "x")])[0].version == "colour@1"


def test_a_catalog_remembers_the_dtype_that_it_was_made_with_before_the_model_is_loaded(
    tmp_path: Path, tiny_model: Path
) -> None:
    """A worker opens the catalog without one, and may be the first to load the model."""
    for dtype in ("float32", "float16"):
        mp.open(tmp_path / f"{dtype}.db", str(tiny_model), dtype=dtype)
        mp.open(tmp_path / f"{dtype}.db", str(tiny_model))
        assert mp.open(tmp_path / f"{dtype}.db", create=False).base_model().record.dtype == dtype
    mp.open(tmp_path / "float32.db", dtype="float16")
    assert mp.open(tmp_path / "float32.db").base_model().record.dtype == "float32", "it is bound"
    with pytest.raises(ConfigError, match="no dtype 'float23'; did you mean 'float32'"):
        mp.open(tmp_path / "other.db", dtype="float23")
    assert not (tmp_path / "other.db").exists()


def test_an_unknown_base_model_is_an_error_before_anything_is_stored(tmp_path: Path, make_task: MakeTask) -> None:
    workspace = mp.open(tmp_path / "catalog.db", "smollm3")
    workspace.add_task(make_task("colour"))
    before = snapshot(workspace.catalog.path)
    with pytest.raises(NotFoundError, match="no base model 'smollm3'.*smollm2-135m"):
        workspace.learn("colour")
    assert snapshot(workspace.catalog.path) == before
    with pytest.raises(BaseModelError):
        mp.open(tmp_path / "catalog.db", str(tmp_path)).base_model()


def test_an_exported_version_imports_with_the_same_scores(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    report = learn(workspace, make_task("colour"))
    folder = workspace.export("colour@1", tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    version = workspace.version("colour@1")
    assert (front["base_model"], front["library_name"]) == (version.base_model.source, "peft")
    run = workspace.catalog.runs.of(version)
    assert run is not None
    known = (version.label, version.digest, version.base_model.weights, run.training_data, "PeftModel.from_pretrained")
    assert [fact for fact in known if fact not in card] == []
    assert f"| acc | {version.score:.4f} |" in card
    same = workspace.import_adapter("colour", folder)
    assert (same.version, same.soft, same.is_new, same.published) == ("colour@1", report.soft, False, True)
    assert same.reason == "nothing new to learn: the adapter has the bytes of colour@1"
    imported = workspace.import_adapter("colour", nudged(folder))
    assert (imported.version, imported.soft) == ("colour@2", report.soft)
    edges = between_versions(workspace.lineage("colour@2"))
    assert [(e.relation, e.parent) for e in edges] == [("imported-from", str(folder))]


def exported_and_another(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> tuple[Path, Callable[[Path, str], mp.Workspace]]:
    """An exported version, and how catalogs over other base models that know its task are made."""
    task = make_task("colour")
    learn(workspace, task)

    def other(model: Path, dtype: str) -> mp.Workspace:
        opened = mp.open(tmp_path / "other.db", str(model), dtype=dtype)
        opened.add_task(task)
        return opened

    return workspace.export("colour@1", tmp_path / "out"), other


def test_an_export_of_another_base_model_is_not_imported(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    folder, other = exported_and_another(workspace, make_task, tmp_path)
    opened = other(write_tiny_model(tmp_path / "another", seed=1), "float32")
    with pytest.raises(BaseMismatchError, match=r"was made on .*tiny \(sha256:.*open with another \(.*other weights"):
        opened.import_adapter("colour", folder)
    assert list(opened.versions()) == []


def test_an_adapter_that_only_names_another_base_model_is_imported_with_a_warning(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    folder, other = exported_and_another(workspace, make_task, tmp_path)
    (folder / "README.md").unlink()
    opened = other(write_tiny_model(tmp_path / "another", seed=1), "float32")
    warnings = opened.import_adapter("colour", folder).warnings
    assert any(re.search(r"says that it was made on .*tiny; whether that is another \(", one) for one in warnings)


def test_an_export_is_imported_on_a_copy_of_its_base_model_and_a_dtype_is_told(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, tiny_model: Path
) -> None:
    folder, other = exported_and_another(workspace, make_task, tmp_path)
    copied = Path(shutil.copytree(tiny_model, tmp_path / "copied"))
    warnings = other(copied, "bfloat16").import_adapter("colour", folder).warnings
    assert [one for one in warnings if "made" in one] == [
        f"{folder} was made in float32, and this catalog runs bfloat16"
    ]


def test_bytes_that_were_published_meanwhile_are_not_published_again(
    workspace: mp.Workspace, make_task: MakeTask, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add_task(make_task("colour"))
    other = mp.open(workspace.catalog.path, str(tiny_model), dtype="float32")
    before_admission(monkeypatch, lambda: other.learn("colour"))
    report = workspace.learn("colour")
    assert (report.version, report.is_new, report.published) == ("colour@1", False, True)
    assert [version.label for version in workspace.versions()] == ["colour@1"]


def test_a_clock_without_a_zone_is_refused(tmp_path: Path, make_task: MakeTask) -> None:
    local = mp.open(tmp_path / "catalog.db", clock=lambda: datetime(2026, 1, 1, 3))
    by(local.catalog, "tester", datetime(2026, 1, 1, tzinfo=UTC)).tasks.add(Task.from_file(make_task("colour")))
    acts: list[Callable[[], object]] = [
        lambda: local.note("colour", "a note"),
        lambda: local.schedule("colour", cron="0 3 * * *"),
        lambda: local.submit("colour"),
        lambda: local.plan(),
    ]
    for act in acts:
        with pytest.raises(ConfigError, match="the clock gave 2026-01-01T03:00:00 without a zone"):
            act()


def test_a_name_is_no_markdown_of_a_card(workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path) -> None:
    learn(workspace, make_task("<img src=x> [a](b)"))
    card = (workspace.export("<img src=x> [a](b)@1", tmp_path / "out") / "README.md").read_text()
    assert "# `<img src=x> [a](b)@1`\n" in card
    assert "\n    Which <img src=x> [a](b)?\n" in card
    as_code = re.sub(r"^(```+)\w*\n.*?^\1$|^    .*?$|`[^`]*`", "", card, flags=re.DOTALL | re.MULTILINE)
    assert "<img" not in as_code
    assert "base_model: " in as_code


def test_an_export_never_overwrites(workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path) -> None:
    learn(workspace, make_task("colour"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(StateError, match="no empty folder"):
        workspace.export("colour", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "folder", ["nul \0", "half \ud800", "/proc/out", "/proc/version/out", "n" * 300, "/proc/version"]
)
def test_an_export_that_cannot_be_written_is_one_error(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, folder: str
) -> None:
    learn(workspace, make_task("colour"))
    with pytest.raises(
        (AdapterError, StateError), match="cannot be written: .*Choose another|no empty folder"
    ) as caught:
        workspace.export("colour", tmp_path / folder)
    assert "\n" not in str(caught.value)


def test_an_export_does_not_follow_a_link_that_leads_nowhere(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    learn(workspace, make_task("colour"))
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="no empty folder"):
        workspace.export("colour", tmp_path / "out")


def test_an_adapter_that_is_none_changes_nothing(workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path) -> None:
    workspace.add_task(make_task("colour"))
    workspace.base_model()
    before = snapshot(workspace.catalog.path)
    with pytest.raises(AdapterError, match="is no PEFT adapter"):
        workspace.import_adapter("colour", tmp_path)
    assert snapshot(workspace.catalog.path) == before


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"doc_to_target": "colr"}, DataError, "row 0 of split 'train' lacks the field 'colr'"),
        ({"doc_to_choice": ["red", "blue"]}, DataError, "row 1 of split 'train' has the label 'green'"),
        ({"metric_list": [{"metric": "accc"}]}, MetricError, "unknown metric 'accc'; did you mean 'acc'"),
        ({"metric_list": [{"metric": "f1"}]}, MetricError, "metric f1 failed .*multiclass"),
        ({"test_split": "tests"}, DataError, "no data_files for split 'tests'"),
        ({"doc_to_text": "{{text}}{{ nope }}"}, DataError, "lacks the field 'nope'"),
        ({"doc_to_text": 7}, TaskFileError, "doc_to_text is 7"),
    ],
)
def test_a_task_that_cannot_work_is_not_added(
    workspace: mp.Workspace, make_task: MakeTask, keys: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        workspace.add_task(make_task("colour", **keys))
    assert workspace.tasks() == []


def test_a_text_longer_than_the_context_is_cut_and_counted(workspace: mp.Workspace, make_task: MakeTask) -> None:
    settings = {"num_virtual_tokens": 4, "max_input_tokens": 40, "training": {"steps": 2, "validate_every": 1}}
    long = "{{text}} " + "{{text}}" * 3 + "\nAnswer:"
    report = learn(workspace, make_task("colour", doc_to_text=long, multiprompt=settings))
    assert report.truncated == 12
    (prediction,) = workspace.predict([("colour", "sky " * 5_000)])
    assert prediction.truncated
    assert not workspace.predict([("colour", "s")])[0].truncated


def test_a_new_task_file_serves_only_the_versions_made_with_it(workspace: mp.Workspace, make_task: MakeTask) -> None:
    learn(workspace, make_task("colour"))
    before = workspace.predict([("colour", "sky")])
    workspace.add_task(make_task("colour", doc_to_text="{{text}}!!! Colour?"))
    assert workspace.predict([("colour", "sky")]) == before
    report = workspace.check()
    assert (report.results[0].verdict, report.results[0].cause) == ("identical", "")
    assert (
        "colour@1 is served with the task file that it was made with; the newest one differs in doc_to_text"
        in (report.notes[0])
    )


def test_an_evaluation_with_an_equal_key_is_reused(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiprompt.engine import evaluation

    learn(workspace, make_task("colour"))
    measured: list[str] = []
    real = evaluation.evaluate
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **kw: measured.append(str(a[3].digest)) or real(*a, **kw))
    workspace.learn("colour")
    assert "hard" not in measured, "the hard prompt was scored on these rows already"


def test_a_catalog_on_postgresql_learns_and_serves(tiny_model: Path, make_task: MakeTask, tmp_path: Path) -> None:
    with mp.open(new_database(), str(tiny_model), dtype="float32") as workspace:
        report = learn(workspace, make_task("colour"))
        learn(workspace, make_task("shade"))
        assert report.version == "colour@1"
        assert workspace.check().passed
        before = workspace.predict([("colour", "the sky"), ("shade", "the sea")])
        again = learn(workspace, make_task("colour", multiprompt={"num_virtual_tokens": 5, "training": {"steps": 1}}))
        assert workspace.predict([(again.version, "the sky")])[0].version == "colour@2"
        if again.published:
            workspace.rollback("colour")
        assert workspace.predict([("colour", "the sky"), ("shade", "the sea")]) == before
        workspace.export("colour@1", tmp_path / "out")
        assert workspace.diff("colour@1", "colour@2").before == "colour@1"
        assert workspace.verify() == []
        assert workspace.submit("colour").kind == "retrain"


def test_values_that_nothing_has_are_refused_in_one_line(tmp_path: Path) -> None:
    workspace = mp.open(tmp_path / "catalog.db")
    for number in (0, -1, 2**31, 10**30, -(10**30), "x"):
        with pytest.raises(NotFoundError, match=f"no evaluation {number};"):
            workspace.evaluation(number)  # type: ignore[arg-type]
    for days in (float("nan"), -1):
        with pytest.raises(ConfigError, match=f"days is {days}; it must be 0 or more"):
            workspace.collect_garbage(days=days)
    for days in (float("nan"), float("inf"), 1e12, -1):
        with pytest.raises(ConfigError, match=f"days is {re.escape(str(days))}; it must be from 0 to"):
            workspace.plan(days)
    for when in (datetime.min.date(), "2026-01-01"):
        with pytest.raises(QueryError, match="it must be a datetime, in UTC where it has no zone"):
            workspace.tasks(as_of=when)  # type: ignore[arg-type]
    for name in ("a\0b", "\ud800"):
        with pytest.raises(CatalogError, match="cannot be written: no path holds such a character"):
            workspace.backup(name)
        with pytest.raises(CatalogError, match="is no catalog: no path holds such a character"):
            mp.open(name)
    assert workspace.collect_garbage(days=float("inf"), dry_run=True) == workspace.collect_garbage(days=1e300)


def test_a_system_that_is_not_posix_is_told_at_the_import() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import multiprompt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith(
        "ImportError: multiprompt runs on POSIX systems only, such as Linux and macOS; on Windows use WSL.\n"
    )


def test_a_user_with_a_number_only_is_an_actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert mp.open(tmp_path / "catalog.db").actor == f"user {2**31 - 7}"


def test_the_file_of_jobs_is_as_private_as_the_catalog(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.catalog.path.chmod(0o600)
    workspace.submit("colour")
    folder = workspace.catalog.path.parent
    assert {path.stat().st_mode & 0o777 for path in folder.glob("catalog.db*")} == {0o600}


def test_a_working_directory_that_changes_moves_neither_catalog_nor_base_model(
    tmp_path: Path, tiny_model: Path, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    shutil.copytree(tiny_model, here / "model")
    write_tiny_model(elsewhere / "model", seed=1)
    task = make_task("colour")
    mp.open(elsewhere / "catalog.db", str(elsewhere / "model"), dtype="float32")
    monkeypatch.chdir(here)
    workspace = mp.open("catalog.db", "model", dtype="float32")
    monkeypatch.chdir(elsewhere)
    assert workspace.base_model().folder == here / "model"
    workspace.learn(workspace.add_task(task).name)
    assert workspace.catalog.path == here / "catalog.db"
    row = [("colour", {"text": "sky"})]
    assert workspace.predict(row) == mp.open(here / "catalog.db").predict(row)


@pytest.mark.parametrize("url", ["sqlite:///catalog.db", "sqlite:///file:catalog.db?uri=true"])
def test_a_relative_url_names_the_file_that_it_named_when_it_was_opened(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = mp.open(url)
    monkeypatch.chdir("/")
    assert workspace.catalog.path == tmp_path / "catalog.db"
    assert workspace.tasks() == []
    assert workspace.catalog.settings.epoch() == mp.open(tmp_path / "catalog.db").catalog.settings.epoch()


def test_a_task_a_baseline_and_a_copy_are_given_by_label(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    learn(workspace, make_task("colour"))
    first = workspace.task("colour")
    workspace.add_task(make_task("colour", description="Another colour?\n"))
    assert workspace.task("colour@1").fingerprint == first.fingerprint != workspace.task("colour").fingerprint
    assert workspace.baseline("colour@1").score == workspace.version("colour").score
    assert workspace.plain_forward() == ""
    copied = mp.open(workspace.copy_to(str(tmp_path / "copy.db")), create=False)
    assert copied.version("colour").digest == workspace.version("colour").digest
