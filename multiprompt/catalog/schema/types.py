"""Column types that read JSON and times alike on every database, and refuse damaged values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, TypeDecorator

from multiprompt.errors import IntegrityError


class _Checked(TypeDecorator[Any]):
    """A type that SQLite stores as text; a damaged file may hold any text there."""

    __abstract__ = True

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        read = super().result_processor(dialect, coltype)

        def checked(value: Any) -> Any:
            try:
                return value if read is None else read(value)
            except (ValueError, TypeError):
                kind = type(self.impl).__name__
                raise IntegrityError(
                    f"a stored value is no {kind}: the catalog is damaged; restore a backup."
                ) from None

        return checked


class Json(_Checked):
    """Plain data."""

    impl = JSON
    cache_ok = True


class UtcDateTime(_Checked):
    """Stores times as UTC and gives aware times back, on every database; a time without a zone is in UTC.

    A time beyond the years of UTC becomes its first or its last time.
    """

    impl = DateTime
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value
        try:
            return value.astimezone(UTC).replace(tzinfo=None)
        except OverflowError:
            return datetime.min if value.year == 1 else datetime.max

    def process_result_value(self, value: datetime | None, _dialect: Any) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)
