"""How DBOS stores arguments, outcomes and errors: as JSON."""

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
