"""A split: rows of a task's data, with a fingerprint of what was read."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from multiprompt.errors import IntegrityError

# Moves when the same bytes are read as other rows.
READER_VERSION = 4
MAX_PACKED_SPLIT_BYTES = 2_000_000_000

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Split:
    """The rows of one split, in order.

    `notes` say how columns were converted when the split was read. `source` is the digest of the files that it was read
    from; None for other origins.
    """

    name: str
    rows: tuple[Row, ...] = field(repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    source: str | None = field(default=None, compare=False)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of name, number of rows and content; equal fingerprints mean equal data."""
        digest = hashlib.sha256(f"{self.name}\n{len(self.rows)}\n".encode())
        for row in self.rows:
            digest.update(_line(row))
        return "sha256:" + digest.hexdigest()

    def pack(self) -> bytes:
        """The rows as compressed JSON lines; `unpack` reads them back."""
        return zlib.compress(b"".join(map(_line, self.rows)), level=9)

    @classmethod
    def unpack(cls, name: str, packed: bytes) -> Split:
        """Raises IntegrityError when the bytes are not what `pack` wrote."""
        try:
            inflater = zlib.decompressobj()
            text = inflater.decompress(packed, MAX_PACKED_SPLIT_BYTES)
            if inflater.unconsumed_tail or inflater.unused_data or not inflater.eof:
                raise ValueError("it is cut off, too large, or goes on after its end")
            return cls(name, tuple(json.loads(line) for line in text.splitlines()))
        except (zlib.error, ValueError) as error:
            raise IntegrityError(f"the stored rows of split {name} cannot be read: {error}") from None


def _line(row: Row) -> bytes:
    """A row with its fields sorted; within a field, keys keep their order, in which templates walk over them."""
    return json.dumps(dict(sorted(row.items())), ensure_ascii=False, default=str).encode() + b"\n"
