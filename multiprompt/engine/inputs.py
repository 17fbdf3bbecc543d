"""Model inputs: the tokens of a row's context, and of the answer that training teaches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from multiprompt.engine.base import BaseModel
from multiprompt.engine.decoding import sampling_of
from multiprompt.engine.encoding import encode_answers, encode_choices
from multiprompt.engine.generation import Stops, before
from multiprompt.engine.refusing import read_each
from multiprompt.engine.teaching import TrainingExample
from multiprompt.errors import DataError, MultipromptError
from multiprompt.tasks.example import Example, Query, predicted
from multiprompt.tasks.metric import per_example_scores
from multiprompt.tasks.task import Task

logger = logging.getLogger(__name__)


def continuations(task: Task, query: Query) -> tuple[str, ...]:
    """The texts that a query's choices are scored as."""
    return tuple(task.target_delimiter + choice for choice in query.choices or ())


def taught(base: BaseModel, task: Task, rows: Sequence[Example]) -> list[TrainingExample]:
    """Token ids of contexts, as in predicting, and of the right answers.

    A generated answer gets an end: a stop string that the tokenizer can write, or else an end token. Raises DataError
    where there is neither. The error for a row without tokens names it.
    """
    if not task.is_multiple_choice:
        _require_end(base, task)
    teach = _choices if task.is_multiple_choice else _texts

    def refuse(number: int, error: MultipromptError) -> None:
        raise named(rows[number].query, error)

    found = read_each(lambda some: teach(base, task, some), rows, refuse)
    return [example for example in found if example is not None]


def named(query: Query, error: MultipromptError) -> MultipromptError:
    """The error with the name of its row in front."""
    return type(error)(f"{query.where}: {error}")


def warn_of_lost_answers(
    base: BaseModel, task: Task, rows: Sequence[Example], examples: Sequence[TrainingExample]
) -> None:
    """Log the number of taught answers that generation would change, a line for each reason."""
    reasons: dict[str, list[Example]] = {}
    if not task.is_multiple_choice:
        stops = Stops.of(base, task.generation.until)
        for row, example in zip(rows, examples, strict=True):
            reasons.setdefault(_why_lost(base, task, stops, row, example.answer), []).append(row)
    reasons.pop("", None)
    for why, lost in reasons.items():
        logger.warning(
            "%s: %d of %d training answers cannot be given as they are, because of %s; the first is %s.",
            task.name, len(lost), len(rows), why, lost[0].query.where,
        )  # fmt: skip


def _why_lost(base: BaseModel, task: Task, stops: Stops, row: Example, tokens: Sequence[int]) -> str:
    """The reason why the right tokens generate another text than the row's answer; empty where they do not."""
    answer, limit = row.answer.strip(), task.generation.max_new_tokens
    given, _ = stops.cut(base, tokens)
    if answer not in base.decode(tokens, special=True):
        return "" if _may_be_right(task, row, given) else "the tokenizer, which reads them back as another text"
    if answer not in base.decode(tokens):
        return "a special token inside, which is no part of a generated text"
    if answer not in given:
        return "a stop string in front of their end (generation_kwargs.until)"
    if len(tokens) > limit and answer not in base.decode(tokens[:limit]):
        return f"generation_kwargs.max_gen_toks, which is {limit}"
    if not _may_be_right(task, row, given):
        return "filter_list, after which they are unequal (only remove_whitespace takes the target_delimiter off)"
    return ""


def _may_be_right(task: Task, row: Example, given: str) -> bool:
    """False where a generated text is wrong for a row. Metrics other than exact_match cannot say so."""
    metric, prediction = task.metrics[0], predicted(task, row.query, given)[0]
    return metric.metric != "exact_match" or per_example_scores(metric, [prediction], [row.answer]) != [0.0]


def _choices(base: BaseModel, task: Task, rows: Sequence[Example]) -> list[TrainingExample]:
    """Right choices. The wrong ones are encoded only where they may change a token, and once for each list."""
    right = [task.target_delimiter + row.answer for row in rows]
    first = {row.query.choices: number for number, row in reversed(list(enumerate(rows)))}
    scored = [
        continuations(task, row.query)
        if first[row.query.choices] == number or _may_merge(base, task, row.query.context)
        else (right[number],)
        for number, row in enumerate(rows)
    ]
    encoded = encode_choices(base, [row.query.context for row in rows], scored)
    return [
        TrainingExample(tuple(row.context), tuple(row.continuations[texts.index(text)]))
        for row, texts, text in zip(encoded, scored, right, strict=True)
    ]


def _may_merge(base: BaseModel, task: Task, context: str) -> bool:
    """True where a choice could merge with the last token of the context."""
    between = context[len(context.rstrip()) :] + task.target_delimiter
    return between[:1] != " " or not base.splits_at_spaces


def _texts(base: BaseModel, task: Task, rows: Sequence[Example]) -> list[TrainingExample]:
    until, stops = task.generation.until, _writable(base, task)
    token = () if stops else base.end_tokens[:1]
    answers = [row.answer + _stop(row.answer, until, stops) for row in rows]
    encoded = encode_answers(base, [row.query.context for row in rows], task.target_delimiter, answers)
    examples = [TrainingExample(tuple(context), (*answer, *token)) for context, answer in encoded]
    if not all(example.answer for example in examples):
        raise DataError("the answer and its end have no token.")
    return examples


def _require_end(base: BaseModel, task: Task) -> None:
    """Raises DataError for answers that could not end, BaseModelError for a base model that decodes otherwise."""
    sampling_of(base, task)
    if _writable(base, task) or base.end_tokens:
        return
    until = task.generation.until
    name = base.record.name
    empty = f"generation_kwargs.until is empty and {name}"
    reason = f"the tokenizer of {name} can write none of generation_kwargs.until and" if until else empty
    raise DataError(f"{task.name}: {reason} has no end token, so no answer could end: name a stop string.")


def _writable(base: BaseModel, task: Task) -> list[str]:
    """The stop strings that the tokenizer can write; some tokenizers have no line breaks or no capitals."""
    return [stop for stop in task.generation.until if stop in base.decode(base.encode_bare("a" + stop), special=True)]


def _stop(answer: str, until: Sequence[str], stops: Sequence[str]) -> str:
    """The stop string behind a taught answer: the first that the answer does not hold already, or else the first."""
    return next((stop for stop in stops if before(answer + stop, until) == answer), "".join(stops[:1]))
