"""Inference: labels to compiled prompts, and rows of any tasks to answers. Safe from several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import parse_label
from multiprompt.engine.adapter import from_adapter, trainable
from multiprompt.engine.answering import Answer, Question, answer, budget, compile_task, stream_answer
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import DEFAULT_CACHE_BYTES, Prefix, PrefixCache
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.errors import BaseMismatchError, DataError, MultipromptError
from multiprompt.records import Prediction, VersionRecord
from multiprompt.tasks.example import Budget, queries
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
    """A row on its way to an answer."""

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
        self._follow_catalog()
        asked: list[_Asked | Prediction] = []
        for number, (label, row) in enumerate(rows):
            try:
                asked.append(self._ask(label, row, seed))
            except MultipromptError as error:
                message = f"row {number} of the call: {error}"
                if strict:
                    raise type(error)(message) from None
                asked.append(Prediction(task=label.partition("@")[0], version=label, output="", error=message))
        questions = [one.question for one in asked if isinstance(one, _Asked)]
        answers = iter(answer(self._base, questions, advance))
        return [one if isinstance(one, Prediction) else _prediction(one, next(answers)) for one in asked]

    def stream(self, label: str, row: Mapping[str, Any] | str, seed: int = 0) -> Iterator[str]:
        """A generated answer in pieces; the answer of a multiple-choice task comes whole."""
        self._follow_catalog()
        asked = self._ask(label, row, seed)
        if asked.question.query.choices is None:
            return stream_answer(self._base, asked.question)
        (found,) = answer(self._base, [asked.question])
        return iter([_prediction(asked, found).output])

    def _ask(self, label: str, row: Mapping[str, Any] | str, seed: int) -> _Asked:
        served, prefix = self._switch(label)
        (query,) = queries(served.task, [_as_row(served.task, row)], served.room)
        return _Asked(served, Question(served.task, prefix, query, seed))

    def _switch(self, label: str) -> tuple[_Served, Prefix]:
        """What a label stands for, and its compiled prefix."""
        served = self._serve(label)
        version = served.version
        prefix = self._prefixes.get(
            version.id,
            lambda: compile_task(self._base, served.task, load_prompt(self._catalog, self._base, version)),
        )
        return served, prefix

    def _follow_catalog(self) -> None:
        """Forget what labels stand for when a pointer of the catalog has moved."""
        epoch = self._catalog.epoch()
        with self._lock:
            if epoch != self._epoch:
                self._served, self._epoch = {}, epoch

    def _serve(self, label: str) -> _Served:
        known = self._served
        if label not in known:
            version = self._catalog.version(*parse_label(label))
            task = self._catalog.task_file(version)
            known[label] = _Served(version, task, budget(self._base, task, version.num_virtual_tokens))
        return known[label]


def load_prompt(
    catalog: Catalog, base: BaseModel, version: VersionRecord, *, to_train: bool = False, foreign: bool = False
) -> SoftPrompt:
    """A version's prompt. Raises BaseMismatchError, naming both, when it is of another base model.

    `foreign` is for measuring what another base model does to it, where only the shapes must fit.
    """
    if version.base_model.identity != base.record.identity and not foreign:
        raise BaseMismatchError(
            f"{version.label} was trained on {version.base_model}, but the catalog is open with {base.record}. "
            f"Open it with that base model, or run `multiprompt learn {version.task}`."
        )
    return (trainable if to_train else from_adapter)(base, catalog.adapter(version), version.label)


def _as_row(task: Task, row: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if not isinstance(row, str):
        raise DataError(f"the row is a {type(row).__name__}, but it must be a mapping of fields or a text.")
    if len(task.input_fields) != 1:
        raise DataError(
            f"{task.name} reads the fields {', '.join(sorted(task.input_fields))}; give them by name instead of one "
            "text."
        )
    return {next(iter(task.input_fields)): row}


def _prediction(asked: _Asked, found: Answer) -> Prediction:
    choices = asked.question.query.choices
    return Prediction(
        task=asked.served.task.name,
        version=asked.served.version.label,
        output=str(found.output) if choices is None else choices[int(found.output)],
        probabilities=None
        if found.probabilities is None
        else dict(zip(choices or (), found.probabilities, strict=True)),
        truncated=asked.question.query.truncated,
    )
