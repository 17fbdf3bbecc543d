"""What a check runs and what it leaves, and what its policies do."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import multiprompt as mp
from multiprompt.catalog.baselines import Baselines
from multiprompt.catalog.checks import Checks
from multiprompt.catalog.snapshots import Snapshots
from multiprompt.catalog.versions import Versions
from multiprompt.engine import evaluation
from multiprompt.engine.answering import Answer, Question
from multiprompt.errors import BaseMismatchError, ConfigError, DataError, StateError
from multiprompt.gate import check, current_data, sampling
from multiprompt.gate.check import UNEXPLAINED
from multiprompt.jobs.steps import run_job
from multiprompt.records import Change, CheckReport, CheckResult, Evidence, Flip, Outcome
from multiprompt.tasks import canaries
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.split import load_test_split
from tests.catalog.databases import by
from tests.conftest import nudged, write_tiny_model
from tests.faults.test_steps import Killed, new_attempt
from tests.gate.conftest import ROWS, Opened, write_rows, write_task


def cost(report: CheckReport) -> tuple[int, int, int]:
    return report.evaluated, report.canaries, report.reused


def new_library(monkeypatch: pytest.MonkeyPatch, version: str = "99.0") -> None:
    monkeypatch.setattr(evaluation, "_libraries", lambda: f"torch=={version}")


def test_a_full_check_runs_every_row(opened: Opened) -> None:
    assert cost(opened().check(full=True)) == (2 * ROWS, 0, 0)


def test_what_a_full_check_found_is_not_hidden_by_canaries_that_did_not_move(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same key all rows but the canaries are answered otherwise; then they are answered as before."""
    workspace = opened()
    true_answer = check.answer

    def broken(base: Any, questions: list[Any]) -> list[Answer]:
        found = true_answer(base, questions)
        return found if len(questions) <= 8 else [Answer((0,)) for _ in questions]

    with monkeypatch.context() as patched:
        patched.setattr(check, "answer", broken)
        assert workspace.check().passed, "canaries alone do not see it"
        for full in (True, False, False):
            report = workspace.check(full=full)
            assert [r.verdict for r in report.results] == ["regressed"] * 2
    assert workspace.check().passed
    assert cost(workspace.check()) == (0, 8, 2 * ROWS)


def test_what_was_compared_once_is_not_run_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    new_library(monkeypatch)
    workspace = opened()
    first, second = workspace.check(), workspace.check()
    assert cost(second) == (0, 8, first.evaluated + first.reused)
    assert [(r.verdict, r.cause, r.reused) for r in second.results] == [("identical", "library", True)] * 2
    new_library(monkeypatch, "99.1")
    assert workspace.check().evaluated == first.evaluated


