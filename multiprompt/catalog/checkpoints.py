"""Checkpoints: the state of a task's unfinished training, behind its own digest."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, bindparam, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.jobs import is_held, note_checkpoint
from multiprompt.catalog.store import Noun
from multiprompt.catalog.tasks import task_id
from multiprompt.catalog.versions import is_below_floor
from multiprompt.errors import IntegrityError
from multiprompt.records import VersionRecord

# Stored bytes begin with this mark and their digest.
SEAL = b"sha256:"
# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_DROP_CHECKPOINT = s.checkpoints.delete().where(s.checkpoints.c.task_id == bindparam("task"))


class Checkpoints(Noun):
    def get(self, task: str, key: str) -> bytes | None:
        """The checkpoint of a training with these inputs, see `engine.training`; None if there is none.

        Raises IntegrityError when its bytes changed.
        """
        kept = s.checkpoints.c
        with self._store.read() as connection:
            query = select(kept.data).where(kept.task_id == task_id(connection, task), kept.key == key)
            stored = connection.execute(query).scalar()
            return None if stored is None else unsealed(stored, f"the checkpoint of {task}")

    def save(self, task: str, key: str, data: bytes) -> None:
        """Keep the state of a task's training, in place of an older one.

        A training without a job does not replace the checkpoint of a job that has not ended.
        """
        with self._store.write() as (connection, stamp):
            claim = self._store.claim
            if claim is None and is_held(connection, task, None):
                return
            trained_id = task_id(connection, task)
            connection.execute(_DROP_CHECKPOINT, {"task": trained_id})
            values = {"task_id": trained_id, "key": key, "data": sealed(data), "created_at": stamp.at}
            connection.execute(s.checkpoints.insert().values(values))
            if claim is not None:
                note_checkpoint(connection, claim, task, key)

    def end_training(self, known: VersionRecord, outcome: str) -> None:
        """Drop a task's checkpoint after a training that gave a known version, and end the job with this outcome.

        The outcome is bad if that version is still a candidate because it did not learn.
        """
        with self._store.write() as (connection, stamp):
            drop_checkpoint(connection, known.task, self._store.job)
            good = known.state != "candidate" or not is_below_floor(connection, known)
            self._store.end_job(connection, good, outcome, stamp)


def drop_checkpoint(connection: Connection, task: str, job: str | None) -> None:
    """Drop a task's checkpoint, unless it belongs to another job that has not ended."""
    if not is_held(connection, task, job):
        connection.execute(_DROP_CHECKPOINT, {"task": task_id(connection, task)})


def sealed(data: bytes) -> bytes:
    """Bytes behind their SHA-256."""
    return SEAL + hashlib.sha256(data).digest() + data


def unsealed(stored: bytes, where: str) -> bytes:
    """The bytes that `sealed` took. Raises IntegrityError when one changed."""
    start = len(SEAL) + hashlib.sha256().digest_size
    data = stored[start:]
    if stored[:start] != SEAL + hashlib.sha256(data).digest():
        raise IntegrityError(f"{where} does not have the digest that it was stored under")
    return data
