"""Rows out of a data file's bytes. Texts stay as they are written; a parser that can crash runs in a child process."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO

from multiprompt.errors import DataError
from multiprompt.tasks import tables
from multiprompt.tasks.rows import MAX_ROW_VALUES
from multiprompt.tasks.streams import BoundedStream
from multiprompt.tasks.tables import repeated

TABLES = ("parquet", "arrow")
MAX_ROW_TEXT = 16_000_000
_CHUNK_CHARACTERS = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
# A parser stops this close to the end of a cut text at the latest, unless it stops at the start of a string.
_CUT_CHARACTERS = 64
_KINDS = {'"': "a text", "[": "a list", "n": "null", "t": "a truth value", "f": "a truth value", "-": "a number"}
_KINDS |= dict.fromkeys("0123456789", "a number")

Line = tuple[int, dict[str, Any]]


def read_rows(stream: BoundedStream, kind: str, notes: list[str]) -> Iterator[Line]:
    """The rows of a file, each with the line that it begins on; of a table with its number, counted from 0.

    Adds to `notes` a sentence for each column whose values were converted. Raises DataError, naming the line.
    """
    try:
        yield from _READERS[kind](stream, notes)
    except UnicodeDecodeError as error:
        line = stream.lines - error.object[error.start :].count(b"\n") + 1
        raise DataError(f"line {line} is not UTF-8 text; save the file as UTF-8.") from None


def json_rows(text: TextIO) -> Iterator[Line]:
    """Objects of JSON lines, of one array, or written over several lines. A row's fields are sorted, as stored."""
    values = _JSONText(text)
    array = values.take("[")
    if array and values.take("]"):
        return
    while array or values.peek():
        values.peek()
        yield values.line, values.object()
        if array and not values.take(","):
            break
    if array:
        if not values.take("]"):
            raise DataError(f"line {values.line} is not JSON: a comma or ] is missing.")
        if values.peek():
            raise DataError(f"line {values.line} goes on after the end of the array.")


class _JSONText:
    """A text that is read piece by piece, and JSON objects out of it; a row longer than the bound is refused."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._buffer = ""
        self._place = 0
        self.line = 1

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._place)
            assert match is not None
            self._go(match.end())
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def take(self, mark: str) -> bool:
        """Step over a character if it is the next one."""
        if self.peek() != mark:
            return False
        self._go(self._place + 1)
        return True

    def object(self) -> dict[str, Any]:
        mark = self.peek()
        if mark != "{":
            found = f"is {_KINDS[mark]}, but a row is an object" if mark in _KINDS else "is not JSON"
            raise DataError(f"line {self.line} {found}.")
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._buffer) - _CUT_CHARACTERS or error.msg.startswith("Unterminated")
                if not cut or not self._more():
                    self._refuse(error)
            except RecursionError:
                raise DataError(f"line {self.line} is nested too deeply.") from None
            except ValueError as error:  # of the hooks below, or a number of thousands of digits
                raise DataError(f"line {self.line}: {error}") from None
            else:
                self._go(end)
                return dict(sorted(found.items()))

    def _refuse(self, error: json.JSONDecodeError) -> NoReturn:
        line = self.line + self._buffer.count("\n", self._place, error.pos)
        where = "" if line == self.line else f" in line {line}"
        raise DataError(f"line {self.line} is not JSON: {error.msg}{where}.") from None

    def _go(self, place: int) -> None:
        self.line += self._buffer.count("\n", self._place, place)
        self._place = place

    def _more(self) -> bool:
        rest = self._buffer[self._place :]
        if len(rest) > MAX_ROW_TEXT:
            raise DataError(f"line {self.line} begins a row of over {MAX_ROW_TEXT} characters.")
        read = self._text.read(min(max(_CHUNK_CHARACTERS, len(rest)), MAX_ROW_TEXT + 1 - len(rest)))
        self._buffer, self._place = rest + read, 0
        return bool(read)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = {sys.intern(key): value for key, value in pairs}
    if len(found) < len(pairs):
        raise DataError(f"the field {repeated(key for key, _ in pairs)[0][:100]!r} stands twice in one object.")
    return found


# NaN and Infinity are no JSON, but Python writes them for a missing number; tables have them read as null, too.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=lambda _: None)


def _json(stream: BoundedStream, _: list[str]) -> Iterator[Line]:
    return json_rows(stream.text())


def _csv(stream: BoundedStream, _: list[str], delimiter: str = ",") -> Iterator[Line]:
    """Every cell as text, an empty one as the empty text; blank lines are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_TEXT))
    lines = _Lines(stream.text())
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begin = 1
    try:
        header = _header(next(filter(None, reader), []))
        order = sorted(range(len(header)), key=header.__getitem__)
        begin = lines.begin()
        for cells in reader:
            if cells and len(cells) != len(header):
                raise DataError(f"line {begin} has {len(cells)} cells, but the first line names {len(header)} columns.")
            if len(cells) == 1 and cells[0] and not cells[0].strip(" \t"):  # which the harness leaves out
                raise DataError(
                    f"line {begin} holds nothing but spaces; delete the line, or write the rows as JSON lines."
                )
            if cells:
                yield begin, {header[place]: cells[place] for place in order}
            begin = lines.begin()
    except csv.Error as error:
        raise DataError(f"line {begin} begins no row of cells: {error}.") from None


