"""New tasks from data files: the split, the task file, and what is left out."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import multiprompt as mp
from multiprompt.errors import DataError, NotFoundError, StateError
from multiprompt.tasks.example import UNCOUNTED, examples
from multiprompt.tasks.new_task import write_new_task
from multiprompt.tasks.split import load_data
from multiprompt.tasks.task import Task

QUEUES = ("billing", "shipping", "returns")


def write_csv(path: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("message", "queue")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tickets(count: int = 90) -> list[tuple[str, str]]:
    return [(f"message {number}, please help", QUEUES[number % 3]) for number in range(count)]


def read_jsonl(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_csv_becomes_a_task_that_a_catalog_takes(tmp_path: Path, tiny_model: Path) -> None:
    made = write_new_task(write_csv(tmp_path / "tickets.csv", tickets()), "message", "queue", out=tmp_path / "out")
    assert (made.rows, made.labels, made.notes) == (
        {"train": 63, "validation": 9, "test": 18},
        ("billing", "returns", "shipping"),
        (),
    )
    ws = mp.open(tmp_path / "catalog.db", str(tiny_model), dtype="float32")
    added = ws.add_task(made.file)
    assert (added.name, added.metric, added.change) == ("tickets", "acc", "new")
    shown = ws.render("tickets", 0, split="training")
    assert shown.text.startswith("Name the queue of the message. It is one of: billing, returns, shipping.\n\nmessage ")
    assert [choice.text for choice in shown.choices] == [" billing", " returns", " shipping"]


def test_every_split_has_every_label_and_no_text_is_in_two(tmp_path: Path) -> None:
    rows = [(f"rare {n}", "rare") for n in range(10)] + [(f"common {n}", "common") for n in range(190)]
    made = write_new_task(write_csv(tmp_path / "a.csv", rows), "message", "queue", out=tmp_path / "out")
    data = load_data(Task.from_file(made.file))
    splits = [data.training.rows, data.validation.rows, data.test.rows]
    assert [Counter(row["queue"] for row in split)["rare"] for split in splits] == [7, 1, 2]
    texts = [row["message"] for split in splits for row in split]
    assert len(set(texts)) == len(texts) == 200


def test_the_same_seed_gives_the_same_files_and_another_one_other_rows(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", tickets())
    files = {
        (seed, again): write_new_task(data, "message", "queue", out=tmp_path / f"{seed} {again}", seed=seed).file
        for seed, again in ((0, 0), (0, 1), (1, 0))
    }
    tests = {key: file.with_name("test.jsonl").read_text(encoding="utf-8") for key, file in files.items()}
    assert tests[0, 0] == tests[0, 1]
    assert tests[0, 0] != tests[1, 0]


def test_empty_and_repeated_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    extra = [("", "billing"), ("x", ""), ("message 0, please help", "billing"), ("message 1, please help", "billing")]
    made = write_new_task(write_csv(tmp_path / "a.csv", tickets() + extra), "message", "queue", out=tmp_path / "out")
    assert sum(made.rows.values()) == 90
    assert made.notes == (
        "left out: 2 rows without a text or an answer",
        "left out: 1 row with a known text",
        "left out: 1 row with a known text and another answer",
    )


def test_labels_of_digits_are_written_as_numbers_of_choices(tmp_path: Path) -> None:
    rows = [(f"film {n}", str(1 + n % 5)) for n in range(100)]
    made = write_new_task(write_csv(tmp_path / "stars.csv", rows), "message", "queue", out=tmp_path / "out")
    task = Task.from_file(made.file)
    assert made.labels == ("1", "2", "3", "4", "5")
    for row in read_jsonl(made.file.with_name("test.jsonl")):
        assert task.doc_to_choice[row["queue"]] == str(1 + int(str(row["message"]).split()[1]) % 5)  # type: ignore[index]


def test_a_target_makes_a_generation_task(tmp_path: Path) -> None:
    rows = [(f"word{n}", f"words{n}") for n in range(40)]
    data = write_csv(tmp_path / "plurals.csv", rows, ("the word", "its plural"))
    made = write_new_task(data, "the word", target="its plural", instruction="Give the plural.", out=tmp_path / "out")
    task = Task.from_file(made.file)
    assert (task.is_multiple_choice, task.description.source, made.labels) == (False, "Give the plural.\n\n", ())
    assert set(read_jsonl(made.file.with_name("train.jsonl"))[0]) == {"the_word", "its_plural"}


def test_two_columns_that_a_template_would_read_by_one_name_stay_apart(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", tickets(), ("the queue", "the_queue"))
    made = write_new_task(data, "the queue", "the_queue", out=tmp_path / "out")
    assert set(read_jsonl(made.file.with_name("train.jsonl"))[0]) == {"text", "answer"}


def test_of_many_rows_the_test_split_is_bounded(tmp_path: Path) -> None:
    made = write_new_task(write_csv(tmp_path / "a.csv", tickets(9000)), "message", "queue", out=tmp_path / "out")
    assert made.rows == {"train": 7800, "validation": 201, "test": 999}


def test_a_parquet_file_and_a_saved_dataset_are_read(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"message": [text for text, _ in tickets()], "queue": [queue for _, queue in tickets()]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns)}).save_to_disk(tmp_path / "saved")
    made = [
        write_new_task(tmp_path / source, "message", "queue", name="t", out=tmp_path / f"of {source}")
        for source in ("t.parquet", "saved")
    ]
    assert made[0].rows == made[1].rows == {"train": 63, "validation": 9, "test": 18}
    assert made[0].file.read_text(encoding="utf-8") == made[1].file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"text": "mesage", "label": "queue"}, NotFoundError, "no column 'mesage'; did you mean 'message'"),
        ({"text": "message", "label": "message"}, DataError, "holds 120 labels, and the most are 100"),
        ({"text": "message"}, DataError, "give one of label"),
        ({"text": "message", "label": "queue", "target": "queue"}, DataError, "give one of label"),
    ],
)
def test_what_makes_no_task_is_refused_and_writes_nothing(
    tmp_path: Path, arguments: dict[str, str], error: type[Exception], says: str
) -> None:
    data = write_csv(tmp_path / "a.csv", tickets(120))
    with pytest.raises(error, match=says):
        write_new_task(data, **arguments, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_few_rows_one_label_and_a_used_folder_are_refused(tmp_path: Path) -> None:
    for rows, says in ((tickets(4), "rows are too few"), ([(f"m {n}", "one") for n in range(20)], "one label only")):
        with pytest.raises(DataError, match=says):
            write_new_task(write_csv(tmp_path / "a.csv", rows), "message", "queue", out=tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(StateError, match="is no empty folder"):
        write_new_task(write_csv(tmp_path / "a.csv", tickets()), "message", "queue", out=tmp_path / "out")
    with pytest.raises(NotFoundError, match="does not exist"):
        write_new_task(tmp_path / "nothing.csv", "message", "queue")


@pytest.mark.parametrize("mark", ["{{ 7 * 7 }}", "{% if x %}", "{# no #}", "{{{x}}}", "{% endraw %}"])
def test_jinja_in_an_instruction_a_column_or_a_label_is_text(tmp_path: Path, mark: str) -> None:
    rows = [(f"message {n}", (mark, "other")[n % 2]) for n in range(40)]
    data = write_csv(tmp_path / "a.csv", rows, ("message", f"kind {mark}"))
    for number, instruction in enumerate((f"Say {mark}.", None)):
        made = write_new_task(
            data, "message", f"kind {mark}", instruction=instruction, name="a", out=tmp_path / str(number)
        )
        task = Task.from_file(made.file)
        shown = examples(task, load_data(task).test, UNCOUNTED)
        begins = instruction or f"Name the kind {mark} of the message. It is one of: {', '.join(made.labels)}."
        assert all(one.query.context.startswith(f"{begins}\n\nmessage ") for one in shown)
        assert all(one.query.context.endswith(f"\nKind {mark.lower()}:") for one in shown)
        assert {one.answer for one in shown} == {mark, "other"}


def test_texts_that_differ_in_spaces_alone_are_one_text(tmp_path: Path) -> None:
    spaced = [(text.replace(" ", "\u00a0 "), queue) for text, queue in tickets()]
    accents = [("caf\u00e9", "billing"), ("cafe\u0301", "billing")]
    made = write_new_task(
        write_csv(tmp_path / "a.csv", tickets() + spaced + accents), "message", "queue", out=tmp_path / "out"
    )
    assert (sum(made.rows.values()), made.notes) == (91, ("left out: 91 rows with a known text",))


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps({"message": [f"m {n}"], "queue": n % 2}) + "\n" for n in range(40)))
    with pytest.raises(DataError, match="the column 'message' holds a list; give a column of texts"):
        write_new_task(data, "message", "queue", out=tmp_path / "out")


def test_a_write_that_fails_leaves_nothing_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_csv(tmp_path / "a.csv", tickets())
    whole = Path.write_text

    def full_disk(path: Path, text: str, **options: str) -> int:
        if path.name == "test.jsonl":
            raise OSError(28, "No space left on device")
        return whole(path, text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_new_task(data, "message", "queue", out=tmp_path / "tasks" / "out")
    assert list((tmp_path / "tasks").iterdir()) == []
    assert write_new_task(data, "message", "queue", out=tmp_path / "tasks" / "out").file.exists()


def test_a_label_without_a_test_row_is_told(tmp_path: Path) -> None:
    rows = [*tickets(), ("rare 1", "rare"), ("rare 2", "rare")]
    made = write_new_task(write_csv(tmp_path / "a.csv", rows), "message", "queue", out=tmp_path / "out")
    assert made.notes == ("no test row has 1 label, as rows of it are too few",)


@pytest.mark.parametrize("column", ["not", "self", "1st", "text ", "a/b:c", "\u65e5\u672c\u8a9e", "and", "range"])
def test_a_column_of_any_name_is_read(tmp_path: Path, column: str) -> None:
    made = [
        write_new_task(write_csv(tmp_path / "a.csv", tickets(), header), *header, name="a", out=tmp_path / header[0])
        for header in ((column, "queue"), ("message", column))
    ]
    for task in (Task.from_file(one.file) for one in made):
        assert all("\nmessage " in f"\n{one.query.context}" for one in examples(task, load_data(task).test, UNCOUNTED))


def test_answers_of_brackets_several_lines_and_many_words_stay_one_whole_text(tmp_path: Path) -> None:
    answers = ["['a', 'b']", "one\ntwo", "word " * 100]
    rows = [(f"message {n}", answers[n % 3].strip()) for n in range(60)]
    made = write_new_task(write_csv(tmp_path / "a.csv", rows), "message", target="queue", out=tmp_path / "out")
    task = Task.from_file(made.file)
    shown = examples(task, load_data(task).training, UNCOUNTED)
    assert {one.target for one in shown} == {answer.strip() for answer in answers}
    assert (task.generation.until, task.generation.max_new_tokens) == ((), 249)


def test_the_working_directory_and_a_link_can_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_csv(tmp_path / "a.csv", tickets())
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    for out, folder in ((Path(), "here"), (tmp_path / "link", "there")):
        made = write_new_task(data, "message", "queue", out=out)
        names = {"task.yaml", "train.jsonl", "validation.jsonl", "test.jsonl"}
        assert load_data(Task.from_file(made.file)).test.rows
        assert {file.name for file in (tmp_path / folder).iterdir()} == names


def test_a_class_label_column_of_a_saved_dataset_gives_its_names(tmp_path: Path) -> None:
    import datasets

    columns = {"message": [text for text, _ in tickets()], "queue": [n % 3 for n in range(90)]}
    features = datasets.Features({"message": datasets.Value("string"), "queue": datasets.ClassLabel(names=QUEUES)})
    saved = datasets.Dataset.from_dict(columns, features)
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "splits")
    saved.save_to_disk(tmp_path / "one")
    for source in ("splits", "one"):
        made = write_new_task(tmp_path / source, "message", "queue", out=tmp_path / f"of {source}")
        assert made.labels == tuple(sorted(QUEUES))


def test_what_a_killed_call_left_is_cleared_and_what_another_writes_is_not(tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", tickets())
    killed = """
