"""Every command, as a user types it: what it prints, how it exits, and what one wrong input gives."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sqlalchemy import make_url

from multiprompt.cli import progress
from multiprompt.cli.docs import page_names, read_page
from multiprompt.cli.main import cli, main
from multiprompt.cli.output import progress_bars
from tests.catalog.databases import drop_databases, new_database
from tests.conftest import MakeTask, nudged, task_mapping, write_tiny_model

# README and the pages of the guide that people wrote.
GUIDE = "\n".join(
    [
        (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8"),
        *(read_page(name) for name in page_names() if name != "reference/cli"),
    ]
)


@dataclass
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `multiprompt …` on a catalog of this test's own."""
    monkeypatch.setenv("MULTIPROMPT_CATALOG", str(tmp_path / "catalog.db"))

    def run_command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["multiprompt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Done(int(stop.value.code or 0), captured.out, captured.err)

    return run_command


@pytest.fixture
def catalog(run: Run, tiny_model: Path, make_task: MakeTask) -> Run:
    """A catalog with one learned task, colour, and one that was only added, word."""
    assert run("init", "--base-model", tiny_model, "--dtype", "float32").status == 0
    assert run("add", make_task("colour"), make_task("word", kind="generate")).status == 0
    assert run("learn", "colour").status == 0
    return run


@pytest.fixture
def changed(catalog: Run, make_task: MakeTask) -> Run:
    """The same catalog; colour has another number of virtual tokens now, so learning it gives another prompt."""
    longer = {"num_virtual_tokens": 5, "training": {"steps": 6}, "regression": {"max_drop": 1.0}}
    assert catalog("add", make_task("colour", multiprompt=longer)).status == 0
    return catalog


def test_learning_what_is_learned_publishes_nothing_and_says_so(catalog: Run) -> None:
    done = catalog("learn", "colour")
    assert (done.status, done.out) == (0, "nothing new to learn: the training gave the bytes of colour@1\n")
    assert catalog("learn", "colour", "--json").json[0]["is_new"] is False
    assert [version["number"] for version in catalog("versions", "--json").json] == [1]


def test_a_setting_of_the_command_line_makes_a_candidate(changed: Run) -> None:
    done = changed("learn", "colour", "--set", "training.learning_rate=1e-2", "--set", "init=random")
    assert done.status == 0
    assert done.out.startswith("colour@2 held: trial with training.learning_rate=0.01, init=random: acc ")
    assert changed("publish", "colour@2", "--force", "--reason", "it is better").status == 0
    refused = changed("learn", "colour", "--set", "training.step=4")
    assert refused.status == 2
    assert refused.err.strip() == "error: colour: there is no setting 'training.step'; did you mean 'training.steps'?"
    assert "--set steps has no value" in changed("learn", "colour", "--set", "steps").err


def test_learning_again_what_did_not_learn_is_no_success(catalog: Run, make_task: MakeTask) -> None:
    settings = {"num_virtual_tokens": 4, "training": {"steps": 2}, "regression": {"floor": "hard"}}
    catalog("add", make_task("shade", multiprompt=settings))
    assert [catalog("learn", "shade").status for _ in range(2)] == [1, 1]
    assert "run `multiprompt publish shade@1 --force --reason …`" in catalog("predict", "shade", "x").err
    assert [version["state"] for version in catalog("versions", "task = 'shade'", "--json").json] == ["candidate"]


def test_init_binds_the_base_model(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    done = run("init", "--base-model", tiny_model, "--dtype", "float32")
    assert done.status == 0
    assert re.fullmatch(rf"{tmp_path}/catalog.db is bound to tiny \(sha256:.*, float32\)\n", done.out)


@pytest.mark.parametrize(
    "damage", ["{}", "[]", '{"model_type": "bert"}', '{"quantization_config": {"quant_method": "awq"}}']
)
def test_a_failed_init_leaves_no_catalog_that_add_and_learn_would_take(
    run: Run, tiny_model: Path, tmp_path: Path, make_task: MakeTask, damage: str
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "damaged"))
    (folder / "config.json").write_text(damage)
    commands = (("init", "--base-model", folder), ("add", make_task("colour")), ("learn", "colour"))
    for command in commands:
        done = run(*command)
        assert (done.status, done.out) == (2, "")
        assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("catalog.db*"))


def test_init_again_leaves_the_catalog_as_it_is(catalog: Run, tiny_model: Path) -> None:
    before = catalog("tasks").out
    assert catalog("init").status == 0
    assert catalog("init", "--base-model", tiny_model, "--dtype", "bfloat16").status == 2
    assert catalog("tasks").out == before


def test_learning_tells_scores_and_that_others_are_untouched(catalog: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0.0)
    done = catalog("learn", "--all", "--json")
    (report,) = done.json
    assert (report["version"], report["published"], report["untouched"]) == ("word@1", True, True)
    assert [result["version"] for result in report["check"]["results"]] == ["colour@1"]
    assert "checking: 1 of 1\n" in done.err


def test_predict_takes_texts_and_files(catalog: Run, tmp_path: Path) -> None:
    done = catalog("predict", "colour", "sky", "sea")
    assert len(done.out.splitlines()) == 2
    assert re.fullmatch(r"(red|green|blue|yellow)\t0\.\d{4}", done.out.splitlines()[0])
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"task": "colour", "text": "sky"}\n\n{"task": "colour@1", "text": "sea"}\n')
    from_file = catalog("predict", "--input", rows, "--json").json
    assert [f"{p['output']}\t{max(p['probabilities'].values()):.4f}" for p in from_file] == done.out.splitlines()


def test_predict_reads_rows_as_training_does(catalog: Run, tmp_path: Path) -> None:
    rows = [{"task": "colour", "text": text} for text in ("sky\u2028sea", "007", "2024-05-03")]
    outputs = []
    for content in (
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
        json.dumps(rows).encode(),
        gzip.compress(json.dumps(rows).encode()),
    ):
        (tmp_path / "rows").write_bytes(content)
        outputs.append(catalog("predict", "--input", tmp_path / "rows").out)
    assert outputs == [catalog("predict", "colour", *(row["text"] for row in rows)).out] * 3


