"""Every error that multiprompt raises on purpose.

    MultipromptError
    ├── ConfigError       (ValueError)    a setting is out of range or unknown
    ├── TaskFileError     (ValueError)    a task file cannot be used
    ├── TemplateError     (ValueError)    a template fails, or tries to leave its sandbox
    ├── DataError         (ValueError)    a split, a row or a field is missing or wrong
    ├── MetricError       (ValueError)    an unknown metric, or one that cannot score these rows
    ├── QueryError        (ValueError)    a query cannot be parsed
    ├── NotFoundError     (LookupError)   no such task, version or base model
    ├── BaseModelError    (RuntimeError)  the base model cannot be fetched, read or used
    │   └── BaseMismatchError             the base model is another than the prompt's
    ├── HubError          (RuntimeError)  a prompt cannot be uploaded to the hub
    ├── AdapterError      (ValueError)    adapter files that cannot be a prompt for this base model
    ├── TrainingError     (RuntimeError)  training broke off, for example on a loss that is not a number
    ├── CatalogError      (RuntimeError)  the catalog cannot be read or written
    │   ├── SchemaError                   no catalog, or a catalog of another schema revision
    │   ├── IntegrityError                stored bytes do not have the digest they were stored under
    │   ├── ConflictError                 another writer published first
    │   ├── SupersededError               a job was cancelled or taken over; who had it can write nothing for it
    │   └── UnavailableError              what may pass: locked, no connection, a full disk
    ├── StateError        (RuntimeError)  the state of a version or a worker does not allow this
    ├── JobError          (RuntimeError)  a job failed in a worker; its text says why
    └── JobTimeoutError   (TimeoutError)  a job did not end in the time that was given to it

Each message is one line: what happened, the values, the way out.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Characters that move a terminal's cursor, or turn the order of letters.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class MultipromptError(Exception):
    """Base of every error that multiprompt raises on purpose."""


class ConfigError(MultipromptError, ValueError):
    """A setting is out of range or unknown."""


class TaskFileError(MultipromptError, ValueError):
    """A task file cannot be used."""


class TemplateError(MultipromptError, ValueError):
    """A template fails, or tries to leave its sandbox."""


class DataError(MultipromptError, ValueError):
    """A split, a row or a field is missing or wrong."""


class MetricError(MultipromptError, ValueError):
    """An unknown metric, or one that cannot score these rows."""


class QueryError(MultipromptError, ValueError):
    """A query cannot be parsed."""


class NotFoundError(MultipromptError, LookupError):
    """No such task, version or base model."""


class BaseModelError(MultipromptError, RuntimeError):
    """The base model cannot be fetched, read or used."""


class BaseMismatchError(BaseModelError):
    """The base model is another than the one that the prompt was trained on."""


class HubError(MultipromptError, RuntimeError):
    """A prompt cannot be uploaded to the hub."""


class AdapterError(MultipromptError, ValueError):
    """Adapter files that cannot be a prompt for this base model."""


class TrainingError(MultipromptError, RuntimeError):
    """Training broke off."""


class CatalogError(MultipromptError, RuntimeError):
    """The catalog cannot be read or written."""


class SchemaError(CatalogError):
    """The file is no catalog, or a catalog of another schema revision."""


class IntegrityError(CatalogError):
    """Stored bytes do not have the digest that they were stored under."""


class ConflictError(CatalogError):
    """Another writer published first."""


class SupersededError(CatalogError):
    """A job was cancelled or taken over by another worker."""


class UnavailableError(CatalogError):
    """The catalog cannot be reached or written now; trying again later may help."""


class StateError(MultipromptError, RuntimeError):
    """The state of a version or a worker does not allow this."""


class JobError(MultipromptError, RuntimeError):
    """A job failed in a worker; its text says why."""


class JobTimeoutError(MultipromptError, TimeoutError):
    """A job did not end in time."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "2 rows"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def percent(share: float, digits: int = 0) -> str:
    """A share as it is told: "95 %"."""
    return f"{100 * share:.{digits}f} %"


def printable(text: str) -> str:
    """Text with its control characters, but line ends and tabs, written as JSON writes them."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def nearest(word: str, candidates: Iterable[str]) -> str:
    """A hint for an unknown word: the closest candidate, or all of them when none is close."""
    known = sorted(candidates)
    close = get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there are none yet"
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"known: {listed}"
