"""The bytes of a data file: hashed as they are read, decompressed, and bounded before anything parses them."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any

from multiprompt.errors import DataError

MAX_FILE_BYTES = 2_000_000_000
# Compressed text is rarely a tenth of its size; a file that grows more than this is made to fill the memory.
MAX_GROWTH = 100
FREE_GROWTH_BYTES = 16_000_000
_CHUNK_BYTES = 1 << 16
# Seven times what `xz -9` takes.
_MAX_XZ_BYTES = 500_000_000


class BoundedStream(io.BufferedIOBase):
    """Bytes within a bound that grows with the number of bytes they came from; counts lines as it hands them out."""

    def __init__(self, plain: Any, origin_bytes: Callable[[], int]) -> None:
        self._plain = plain
        self._origin_bytes = origin_bytes
        self._bytes = 0
        self.lines = 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        try:
            data = bytes(self._plain.read1(_CHUNK_BYTES if size < 0 else size))
        except DataError:
            raise
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"it is cut off or damaged: {' '.join(str(error).split())[:200]}") from None
        self._bytes += len(data)
        self.lines += data.count(b"\n")
        origin = self._origin_bytes()
        if self._bytes > min(MAX_FILE_BYTES, FREE_GROWTH_BYTES + MAX_GROWTH * origin):
            raise DataError(
                f"its first {origin} bytes unpack to {self._bytes}; the limits are {FREE_GROWTH_BYTES} and "
                f"{MAX_GROWTH} times its size, and {MAX_FILE_BYTES} in all. Unpack or split it, if it holds your rows."
            )
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        return self.read1(-1 if size is None else size)

    def text(self, newline: str | None = "") -> io.TextIOWrapper:
        """The bytes as UTF-8 text, without a byte order mark; `newline` is that of `open`."""
        return io.TextIOWrapper(self, encoding="utf-8-sig", newline=newline)  # type: ignore[arg-type]


class FileStream(BoundedStream):
    """The decompressed bytes of an open file. `digest` is that of the file's own bytes."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._hashed = _Hashed(file)
        self._packed = io.BufferedReader(self._hashed, _CHUNK_BYTES)
        super().__init__(_unpacked(self._packed), lambda: self._hashed.bytes)

    def digest(self) -> str:
        """The SHA-256 of the whole file; reads what no parser has asked for."""
        while self._packed.read(_CHUNK_BYTES):
            pass
        return self._hashed.sha256.hexdigest()


class _Hashed(io.RawIOBase):
    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._file.read(len(buffer))
        except OSError as error:
            raise DataError(f"it cannot be read: {error.strerror or error}.") from None
        buffer[: len(data)] = data
        self.sha256.update(data)
        self.bytes += len(data)
        if self.bytes > MAX_FILE_BYTES:
            raise DataError(f"it has over {MAX_FILE_BYTES} bytes; split it.")
        return len(data)


def _unpacked(packed: io.BufferedReader[Any]) -> Any:
    """A decompressing reader, chosen by the first bytes as `datasets` does, whatever the file's name says."""
    start = packed.peek(64)
    for magic, opener in _OPENERS.items():
        if re.match(magic, start, re.DOTALL):
            return opener(packed)
    return packed


class _Members(io.BufferedIOBase):
    """Compressed streams one behind another, with zero bytes as padding. What is neither is refused."""

    def __init__(self, packed: Any, new: Callable[[], Any]) -> None:
        self._packed = packed
        self._new = new
        self._member = new()
        self._pending = b""

    def read1(self, size: int = -1, /) -> bytes:
        while True:
            if self._member.eof and not self._next():
                return b""
            if self._member.needs_input and not self._pending:
                self._pending = self._packed.read1(_CHUNK_BYTES)
                if not self._pending:
                    raise EOFError("it ends within a compressed stream")
            given, self._pending = self._pending, b""
            if data := self._member.decompress(given, size):
                return bytes(data)

    def _next(self) -> bool:
        """Begin the stream behind the one that has ended; whether there is one."""
        read = self._member.unused_data or self._packed.read1(_CHUNK_BYTES)
        while read and not (rest := read.lstrip(b"\0")):
            read = self._packed.read1(_CHUNK_BYTES)
        if not read:
            return False
        self._member, self._pending = self._new(), rest
        return True


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)


def _by_arrow(codec: str) -> Callable[[Any], Any]:
    def opener(packed: Any) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), codec)

    return opener


def _refuse_archive(_: Any) -> Any:
    raise DataError("it is a zip archive; unpack it, or compress the file with gzip.")


def _refuse_pointer(_: Any) -> Any:
    raise DataError("it is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`.")


_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    rb"\x1f\x8b": lambda packed: gzip.GzipFile(fileobj=packed),
    rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)": lambda packed: _Members(packed, bz2.BZ2Decompressor),
    rb"\xfd7zXZ\x00": lambda packed: _Members(packed, _xz),
    # A file of several zstd frames may begin with one to be skipped.
    rb"(?:\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)": _by_arrow("zstd"),
    rb"\x04\x22\x4d\x18": _by_arrow("lz4"),
    rb"PK\x03\x04": _refuse_archive,
    rb"version https://git-lfs\.github\.com/spec/v\d\r?\n": _refuse_pointer,
}
