"""The format in which DBOS stores arguments, outcomes and errors: JSON, whatever a row of its tables says."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from dbos import Serializer

from multiprompt.errors import JobError


class PlainData(Serializer):
    """JSON instead of DBOS's pickle; an error is kept as its text."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=_encode)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data, object_hook=_decode)


def unreadable(marker: str | None, inputs: str | None) -> str:
    """The reason why a row of the jobs does not hold the arguments of a job; empty where it does."""
    if marker not in (None, PlainData().name()):
        return f"its row is marked as {marker}, and only plain JSON is read"
    try:
        found = json.loads(inputs or "")
        kind, task = found["args"]
        if isinstance(kind, str) and isinstance(task, str | None) and not found["kwargs"]:
            return ""
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return "its row does not hold the kind and the task of a job"


def _encode(value: Any) -> dict[str, str]:
    if isinstance(value, datetime):
        return {"$time": value.isoformat()}
    if isinstance(value, BaseException):
        kind = "" if isinstance(value, JobError) else f"{type(value).__name__}: "
        return {"$error": f"{kind}{' '.join(str(value).split())}"}
    raise TypeError(f"a job holds plain data only, not a {type(value).__name__}")


def _decode(value: dict[str, Any]) -> Any:
    if set(value) == {"$time"}:
        return datetime.fromisoformat(value["$time"])
    return JobError(value["$error"]) if set(value) == {"$error"} else value