def test_rows_for_another_task_are_not_answered_by_the_one_that_is_given(catalog: Run, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    for named in ("word", "colour@2"):
        rows.write_text(f'{{"task": "colour", "text": "sky"}}\n{{"task": "{named}", "text": "sea"}}\n')
        done = catalog("predict", "colour", "--input", rows)
        assert (done.status, done.out) == (2, "")
        assert f"error: line 2 of --input names the task {named}, but TASK is colour" in done.err
    rows.write_text('{"task": "colour", "text": "sky"}\n{"task": "of mine", "text": "sea"}\n')
    assert catalog("predict", "colour@1", "--input", rows).out == catalog("predict", "colour", "sky", "sea").out


def test_a_field_called_task_that_the_task_reads_is_a_field(catalog: Run, tmp_path: Path, make_task: MakeTask) -> None:
    file = make_task("kind", doc_to_text="{{task}}: {{text}}")
    for data in file.parent.glob("*.jsonl"):
        data.write_text(data.read_text().replace('{"text"', '{"task": "word", "text"'))
    assert catalog("add", file).status == catalog("learn", "kind").status == 0
    (tmp_path / "rows.jsonl").write_text('{"task": "word", "text": "sky"}\n')
    assert catalog("predict", "kind", "--input", tmp_path / "rows.jsonl").status == 0


def test_add_tells_which_columns_were_converted(catalog: Run, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "red", "day": date(2024, 5, 3)}] * 4
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    files = dict.fromkeys(("train", "validation", "test"), "rows.parquet")
    mapping = task_mapping("days") | {"dataset_path": "parquet", "dataset_kwargs": {"data_files": files}}
    (tmp_path / "days.yaml").write_text(yaml.safe_dump(mapping))
    done = catalog("add", tmp_path / "days.yaml")
    assert (done.status, done.err.count("days: column 'day': date32[day] is read as \"2024-05-03\"")) == (0, 1)


def test_a_row_of_a_file_that_lacks_a_field_of_the_others_is_read_as_in_a_split(catalog: Run, tmp_path: Path) -> None:
    rows = [{"text": f"{word} {n}", "label": "red"} for n in range(12) for word in ("sky", "sea")]
    rows[1]["hint"] = "blue"
    lines = "\n\n".join(map(json.dumps, rows))
    (tmp_path / "rows.jsonl").write_text(lines)
    files = dict.fromkeys(("train", "validation", "test"), "rows.jsonl")
    keys = {"dataset_kwargs": {"data_files": files}, "doc_to_text": "{{text}}{% if hint %} ({{hint}}){% endif %}"}
    (tmp_path / "hints.yaml").write_text(yaml.safe_dump(task_mapping("hints") | keys))
    catalog("add", tmp_path / "hints.yaml")
    catalog("learn", "hints")
    found = catalog("predict", "hints", "--input", tmp_path / "rows.jsonl", "--json")
    assert (found.status, "error" in found.err) == (0, False)
    (tmp_path / "rows.jsonl").write_text(lines + '\n\n\n{"text": 1e400, "hint": ""}')
    found = catalog("predict", "hints", "--input", tmp_path / "rows.jsonl", "--json")
    said = "line 50 of --input: hints: the row: the field 'text' holds a number that is too large."
    assert (found.status, json.loads(found.out)[-1]["error"]) == (2, said)


def test_a_row_of_a_file_that_cannot_be_answered_is_named_and_the_others_are_answered(
    catalog: Run, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"task": "colour", "text": "sky"}\n{"task": "nope", "text": "x"}\n{"task": "colour", "txt": "x"}\n'
    )
    done = catalog("predict", "--input", rows, "--json")
    assert done.status == 2
    assert "error: line 2 of --input: no task 'nope'" in done.err
    assert "error: line 3 of --input: colour: the row: the field 'text' is empty" in done.err
    answered, *failed = json.loads(done.out)
    assert (answered["error"], answered["output"]) == (
        None,
        catalog("predict", "colour", "sky", "--json").json[0]["output"],
    )
    assert [prediction["output"] for prediction in failed] == ["", ""]


def test_tasks_learned_together_are_published_one_after_another(changed: Run) -> None:
    done = changed("learn", "colour", "word", "--together", "--json")
    assert done.status == 0
    assert [report["version"] for report in done.json] == ["colour@2", "word@1"]


def test_show_says_how_the_base_model_is_run(catalog: Run) -> None:
    assert "engine       packed forward" in catalog("show", "colour").out
    assert catalog("show", "colour", "--json").json["engine"] == {"fallback": ""}


def test_predict_says_how_many_texts_were_cut(catalog: Run) -> None:
    done = catalog("predict", "colour", "sky " * 5_000, "sea")
    assert done.status == 0
    assert "1 of 2 texts were cut at their end" in done.err


def test_check_exits_0_and_tells_each_prompt(catalog: Run) -> None:
    done = catalog("check", "--json")
    assert done.status == 0
    assert done.json["passed"]
    assert [result["verdict"] for result in done.json["results"]] == ["identical"]


