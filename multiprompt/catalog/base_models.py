"""Base models: the one that a catalog is bound to, and the records that its versions were made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from multiprompt.catalog import schema as s
from multiprompt.catalog.database import location, writing
from multiprompt.catalog.events import append_event
from multiprompt.catalog.store import Noun, Stamp, insert
from multiprompt.errors import StateError
from multiprompt.records import BaseModelRecord

# Built once: building a statement takes SQLAlchemy longer than running it takes SQLite.
_BASE_MODEL = select(s.base_models.c.id).where(
    *(s.base_models.c[part] == bindparam(part) for part in ("weights", "tokenizer", "config", "dtype"))
)


class BaseModels(Noun):
    def get(self) -> tuple[str | None, str, BaseModelRecord | None]:
        """(reference to load it by, dtype, record); the record is None until the model was loaded once."""
        with self._store.read() as connection:
            return _bound(connection)

    def name(self, reference: str | None, dtype: str | None) -> None:
        """Keep the reference and the dtype of the base model, as long as the catalog is bound to none."""
        known, kept, bound = self.get()
        wanted = {"base_model_source": reference or known, "dtype": dtype or kept}
        if bound is None and wanted != {"base_model_source": known, "dtype": kept}:
            with writing(self._store.engine) as connection:
                unbound = s.settings.c.base_model_id.is_(None)
                connection.execute(s.settings.update().where(unbound).values(wanted))

    def move(self, reference: str) -> None:
        """Load the base model that the catalog is bound to from another place from now on."""
        if self.get()[0] != reference:
            with self._store.write() as (connection, stamp):
                connection.execute(s.settings.update().values(base_model_source=reference))
                append_event(connection, "base-model-moved", None, None, None, f"it is loaded from {reference}", stamp)

    def bind(self, record: BaseModelRecord, former: BaseModelRecord | None = None) -> None:
        """Bind the catalog to its base model, or bind it anew if `former` is the same model in older fingerprints.

        Versions keep the record that they were made with. Raises StateError when it is bound to another one.
        """
        with self._store.write() as (connection, stamp):
            _, _, bound = _bound(connection)
            if bound is None or (former is not None and bound.identity == former.identity):
                _bind(connection, record, former, stamp)
            elif bound.identity != record.identity:
                raise StateError(f"{location(self._store.engine)} is bound to {bound} already.")

    def forward(self) -> str | None:
        """Why the base model is not run by the packed forward; empty if it is, None before it was loaded."""
        with self._store.read() as connection:
            return _forward(connection)

    def set_forward(self, fallback: str) -> None:
        """Record how the base model is run, as an event if that changed."""
        if self.forward() == fallback:
            return
        with self._store.write() as (connection, stamp):
            found = _forward(connection)
            if found == fallback:
                return
            connection.execute(s.settings.update().values(forward=fallback))
            if fallback or found:
                kind = "engine-fallback" if fallback else "engine-packed"
                append_event(connection, kind, None, None, None, fallback, stamp)


def base_model_id(
    connection: Connection, record: BaseModelRecord, stamp: Stamp, former: BaseModelRecord | None = None
) -> int:
    """The id of a base model, which is stored if it is new; `former` is the same one in older fingerprints."""
    fingerprints = {
        "weights": record.weights,
        "tokenizer": record.tokenizer,
        "config": record.config,
        "dtype": record.dtype,
    }
    found = connection.execute(_BASE_MODEL, fingerprints).scalar()
    if found is not None:
        return int(found)
    return insert(
        connection,
        s.base_models,
        name=record.name,
        source=record.source,
        revision=record.revision,
        architecture=record.architecture,
        created_at=stamp.at,
        renews_id=None if former is None else _first_record(connection, base_model_id(connection, former, stamp)),
        **fingerprints,
    )


def base_columns() -> list[Any]:
    """The columns of a SELECT that `base_model_record` reads."""
    c = s.base_models.c
    return [
        c.name.label("base_name"),
        c.source.label("base_source"),
        c.revision.label("base_revision"),
        c.architecture,
        c.dtype.label("base_dtype"),
        c.weights,
        c.tokenizer,
        c.config,
    ]


def base_model_record(row: Row[Any]) -> BaseModelRecord:
    return BaseModelRecord(
        row.base_name,
        row.base_source,
        row.base_revision,
        row.architecture,
        row.base_dtype,
        row.weights,
        row.tokenizer,
        row.config,
    )


def _bound(connection: Connection) -> tuple[str | None, str, BaseModelRecord | None]:
    settings = s.settings.c
    row = connection.execute(select(settings.base_model_source, settings.dtype, settings.base_model_id)).one()
    if row.base_model_id is None:
        return row.base_model_source, row.dtype, None
    found = connection.execute(select(*base_columns()).where(s.base_models.c.id == row.base_model_id)).one()
    return row.base_model_source, row.dtype, base_model_record(found)


def _bind(connection: Connection, record: BaseModelRecord, former: BaseModelRecord | None, stamp: Stamp) -> None:
    if former is not None:
        record = replace(record, name=former.name, source=former.source, revision=former.revision)
    bound_id = base_model_id(connection, record, stamp, former)
    connection.execute(
        s.settings.update().values(base_model_id=bound_id, base_model_source=record.source, dtype=record.dtype)
    )
    kind = "base-model-bound" if former is None else "base-model-renewed"
    told = str(record) if former is None else f"{former} is now identified as {record}"
    append_event(connection, kind, None, None, None, told, stamp)


def _first_record(connection: Connection, model_id: int) -> int:
    """The id of the first record of a base model."""
    renewed = select(s.base_models.c.renews_id).where(s.base_models.c.id == model_id)
    return connection.execute(renewed).scalar() or model_id


def _forward(connection: Connection) -> str | None:
    found: str | None = connection.execute(select(s.settings.c.forward)).scalar_one()
    return found