def test_another_tolerance_is_another_comparison_of_the_same_scores(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_library(monkeypatch)
    workspace = opened()
    assert workspace.check(full=True).evaluated == 2 * ROWS
    file = folder / "sky" / "task.yaml"
    file.write_text(file.read_text().replace("floor: none", "max_drop: 0.02"))
    workspace.add_task(file)
    report = workspace.check()
    assert {r.version: r.max_drop for r in report.results} == {"sky@1": 0.02, "sea@1": 0.01}
    assert report.evaluated == 0


def test_a_check_that_was_interrupted_goes_on(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "GROUP", 1)
    new_library(monkeypatch)
    workspace = opened()
    save, saved = Baselines.save_comparison, list[str]()

    def interrupted(baselines: Baselines, version: Any, *rest: Any) -> None:
        save(baselines, version, *rest)
        saved.append(version.label)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Baselines, "save_comparison", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workspace.check()
    report = workspace.check()
    assert report.passed
    assert sorted(saved) == ["sea@1", "sky@1"]


def test_many_rows_are_not_all_run_where_some_make_it_certain(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened()
    workspace.add_task(write_task(folder, "long", 0.9, rows=4000))
    workspace.learn("long")
    new_library(monkeypatch)
    report = workspace.check()
    (result,) = [result for result in report.results if result.version == "long@1"]
    assert (result.verdict, result.drop) == ("unchanged", 0.0)
    assert result.evidence is not None
    assert result.evidence.total == 4000
    assert result.evidence.rows <= 1024
    assert result.score == result.baseline


def test_a_collapse_is_certain_after_few_rows(opened: Opened, folder: Path) -> None:
    write_tiny_model(folder / "another", seed=1)
    report = opened("another").check()
    assert report.evaluated < 2 * ROWS
    full = opened("another").check(full=True)
    assert [r.verdict for r in report.results] == [r.verdict for r in full.results] == ["regressed"] * 2
    for early, late in zip(report.results, full.results, strict=True):
        assert early.score == pytest.approx(late.score, abs=0.1)


def test_adding_a_task_runs_canaries_of_a_sample_however_many_tasks_there_are(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SAMPLE", 1)
    workspace = opened()
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    report = workspace.learn("third").check
    assert cost(report) == (0, 4, 2 * ROWS)
    assert [(result.version, result.verdict) for result in report.results] == [
        ("sky@1", "identical"),
        ("sea@1", "identical"),
    ]
    assert workspace.matrix().scores[2][:2] == workspace.matrix().scores[1][:2]


def test_an_edited_template_keeps_nobody_out(opened: Opened, folder: Path) -> None:
    """Published prompts answer with the task file that they were made with, so adding another task cannot hurt them."""
    workspace = opened()
    file = folder / "sky" / "task.yaml"
    file.write_text(file.read_text().replace("Answer:", "red red red:"))
    workspace.add_task(file)
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    assert workspace.learn("third").published


def test_a_regression_of_another_task_rejects_a_candidate_and_keeps_the_evidence(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened()
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    real = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *given, **options: real(*given, **options) - 0.2)
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    report = workspace.learn("third")
    assert not report.published
    assert "regressed: metric" in report.reason
    assert workspace.version("third@1").state == "rejected"
    with workspace.catalog.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT verdict, cause, evidence FROM check_results").all()
    assert [(verdict, cause) for verdict, cause, _ in rows] == [("regressed", "metric")] * 2
    assert json.loads(rows[0][2])["rows"] == ROWS


def test_a_regression_that_is_to_be_told_only_lets_candidates_in(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened()
    workspace.set_policy("warn", "while we move")
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    real = evaluation.score
    monkeypatch.setattr(evaluation, "score", lambda *given, **options: real(*given, **options) - 0.2)
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    report = workspace.learn("third")
    assert report.published
    assert "sky@1 regressed: metric" in report.reason
    assert workspace.check().passed


def test_a_task_file_overrules_the_policy_of_the_catalog(opened: Opened, folder: Path) -> None:
    workspace = opened()
    workspace.set_policy("warn")
    file = folder / "sky" / "task.yaml"
    file.write_text(file.read_text().replace("floor: none", "policy: block"))
    workspace.add_task(file)
    for name in ("sky", "sea"):
        write_rows(folder / name, "test", ROWS, 0.0, random.Random(1))
    report = workspace.check()
    assert {r.version: (r.verdict, r.policy, r.blocks) for r in report.results} == {
        "sky@1": ("regressed", "block", True),
        "sea@1": ("regressed", "warn", False),
    }


def test_an_unknown_policy_names_the_nearest(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="did you mean 'rollback'"):
        opened().set_policy("rolback")


def regress_sky(workspace: mp.Workspace, folder: Path, *, twice: bool = False) -> None:
    """Version 2 learns data that the test data then moves away from, back to what version 1 knows.

    Version 3, which there may be, answers as version 2.
    """
    workspace.set_policy("rollback")
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (folder / "sky" / f"{split}.jsonl").read_text().splitlines()]
        text = "".join(json.dumps(row | {"label": 0}) + "\n" for row in rows)
        (folder / "sky" / f"{split}.jsonl").write_text(text)
    workspace.add_task(folder / "sky" / "task.yaml")
    assert workspace.learn("sky").published
    if twice:
        workspace.export("sky", folder / "same")
        assert workspace.import_adapter("sky", nudged(folder / "same")).published
    write_rows(folder / "sky", "test", ROWS, 0.9, random.Random(5))


def test_a_task_that_regressed_gets_its_earlier_version_back_where_that_is_better(opened: Opened, folder: Path) -> None:
    workspace = opened()
    regress_sky(workspace, folder)
    report = workspace.check()
    assert not report.passed
    assert workspace.version("sky").label == "sky@1"
    assert any("sky went back to sky@1" in note for note in report.notes)
    event = workspace.events("kind = 'rolled-back'")[-1]
    assert event.reason == "sky@2 regressed: data"


def test_a_task_goes_back_further_where_the_version_retired_last_is_no_better(opened: Opened, folder: Path) -> None:
    workspace = opened()
    regress_sky(workspace, folder, twice=True)
    assert workspace.version("sky").label == "sky@3"
    assert not workspace.check().passed
    assert workspace.version("sky").label == "sky@1"


def test_a_version_that_did_not_learn_is_none_to_go_back_to(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened()
    regress_sky(workspace, folder)
    monkeypatch.setattr(Versions, "is_below_floor", lambda _, version: version.label == "sky@1")
    assert "sky@2 stays: sky@1 did not learn" in workspace.check().notes
    assert workspace.version("sky").label == "sky@2"


def test_a_check_that_is_killed_before_it_is_stored_rolls_nothing_back_and_finds_the_same_again(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened()
    regress_sky(workspace, folder)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checks, "save", killed)
        run_job(new_attempt(workspace, "first", "check", None), lambda _: None)
    assert workspace.version("sky").label == "sky@2"
    run_job(new_attempt(workspace, "second", "check", None), lambda _: None)
    assert workspace.version("sky").label == "sky@1"
    outcome = workspace.catalog.ledger.outcome("job")
    assert outcome == Outcome(False, "2 checked: 1 identical, 1 regressed")


def test_a_check_keeps_its_report_where_the_task_was_guarded_meanwhile(opened: Opened, folder: Path) -> None:
    workspace = opened()
    regress_sky(workspace, folder)
    workspace.guard("sky", reason="in a contract")
    report = workspace.check()
    assert any(note.startswith("sky@2 stays: task 'sky' is guarded") for note in report.notes)
    assert workspace.version("sky").label == "sky@2"
    assert workspace.catalog.checks.found_worse("sky@2") is not None


def test_an_earlier_version_with_another_metric_is_compared_by_the_one_of_now(opened: Opened, folder: Path) -> None:
    workspace = opened()
    workspace.set_policy("rollback")
    file = folder / "sky" / "task.yaml"
    file.write_text(file.read_text().replace("metric: acc", "metric: macro_f1"))
    workspace.add_task(file)
    assert workspace.learn("sky").published
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    report = workspace.check()
    (sky,) = (result for result in report.results if result.version == "sky@2")
    assert (sky.verdict, sky.metric) == ("regressed", "macro_f1")
    assert any(note.startswith("sky@2 stays: sky@1 has 0.0") for note in report.notes), "its accuracy is over 0.2"


def test_a_task_without_an_earlier_version_stays_as_it_is(opened: Opened, folder: Path) -> None:
    workspace = opened()
    workspace.set_policy("rollback")
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    report = workspace.check()
    assert "sky@1 has no earlier version to go back to" in report.notes
    assert workspace.version("sky").label == "sky@1"


def test_a_blessed_score_is_the_baseline_from_then_on(opened: Opened, folder: Path) -> None:
    workspace = opened()
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    assert not workspace.check().passed
    assert not workspace.check().passed
    with pytest.raises(StateError, match="give one with `reason='…'`"):
        workspace.bless("sky", " ")
    evaluation = workspace.bless("sky", "the data was wrong before")
    report = workspace.check()
    assert report.passed
    assert next((r.version, r.verdict, r.baseline) for r in report.results) == ("sky@1", "identical", evaluation.score)
    assert workspace.events("kind = 'blessed'")[0].reason == "the data was wrong before"
    assert workspace.verify() == []


def test_blessing_a_score_that_is_stored_stores_it_no_second_time(opened: Opened, folder: Path) -> None:
    workspace = opened()
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    workspace.check(full=True)
    stored = len(workspace.evaluations())
    workspace.bless("sky", "the data was wrong before")
    workspace.bless("sky", "it still is")
    workspace.bless("sea", "it is as it was")
    assert len(workspace.evaluations()) == stored
    report = workspace.check()
    assert [result.verdict for result in report.results] == ["identical", "identical"]
    assert workspace.verify() == []


def test_baselines_do_not_drift_by_themselves(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = opened()
    before = workspace.catalog.baselines.published()
    new_library(monkeypatch)
    workspace.check(full=True)
    workspace.check()
    assert workspace.catalog.baselines.published() == before


def test_the_report_is_one_page_without_a_network(opened: Opened, folder: Path) -> None:
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    workspace = opened()
    report = workspace.check()
    page = workspace.report_html(report)
    assert page.index("Regression") < page.index("Tasks") < page.index("Accuracy matrix")
    for said in ("sky@1", "sea@1", "data", "Lopez-Paz", report.cost, "Rows lost"):
        assert said in page
    assert not [word for word in ("http://", "https://", "<script", "src=") if word in page]


def test_names_and_answers_cannot_write_into_the_report(workspace: mp.Workspace) -> None:
    script = "<script>alert(1)</script>"
    evidence = Evidence(1, 1, 1, 0, p_value=0.5, flips=(Flip(0, script, script, script, False),))
    change = Change(script, script, script)
    result = CheckResult(script, script, 1.0, 0.0, 1.0, 0.01, "regressed", script, changes=(change,), evidence=evidence)
    page = workspace.report_html(CheckReport((result,), 0.0, notes=(script,)))
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") >= 9


def test_junit_says_which_versions_failed(opened: Opened, folder: Path) -> None:
    from xml.etree import ElementTree

    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    workspace = opened()
    suite = ElementTree.fromstring(workspace.report_junit(workspace.check()))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    failed = [case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None]
    assert failed == ["sky@1"]


def test_a_score_that_was_taken_under_the_same_key_is_compared_without_running_a_row(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_library(monkeypatch)
    workspace = opened()
    workspace.evaluate("sky")
    report = workspace.check()
    assert {r.version: r.reused for r in report.results} == {"sky@1": True, "sea@1": False}
    assert report.evaluated <= ROWS


def test_blessing_a_prompt_whose_template_was_edited_keeps_nobody_out(opened: Opened, folder: Path) -> None:
    workspace = opened()
    file = folder / "sky" / "task.yaml"
    file.write_text(file.read_text().replace("Answer:", "red red red:"))
    workspace.add_task(file)
    workspace.check()
    assert (
        workspace.bless("sky", "as it is served").key["task file"]
        == workspace.catalog.versions.task(workspace.version("sky")).fingerprint
    )
    assert [(r.verdict, r.cause) for r in workspace.check().results] == [("identical", "")] * 2
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    report = workspace.learn("third")
    assert report.published
    assert [r.verdict for r in report.check.results] == ["identical"] * 2


def test_what_was_lost_and_blessed_is_lost_in_the_matrix(opened: Opened, folder: Path) -> None:
    workspace = opened()
    write_rows(folder / "sky", "test", ROWS, 0.0, random.Random(1))
    lost = workspace.bless("sky", "the data was wrong before").score
    workspace.add_task(write_task(folder, "third", 0.9, rows=20))
    workspace.learn("third")
    matrix = workspace.matrix()
    assert [row[0] for row in matrix.scores] == [matrix.scores[0][0], matrix.scores[0][0], lost]
    assert lost < (matrix.scores[0][0] or 0)


def test_a_fault_leaves_no_score_to_be_used_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = opened()
    with monkeypatch.context() as broken:
        broken.setattr(check, "answer", lambda _, questions: [Answer((0,)) for _ in questions])
        assert not workspace.check().passed
    assert workspace.evaluate("sky").score == workspace.version("sky").score
    assert workspace.check().passed


def test_canaries_are_looked_at_after_the_key_has_changed_too(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    new_library(monkeypatch)
    workspace = opened()
    assert workspace.check().passed
    with monkeypatch.context() as broken:
        broken.setattr(check, "answer", lambda _, questions: [Answer((0,)) for _ in questions])
        report = workspace.check()
    assert [(r.verdict, r.cause) for r in report.results] == [("regressed", UNEXPLAINED)] * 2
    assert workspace.check().passed


@pytest.mark.parametrize("content", ["", "{not json}\n"])
def test_data_that_cannot_be_read_fails_the_check_and_is_never_blessed(
    opened: Opened, folder: Path, content: str
) -> None:
    workspace = opened()
    (folder / "sky" / "test.jsonl").write_text(content)
    report = workspace.check()
    assert not report.passed
    assert {r.version: r.verdict for r in report.results} == {"sky@1": "failed", "sea@1": "identical"}
    with pytest.raises(DataError):
        workspace.bless("sky", "labels mended")


def test_data_files_that_were_replaced_under_their_old_time_are_measured(opened: Opened, folder: Path) -> None:
    file = folder / "sky" / "test.jsonl"
    opened().check()
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    write_rows(folder / "sky", "test", 60, 0.0, random.Random(1))
    os.utime(file, ns=times)
    result = {result.version: result for result in opened().check().results}["sky@1"]
    assert (result.verdict, result.evidence.total) == ("regressed", 60)


def test_what_an_older_reader_made_of_a_file_is_not_believed(opened: Opened) -> None:
    workspace = opened()
    task = workspace.context.task("sky")
    old = hashlib.sha256(f"{source_digest(task)} {task.data}".encode()).hexdigest()
    by(workspace.catalog, "tester", datetime.now(UTC)).snapshots.save_source(old, "sha256:of other rows")
    assert all(result.verdict == "identical" for result in workspace.check().results)


def test_rows_of_the_hub_are_not_kept_under_a_revision_that_has_moved(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = itertools.count()
    kept: list[Any] = []
    monkeypatch.setattr(current_data, "source_digest", lambda *_: f"hub:{next(revisions)}")
    monkeypatch.setattr(current_data, "load_test_split", lambda task: replace(load_test_split(task), source=None))
    monkeypatch.setattr(Snapshots, "save_source", lambda *arguments: kept.append(arguments))
    workspace = opened()
    assert workspace.check().passed and kept == []
    monkeypatch.setattr(current_data, "source_digest", lambda *_: "hub:1")
    assert workspace.check().passed and len(kept) == 2


def test_unchanged_files_are_read_for_their_digest_only(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    opened().check()
    monkeypatch.setattr("multiprompt.tasks.reading.read_rows", None)
    assert all(result.verdict == "identical" for result in opened().check().results)


def test_data_that_is_away_cannot_be_blessed(opened: Opened, folder: Path) -> None:
    workspace = opened()
    (folder / "sky" / "test.jsonl").unlink()
    with pytest.raises(DataError, match="its data is away"):
        workspace.bless("sky", "labels mended")


def test_an_error_of_a_broken_model_fails_the_check_and_is_kept(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise IndexError("index out of range in self")

    workspace = opened()
    monkeypatch.setattr(check, "answer", broken)
    report = workspace.check()
    assert {(r.verdict, r.cause) for r in report.results} == {("failed", "index out of range in self")}
    with workspace.catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT passed FROM checks ORDER BY id DESC").scalar() == 0


def test_what_is_not_sure_among_the_others_is_run_to_its_end(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at alone the first rows seem to settle it; a drop that chance explains is not left at these."""
    monkeypatch.setattr(sampling, "settled", lambda *_: "dropped")
    order = canaries.order(opened().catalog.baselines.published()[1][0][1].data, ROWS)
    answers = [row["label"] for row in map(json.loads, (folder / "sky" / "test.jsonl").read_text().splitlines())]
    first = set(order[:3])
    new_library(monkeypatch)
    asked: list[int] = []

    def lose_three(base: Any, questions: Sequence[Question]) -> list[Answer]:
        found = real(base, questions)
        if len(questions) < 8:
            return found
        asked.append(len(questions))
        return [Answer(((answers[order[n]] + 1) % 4,)) if n < 3 and len(asked) == 1 else f for n, f in enumerate(found)]

    real = check.answer
    monkeypatch.setattr(check, "answer", lose_three)
    (sky, _) = opened().check().results
    assert len(first) == 3
    assert sky.evidence is not None
    assert (sky.version, sky.evidence.rows, sky.evidence.total) == ("sky@1", ROWS, ROWS)


def test_a_version_that_was_published_meanwhile_is_not_rolled_back(opened: Opened, folder: Path) -> None:
    workspace = opened()
    for split in ("train", "validation", "test"):
        write_rows(folder / "sky", split, 200, 0.0, random.Random(split))
    assert workspace.learn("sky").published
    with pytest.raises(StateError, match="sky@2 was published meanwhile, so sky@1 is not replaced"):
        by(workspace.catalog, "tester", datetime.now(UTC)).pointers.roll_back("sky", 1, "", replaces=1)
    assert workspace.version("sky").label == "sky@2"


def test_a_score_on_another_base_model_is_no_baseline(opened: Opened, folder: Path) -> None:
    with pytest.raises(BaseMismatchError):
        opened(dtype="bfloat16").bless("sky", "we moved")
    assert opened().check().passed


def test_control_characters_of_a_note_are_no_xml(opened: Opened) -> None:
    from xml.etree import ElementTree

    report = CheckReport((), 0.0, notes=("bad byte \x1b\x00",))
    assert ElementTree.fromstring(opened().report_junit(report)) is not None
