"""The metadata of the catalog, and the columns that many tables have."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, ForeignKey, Integer, MetaData

from multiprompt.catalog.schema.types import UtcDateTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = MetaData(naming_convention=NAMING)


def id_column() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def time_column(name: str = "created_at", nullable: bool = False, index: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable, index=index)


def reference(name: str, target: str, nullable: bool = False, cyclic: bool = False) -> Column[int]:
    return Column(name, ForeignKey(f"{target}.id", use_alter=cyclic), nullable=nullable, index=True)