def test_check_exits_1_on_a_regression(catalog: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprompt.engine import evaluation

    monkeypatch.setattr(evaluation, "score", lambda *_, **__: -1.0)
    monkeypatch.setattr(evaluation, "metric_version", lambda metric: f"{metric.name}=2")
    done = catalog("check")
    assert done.status == 1
    assert "regressed" in done.out
    assert "REGRESSION" in done.out


def test_check_writes_a_page_and_junit(catalog: Run, tmp_path: Path) -> None:
    done = catalog("check", "--full", "--html", tmp_path / "report.html", "--junit", tmp_path / "report.xml", "--json")
    assert (done.status, done.json["passed"], done.json["evaluated"]) == (0, True, 12)
    (result,) = done.json["results"]
    assert (result["verdict"], result["evidence"]["lost"], result["evidence"]["detectable"]) == ("identical", 0, 0.5)
    assert "colour@1" in (tmp_path / "report.html").read_text()
    assert 'tests="1"' in (tmp_path / "report.xml").read_text()


def test_a_report_that_cannot_be_written_is_an_error(catalog: Run, tmp_path: Path) -> None:
    done = catalog("check", "--html", tmp_path / "nowhere" / "report.html")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "nowhere does not exist" in done.err


def test_bless_and_policy_say_what_holds_now(catalog: Run) -> None:
    done = catalog("bless", "colour", "--reason", "as good as it gets")
    assert done.out.startswith("colour@1 has a new baseline: acc 0.")
    assert (catalog("policy").out, catalog("policy", "warn").out, catalog("policy").out) == (
        "block\n",
        "warn\n",
        "warn\n",
    )
    assert [event["kind"] for event in catalog("events", "--json").json][-2:] == ["blessed", "policy-warn"]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_matrix_is_drawn(catalog: Run, tmp_path: Path, kind: str) -> None:
    assert catalog("matrix", "--plot", tmp_path / f"matrix.{kind}").out.startswith("wrote ")
    assert (tmp_path / f"matrix.{kind}").stat().st_size > 1000


def test_listings_print_tables_and_json(catalog: Run) -> None:
    assert [line.split()[0] for line in catalog("tasks").out.splitlines()] == ["task", "colour", "word"]
    assert [record["name"] for record in catalog("tasks", "published is null", "--json").json] == ["word"]
    assert [record["number"] for record in catalog("versions", "state = 'published'", "--json").json] == [1]
    kinds = [record["kind"] for record in catalog("events", "--json").json]
    assert kinds == ["base-model-bound", "task-added", "task-added", "published"]
    scores = catalog("evaluations", "task = 'colour' order by kind", "--json").json
    assert [(score["kind"], score["rows"]) for score in scores] == [("hard", 12), ("soft", 12)]
    rows = catalog("evaluation", scores[1]["id"], "--json").json
    assert (len(rows["predictions"]), rows["score"]) == (12, scores[1]["score"])


def test_an_evaluation_is_printed_with_wrong_rows_first_and_scores_of_each_class(catalog: Run) -> None:
    (score,) = catalog("evaluations", "kind = 'soft'", "--json").json
    head, columns, *lines = catalog("evaluation", score["id"]).out.splitlines()
    wrong = round(12 * (1 - score["score"]))
    assert head == f"colour@1, soft prompt: acc {score['score']:.4f} on 12 rows, {wrong} wrong"
    assert columns.split() == ["row", "right", "answer", "given", "answer", "text"]
    assert [" wrong " in line for line in lines[:12]] == [True] * wrong + [False] * (12 - wrong)
    assert re.match(r" +\d+ .*(red|green) +(red|green|blue|yellow) +(sky|sea|rose) \d", lines[0])
    assert lines[13].split() == ["label", "precision", "recall", "f1", "support"]
    assert [line.split()[0] for line in lines[-4:]] == ["red", "green", "blue", "yellow"]
    answers = catalog("evaluation", score["id"], "--json").json["answers"]
    assert [answer["is_right"] for answer in answers] == [False] * wrong + [True] * (12 - wrong)


def test_diff_shows_the_text_of_flipped_rows_and_a_changed_template(catalog: Run, make_task: MakeTask) -> None:
    longer = {"num_virtual_tokens": 5, "training": {"steps": 6}, "regression": {"max_drop": 1.0}}
    catalog("add", make_task("colour", multiprompt=longer, description="Name it!\n"))
    catalog("learn", "colour")
    shown = catalog("diff", "colour@1", "colour@2", "--no-tokens")
    assert "\n-  Which colour?\n+  Name it!\n" in shown.out
    flips = catalog("diff", "colour@1", "colour@2", "--no-tokens", "--json").json["flips"]
    assert flips
    assert [flip["better"] for flip in flips] == sorted(flip["better"] for flip in flips)
    assert all(re.search(rf"^ *{flip['row']} .* {flip['text']}$", shown.out, re.MULTILINE) for flip in flips)


def test_a_page_of_a_listing_leads_to_the_next(catalog: Run) -> None:
    first = catalog("tasks", "order by name desc", "--limit", 1)
    assert [line.split()[0] for line in first.out.splitlines()] == ["task", "word"]
    place = first.err.removeprefix("more: --after ").strip()
    second = catalog("tasks", "order by name desc", "--limit", 1, "--after", place)
    assert ([line.split()[0] for line in second.out.splitlines()], second.err) == (["task", "colour"], "")


def test_a_listing_as_csv_is_the_records(catalog: Run) -> None:
    rows = list(csv.DictReader(catalog("versions", "--csv").out.splitlines()))
    assert [(row["task"], row["number"], row["state"]) for row in rows] == [("colour", "1", "published")]
    assert catalog("versions", "number = 9", "--csv").out == ""


def test_what_was_published_at_a_time(catalog: Run) -> None:
    assert "colour" in catalog("tasks", "published = 1").out
    assert [line.split()[0] for line in catalog("tasks", "--as-of", "2001-01-01").out.splitlines()] == ["task"]


def test_a_guarded_task_moves_by_force_and_with_a_reason(changed: Run) -> None:
    catalog = changed
    assert catalog("guard", "colour", "--reason", "in the contract").out == "colour is guarded\n"
    held = catalog("learn", "colour")
    assert held.status == 1
    assert held.out.startswith("colour@2 held: the task is guarded; acc ")
    assert catalog("tasks", "name = 'colour'", "--json").json[0]["published"] == 1
    assert "moves only with --force and --reason …" in catalog("publish", "colour@2").err
    assert "moves only" in catalog("publish", "colour@2", "--force").err
    assert catalog("publish", "colour@2", "--force", "--reason", "agreed").out == "colour@2 is published\n"
    assert catalog("guard", "colour", "--off").out == "colour is guarded no longer\n"
    assert catalog("rollback", "colour").out == "colour@1 is published\n"


def test_adding_says_what_is_new_changed_or_unchanged_and_warns(
    run: Run, tiny_model: Path, make_task: MakeTask
) -> None:
    run("init", "--base-model", tiny_model, "--dtype", "float32")
    path = make_task("colour")
    added = run("add", path)
    assert added.out == "added colour (acc): new\n"
    assert "warning: colour: the 12 rows of split 'test' can show a drop of 0.5000 at the least" in added.err
    assert run("add", path).out == "added colour (acc): unchanged\n"
    path.write_text(path.read_text().replace("steps: 6", "steps: 4"))
    told = run("add", path).out.splitlines()
    assert told == [
        "added colour (acc): changed",
        "  -multiprompt.training.steps: 6",
        "  +multiprompt.training.steps: 4",
    ]
    (again,) = run("add", path, "--json").json
    assert (again["name"], again["change"], len(again["warnings"])) == ("colour", "unchanged", 1)
    failed = run("add", path, path.with_name("gone.yaml"), "--json")
    assert (failed.status, failed.json[0]["name"]) == (2, "colour")
    assert "gone.yaml cannot be read" in failed.json[1]["error"]


def test_adding_a_group_adds_its_tasks(
    run: Run, tiny_model: Path, make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init", "--base-model", tiny_model, "--dtype", "float32")
    make_task("colour"), make_task("shade", tag="dark")
    group = tmp_path / "tasks" / "group.yaml"
    group.write_text("group: pair\ntask: [shade, colour]\n")
    assert run("add", "--group", group).out == "added shade (acc): new\nadded colour (acc): new\n"
    monkeypatch.chdir(tmp_path)
    assert [task["name"] for task in run("add", "--group", "pair", "--group", "dark", "--json").json] == [
        "shade",
        "colour",
        "shade",
    ]
    assert "Give a task file or --group" in run("add").err
    assert "names 'gone', but no file at or below" in run("add", "--group", "gone").err
    assert f"`multiprompt add --group {group}`" in run("add", group).err


def test_learning_warns_of_an_edited_file_and_tells_what_was_published_before_a_failure(
    catalog: Run, make_task: MakeTask
) -> None:
    path = make_task("shade")
    catalog("add", path)
    path.write_text(path.read_text().replace("Answer:", "Reply:"))
    done = catalog("learn", "word", "shade", "--json")
    assert done.status == 2
    assert [said.get("version") for said in done.json] == ["word@1", None]
    assert "shade: its task file" in done.json[1]["error"]
    assert done.json[1]["error"] in done.err
    assert catalog("learn", "shade", "--as-added").status == 0
    assert "note: shade: its task file" in catalog("check").out


def test_a_published_version_is_told_with_rows_and_interval(catalog: Run) -> None:
    line = catalog("learn", "word").out.splitlines()[0]
    score = r"exact_match \d\.\d{4} \(95 % 0\.\d{4} to \d\.\d{4}, 12 rows\)"
    assert re.fullmatch(rf"word@1 published: {score}; hard prompt 0\.\d{{4}}, majority 1\.0000", line), line


def test_a_prompt_that_learned_nothing_is_published_by_force_alone(
    run: Run, tiny_model: Path, make_task: MakeTask
) -> None:
    run("init", "--base-model", tiny_model, "--dtype", "float32")
    run(
        "add",
        make_task(
            "colour", multiprompt={"num_virtual_tokens": 4, "training": {"steps": 2}, "regression": {"floor": "hard"}}
        ),
    )
    done = run("learn", "colour")
    assert done.status == 1
    assert done.out.startswith("colour@1 candidate: did not learn: acc ")
    assert "only with --force and --reason …" in run("publish", "colour@1").err
    assert run("publish", "colour@1", "--force", "--reason", "a demonstration").out == "colour@1 is published\n"


def test_a_check_on_another_base_model_or_dry_says_that_it_is_a_trial(
    catalog: Run, tiny_model: Path, tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    for options in (("--dry-run",), ("--base-model", other)):
        assert "note: this is a trial: nothing was stored, moved or triggered" in catalog("check", *options).out
        assert catalog("check", *options, "--json").json["trial"] is True
    assert "trial" not in catalog("check", "--base-model", tiny_model).out
    assert catalog("sql", "SELECT count(*) FROM v_events", "--json").status == 0


def test_a_note_is_found(catalog: Run) -> None:
    assert catalog("note", "colour", "Waiting for the new annotators").status == 0
    assert [record["name"] for record in catalog("tasks", "matches('annotator')", "--json").json] == ["colour"]


NASTY = "red \x1b[31m\x9b2J \u202e\nforged  row"


def test_a_table_keeps_each_record_on_its_line(catalog: Run) -> None:
    catalog("note", "colour", NASTY)
    printed = catalog("events", "kind = 'noted'").out
    assert len(printed.splitlines()) == 2
    assert "red \\u001b[31m\\u009b2J \\u202e\\nforged" in printed


def test_a_terminal_gets_nothing_that_acts_on_it(catalog: Run) -> None:
    catalog("note", "colour", NASTY)
    for arguments in (["show", "colour"], ["show", "colour", "--json"]):
        assert all(sign in catalog(*arguments).out for sign in ("\u202e", "\x9b")), "a pipe gets the very text"
        shown = on_terminal(*arguments)
        assert "red \\u001b[31m\\u009b2J \\u202e" in shown
        assert not set("\x1b\x9b\u202e") & set(shown)


def on_terminal(*arguments: str) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "multiprompt", *arguments], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        printed = b""
        with contextlib.suppress(OSError):  # Linux ends the reading of a closed terminal with an error
            while read := os.read(ours, 65536):
                printed += read
        os.close(ours)
        assert process.wait() == 0, printed
    return printed.decode()


def test_a_name_with_brackets_is_no_markup_of_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as advance:
        advance("training a[/b] [red]", 1, 1)
    assert "a[/b] [red]" in capsys.readouterr().err


def test_show_tells_the_guard_and_the_notes_of_a_task(catalog: Run) -> None:
    catalog("note", "word", "of another task")
    assert "guarded      no\nversion " in catalog("show", "colour").out
    catalog("note", "colour", "ask Ann first")
    catalog("guard", "colour")
    for label in ("colour", "colour@1"):
        told = catalog("show", label).out
        assert "guarded      yes\n" in told
        assert re.search(r"note         2\d{3}-\d\d-\d\d \d\d:\d\d \S.*: ask Ann first\n", told)
    assert [note["reason"] for note in catalog("show", "colour", "--json").json["notes"]] == ["ask Ann first"]
    assert [task["name"] for task in catalog("tasks", "guarded = true", "--json").json] == ["colour"]


def test_a_plan_shows_the_first_jobs_of_each_schedule_and_counts_the_others(catalog: Run) -> None:
    catalog("schedule", "add", "--every", "1s")
    catalog("schedule", "add", "colour", "--cron", "0 3 * * *")
    done = catalog("plan")
    lines = done.out.splitlines()
    assert len(lines) == 14
    assert sum(" check " in line for line in lines) == 5
    assert sum(line.startswith("and 995 more") for line in lines) == 1
    assert sum(line.startswith("and 2 more") for line in lines) == 1
    assert "check: its first 1000 jobs, to " in done.err


def test_a_plan_calls_the_first_training_of_a_task_a_learning(catalog: Run) -> None:
    catalog("schedule", "add", "colour", "--cron", "0 3 * * *")
    catalog("schedule", "add", "word", "--cron", "0 4 * * *")
    assert {job["task"]: job["kind"] for job in catalog("plan", "--json").json} == {
        "colour": "retrain",
        "word": "learn",
    }


def test_waiting_without_a_worker_is_told_once(catalog: Run, caplog: pytest.LogCaptureFixture) -> None:
    done = catalog("submit", "colour", "--wait", "--timeout", "1s")
    assert (done.status, done.out) == (2, "")
    assert caplog.text.count("no worker is running: start `multiprompt worker`") == 1


def test_show_tells_a_task_and_a_version(catalog: Run) -> None:
    assert "version      colour@1 (published)" in catalog("show", "colour").out
    assert "run `multiprompt learn word`" in catalog("show", "word").out
    assert catalog("show", "colour@1", "--json").json["version"]["num_virtual_tokens"] == 4


def test_lineage_in_every_format(catalog: Run, tmp_path: Path) -> None:
    catalog("export", "colour", tmp_path / "out")
    catalog("import", "colour", nudged(tmp_path / "out"))
    assert f"{tmp_path}/out  (imported-from)" in catalog("lineage", "colour").out
    assert catalog("lineage", "colour", "--format", "mermaid").out.startswith("flowchart TD")
    assert "imported-from" in catalog("lineage", "colour", "--format", "dot").out
    assert catalog("lineage", "colour", "--json").json[0]["relation"] == "imported-from"
    prov = catalog("lineage", "colour", "--format", "prov").json
    assert "colour@2" in {entity["prov:label"] for entity in prov["entity"].values()}
    events = catalog("lineage", "colour", "--format", "openlineage").json
    assert [event["outputs"][0]["name"] for event in events] == ["colour@1", "colour@2"]
    assert f"{tmp_path}/out" in {data["name"] for data in events[1]["inputs"]}


def test_diff_shows_what_changed(changed: Run) -> None:
    catalog = changed
    catalog("learn", "colour")
    shown = catalog("diff", "colour@1", "colour@2").out
    assert "acc " in shown
    assert "rows flipped" in shown
    assert "nearest words" in shown
    assert catalog("diff", "colour@1", "colour@2", "--no-tokens", "--json").json["tokens"] == []


def test_impact_lists_what_a_change_would_touch(catalog: Run) -> None:
    relations = catalog("lineage", "colour", "--json").json
    digest = next(edge["parent"] for edge in relations if edge["relation"] == "runs-on")
    (touched,) = catalog("impact", "base", digest, "--json").json
    assert (touched["version"], touched["relation"], touched["rows"]) == ("colour@1", "runs-on", 12)
    data = next(edge["parent"] for edge in relations if edge["relation"] == "trained-on")
    assert catalog("impact", "data", data[:20]).out.splitlines()[-1].startswith("1 prompt, 12 rows to evaluate again")


def test_a_backup_and_a_copy_hold_the_same(catalog: Run, tmp_path: Path) -> None:
    for command in (("backup", tmp_path / "a.db"), ("export-catalog", tmp_path / "b.db")):
        assert catalog(*command).status == 0
    assert catalog("import-catalog", tmp_path / "a.db", "--catalog", tmp_path / "c.db").status == 0
    whole = catalog("versions", "--json").out
    for name in "abc":
        assert catalog("verify", "--catalog", tmp_path / f"{name}.db").status == 0
        assert catalog("versions", "--json", "--catalog", tmp_path / f"{name}.db").out == whole
    assert "exists" in catalog("backup", tmp_path / "a.db").err
    assert "holds a catalog already" in catalog("export-catalog", tmp_path / "b.db").err


def test_a_copy_tells_of_the_jobs_that_it_does_not_hold(catalog: Run, tmp_path: Path) -> None:
    assert "not in the copy" not in catalog("backup", tmp_path / "a.db").err
    catalog("submit", "word")
    for command in (("backup", tmp_path / "b.db"), ("export-catalog", tmp_path / "c.db")):
        done = catalog(*command)
        assert (done.status, "1 job waits or runs and is not in the copy" in done.err) == (0, True)
    source = catalog("jobs", "--json").json
    assert catalog("jobs", "--json", "--catalog", tmp_path / "c.db").json == []
    assert len(source) == 1


def test_sql_reads_the_views(catalog: Run) -> None:
    found = catalog("sql", "SELECT task, state FROM v_versions", "--json").json
    assert found == [{"task": "colour", "state": "published"}]
    assert catalog("sql", "SELECT name FROM v_tasks ORDER BY name", "--csv").out.split() == ["name", "colour", "word"]
    catalog("submit", "word")
    jobs = catalog("sql", "SELECT kind, task, state, substr(created_at, 1, 2) AS century FROM v_jobs", "--json").json
    assert jobs == [{"kind": "learn", "task": "word", "state": "queued", "century": "20"}]
    assert catalog("jobs", "state = 'queued'", "--json").json[0]["task"] == "word"
    assert "only SELECT is allowed" in catalog("sql", "DELETE FROM jobs.workflow_status").err
    twice = catalog("sql", "SELECT name, metric AS name FROM v_tasks", "--json")
    assert (twice.status, "several columns are called name" in twice.err) == (2, True)
    assert "more than 1 rows" in catalog("sql", "SELECT * FROM v_events", "--limit", 1).err


def test_gc_says_what_it_would_delete(catalog: Run) -> None:
    assert catalog("gc", "--dry-run", "--json").json["deleted"] == 0
    assert catalog("gc").out.startswith("0 files (0 bytes) are unused")


def test_matrix_prints_a_row_a_task(catalog: Run) -> None:
    catalog("learn", "word")
    assert catalog("matrix", "--json").json["tasks"] == ["colour", "word"]
    assert re.search(r"^BWT +0.0000 ", catalog("matrix").out, re.MULTILINE)


def test_export_import_and_rollback(catalog: Run, tmp_path: Path) -> None:
    assert catalog("export", "colour", tmp_path / "out").out == f"wrote {tmp_path}/out\n"
    assert "the adapter has the bytes of colour@1" in catalog("import", "colour", tmp_path / "out").out
    assert "colour@2 published" in catalog("import", "colour", nudged(tmp_path / "out")).out
    assert catalog("rollback", "colour", "--reason", "a test").out == "colour@1 is published\n"
    assert catalog("events", "kind = 'rolled-back'", "--json").json[0]["reason"] == "a test"


def test_verify_and_upgrade_find_nothing_to_do(catalog: Run) -> None:
    assert catalog("verify").out == "all is well\n"
    assert "nothing to do" in catalog("upgrade").out


def test_a_submitted_job_is_done_by_the_worker(catalog: Run) -> None:
    assert catalog("submit", "word").out.endswith("learn word: queued\n")
    worker = [sys.executable, "-m", "multiprompt", "worker", "--until-idle"]
    done = subprocess.run(worker, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (job,) = catalog("jobs", "--json").json
    assert (job["task"], job["state"]) == ("word", "done")
    assert job["outcome"].startswith("word@1 published")
    assert "word@1" in catalog("versions").out


def test_schedules_are_added_listed_paused_and_removed(catalog: Run) -> None:
    assert catalog("schedule", "add", "colour", "--cron", "0 3 * * 0").out == "retrain:colour: 0 3 * * 0 UTC\n"
    assert catalog("schedule", "add", "colour", "--on", "data").out == "retrain:colour:data: on data\n"
    assert catalog("schedule", "add", "colour", "--on", "age", "--every", "30d").status == 0
    assert catalog("schedule", "add", "--every", "6h").out == "check: every 6:00:00\n"
    catalog("schedule", "pause", "retrain:colour")
    listed = catalog("schedule", "list").out
    assert "paused" in listed
    assert "on age 30 days" in listed
    assert catalog("schedule", "resume", "retrain:colour").status == 0
    planned = catalog("plan", "--days", 15, "--json").json
    assert {job["schedule"] for job in planned} == {"retrain:colour", "check"}
    assert all(job["seconds"] > 0 for job in planned if job["task"])
    assert re.search(r"6\d jobs, \d+ s and 60 of unknown cost", catalog("plan", "--days", 15).out)
    assert "learn colour" not in catalog("schedule", "trigger", "check").out
    assert catalog("jobs", "kind = 'check'", "--json").json[0]["state"] == "queued"
    for name in ("retrain:colour", "retrain:colour:data", "retrain:colour:age", "check"):
        assert catalog("schedule", "remove", name).status == 0
    assert catalog("schedule", "list", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("schedule", "add", "colour", "--every", "soon"), "'soon' is no duration: give a number and one of s, m,"),
        (("schedule", "add", "colour", "--on", "tuesday"), "'tuesday' is not one of"),
        (("submit", "colour", "--priority", "0"), "0 is not in the range"),
        (("plan", "--days", "-1"), "-1"),
        (("worker", "--device", "tpu"), "--device is 'tpu'; give cpu, cuda or cuda:N"),
    ],
)
def test_an_option_that_cannot_be_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert says in done.err


def test_a_job_is_shown_cancelled_and_retried(catalog: Run) -> None:
    job = catalog("submit", "word", "--priority", 3, "--json").json
    assert (job["kind"], job["priority"], job["state"]) == ("learn", 3, "queued")
    shown = catalog("job", "show", job["id"]).out
    assert re.search(r"^task +word$", shown, re.MULTILINE)
    assert catalog("job", "cancel", job["id"]).out.endswith("learn word: cancelled\n")
    assert "cancelled" in catalog("job", "logs", job["id"]).out
    again = catalog("job", "retry", job["id"], "--json").json
    assert (again["state"], again["id"] != job["id"]) == ("queued", True)
    assert catalog("submit", "colour").out.split()[1] == "retrain"


def test_new_takes_no_other_tasks_name_and_says_so_before_it_writes(run: Run, tmp_path: Path) -> None:
    for folder, queues in (("one", "ab"), ("two", "cd")):
        (tmp_path / folder).mkdir()
        rows = "".join(f"message {n},{queues[n % 2]}\n" for n in range(40))
        (tmp_path / folder / "data.csv").write_text(f"text,queue\n{rows}", encoding="utf-8")
    made = [
        run("new", tmp_path / one / "data.csv", "--text", "text", "--label", "queue", "--out", tmp_path / f"of {one}")
        for one in ("one", "two")
    ]
    assert [done.status for done in made] == [0, 2]
    assert "the catalog has a task 'data': choose another with --name …" in made[1].err
    assert not (tmp_path / "of two").exists()
    named = ("new", tmp_path / "two" / "data.csv", "--text", "text", "--label", "queue", "--name", "../two")
    assert "is no name of a folder" in run(*named).err


WRONG = [
    (("docs", "glosary"), "no page 'glosary'; did you mean 'glossary'?"),
    (("new", "nothing.csv", "--text", "a", "--label", "b"), "nothing.csv does not exist"),
    (("bless", "colour"), "give one with --reason"),
    (("policy", "warm"), "no policy 'warm'; did you mean 'warn'?"),
    (("learn", "color"), "no task 'color' in the catalog; did you mean 'colour'?"),
    (("predict", "colour@9", "x"), "task 'colour' has no version 9; its versions: 1 (published)."),
    (("predict", "word", "x"), "task 'word' has no published version"),
    (("show", "colour@one"), "names no version: write task@number"),
    (("lineage", "nope"), "no task 'nope'"),
    (("rollback", "colour"), "no retired version to roll back to"),
    (("rollback", "colour", "--to", "9"), "no version 9"),
    (("publish", "colour@1"), "colour@1 is published; publish takes a candidate, and"),
    (("rollback", "colour", "--to", "1"), "colour@1 is published; publish takes a candidate, and"),
    (("export", "colour@9", "out"), "no version 9"),
    (("import", "colour", "nowhere"), "'nowhere' is no PEFT adapter"),
    (("tasks", "scor > 1"), "query, column 1, at 'scor': unknown field 'scor'; did you mean 'score'?"),
    (("versions", "state ="), "query, column 8, at the end: expected a text in single quotes"),
    (("evaluations", "score > 'x'"), "expected a number"),
    (("events", "at > 'yesterday'"), "expected a time such as '2026-11-01'"),
    (("add", "nowhere.yaml"), "nowhere.yaml cannot be read"),
    (("submit", "nope"), "no task 'nope'"),
    (("schedule", "add", "colour", "--cron", "often"), "'often' in time zone UTC is no schedule"),
    (("schedule", "add", "colour", "--cron", "* *"), "'* *' in time zone UTC is no schedule"),
    (("schedule", "add", "colour", "--cron", "0 3 * * 0", "--timezone", "Mars/Olympus"), "Mars/Olympus"),
    (("schedule", "add", "colour", "--cron", "0 3 * * 0", "--on", "data"), "one of cron, every and on"),
    (("schedule", "add", "colour"), "one of cron, every and on"),
    (("schedule", "add", "colour", "--on", "age"), "takes every: the age in question"),
    (("schedule", "add", "--on", "data", "--kind", "check"), "a schedule on data takes a task"),
    (("schedule", "pause", "nope"), "no schedule 'nope'"),
    (("schedule", "trigger", "nope"), "no schedule 'nope'"),
    (("schedule", "remove", "nope"), "no schedule 'nope'"),
    (("submit", "colour", "--kind", "check"), "a job of kind check takes no task"),
    (("submit", "--kind", "learn"), "a job of kind learn takes a task"),
    (("job", "show", "nope"), "no job 'nope'"),
    (("plan", "--catalog", "nowhere.db"), "there is no catalog at"),
    (("render", "colour", "--row", "99"), "there is no row 99"),
    (("job", "logs", "nope"), "no job 'nope'"),
    (("job", "cancel", "nope"), "no job 'nope'"),
    (("job", "retry", "nope"), "no job 'nope'"),
    (("check", "--catalog", "nowhere.db"), "there is no catalog at"),
    (("verify", "--catalog", "mysql://host/db"), "is neither SQLite nor PostgreSQL"),
    (("evaluation", "99"), "no evaluation 99"),
    (("publish", "colour"), "no candidate version"),
    (("guard", "nope"), "no task 'nope'"),
    (("note", "nope", "x"), "no task 'nope'"),
    (("matrix", "--catalog", "nowhere.db"), "create one with `multiprompt init`"),
    (("jobs", "stat = 'failed'"), "unknown field 'stat'; did you mean 'state'?"),
    (("jobs", "--after", "nonsense"), "'nonsense' is no place in a listing: there are no jobs yet"),
    (("events", "kind == 'x'"), "at '=': expected a text in single quotes; one = compares"),
    (("jobs", "--catalog", "nowhere.db"), "there is no catalog at"),
    (("worker", "--catalog", "nowhere.db"), "there is no catalog at"),
    (("upgrade", "--catalog", "nowhere.db"), "nowhere.db"),
    (("backup", "no/folder/copy.db"), "does not exist: create the folder"),
    (("export-catalog", "sqlite:///no/folder/c.db"), "does not exist: create the folder"),
    (("import-catalog", "nowhere.db"), "there is no catalog at"),
    (("gc", "--catalog", "nowhere.db"), "there is no catalog at"),
    (("sql", "DELETE FROM events"), "SQL: only SELECT is allowed here"),
    (("diff", "colour@1", "colour@9", "--no-tokens"), "no version 9"),
    (("impact", "data", "sha256:00000000"), "no data sha256:00000000 in the catalog"),
    (("init", "--catalog", "no/folder/c.db"), "does not exist: create the folder"),
]


def test_one_wrong_input_to_each_command_is_one_line_and_status_2(
    catalog: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in WRONG:
        done = catalog(*arguments)
        assert (done.status, done.out) == (2, ""), arguments
        line = done.err.strip().splitlines()[-1]
        assert line.startswith("error: "), arguments
        assert message in line, arguments
    assert {command for (command, *_), _ in WRONG} | {"quickstart", "learn"} == set(cli.commands)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("learn",), "error: name tasks, or give --all (see `multiprompt learn --help`)"),
        (("evaluation", "x"), "error: Invalid value for 'ID': 'x' is not a valid integer"),
        (("tasks", "--as-of", "yesterday"), "error: Invalid value for '--as-of': expected a time"),
        (("predict", "--input", "nowhere"), "error: Invalid value for '--input': 'nowhere': No such file"),
        (("submit", "colour", "--timeout", "soon"), "error: Invalid value for '--timeout': 'soon' is no duration"),
        (("schedule", "list", "x"), "(see `multiprompt schedule list --help`)"),
        (("lern",), "error: No such command 'lern'"),
        (("worker", "--lease", "nan"), "error: Invalid value for '--lease': nan is no finite number"),
        (("worker", "--grace", "nan"), "error: Invalid value for '--grace': nan is no finite number"),
        (("gc", "--days", "inf"), "error: Invalid value for '--days': inf is no finite number"),
        (("plan", "--days", "nan"), "error: Invalid value for '--days': nan is no finite number"),
        (("worker", "--base-model", "nowhere"), "error: no base model 'nowhere'"),
    ],
)
def test_a_command_line_that_is_not_understood_is_one_line(
    catalog: Run, arguments: tuple[str, ...], message: str
) -> None:
    done = catalog(*arguments)
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour", "--input: line 1 is not JSON"),
        ("[1]", "--input: line 1 is a number, but a row is an object"),
        ('{"text": "x"}', "line 1 of --input names no task"),
        ("", "--input holds no rows"),
    ],
)
def test_a_bad_input_file_names_the_line(catalog: Run, tmp_path: Path, text: str, message: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text)
    done = catalog("predict", "--input", rows)
    assert done.status == 2
    assert message in done.err


