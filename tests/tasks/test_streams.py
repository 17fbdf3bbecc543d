"""Bounds on what a file may unpack to."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable

import pytest

from multiprompt.errors import DataError
from multiprompt.tasks import formats, streams
from multiprompt.tasks.formats import read_rows
from multiprompt.tasks.rows import RowList
from multiprompt.tasks.streams import FileStream


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("content", [b'{"text":"' + b"a" * 9_000_000, b" " * 9_000_000, b'{"a":1}\n' * 1_000_000])
def test_a_small_file_that_unpacks_to_much_is_refused_before_it_fills_the_memory(
    compress: Callable[[bytes], bytes], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FREE_GROWTH_BYTES", 1_000_000)
    stream = FileStream(io.BytesIO(compress(content)))
    with pytest.raises(DataError, match="unpack to"):
        for _ in read_rows(stream, "json", []):
            pass


def test_a_row_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_ROW_TEXT", 2_000_000)
    stream = FileStream(io.BytesIO(b'{"a": 1}\n{"text": "' + b"a" * 20_000_000))
    with pytest.raises(DataError, match="line 2 begins a row of over 2000000 characters"):
        list(read_rows(stream, "json", []))
    stream = FileStream(io.BytesIO(b'a,b\n"' + b"a" * 20_000_000))
    with pytest.raises(DataError, match="line 2 begins a row of over 2000000 characters"):
        list(read_rows(stream, "csv", []))


def test_rows_and_values_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprompt.tasks import rows

    monkeypatch.setattr(rows, "MAX_SPLIT_ROWS", 10)
    kept = RowList()
    with pytest.raises(DataError, match="the split has over 10 rows"):
        for number in range(11):
            kept.add({"text": "x"}, number)
    monkeypatch.setattr(rows, "MAX_SPLIT_VALUES", 20)
    kept = RowList()
    with pytest.raises(DataError, match="the split has over 20 values"):
        for number in range(11):
            kept.add({f"field {number}": "x"}, number)
    monkeypatch.setattr(rows, "MAX_SPLIT_VALUES", 1000)
    monkeypatch.setattr(rows, "MAX_MISSING_VALUES", 20)
    kept = RowList()
    with pytest.raises(DataError, match="the rows lack over 20 values of the split's 6 fields"):
        for number in range(11):
            kept.add({f"field {number}": "x"}, number)
