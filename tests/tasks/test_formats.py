"""Rows out of files: texts as they are written, and one sentence for a file that is no rows."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multiprompt.errors import DataError
from multiprompt.tasks import formats, streams, tables
from multiprompt.tasks.data import Split
from multiprompt.tasks.split import load_test_split
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping


def read(file: Path, builder: str = "json") -> Split:
    files = {"dataset_path": builder, "dataset_kwargs": {"data_files": {"test": file.name}}}
    return load_test_split(Task.from_mapping(task_mapping() | files, file.parent))


def read_bytes(folder: Path, content: bytes, name: str = "test.jsonl", builder: str = "json") -> list[dict[str, Any]]:
    (folder / name).write_bytes(content)
    return [dict(row) for row in read(folder / name, builder).rows]


def table(folder: Path, builder: str, **columns: Any) -> Split:
    file, made = folder / f"test.{builder}", pa.table(columns)
    if builder == "parquet":
        pq.write_table(made, file)
    else:
        with pa.ipc.new_stream(file, made.schema) as writer:
            writer.write_table(made)
    return read(file, builder)


WRITTEN = ["2024-05-03", "007", "1.10", "true", "NA", "null", "", " x ", "1e5", "naïve 😀"]


@pytest.mark.parametrize("text", WRITTEN)
def test_a_text_of_json_stays_as_it_is_written(tmp_path: Path, text: str) -> None:
    rows = [{"text": text, "label": "red"}] * 3
    lines = "\n".join(map(json.dumps, rows)).encode()
    indented = "\n\n".join(json.dumps(row, indent=1, ensure_ascii=False) for row in rows).encode()
    for content in (lines, b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"), json.dumps(rows).encode(), indented):
        assert read_bytes(tmp_path, content) == rows


@pytest.mark.parametrize("text", WRITTEN)
def test_a_cell_of_csv_is_text_as_it_is_written(tmp_path: Path, text: str) -> None:
    expected = [{"text": text, "label": "red"}] * 2
    content = f"text,label\r\n{text},red\r\n\r\n{text},red".encode()
    assert read_bytes(tmp_path, content, "test.csv", "csv") == expected
    assert read_bytes(tmp_path, b"\xef\xbb\xbf" + content.replace(b",", b"\t"), "test.tsv", "csv") == expected


def test_a_quoted_cell_may_hold_the_delimiter_quotes_and_line_ends(tmp_path: Path) -> None:
    content = b'text,label\n"a, ""b""\r\nc\xe2\x80\xa8d",red\n'
    assert read_bytes(tmp_path, content, "test.csv", "csv") == [{"text": 'a, "b"\r\nc\u2028d', "label": "red"}]


def test_json_numbers_truth_values_and_nulls_keep_their_kind(tmp_path: Path) -> None:
    written = '{"a": 5, "b": 2.5, "c": true, "d": null, "e": 123456789012345678901234567890, "f": [1, "1", {"g": 2}]}'
    for content in (written, written + '\n{"a": "5"}'):
        assert read_bytes(tmp_path, content.encode())[0] == json.loads(written)


def test_what_is_no_number_is_none(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b'{"a": [NaN, -Infinity, "NaN"]}') == [{"a": [None, None, "NaN"]}]


def test_a_field_that_a_row_does_not_have_is_none(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b'{"b": "1"}\n{"a": "2"}\n') == [{"a": None, "b": "1"}, {"a": "2", "b": None}]


def test_a_text_file_is_a_row_a_line(tmp_path: Path) -> None:
    content = b"one\r\n\n two\x0c\xe2\x80\xa8 \nthree"
    rows = read_bytes(tmp_path, content, "test.txt", "text")
    assert [row["text"] for row in rows] == ["one", "", " two\x0c\u2028 ", "three"]


def _by_arrow(codec: str, content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, lambda c: _by_arrow("zstd", c), lambda c: _by_arrow("lz4", c)],
)
def test_a_compressed_file_is_read_and_a_cut_one_refused(tmp_path: Path, compress: Any) -> None:
    rows = [{"label": "red", "text": f"row {number}"} for number in range(20_000)]
    content = compress("\n".join(map(json.dumps, rows)).encode())
    assert read_bytes(tmp_path, content, "test.jsonl.z") == rows
    with pytest.raises(DataError, match="cannot be read: .*test.jsonl.z: (it is cut off|line)"):
        read_bytes(tmp_path, content[: len(content) // 2], "test.jsonl.z")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"null\n", "line 1 is null, but a row is an object"),
        (b'{"a": 1}\n"x"', "line 2 is a text"),
        (b'{"a": 1}\n\n[1]', "line 3 is a list"),
        (b"[[1]]", "line 1 is a list"),
        (b'[{"a": 1}', "line 1 is not JSON: a comma or ] is missing"),
        (b'[{"a": 1},]', "line 1 is not JSON"),
        (b'[{"a": 1}]\n{"a": 2}', "line 2 goes on after the end of the array"),
        (b'{"a": 1}\n{"a": 1,}', "line 2 is not JSON"),
        (b'{"a": 1}\n{"a": "x', "line 2 is not JSON: Unterminated string"),
        (b'{"a": 1e999}', "line 1 holds a number that is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "line 1: Exceeds the limit"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "line 1: the field 'c' stands twice"),
        (b'{"a": "x"}\n{"a": "\xff"}', "line 2 is not UTF-8 text"),
        ('{"a": "x"}'.encode("utf-16"), "line 1 is not UTF-8 text"),
        (b'{"a": "x"}\n{"a": "\\ud800"}', "line 2 holds half of a surrogate pair"),
        (b'{"\\udc00": "x"}', "line 1 holds half of a surrogate pair"),
        (b'{"a": ["\\u0000"]}', "line 1 holds a NUL character"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "line 1 is nested over 64 levels deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 1 is nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "line 1 is nested too deeply"),
        (b'{"a": [' + b"1," * 100_000 + b"1]}", "line 1 has over 100000 values"),
        (b"PK\x03\x04", "it is a zip archive"),
    ],
)
def test_json_that_is_no_rows_is_told_by_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_bytes(tmp_path, content)
    assert f"{tmp_path.resolve()}/test.jsonl: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\na\n", "line 2 has 1 cells, but the first line names 2 columns"),
        (b"text\na\n \t\nb\n", "line 3 holds nothing but spaces"),
        (b'text,label\n"a\nb",red\na,b,c\n', "line 4 has 3 cells"),
        (b"text,text\na,b\n", "the column 'text' stands twice"),
        (b'text,label\n"a,red\n', "line 2 begins no row of cells: unexpected end of data"),
        (b"text,label\n\x00,red\n", "line 2 holds a NUL character"),
        (b"text,label\na,red\n\xe9,red\n", "line 3 is not UTF-8 text"),
    ],
)
def test_csv_that_is_no_rows_is_told_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_bytes(tmp_path, content, "test.csv", "csv")


@pytest.mark.parametrize("builder", ["parquet", "arrow"])
def test_values_of_a_table_that_json_has_no_kind_for_become_text_and_are_told(tmp_path: Path, builder: str) -> None:
    split = table(
        tmp_path,
        builder,
        text=["a", None],
        day=[date(2024, 5, 3), None],
        time=[datetime(2024, 5, 3, 10), None],
        price=[Decimal("1.10"), None],
        raw=[b"caf\xc3\xa9", None],
        number=[7, None],
        half=pa.array([0.1, float("nan")], pa.float32()),
        inner=[{"b": [1, 2]}, None],
        colour=pa.array(["red", "blue"]).dictionary_encode(),
    )
    first, second = split.rows
    assert first == {
        "text": "a", "day": "2024-05-03", "time": "2024-05-03 10:00:00", "price": "1.10", "raw": "café", "number": 7,
        "half": 0.1, "inner": {"b": [1, 2]}, "colour": "red",
    }  # fmt: skip
    assert second == dict.fromkeys(first) | {"colour": "blue"}
    assert sorted(split.notes) == [
        "column 'day': date32[day] is read as \"2024-05-03\"",
        "column 'price': decimal128(3, 2) is read as \"1.10\"",
        "column 'raw': binary is read as \"café\"",
        "column 'time': timestamp[us] is read as \"2024-05-03 10:00:00\"",
    ]


@pytest.mark.parametrize("builder", ["parquet", "arrow"])
def test_short_floats_have_few_digits_wherever_they_stand(tmp_path: Path, builder: str) -> None:
    single, half = pa.float32(), pa.float16()
    split = table(
        tmp_path,
        builder,
        listed=pa.array([[0.1, None, float("nan")], None], pa.list_(single)),
        pair=pa.array([[0.1, 0.2], None], pa.list_(single, 2)),
        inner=pa.array([{"a": np.float16(0.1), "b": [0.1], "c": 0.1}, None],
                       pa.struct({"a": half, "b": pa.list_(single), "c": pa.float64()})),
        mapped=pa.array([[("a", 0.1)], None], pa.map_(pa.string(), single)),
        coded=pa.array([0.1, None], single).dictionary_encode(),
    )  # fmt: skip
    assert split.rows[0] == {
        "listed": [0.1, None, None], "pair": [0.1, 0.2], "inner": {"a": 0.1, "b": [0.1], "c": 0.1},
        "mapped": [["a", 0.1]], "coded": 0.1,
    }  # fmt: skip
    assert set(split.rows[1].values()) == {None}


@pytest.mark.parametrize("builder", ["parquet", "arrow"])
def test_a_column_of_the_type_json_holds_values_as_in_datasets(tmp_path: Path, builder: str) -> None:
    kind = pa.json_()
    split = table(
        tmp_path,
        builder,
        mixed=pa.array(['"pos"', "3", None], kind),
        listed=pa.ListArray.from_arrays([0, 2, 2, 2], pa.array(['{"a": [1.5, null]}', "true"], kind)),
        inner=pa.StructArray.from_arrays([pa.array(['"x"', None, "[]"], kind)], ["a"]),
    )
    assert list(split.rows) == [
        {"mixed": "pos", "listed": [{"a": [1.5, None]}, True], "inner": {"a": "x"}},
        {"mixed": 3, "listed": [], "inner": {"a": None}},
        {"mixed": None, "listed": [], "inner": {"a": []}},
    ]
    assert split.notes == ()


def test_an_arrow_file_is_read_as_an_arrow_stream_is(tmp_path: Path) -> None:
    made = pa.table({"text": ["a", "b"]})
    with pa.ipc.new_file(tmp_path / "test.arrow", made.schema) as writer:
        writer.write_table(made)
    assert [row["text"] for row in read(tmp_path / "test.arrow", "arrow").rows] == ["a", "b"]


def test_a_column_of_bytes_that_are_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test.parquet: the column 'image' holds bytes that are not UTF-8 text"):
        table(tmp_path, "parquet", text=["a"], image=[b"\xff\xd8"])


def test_a_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="the column 'text' stands twice"):
        read(tmp_path / "test.parquet", "parquet")


@pytest.mark.parametrize("builder", ["parquet", "arrow"])
def test_a_damaged_table_is_a_data_error(tmp_path: Path, builder: str) -> None:
    table(tmp_path, builder, text=["a"] * 100, number=list(range(100)))
    file = tmp_path / f"test.{builder}"
    content = file.read_bytes()
    for place in range(0, len(content), len(content) // 12):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) * 8 + content[place + 8 :])
        try:
            assert len(read(file, builder).rows) <= 100
        except DataError as error:
            assert "\n" not in str(error)


def test_a_deeply_nested_table_is_a_data_error(tmp_path: Path) -> None:
    kind, value = pa.int64(), 1
    for _ in range(70):
        kind, value = pa.struct({"a": kind}), {"a": value}
    pq.write_table(pa.table({"text": pa.array([value], kind)}), tmp_path / "test.parquet")
    with pytest.raises(DataError, match="test.parquet: row 0 is nested"):
        read(tmp_path / "test.parquet", "parquet")


@pytest.mark.parametrize("written", ["", '{"converted": {}}\n', '{"converted": {}}\n{"text": "x"}\n{"text": '])
def test_a_reader_that_crashes_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    (tmp_path / "tables.py").write_text(f"import os\nos.write(1, {written!r}.encode())\nos.kill(os.getpid(), 11)\n")
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "tables.py"))
    with pytest.raises(DataError, match="test.parquet: the parquet reader was ended by SIGSEGV"):
        table(tmp_path, "parquet", text=["a"])


def test_a_reader_that_writes_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FREE_GROWTH_BYTES", 1_000_000)
    (tmp_path / "tables.py").write_text("print('{\"converted\": {}}')\nwhile True:\n    print('{\"a\": 1}')\n")
    monkeypatch.setattr(tables, "__file__", str(tmp_path / "tables.py"))
    with pytest.raises(DataError, match="test.parquet: its first .* bytes unpack to"):
        table(tmp_path, "parquet", text=["a"])


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_what_follows_a_compressed_stream_is_read_or_refused(tmp_path: Path, compress: Any) -> None:
    first, second, nothing = compress(b'{"a": 1}\n'), compress(b'{"a": 2}\n'), compress(b"")
    for content in (first + second, first + bytes(70_000) + second + bytes(8), nothing + first + nothing + second):
        assert read_bytes(tmp_path, content) == [{"a": 1}, {"a": 2}]
    for content in (first + b"rubbish", first + b"\xff\xff\xff" + second[3:], first + second[:9], first + b"B"):
        with pytest.raises(DataError, match="it is cut off or damaged"):
            read_bytes(tmp_path, content)


def test_an_empty_bz2_file_and_zstd_frames_to_be_skipped_are_known(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, b"P*M\x18\x04\0\0\0skip" + _by_arrow("zstd", b'{"a": 1}')) == [{"a": 1}]
    with pytest.raises(DataError, match="is empty"):
        read_bytes(tmp_path, bz2.compress(b""))


def test_an_arrow_stream_that_is_cut_between_batches_or_goes_on_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "test.arrow"
    made = pa.table({"text": [f"row {number}" for number in range(90)]})
    with pa.ipc.new_stream(file, made.schema) as writer:
        writer.write_table(made, max_chunksize=30)
    content = file.read_bytes()
    assert len(read(file, "arrow").rows) == 90
    for n in range(8, len(content), 8):
        file.write_bytes(content[:n])
        if n % 200 == 0 or content[n : n + 4] == b"\xff\xff\xff\xff":
            with pytest.raises(DataError):
                read(file, "arrow")
    for more in (content, b"rubbish"):
        file.write_bytes(content + more)
        with pytest.raises(DataError, match="goes on after the end"):
            read(file, "arrow")


def test_a_parquet_page_whose_checksum_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "test.parquet"
    numbers = pa.table({"number": [7_777_777_777_777_777 + n for n in range(100)]})
    pq.write_table(numbers, file, write_page_checksum=True, use_dictionary=False, compression="none")
    content = bytearray(file.read_bytes())
    content[content.index((7_777_777_777_777_777 + 50).to_bytes(8, "little"))] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read(file, "parquet")


@pytest.mark.parametrize("content", [b'a,b\n"' + b'x\n","' * 900_000, b"," * 200_000, b'"' + b'x\n","' * 900_000])
def test_a_row_of_too_many_cells_is_refused_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(formats, "MAX_ROW_TEXT", 2_000_000)
    with pytest.raises(DataError, match="line [12] begins a row of over 2000000 characters|names 200001 columns"):
        read_bytes(tmp_path, content, "test.csv", "csv")


def test_a_small_table_that_unpacks_to_much_gets_little_memory(tmp_path: Path) -> None:
    made = pa.table({"text": pa.array(["a" * 90_000_000] * 8)})
    with pa.ipc.new_stream(
        tmp_path / "test.arrow", made.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as w:
        w.write_table(made)
    del made
    with pytest.raises(DataError, match="memory|failed|malloc"):
        read(tmp_path / "test.arrow", "arrow")
