"""Artifacts: stored bytes by their SHA-256, and the digest of a prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.store import Stamp
from multiprompt.errors import IntegrityError
from multiprompt.records import Adapter

# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_STORED = select(s.artifacts.c.sha256).where(s.artifacts.c.sha256.in_(bindparam("digests", expanding=True)))


def digest(adapter: Adapter) -> str:
    """The digest of a prompt: one over the digests of the two files that its outputs depend on."""
    return digest_of(hashlib.sha256(adapter.config).hexdigest(), hashlib.sha256(adapter.weights).hexdigest())


def digest_of(config_sha256: str, weights_sha256: str) -> str:
    """The same from the hexadecimal SHA-256 of each file."""
    return "sha256:" + hashlib.sha256((config_sha256 + weights_sha256).encode()).hexdigest()


def read_artifact(connection: Connection, sha256: str, label: str) -> bytes:
    """Stored bytes. Raises IntegrityError when they are missing or have another digest."""
    data = connection.execute(select(s.artifacts.c.data).where(s.artifacts.c.sha256 == sha256)).scalar()
    if data is None:
        raise IntegrityError(f"{label}: the artifact {sha256[:15]}… is missing; restore a backup.")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise IntegrityError(
            f"{label}: stored as sha256 {sha256[:15]}…, but the bytes have {found[:15]}…; restore a backup."
        )
    return bytes(data)


def store_artifacts(connection: Connection, files: Mapping[str, bytes], stamp: Stamp) -> dict[str, str]:
    """Store the files, by their kinds, that are not stored yet. Gives their digests."""
    digests = {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()}
    known = set(connection.scalars(_STORED, {"digests": list(digests.values())}))
    rows = {
        sha256: {"sha256": sha256, "kind": kind, "data": files[kind], "created_at": stamp.at}
        for kind, sha256 in digests.items()
        if sha256 not in known
    }
    if rows:
        connection.execute(s.artifacts.insert(), list(rows.values()))
    return digests
