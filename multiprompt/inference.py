"""Inference: labels to compiled prompts, and rows of any tasks to answers. Safe from several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import parse_label
from multiprompt.engine.adapter import from_adapter, trainable
from multiprompt.engine.answering import Answer, Question, answer, budget, compile_task, stream_answer, unanswerable
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import DEFAULT_CACHE_BYTES, Prefix, PrefixCache
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.errors import BaseMismatchError, DataError, MultipromptError
from multiprompt.records import Prediction, VersionRecord
from multiprompt.tasks.example import Budget, query_of
from multiprompt.tasks.task import Task

InputRow = tuple[str, Mapping[str, Any] | str]


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


class Inference:
    """The prompts of a catalog on a base model in memory. Switching tasks is a look-up, however many there are."""

    def __init__(self, catalog: Catalog, base: BaseModel, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._catalog = catalog
        self._base = base
        self._prefixes = PrefixCache(cache_bytes)
        self._served: dict[str, _Served] = {}
        self._epoch = -1
        self._lock = Lock()

    def predict(
        self, rows: Sequence[InputRow], *, strict: bool = True, seed: int = 0, advance: Callable[[int], None] = _ignore
    ) -> list[Prediction]:
        """An answer a row. A row that cannot be answered raises, or without `strict` has its error in its answer."""
        asked: list[_Asked | Prediction] = []
        served = self._labels()
        for number, asking in enumerate(rows):
            label = ""
            try:
                label, row = as_pair(asking)
                asked.append(self._ask(label, served(label), row, seed))
            except MultipromptError as error:
                asked.append(_refused(number, label, error, strict))
        try:
            return self._answered(asked, advance)
        except DataError:
            return self._answered(self._set_apart(asked, strict), advance)

    def stream(self, label: str, row: Mapping[str, Any] | str, seed: int = 0) -> Iterator[str]:
        """A generated answer in pieces; the answer of a multiple-choice task comes whole."""
        asked = self._ask(label, self._labels()(label), row, seed)
        if asked.question.query.choices is None:
            return stream_answer(self._base, asked.question)
        (found,) = answer(self._base, [asked.question])
        return iter([_prediction(asked, found).output])

    def _ask(self, label: str, served: _Served, row: Mapping[str, Any] | str, seed: int) -> _Asked:
        query = query_of(served.task, as_row(served.task, row), served.room)
        return _Asked(label, served, Question(served.task, self._prefix(served), query, seed))

    def _prefix(self, served: _Served) -> Prefix:
        version = served.version
        return self._prefixes.get(
            version.id,
            lambda: compile_task(self._base, served.task, load_prompt(self._catalog, self._base, version)),
        )

    def _answered(self, asked: Sequence[_Asked | Prediction], advance: Callable[[int], None]) -> list[Prediction]:
        questions = [one.question for one in asked if isinstance(one, _Asked)]
        answers = iter(answer(self._base, questions, advance))
        return [one if isinstance(one, Prediction) else _prediction(one, next(answers)) for one in asked]

    def _set_apart(self, asked: Sequence[_Asked | Prediction], strict: bool) -> list[_Asked | Prediction]:
        """The rows with an error in place of each that has no tokens to be asked with."""
        kept = list(asked)
        places = [(i, one) for i, one in enumerate(asked) if isinstance(one, _Asked)]
        refused = unanswerable(self._base, [one.question for _, one in places])
        for number, error in refused.items():
            place, one = places[number]
            kept[place] = _refused(place, one.label, error, strict)
        return kept

    def _labels(self) -> Callable[[str], _Served]:
        """What labels stand for in one call: each is looked up once, so that a pointer may move meanwhile."""
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
        """What labels are known to stand for; forgotten when a pointer of the catalog has moved."""
        epoch = self._catalog.epoch()
        with self._lock:
            if epoch != self._epoch:
                self._served, self._epoch = {}, epoch
            return self._served

    def _serve(self, label: str) -> _Served:
        version = self._catalog.version(*parse_label(label))
        task = self._catalog.task_file(version)
        return _Served(version, task, budget(self._base, task, version.num_virtual_tokens))


def load_prompt(
    catalog: Catalog, base: BaseModel, version: VersionRecord, *, to_train: bool = False, foreign: bool = False
) -> SoftPrompt:
    """A version's prompt. Raises BaseMismatchError, naming both, when it is of another base model.

    `foreign` is for measuring what another base model does to it, where only the shapes must fit.
    """
    if not base.is_of(version.base_model) and not foreign:
        raise BaseMismatchError(
            f"{version.label} was trained on {version.base_model}, but the catalog is open with {base.record}. "
            f"Open it with that base model, or run `multiprompt learn {version.task}`."
        )
    return (trainable if to_train else from_adapter)(base, catalog.adapter(version), version.label)


def as_pair(asking: InputRow) -> InputRow:
    """What is asked, from whom. Raises DataError for what is no pair of a label and a row."""
    if isinstance(asking, (tuple, list)) and len(asking) == 2 and isinstance(asking[0], str):
        return asking[0], asking[1]
    raise DataError("it must be a pair: the name of a task or version, and its row.")


def as_row(task: Task, row: Mapping[str, Any] | str) -> Mapping[str, Any]:
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
