"""Rows of parquet and arrow tables as JSON values.

It also runs as a program, in a process of its own with bounded memory and time: `tables.py parquet` reads a table from
standard input, and writes the converted columns and then each row as a line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

MAX_MEMORY_BYTES = 4 << 30
# The libraries take a third of it. Tables that are sound rarely grow more.
FREE_MEMORY_BYTES, MAX_GROWTH = 1 << 30, 100
MAX_SECONDS = 1800
# Values of a dictionary may be long, and each row has one of its own as text.
_BATCH_ROWS = 100

_END_MARK = b"\xff\xff\xff\xff\0\0\0\0"
_FILE_MARK = b"ARROW1"

_Change = Callable[[Any], Any]


class _RefusedError(Exception):
    """A table that is sound, but whose values cannot be rows."""


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON holds it: dates, times and decimals as their text, bytes as UTF-8 text, what is no number as null.

    Raises ValueError for bytes that are not UTF-8.
    """
    text = json.dumps(dict(sorted(row.items())), default=_as_text)
    found: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return found


def repeated(names: Iterable[str]) -> list[str]:
    """The names that stand more than once, in order."""
    return [name for name, number in Counter(names).items() if number > 1]


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def converted(schema: Any) -> dict[str, str]:
    """The columns of an arrow schema whose values are no JSON values, each with its type."""
    return {field.name: str(field.type) for field in schema if not _is_plain(field.type)}


def _is_plain(type_: Any) -> bool:
    from pyarrow import JsonType, types

    if isinstance(type_, JsonType):
        return True
    if types.is_dictionary(type_):
        return _is_plain(type_.value_type)
    if types.is_nested(type_) and not types.is_map(type_):
        return all(_is_plain(type_.field(place).type) for place in range(type_.num_fields))
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_integer, types.is_floating)
    return types.is_boolean(type_) or types.is_null(type_) or any(test(type_) for test in tests)


def _rows(kind: str) -> tuple[Any, Iterator[dict[str, Any]]]:
    import pyarrow as pa

    source = pa.PythonFile(sys.stdin.buffer, mode="r")
    if kind == "parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(source, page_checksum_verification=True)
        return file.schema_arrow, _of_batches(file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False))
    # A stream's reader takes the mark of a file for a length, and asks for so much memory.
    is_file = source.read(len(_FILE_MARK)) == _FILE_MARK
    source.seek(0)
    if is_file:
        table = pa.ipc.open_file(source)
        return table.schema, _of_batches(_valid(table.get_batch(n) for n in range(table.num_record_batches)))
    stream = pa.ipc.open_stream(source)
    return stream.schema, _of_batches(_valid(_whole(stream, source)))


def _whole(stream: Any, source: Any) -> Iterator[Any]:
    """The batches of a stream that ends with its end mark, where its file ends."""
    yield from stream
    end, size = source.tell(), source.seek(0, os.SEEK_END) or source.tell()
    source.seek(max(0, size - len(_END_MARK)))
    if end < size:
        raise _RefusedError("it goes on after the end of its arrow stream; give each stream a file of its own.")
    if source.read() != _END_MARK:
        raise _RefusedError("it ends without the end mark of an arrow stream; it is cut off.")


def _valid(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _of_batches(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield from rows_of(batch.slice(start, _BATCH_ROWS))


def rows_of(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of an arrow batch or table. Floats of 16 and 32 bits have the fewest digits that name them.

    As 64 bits they would show 0.1 as 0.10000000149011612. A column of the type JSON holds values, as in `datasets`.
    """
    changes = {field.name: found for field in batch.schema if (found := _change(field.type))}
    for row in batch.to_pylist():
        yield row | {name: found(row[name]) for name, found in changes.items()} if changes else row


def _change(type_: Any) -> _Change | None:
    """A function that shortens floats and reads JSON in a value of this type; None where it can hold neither."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import types

    if type_ in (pa.float16(), pa.float32()):
        kind = np.float16 if type_ == pa.float16() else np.float32
        return lambda value: None if value is None or value != value else float(str(kind(value)))
    if isinstance(type_, pa.JsonType):
        return lambda text: None if text is None else json.loads(text)
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return _change(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return _change(type_.storage_type)
    if types.is_struct(type_):
        fields = {field.name: found for field in type_ if (found := _change(field.type))}
        return _where(fields, lambda row: row | {name: found(row[name]) for name, found in fields.items()})
    if types.is_map(type_):
        key, item = (_change(inner) or _same for inner in (type_.key_type, type_.item_type))
        return _where((key, item) != (_same, _same), lambda pairs: [(key(k), item(v)) for k, v in pairs])
    inner = _change(type_.value_type) if types.is_nested(type_) and hasattr(type_, "value_type") else None
    return _where(inner, lambda values: [inner(value) for value in values] if inner else values)


def _where(needed: Any, change: _Change) -> _Change | None:
    """A change that leaves null alone, if it is needed."""
    return (lambda value: None if value is None else change(value)) if needed else None


def _same(value: Any) -> Any:
    return value


def _write(kind: str) -> None:
    schema, rows = _rows(kind)
    for name in repeated(schema.names):
        raise _RefusedError(f"the column {name[:100]!r} stands twice.")
    print(json.dumps({"converted": converted(schema)}))
    for row in rows:
        try:
            print(_line(row))
        except UnicodeDecodeError:
            raise _RefusedError(f"{_binary(row)} holds bytes that are not UTF-8 text.") from None


def _line(row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, default=_as_text)
    except UnicodeDecodeError:
        raise
    except ValueError:  # what is no number
        return json.dumps(plain(row), ensure_ascii=False)


def _binary(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        try:
            plain({name: value})
        except UnicodeDecodeError:
            return f"the column {name!r}"
    return "a column"


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main(kind: str) -> int:
    # Threads would take memory for each processor.
    os.environ |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    memory = min(MAX_MEMORY_BYTES, FREE_MEMORY_BYTES + MAX_GROWTH * os.fstat(sys.stdin.fileno()).st_size)
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, MAX_SECONDS)
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, memory)
    try:
        _write(kind)
    except _RefusedError as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print(f"the table needs over {memory} bytes of memory.", file=sys.stderr)
        return 1
    except Exception as error:  # damaged files raise errors of many kinds
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # pyarrow may abort while the interpreter shuts down
