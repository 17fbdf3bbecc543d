"""Times and numbers as a query or a cursor gives them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement

MAX_INTEGER = 2**31
NO_TIME = "expected a time such as '2026-11-01' or '2026-11-01T03:00'"


def parse_time(text: str) -> datetime:
    """An ISO date or time, in UTC where it names no zone. Raises ValueError."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(NO_TIME) from None


def is_time(expression: ColumnElement[Any]) -> bool:
    return expression.type.python_type is datetime


def in_range(value: Any) -> Any:
    """A value that every database stores. Raises ValueError."""
    if isinstance(value, int) and abs(value) >= MAX_INTEGER:
        raise ValueError
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if isinstance(value, str) and ("\0" in value or value != value.encode(errors="replace").decode()):
        raise ValueError
    return value