import os, sys
from pathlib import Path
from multiprompt.tasks.new_task import write_new_task
whole = Path.rename
def die(path, target):
    if path.name == "test.jsonl" or path.name.startswith(".multiprompt-new-"):
        os._exit(9)
    return whole(path, target)
Path.rename = die
write_new_task(Path(sys.argv[1]), "message", "queue", out=Path(sys.argv[2]))
"""
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "tasks" / "out", tmp_path / "empty"):
        done = subprocess.run([sys.executable, "-c", killed, str(data), str(out)], check=False)
        assert done.returncode == 9
        place = out if out.exists() else out.parent
        assert [path.name[:17] for path in place.iterdir() if path.is_dir()] == [".multiprompt-new-"]
        other = place.parent / ".multiprompt-new-1"
        other.mkdir()
        with _locked(other):
            made = write_new_task(data, "message", "queue", out=out)
            assert other.exists()
        other.rmdir()
        assert {file.name for file in made.file.parent.iterdir()} == {
            "task.yaml", "train.jsonl", "validation.jsonl", "test.jsonl"
        }  # fmt: skip
        assert not list(place.glob(".multiprompt-new-*"))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    number = os.open(folder, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    yield
    os.close(number)


def test_a_workspace_makes_and_adds_a_task_of_a_file(
    workspace: mp.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_csv(tmp_path / "tickets.csv", tickets())
    made = workspace.new_task("tickets.csv", text="message", label="queue")
    assert (made.file, made.rows["test"], made.added.name) == (Path("tickets/task.yaml"), 18, "tickets")
    with pytest.raises(StateError, match="the catalog has a task 'tickets': choose another with `name="):
        workspace.new_task(data, text="message", label="queue", out="elsewhere")
    assert not Path("elsewhere").exists()


def test_a_task_that_cannot_be_added_leaves_no_files(
    workspace: mp.Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_csv(tmp_path / "tickets.csv", tickets())
    (tmp_path / "empty").mkdir()

    def full(_: object) -> None:
        raise DataError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(workspace.catalog.tasks, "add", full)
        for out in (tmp_path / "new" / "out", tmp_path / "empty"):
            with pytest.raises(DataError, match="the disk is full"):
                workspace.new_task(data, text="message", label="queue", out=out)
            assert not out.exists()
    assert workspace.new_task(data, text="message", label="queue", out=tmp_path / "out").added.change == "new"
