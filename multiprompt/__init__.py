"""One frozen language model, many soft prompts: a catalog of them, and a gate that checks for forgetting.

import multiprompt as mp

ws = mp.open("catalog.db", base_model="smollm2-135m")
ws.add_task("sst2/task.yaml")
report = ws.learn("sst2")
ws.predict([("sst2", {"text": "a fine film"})])
"""

from typing import TYPE_CHECKING, Any

try:
    import fcntl  # noqa: F401
except ImportError:
    raise ImportError("multiprompt runs on POSIX systems only, such as Linux and macOS; on Windows use WSL.") from None

from multiprompt import errors
from multiprompt.errors import MultipromptError
from multiprompt.opening import open_workspace as open  # noqa: A004
from multiprompt.workspace import Workspace

__all__ = ["MultipromptError", "Task", "Workspace", "errors", "open"]
__version__ = "0.2.0"

if TYPE_CHECKING:
    from multiprompt.tasks.task import Task


def __dir__() -> list[str]:
    """The names that are meant to be used."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """`Task` on first use: reading task files takes libraries that listing the catalog does without."""
    if name != "Task":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from multiprompt.tasks.task import Task

    return Task
