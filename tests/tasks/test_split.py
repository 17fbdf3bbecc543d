"""Splits: reading every data format, fingerprints of what was read, and packing."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multiprompt.errors import DataError, IntegrityError
from multiprompt.tasks import reading
from multiprompt.tasks.data import Split
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.split import load_data, load_test_split
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping

ROWS = [{"text": "blue as the sky", "label": "blue"}, {"text": 'zwölf, "rote"\nRosen', "label": "red"}]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def array(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def zipped(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


def task(folder: Path, builder: str = "json", *, files: dict[str, Any] | None = None, **keys: Any) -> Task:
    files = files or {"train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"}
    return Task.from_mapping(
        task_mapping() | {"dataset_path": builder, "dataset_kwargs": {"data_files": files}} | keys, folder
    )


def evaluated_on(folder: Path, name: str, builder: str = "json") -> Task:
    return task(folder, builder, files={"test": name}, training_split=None, validation_split=None)


def rows(count: int) -> list[dict[str, Any]]:
    return [{"text": f"row {number}", "label": "red"} for number in range(count)]


@pytest.mark.parametrize(
    ("builder", "name", "write"),
    [
        ("json", "data.jsonl", lines),
        ("json", "data.json", array),
        ("json", "data.jsonl.gz", zipped),
        ("csv", "data.csv", table),
        ("parquet", "data.parquet", parquet),
    ],
)
def test_every_format_gives_the_rows_in_order(
    tmp_path: Path, builder: str, name: str, write: Callable[[Path, list[dict[str, Any]]], None]
) -> None:
    write(tmp_path / name, ROWS)
    split = load_test_split(evaluated_on(tmp_path, name, builder))
    assert split.name == "test"
    assert list(split.rows) == ROWS


def test_one_split_may_be_several_files_or_a_pattern(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", rows(2))
    lines(tmp_path / "b.jsonl", rows(3))
    listed = task(tmp_path, files={"test": ["b.jsonl", "a.jsonl"]}, training_split=None, validation_split=None)
    assert [row["text"] for row in load_test_split(listed).rows] == ["row 0", "row 1", "row 2", "row 0", "row 1"]
    assert len(load_test_split(evaluated_on(tmp_path, "*.jsonl")).rows) == 5


def test_an_edited_file_is_read_anew(tmp_path: Path) -> None:
    lines(tmp_path / "data.jsonl", rows(2))
    before = load_test_split(evaluated_on(tmp_path, "data.jsonl"))
    lines(tmp_path / "data.jsonl", rows(3))
    after = load_test_split(evaluated_on(tmp_path, "data.jsonl"))
    assert (len(before.rows), len(after.rows)) == (2, 3)


def test_a_replaced_file_is_read_anew_whatever_its_time(tmp_path: Path) -> None:
    file, found = tmp_path / "data.jsonl", []
    for text in ("one", "two"):
        lines(file, [{"text": text, "label": "red"}])
        os.utime(file, (1e9, 1e9))
        found.append(load_test_split(evaluated_on(tmp_path, "data.jsonl")).rows[0]["text"])
    assert found == ["one", "two"]


def test_the_digest_is_of_the_bytes_that_the_rows_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, source = tmp_path / "data.jsonl", evaluated_on(tmp_path, "data.jsonl")
    lines(file, rows(2))
    before = source_digest(source, "test")
    read_rows = reading.read_rows

    def replaced_meanwhile(*arguments: Any) -> Iterator[Any]:
        lines(tmp_path / "new.jsonl", rows(3))
        (tmp_path / "new.jsonl").rename(file)
        return read_rows(*arguments)

    monkeypatch.setattr(reading, "read_rows", replaced_meanwhile)
    read = load_test_split(source)
    assert (len(read.rows), read.source) == (2, before)
    assert source_digest(source, "test") != before


def test_the_three_splits_are_read_by_their_names(tmp_path: Path) -> None:
    for name, count in (("train", 4), ("validation", 2), ("test", 3)):
        lines(tmp_path / f"{name}.jsonl", rows(count))
    data = load_data(task(tmp_path))
    assert [split.name for split in (data.training, data.validation, data.test)] == ["train", "validation", "test"]
    assert [len(split.rows) for split in (data.training, data.validation, data.test)] == [4, 2, 3]


@pytest.mark.parametrize("missing", ["validation_split", "test_split"])
def test_without_validation_rows_a_tenth_of_the_training_rows_is_held_out(tmp_path: Path, missing: str) -> None:
    for name, count in (("train", 50), ("validation", 2), ("test", 3)):
        lines(tmp_path / f"{name}.jsonl", rows(count))
    data = load_data(task(tmp_path, **{missing: None}))
    kept, held = ({row["text"] for row in split.rows} for split in (data.training, data.validation))
    assert (len(kept), len(held)) == (45, 5)
    assert kept | held == {row["text"] for row in rows(50)}
    assert data.validation.name == "train[validation]"
    assert data.test.name == ("validation" if missing == "test_split" else "test")
    assert load_data(task(tmp_path, **{missing: None})) == data


def test_held_out_rows_come_from_all_over_the_split(tmp_path: Path) -> None:
    for name in ("train", "test"):
        lines(tmp_path / f"{name}.jsonl", rows(100))
    held = load_data(task(tmp_path, validation_split=None)).validation
    numbers = [int(row["text"].split()[1]) for row in held.rows]
    assert max(numbers) - min(numbers) > 20


def test_one_row_is_too_few_to_hold_any_out(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", rows(1))
    lines(tmp_path / "test.jsonl", rows(1))
    with pytest.raises(DataError, match="split 'train' has 1 row; two are needed"):
        load_data(task(tmp_path, validation_split=None))


def test_a_task_without_a_training_split_cannot_be_learned(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="colour names no training_split"):
        load_data(task(tmp_path, training_split=None))


def test_a_missing_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_test_split(evaluated_on(tmp_path, "nothing.jsonl"))
    assert str(caught.value) == f"colour: the data file {tmp_path.resolve() / 'nothing.jsonl'} does not exist."


def test_a_missing_split_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="colour has no data_files for split 'dev'; it has: train, validation, test"):
        load_test_split(task(tmp_path, test_split="dev"))


@pytest.mark.parametrize(
    ("builder", "name", "content"),
    [
        ("json", "data.jsonl", b'{"text": "a"\n{{{\n'),
        ("json", "data.jsonl.gz", b"no gzip"),
        ("parquet", "data.parquet", b"no parquet"),
        ("csv", "data.csv", "text,label\ncafé,red\n".encode("latin-1")),
    ],
)
def test_data_that_cannot_be_parsed_names_task_split_and_cause(
    tmp_path: Path, builder: str, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_test_split(evaluated_on(tmp_path, name, builder))
    message = str(caught.value)
    assert message.startswith(f"colour: split 'test' of {builder} cannot be read: ")
    assert len(message.rpartition("cannot be read: ")[2]) > 20
    assert "\n" not in message


@pytest.mark.parametrize(
    ("builder", "name", "content"), [("json", "data.jsonl", b""), ("csv", "data.csv", b"text,label\n")]
)
def test_an_empty_split_is_called_empty(tmp_path: Path, builder: str, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="colour: split 'test'.* is empty"):
        load_test_split(evaluated_on(tmp_path, name, builder))


def test_an_oversized_row_is_named(tmp_path: Path) -> None:
    lines(tmp_path / "data.jsonl", [*rows(1), {"text": "x" * 2_000_001, "label": "red"}])
    with pytest.raises(DataError, match="split 'test' of json .*data.jsonl: line 2 has over 2000000 characters"):
        load_test_split(evaluated_on(tmp_path, "data.jsonl"))


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_data_cannot_run_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(Touch(marker)))
    (tmp_path / "data.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    for source in (evaluated_on(tmp_path, "data.pkl", "pandas"), task(tmp_path, str(tmp_path / "data.py"))):
        with pytest.raises(DataError):
            load_test_split(source)
    assert not marker.exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SPLITS = st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), max_size=6).map(
    lambda rows: Split("test", tuple(rows))
)


@given(SPLITS)
@settings(deadline=None, database=None, max_examples=50)
def test_packed_rows_come_back_equal(split: Split) -> None:
    back = Split.unpack("test", split.pack())
    assert back == split
    assert back.fingerprint == split.fingerprint
    assert back.pack() == split.pack()


@given(SPLITS, st.data())
@settings(deadline=None, database=None, max_examples=50)
def test_damaged_rows_are_an_integrity_error_or_unharmed(split: Split, data: st.DataObject) -> None:
    packed = bytearray(split.pack())
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    try:
        back = Split.unpack("test", bytes(packed))
    except IntegrityError as error:
        assert "stored rows of split test" in str(error)
    else:
        assert back.fingerprint == split.fingerprint


def test_a_flipped_byte_in_the_rows_is_found() -> None:
    packed = bytearray(Split("test", tuple(rows(200))).pack())
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(IntegrityError, match="the stored rows of split test cannot be read"):
        Split.unpack("test", bytes(packed))


@given(SPLITS, st.data())
@settings(deadline=None, database=None, max_examples=50)
def test_cut_rows_are_an_integrity_error(split: Split, data: st.DataObject) -> None:
    packed = split.pack()
    with pytest.raises(IntegrityError):
        Split.unpack("test", packed[: data.draw(st.integers(0, len(packed) - 1))])


def test_bytes_after_the_rows_are_an_integrity_error() -> None:
    with pytest.raises(IntegrityError):
        Split.unpack("test", Split("test", tuple(rows(2))).pack() + b"more")


@given(SPLITS, SPLITS)
@settings(deadline=None, database=None, max_examples=50)
def test_equal_fingerprints_mean_equal_rows(one: Split, other: Split) -> None:
    # 1, 1.0 and True are equal in Python and different in JSON.
    assume(json.dumps(one.rows, sort_keys=True) != json.dumps(other.rows, sort_keys=True))
    assert one.fingerprint != other.fingerprint


def test_a_fingerprint_depends_on_name_content_order_and_number_of_rows() -> None:
    split = Split("test", tuple(ROWS))
    others = [
        Split("train", split.rows),
        Split("test", split.rows[::-1]),
        Split("test", split.rows[:1]),
        Split("test", split.rows * 2),
        Split("test", (split.rows[0], {**split.rows[1], "label": "green"})),
        Split("test", (split.rows[0], {**split.rows[1], "more": None})),
    ]
    assert len({split.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_a_fingerprint_does_not_depend_on_the_order_of_a_row_s_fields() -> None:
    turned = tuple(dict(reversed(row.items())) for row in ROWS)
    assert Split("test", turned).fingerprint == Split("test", tuple(ROWS)).fingerprint


@pytest.mark.parametrize(
    ("write", "builder", "choices", "labels", "says"),
    [
        (lines, "json", ["no", "yes"], ["0", "1"], "row 0 of split 'test' has the label '0' as text, which is none of"),
        (parquet, "parquet", ["no", "yes"], ["no", "1"], "row 1 of split 'test' has the label '1' as text"),
        (table, "csv", ["no", "yes"], ["no", "1"], "the harness takes no text of a column for a number"),
        (table, "csv", ["1", "2", "3"], ["1", "2"], "which is the choice of the number 0; the harness takes the label"),
        (lines, "json", ["1", "2", "3"], ["1", "2"], None),
        (lines, "json", ["no", "yes"], [0, 1], None),
        (table, "csv", ["no", "yes"], [0, 1], None),
        (table, "csv", ["0", "1"], [0, 1], None),
        (table, "csv", ["1", "2", "none"], ["1", "none"], None),
        (table, "csv", ["-1", "0", "1"], ["-1", "0", "1"], "row 0 of split 'test' has the label '-1' as text"),
        (table, "csv", ["+1", "-1"], [" +1", "-1"], "row 1 of split 'test' has the label '-1' as text"),
        (
            table,
            "csv",
            ["True", "False"],
            ["True", "False"],
            "label 'True' as text, which is the choice of the number 0",
        ),
        (
            table,
            "csv",
            ["true", "false"],
            ["false", "true"],
            "label 'false' as text, which is the choice of the number 1",
        ),
        (table, "csv", ["False", "True"], ["True", "False"], None),
        (table, "csv", ["True", "False", "open"], ["True", "open"], None),
        (lines, "json", ["True", "False"], ["True", "False"], None),
    ],
)
def test_digits_and_truth_values_as_labels_are_read_as_in_the_harness_or_refused(
    tmp_path: Path,
    write: Callable[[Path, list[dict[str, Any]]], None],
    builder: str,
    choices: list[str],
    labels: list[Any],
    says: str | None,
) -> None:
    write(tmp_path / "test.data", [{"text": "sky", "label": label} for label in labels])
    keys = {"doc_to_target": "label", "doc_to_choice": choices}
    made = task(tmp_path, builder, files={"test": "test.data"}, **keys)
    if says is None:
        assert len(load_test_split(made).rows) == len(labels)
        return
    with pytest.raises(DataError, match=says):
        load_test_split(made)
    written = task(tmp_path, builder, files={"test": "test.data"}, **keys | {"doc_to_target": "{{label}}"})
    assert len(load_test_split(written).rows) == len(labels)


@pytest.mark.parametrize(
    ("template", "cells", "refused"),
    [
        ("{{'yes' if x == 1 else 'no'}}", ["0", "1"], True),
        ("{% if x %}yes{% endif %}", ["True", "False"], True),
        ("{% if x in [1, 2] %}yes{% endif %}", ["1", "3"], True),
        ("{{x or 'none'}}", ["0.0", "1.5"], True),
        ("{% if x is none %}no hint{% endif %}", ["warm", ""], True),
        ("{% if x is none %}no hint{% endif %}", ["", ""], True),
        ("{{x + x}}", ["1", "2"], True),
        ("{{x}}", ["007", "1"], False),
        ("{% if x %}{{x}}{% endif %}", ["007", ""], False),
        ("{% if x %}{{x}}{% endif %}", ["warm", ""], False),
        ("{% if x == 'warm' %}{{x}}{% endif %}", ["warm", "1"], False),
        ("{{'yes' if x|int == 1 else 'no'}} {{x}}", ["01", "1.0"], False),
        ("{{x|trim}} {{x.strip()}}", ["1.10", "2"], False),
    ],
)
def test_a_template_that_tells_cells_of_csv_from_numbers_is_refused(
    tmp_path: Path, template: str, cells: list[str], refused: bool
) -> None:
    table(tmp_path / "test.data", [{"text": "sky", "x": cell, "label": "no"} for cell in cells])
    made = task(tmp_path, "csv", files={"test": "test.data"}, doc_to_text="{{text}} " + template)
    assert len(load_test_split(made).rows) == len(cells)
    if not refused:
        assert load_test_split(made, to_learn=True) == load_test_split(made)
        return
    with pytest.raises(
        DataError, match=r"row \d of split 'test': doc_to_text tests or computes with x, which in a CSV"
    ):
        load_test_split(made, to_learn=True)


def test_choices_may_be_numbers_of_a_csv_file(tmp_path: Path) -> None:
    table(tmp_path / "test.data", [{"text": "3 * 4", "a": "12", "b": "7", "label": 0}] * 2)
    keys = {"doc_to_target": "label", "doc_to_choice": "{{[a, b]}}", "output_type": "multiple_choice"}
    made = task(tmp_path, "csv", files={"test": "test.data"}, **keys)
    assert len(load_test_split(made, to_learn=True).rows) == 2


def test_a_csv_column_of_whole_numbers_is_no_text_to_choose_an_answer_for(tmp_path: Path) -> None:
    table(tmp_path / "test.data", [{"n": n, "label": "even"} for n in (12, 14)])
    keys = {"doc_to_text": "n", "doc_to_target": "label", "doc_to_choice": ["even", "odd"]}
    made = task(tmp_path, "csv", files={"test": "test.data"}, **keys)
    with pytest.raises(DataError, match="by which the harness would choose one of several inputs"):
        load_test_split(made, to_learn=True)


def test_a_split_that_is_learned_from_is_held_against_the_harness(tmp_path: Path) -> None:
    table(tmp_path / "rows.data", [{"text": "sky", "label": label} for label in (0, 1)])
    files = dict.fromkeys(("train", "validation", "test"), "rows.data")
    target = "{{'yes' if label == 1 else 'no'}}"
    with pytest.raises(DataError, match="row 1 of split 'train': doc_to_target tests or computes with label"):
        load_data(task(tmp_path, "csv", files=files, doc_to_target=target))


@pytest.mark.parametrize(("write", "builder"), [(lines, "json"), (array, "json"), (parquet, "parquet")])
def test_keys_within_a_field_keep_their_order_in_files_and_in_stored_rows(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], None], builder: str
) -> None:
    rows = [{"text": "sky", "options": {"z": "no", "a": {"y": 1, "b": 2}}, "label": "red"}]
    write(tmp_path / "test.data", rows)
    split = load_test_split(task(tmp_path, builder, files={"test": "test.data"}))
    for read in (split, Split.unpack("test", split.pack())):
        assert json.dumps(read.rows[0]["options"]) == json.dumps(rows[0]["options"])
        assert list(read.rows[0]) == ["label", "options", "text"]


def test_whole_numbers_beside_fractions_are_told_where_the_task_reads_them(tmp_path: Path) -> None:
    lines(
        tmp_path / "test.jsonl",
        [{"text": 3, "label": 1, "o": 2}, {"text": 2.5, "label": 0.5, "o": 0.5}, {"text": None, "label": "x", "o": 1}],
    )
    split = load_test_split(task(tmp_path, files={"train": "test.jsonl", "test": "test.jsonl"}))
    assert [row["text"] for row in split.rows] == [3, 2.5, None]
    assert split.notes == (
        "field 'text': a whole number stays as it is written, where the harness adds .0 beside fractions",
    )
