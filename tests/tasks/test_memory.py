"""Tasks of rows in memory: the catalog keeps the rows, and everything later works from the catalog alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import multiprompt as mp
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConfigError, DataError, MultipromptError, NotFoundError
from multiprompt.jobs.processes import WorkerOptions
from multiprompt.jobs.triggers import observe
from multiprompt.jobs.worker import work
from multiprompt.tasks.draft import SPLITS
from multiprompt.tasks.new_task import write_new_task
from multiprompt.tasks.split import load_data
from multiprompt.tasks.task import Task
from tests.conftest import without_floor
from tests.tasks.test_new_task import QUEUES, read_jsonl, tickets, write_csv

SMALL = {"num_virtual_tokens": 4, "training": {"steps": 4, "batch_size": 4, "validate_every": 2}}


def records(count: int = 90) -> list[dict[str, Any]]:
    return [{"message": text, "queue": queue} for text, queue in tickets(count)]


def small_task(**options: Any) -> Task:
    """A task of rows in memory that a tiny model learns quickly."""
    task = Task.from_rows(records(), text="message", label="queue", name="support", **options)
    mapping = without_floor({**task.mapping, "multiprompt": SMALL})
    return replace(Task.from_mapping(mapping, task.folder), read_snapshot=task.read_snapshot)


def test_rows_in_memory_split_as_the_command_new_splits_a_file(tmp_path: Path) -> None:
    made = write_new_task(write_csv(tmp_path / "a.csv", tickets()), "message", "queue", out=tmp_path / "out", seed=3)
    task = Task.from_rows(records(), text="message", label="queue", name="a", seed=3)
    data = load_data(task)
    for name, split in zip(SPLITS, (data.training, data.validation, data.test), strict=True):
        assert list(split.rows) == read_jsonl(made.file.with_name(f"{name}.jsonl"))
    assert task.fingerprint == Task.from_file(made.file).fingerprint


def test_a_data_frame_and_a_dataset_become_the_same_task(tmp_path: Path) -> None:
    import datasets
    import pandas

    from_rows = Task.from_rows(records(), text="message", label="queue")
    frame = pandas.DataFrame(records(), index=[f"row {n}" for n in range(90)])
    assert Task.from_dataframe(frame, text="message", label="queue").source == from_rows.source
    assert (
        Task.from_dataframe(frame.astype({"queue": "category"}), text="message", label="queue").source
        == from_rows.source
    )
    dataset = datasets.Dataset.from_list(records())
    assert Task.from_dataset(dataset, text="message", label="queue").source == from_rows.source
    assert from_rows.name == "queue"
    named = dataset.class_encode_column("queue")
    assert isinstance(named[0]["queue"], int)
    assert Task.from_dataset(named, text="message", label="queue").source == from_rows.source


def test_whole_numbers_beside_missing_cells_stay_whole() -> None:
    import pandas

    frame = pandas.DataFrame({"text": [f"film {n}" for n in range(60)], "stars": [n % 3 for n in range(60)]})
    frame.loc[len(frame)] = ["no stars", None]
    task = Task.from_dataframe(frame, text="text", label="stars")
    assert task.doc_to_choice == ("0", "1", "2")
    assert load_data(task).notes == ("left out: 1 row without a text or an answer",)


def test_a_later_process_works_from_the_catalog_alone(tmp_path: Path, tiny_model: Path) -> None:
    place = tmp_path / "catalog.db"
    with mp.open(place, str(tiny_model), dtype="float32") as ws:
        added = ws.add_task(small_task())
        assert (added.change, added.file) == ("new", "")
    with mp.open(place, str(tiny_model), dtype="float32") as ws:
        assert ws.learn("support").state == "published"
        assert ws.check(full=True).passed
        assert ws.evaluate("support").rows == 18
        assert ws.render("support", 0, split="training").choices[0].text == " billing"
        ws.export("support", tmp_path / "adapter")
        assert ws.collect_garbage(days=0).deleted == ws.collect_garbage(days=0).deleted == 0
        assert ws.verify() == []
        moved = ws.catalog.copy_to(str(tmp_path / "moved.db"))
        assert isinstance(moved, Catalog)
    with mp.open(tmp_path / "moved.db", str(tiny_model), dtype="float32") as ws:
        assert ws.learn("support").is_new is False
        assert ws.check(full=True).passed


def test_a_worker_learns_a_task_of_rows_in_memory(workspace: mp.Workspace) -> None:
    workspace.add_task(small_task())
    job = workspace.submit("support")
    workspace.base_model()
    work(workspace.jobs, WorkerOptions(str(workspace.catalog.path), None, "tester", "cpu", False), until_idle=True)
    assert workspace.jobs.get(job.id).state == "done"
    assert workspace.version("support").number == 1


def test_a_task_goes_from_one_catalog_into_another_with_its_rows(
    workspace: mp.Workspace, tmp_path: Path, tiny_model: Path
) -> None:
    workspace.add_task(small_task())
    other = mp.open(tmp_path / "other.db", str(tiny_model), dtype="float32")
    other.add_task(workspace.task("support"))
    assert load_data(other.task("support")) == load_data(small_task())


def test_a_task_file_that_names_kept_rows_is_edited_and_added_again(workspace: mp.Workspace, tmp_path: Path) -> None:
    workspace.add_task(small_task())
    file = tmp_path / "task.yaml"
    file.write_text(workspace.task("support").source.replace("steps: 4", "steps: 5"), encoding="utf-8")
    added = workspace.add_task(file)
    assert (added.change, added.difference) == (
        "changed",
        ("-multiprompt.training.steps: 4", "+multiprompt.training.steps: 5"),
    )
    assert workspace.learn("support").state == "published"
    with pytest.raises(DataError, match="are in a catalog, and none is open here"):
        load_data(Task.from_file(file))


def test_other_rows_are_a_change_and_the_same_rows_are_none(workspace: mp.Workspace) -> None:
    workspace.add_task(small_task())
    assert workspace.add_task(small_task()).change == "unchanged"
    changed = workspace.add_task(small_task(seed=1))
    assert changed.change == "changed"
    assert all("data_files" in line for line in changed.difference)


def test_a_schedule_on_data_fires_after_other_rows_were_added(workspace: mp.Workspace) -> None:
    workspace.add_task(small_task())
    made = workspace.schedule("support", on="data")
    assert not observe(workspace.catalog, made, made.created_at).fires
    workspace.add_task(small_task(seed=1))
    assert observe(workspace.catalog, made, made.created_at).fires


def test_rows_that_a_catalog_lacks_are_named(workspace: mp.Workspace, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(small_task().source, encoding="utf-8")
    with pytest.raises(DataError, match=r"the catalog does not hold the rows sha256:\w+…; add the task with its rows"):
        workspace.add_task(file)


@pytest.mark.parametrize(
    ("rows", "options", "error", "says"),
    [
        ([], {"label": "queue"}, DataError, "there are no rows"),
        ({"message": "a"}, {"label": "queue"}, DataError, "the rows are a dict"),
        (["a"], {"label": "queue"}, DataError, "row 0 is a str, but it must be a mapping"),
        (records(), {"label": "queu"}, NotFoundError, "no column 'queu'; did you mean 'queue'"),
        (records(), {}, DataError, "give one of label"),
        ([{"message": object(), "queue": "a"}], {"label": "queue"}, DataError, "row 0 holds a object"),
        ([{"message": "a\0", "queue": "a"}], {"label": "queue"}, DataError, "row 0 holds a NUL character"),
        (records(3), {"label": "queue"}, DataError, "3 rows are too few"),
        (records(), {"label": "queue", "seed": None}, ConfigError, "seed is 'None'; it must be a whole number"),
        (records(), {"label": "queue", "instruction": 3}, ConfigError, "instruction is a int, but it must be a text"),
    ],
)
def test_rows_that_make_no_task_are_refused(
    rows: Any, options: dict[str, Any], error: type[MultipromptError], says: str
) -> None:
    with pytest.raises(error, match=says):
        Task.from_rows(rows, text="message", **options)


def test_a_whole_dataset_dict_and_no_data_frame_are_refused() -> None:
    import datasets

    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(records())})
    with pytest.raises(DataError, match=r"has the splits train; give one, as in dataset\['train'\]"):
        Task.from_dataset(splits, text="message", label="queue")
    with pytest.raises(DataError, match="the frame is a list"):
        Task.from_dataframe(records(), text="message", label="queue")  # type: ignore[arg-type]
    assert len(QUEUES) == 3


def test_short_floats_are_labels_of_the_digits_that_a_parquet_file_gives() -> None:
    import datasets
    import pandas

    values = pandas.Series([(n % 3) / 10 for n in range(60)], dtype="float32")
    frame = pandas.DataFrame({"text": [f"film {n}" for n in range(60)], "stars": values})
    dataset = datasets.Dataset.from_pandas(frame)
    for made in (
        Task.from_dataframe(frame, text="text", label="stars"),
        Task.from_dataframe(frame.astype({"stars": "float[pyarrow]"}), text="text", label="stars"),
        Task.from_dataset(dataset, text="text", label="stars"),
        Task.from_dataset(dataset.with_format("numpy"), text="text", label="stars"),
    ):
        assert made.doc_to_choice == ("0.0", "0.1", "0.2")


def test_the_format_of_a_dataset_changes_no_row_and_its_transform_does() -> None:
    import datasets

    dataset = datasets.Dataset.from_list(records()).class_encode_column("queue")
    task = Task.from_dataset(dataset, text="message", label="queue")
    assert Task.from_dataset(dataset.with_format("torch"), text="message", label="queue").source == task.source
    loud = datasets.Dataset.from_list(records()).with_transform(
        lambda batch: {name: [cell.upper() for cell in column] for name, column in batch.items()}
    )
    assert Task.from_dataset(loud, text="message", label="queue").doc_to_choice == tuple(
        sorted(queue.upper() for queue in QUEUES)
    )


def test_columns_whose_names_are_no_texts_are_named_by_their_text() -> None:
    import pandas

    frame = pandas.DataFrame([list(row.values()) for row in records()])
    assert Task.from_dataframe(frame, text="0", label="1").doc_to_choice is not None
