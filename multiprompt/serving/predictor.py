"""The predictor: labels to compiled prompts, and rows of any tasks to answers. Safe from several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import InputRow, as_pair, parse_label
from multiprompt.engine.answering import Answer, Question, answer, answer_each, budget, compile_task, stream_answer
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import DEFAULT_CACHE_BYTES, Prefix, PrefixCache
from multiprompt.errors import ConfigError, DataError, MultipromptError
from multiprompt.records import Prediction, VersionRecord
from multiprompt.serving.prompts import load_prompt
from multiprompt.tasks.example import Budget, query_of
from multiprompt.tasks.task import Task


def _ignore(_: int) -> None:
    pass


@dataclass(frozen=True)
class _Served:
    """A version ready to answer: its task as it was when the version was made, and the room for a row's text."""

    version: VersionRecord
    task: Task
    room: Budget


@dataclass(frozen=True)
class _Asked:
    """A row on its way to an answer, under the label that it was asked by."""

    label: str
    served: _Served
    question: Question


class Predictor:
    """The prompts of a catalog on a base model in memory. Switching tasks is a look-up, however many there are."""

    def __init__(self, catalog: Catalog, base: BaseModel, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._catalog = catalog
        self.base = base
        self._prefixes = PrefixCache(cache_bytes)
        self._served: dict[str, _Served] = {}
        self._epoch: object = None
        self._lock = Lock()

    def predict(
        self, rows: Sequence[InputRow], *, strict: bool = True, seed: int = 0, advance: Callable[[int], None] = _ignore
    ) -> list[Prediction]:
        """An answer a row. A row that cannot be answered raises, or without `strict` has its error in its answer."""
        require_seed(seed)
        questions: list[_Asked | Prediction] = []
        served = self._labels()
        for number, asking in enumerate(rows):
            label = ""
            try:
                label, row = as_pair(asking)
                questions.append(self._ask(label, served(label), row, seed))
            except MultipromptError as error:
                questions.append(_refused(number, label, error, strict))
        return self._answered(questions, strict, advance)

    def stream(self, label: str, row: Mapping[str, Any] | str, seed: int = 0) -> Iterator[str]:
        """A generated answer in pieces; the answer of a multiple-choice task comes whole."""
        require_seed(seed)
        asked = self._ask(label, self._labels()(label), row, seed)
        if asked.question.query.choices is None:
            return stream_answer(self.base, asked.question)
        (found,) = answer(self.base, [asked.question])
        return iter([_prediction(asked, found).output])

    def _ask(self, label: str, served: _Served, row: Mapping[str, Any] | str, seed: int) -> _Asked:
        query = query_of(served.task, as_row(served.task, row), served.room)
        return _Asked(label, served, Question(served.task, self._prefix(served), query, seed))

    def _prefix(self, served: _Served) -> Prefix:
        version = served.version
        return self._prefixes.get(
            (version.digest, served.task.fingerprint),
            lambda: compile_task(self.base, served.task, load_prompt(self._catalog, self.base, version)),
        )

    def _answered(
        self, asked: Sequence[_Asked | Prediction], strict: bool, advance: Callable[[int], None]
    ) -> list[Prediction]:
        places = [(place, one) for place, one in enumerate(asked) if isinstance(one, _Asked)]
        made = {place: one for place, one in enumerate(asked) if isinstance(one, Prediction)}

        def refuse(number: int, error: MultipromptError) -> None:
            place, one = places[number]
            made[place] = _refused(place, one.label, error, strict)

        answers = answer_each(self.base, [one.question for _, one in places], refuse, advance)
        made |= {place: _prediction(one, a) for (place, one), a in zip(places, answers, strict=True) if a is not None}
        return [made[place] for place in range(len(asked))]

    def _labels(self) -> Callable[[str], _Served]:
        """The versions of a call's labels. Each label is looked up once, because a pointer may move during the call."""
        known = self._follow_catalog()
        found: dict[str, _Served] = {}

        def look_up(label: str) -> _Served:
            if label not in found:
                if label not in known:
                    known[label] = self._serve(label)
                found[label] = known[label]
            return found[label]

        return look_up

    def _follow_catalog(self) -> dict[str, _Served]:
        """The known versions by label; forgotten after a pointer moved or the catalog's file was replaced."""
        epoch = self._catalog.settings.epoch_and_file()
        with self._lock:
            if epoch != self._epoch:
                self._served, self._epoch = {}, epoch
            return self._served

    def _serve(self, label: str) -> _Served:
        version = self._catalog.versions.get(*parse_label(label))
        task = self._catalog.versions.task(version)
        return _Served(version, task, budget(self.base, task, version.num_virtual_tokens))


def require_seed(seed: int) -> None:
    """Raises ConfigError for a seed that is no whole number."""
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"seed is {str(seed)[:100]!r}; it must be a whole number.")


def as_row(task: Task, row: object) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if not isinstance(row, str):
        raise DataError(f"the row is a {type(row).__name__}, but it must be a mapping of fields or a text.")
    if len(task.fields) != 1:
        raise DataError(
            f"{task.name} reads the fields {', '.join(sorted(task.fields))}; give them by name instead of one text."
        )
    return {next(iter(task.fields)): row}


def _refused(number: int, label: str, error: MultipromptError, strict: bool) -> Prediction:
    if strict:
        raise type(error)(f"row {number} of the call: {error}") from None
    return Prediction(task=label.partition("@")[0], version=label, output="", error=str(error))


def _prediction(asked: _Asked, found: Answer) -> Prediction:
    choices = asked.question.query.choices
    return Prediction(
        task=asked.served.task.name,
        version=asked.served.version.label,
        output=str(found.output) if choices is None else choices[int(found.output)],
        probabilities=None if choices is None else found.probabilities(choices),
        truncated=asked.question.query.truncated,
    )