def _tsv(stream: BoundedStream, notes: list[str]) -> Iterator[Line]:
    return _csv(stream, notes, delimiter="\t")


def _header(cells: list[str]) -> list[str]:
    """The columns' names; one without a name is called as pandas calls it."""
    if len(cells) > MAX_ROW_VALUES:
        raise DataError(f"the first line names {len(cells)} columns; the limit is {MAX_ROW_VALUES}.")
    names = [sys.intern(cell or f"Unnamed: {place}") for place, cell in enumerate(cells)]
    for name in repeated(names):
        raise DataError(f"the column {name[:100]!r} stands twice in the first line.")
    return names


def _text(stream: BoundedStream, _: list[str]) -> Iterator[Line]:
    lines = _Lines(stream.text(newline=None))
    for line in lines:
        yield lines.begin() - 1, {"text": line.removesuffix("\n")}


class _Lines:
    """The lines of a text. Those from one call of `begin` to the next are a row, whose length is bounded."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._characters = 0
        self._begin = self._next = 1

    def begin(self) -> int:
        """Begin a row with the next line; gives its number."""
        self._characters, self._begin = 0, self._next
        return self._next

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_ROW_TEXT):
            self._next += 1
            self._characters += len(line)
            if self._characters >= MAX_ROW_TEXT:
                raise DataError(f"line {self._begin} begins a row of over {MAX_ROW_TEXT} characters.")
            yield line


def _parquet(stream: BoundedStream, notes: list[str]) -> Iterator[Line]:
    return _table(stream, notes, "parquet")


def _arrow(stream: BoundedStream, notes: list[str]) -> Iterator[Line]:
    return _table(stream, notes, "arrow")


def _table(stream: BoundedStream, notes: list[str], kind: str) -> Iterator[Line]:
    """The rows of a table, from a child process that reads a copy: the parsers are native code."""
    with tempfile.TemporaryFile() as copy, tempfile.TemporaryFile() as errors:
        while data := stream.read1():
            copy.write(data)
        size = copy.tell()
        copy.seek(0)
        command = [sys.executable, "-P", str(Path(tables.__file__)), kind]
        with subprocess.Popen(command, stdin=copy, stdout=subprocess.PIPE, stderr=errors) as child:
            try:
                assert child.stdout is not None
                yield from _converted(json_rows(BoundedStream(child.stdout, lambda: size).text()), notes)
                child.wait()
            except DataError:
                if _exit_status(child) in (None, 0):
                    raise
            finally:
                child.kill()
        if child.returncode:
            raise DataError(_ended(child.returncode, errors, kind))


def _exit_status(child: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a process that writes nothing more; None for one that is still writing."""
    try:
        return child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def _converted(lines: Iterable[Line], notes: list[str]) -> Iterator[Line]:
    """The rows after the first, which names the converted columns with their types; a note shows one value of each."""
    rows = iter(lines)
    _, head = next(rows, (0, {"converted": {}}))
    types = dict(head["converted"])
    for line, row in rows:
        for column in [name for name in types if row[name] is not None]:
            value = json.dumps(row[column], ensure_ascii=False)
            notes.append(f"column {column!r}: {types.pop(column)} is read as {value if len(value) < 60 else 'text'}")
        yield line - 2, row


def _ended(status: int, errors: IO[bytes], kind: str) -> str:
    errors.seek(0)
    said = " ".join(errors.read(4000).decode(errors="replace").split())
    if status < 0:
        return f"the {kind} reader was ended by {signal.Signals(-status).name}; the file is damaged or too large."
    return said[-300:] or f"the {kind} reader failed with status {status}."


_READERS: dict[str, Callable[[BoundedStream, list[str]], Iterator[Line]]] = {
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "text": _text,
    "parquet": _parquet,
    "arrow": _arrow,
}