def test_input_rows_are_counted(catalog: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprompt.tasks.rows.MAX_SPLIT_ROWS", 10)
    (tmp_path / "rows.jsonl").write_text('{"task": "word"}\n' * 11)
    done = catalog("predict", "--input", tmp_path / "rows.jsonl")
    assert (done.status, done.out) == (2, "")
    assert "error: --input: it holds over 10 rows" in done.err


def test_an_interrupt_exits_130_and_leaves_the_catalog(catalog: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprompt.engine import training

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_backward", interrupt)
    before = catalog("versions", "--json").out
    done = catalog("learn", "word")
    assert (done.status, done.err.strip().splitlines()[-1]) == (
        130, "error: interrupted; no prompt was changed, run the command again to go on",
    )  # fmt: skip
    assert catalog("versions", "--json").out == before


def every_command(group: click.Group, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += every_command(command, *path, name)
        else:
            found.append(((*path, name), command))
    return found


@pytest.mark.parametrize(("path", "command"), [pytest.param(*c, id=" ".join(c[0])) for c in every_command(cli)])
def test_every_command_has_help_and_an_example_in_the_guide(path: tuple[str, ...], command: click.Command) -> None:
    assert (command.help or "").strip().endswith((".", '"', "'"))
    assert all(option.help for option in command.params if isinstance(option, click.Option))
    assert re.search(rf"^\s*multiprompt {' '.join(path)}\b", GUIDE, re.MULTILINE), "the guide has no example"


# Commands without --json, and why.
NO_JSON = {("worker",): "it prints no result but a log, which --log json gives as JSON lines"}


def test_every_command_takes_json_or_says_why_not() -> None:
    without = {path for path, command in every_command(cli) if not any("--json" in p.opts for p in command.params)}
    assert without == NO_JSON.keys()


def test_each_writing_command_prints_its_result_as_json(changed: Run, tmp_path: Path, tiny_model: Path) -> None:
    run = changed
    assert run("init", "--base-model", tiny_model, "--json").json["base_model"]["dtype"] == "float32"
    assert run("guard", "colour", "--json").json["guarded"] is True
    assert run("guard", "colour", "--off", "--json").json["guarded"] is False
    assert run("learn", "colour", "--json").json[0]["version"] == "colour@2"
    assert run("rollback", "colour", "--json").json["number"] == 1
    assert len(run("bless", "colour", "--reason", "why", "--json").json["predictions"]) == 12
    assert run("policy", "warn", "--json").json == {"policy": "warn"}
    assert run("note", "colour", "ask Ann", "--json").json["reason"] == "ask Ann"
    assert run("export", "colour", tmp_path / "out", "--json").json["folder"] == str(tmp_path / "out")
    assert run("backup", tmp_path / "copy.db", "--json").json == {"file": str(tmp_path / "copy.db")}
    assert run("export-catalog", tmp_path / "other.db", "--json").json["copy"] == str(tmp_path / "other.db")
    known = run("upgrade", "--json").json
    assert known["before"] == known["after"]
    assert run("schedule", "add", "colour", "--every", "6h", "--json").json["name"] == "retrain:colour"
    assert run("schedule", "pause", "retrain:colour", "--json").json["active"] is False
    assert run("schedule", "resume", "retrain:colour", "--json").json["active"] is True
    assert run("schedule", "remove", "retrain:colour", "--json").json == {"removed": "retrain:colour"}
    assert "glossary" in run("docs", "--json").json
    assert run("docs", "glossary", "--json").json["text"].startswith("# ")
    assert run("matrix", "--plot", tmp_path / "m.svg", "--json").json == {"picture": str(tmp_path / "m.svg")}


def test_listing_loads_no_torch(catalog: Run, tmp_path: Path) -> None:
    """What takes seconds to import must not be imported to answer a listing."""
    code = (
        "import sys; from multiprompt.cli.main import cli; "
        f"cli(['tasks', '--catalog', {str(tmp_path / 'catalog.db')!r}], standalone_mode=False); "
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'evaluate', 'alembic', 'jinja2', 'yaml', 'dbos'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "colour" in done.stdout


def test_render_prints_the_models_exact_input(catalog: Run) -> None:
    done = catalog("render", "colour", "sky")
    assert done.out.splitlines() == [
        "[soft prompt: 4 virtual tokens of colour@1]",
        "Which colour?",
        "sky",
        "Answer:",
        *(f'[choice: " {colour}", 1 token]' for colour in ("red", "green", "blue", "yellow")),
    ]
    shown = catalog("render", "word", "--row", 0, "--split", "training", "--tokens")
    assert "[soft prompt: 4 virtual tokens of word, not learned yet]" in shown.out
    assert '[answer: " red\\n", 2 tokens]' in shown.out
    (record,) = catalog("render", "word", "--row", 0, "--json").json
    assert [token["text"] for token in record["answer"]["tokens"]] == [" red", "\n"]
    for token in record["answer"]["tokens"]:
        assert re.search(rf"^ +\d+ +{token['id']} +", shown.out, re.MULTILINE)
    assert catalog("render", "colour").status == 2


def test_no_command_prints_the_password_of_a_catalog(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    assert run("init", "--base-model", tiny_model).status == 0
    plain = make_url(new_database())
    urls = [
        plain.set(password="hunter2").render_as_string(hide_password=False),
        plain.update_query_dict({"password": "hunter2"}).render_as_string(hide_password=False),
    ]
    assert run("export-catalog", urls[0]).status == 0
    for number, url in enumerate(urls):
        told = [
            run("export-catalog", url),
            run("import-catalog", url, "--catalog", tmp_path / f"{number}.db"),
            run("backup", tmp_path / f"{number}.bak", "--catalog", url),
            *(run(*command, "--catalog", url) for command in (("upgrade",), ("verify",), ("gc",), ("submit", "none"))),
            run("submit", "--catalog", url),
        ]
        assert [done.status for done in told] == [2, 0, 0, 0, 0, 0, 2, 0]
        assert not [done for done in told if "hunter2" in done.out + done.err]
    drop_databases()
