"""Answers to queries: rows of any tasks and prompts share one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from multiprompt.engine.base import BaseModel
from multiprompt.engine.choices import ChoiceRequest, score_choices
from multiprompt.engine.decoding import sampling_of
from multiprompt.engine.encoding import constant_tokens
from multiprompt.engine.generation import GenerationRequest, generate, stream
from multiprompt.engine.inputs import continuations, named
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.engine.refusing import Refuse, end_call
from multiprompt.errors import DataError, MultipromptError
from multiprompt.tasks.example import Budget, Query, constant_text, predicted
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Template

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Answer:
    """The answer by each metric of the task, a choice's index or a text; `output` is the first metric's.

    `scores` are the log-likelihoods (nats) of the choices. Under `acc_norm` the likeliest choice may not be the answer.
    """

    outputs: tuple[int | str, ...]
    scores: tuple[float, ...] | None = None

    @property
    def output(self) -> int | str:
        return self.outputs[0]

    def probabilities(self, choices: Sequence[str]) -> dict[str, float]:
        """Softmax of the log-likelihoods. Equal choices count once, so that the sum is one."""
        scores = dict(zip(choices, self.scores or (), strict=True))
        shares = torch.tensor(list(scores.values()), dtype=torch.float64).softmax(0).tolist()
        return dict(zip(scores, shares, strict=True))


@dataclass(frozen=True)
class Question:
    """A query of a task, answered behind a compiled prompt; `seed` is for sampling."""

    task: Task
    prefix: Prefix
    query: Query
    seed: int = 0


def compile_task(base: BaseModel, task: Task, prompt: SoftPrompt | None) -> Prefix:
    """The prefix of a task's rows: the soft prompt, then the template's constant text.

    Without a prompt it is the constant text alone, the hard prompt. Raises BaseModelError for a base model that decodes
    the task's answers otherwise.
    """
    if not task.is_multiple_choice:
        sampling_of(base, task)
    with torch.inference_mode():
        virtual = VirtualTokens() if prompt is None else prompt.virtual_tokens()
        return base.forward.compile_prefix(base, virtual, constant_tokens(base, constant_text(task)))


def budget(base: BaseModel, task: Task, num_virtual_tokens: int) -> Budget:
    """The most tokens that a row's context may have beside prompt and answer. Raises DataError where none are left."""
    longest = _answer_tokens(base, task)
    room = base.max_tokens - num_virtual_tokens - longest
    most = task.config.max_input_tokens
    limit = room if most is None else min(room, most)
    if limit < 1:
        raise DataError(
            f"{task.name}: {base.record.name} takes {base.max_tokens} tokens; {num_virtual_tokens} of prompt and "
            f"{longest} of the answer leave none for the text. Lower num_virtual_tokens or max_gen_toks, or shorten "
            "the longest choice."
        )
    return Budget(limit, base.count_tokens, room)


def answer(base: BaseModel, questions: Sequence[Question], advance: Advance = lambda _: None) -> list[Answer]:
    """Answer a mixed batch. A row's answer does not depend on the other rows. Raises an error that names its row."""
    return [found for found in answer_each(base, questions, end_call, advance) if found is not None]


def answer_each(
    base: BaseModel, questions: Sequence[Question], refuse: Refuse, advance: Advance = lambda _: None
) -> list[Answer | None]:
    """Answer a mixed batch; a row that fails is None, and `refuse` gets its number and error."""
    refused: set[int] = set()

    def fail(number: int, error: MultipromptError) -> None:
        refused.add(number)
        refuse(number, named(questions[number].query, error))

    found = _found(base, questions, fail, advance)
    return [
        None if number in refused else _answer(question, found[number], number, fail)
        for number, question in enumerate(questions)
    ]


def _found(
    base: BaseModel, questions: Sequence[Question], fail: Refuse, advance: Advance
) -> dict[int, str | list[float]]:
    """The model's output for each question: a text, or the log-likelihoods of its choices."""
    choosing = [i for i, question in enumerate(questions) if question.query.choices is not None]
    writing = [i for i, question in enumerate(questions) if question.query.choices is None]
    scores = score_choices(
        base, [_choice_request(questions[i]) for i in choosing], advance, lambda n, error: fail(choosing[n], error)
    )
    texts = generate(
        base,
        [_generation_request(base, questions[i]) for i in writing],
        advance,
        lambda n, error: fail(writing[n], error),
    )
    return {**dict(zip(choosing, scores, strict=True)), **dict(zip(writing, texts, strict=True))}


def _answer(question: Question, found: str | list[float], number: int, fail: Refuse) -> Answer | None:
    try:
        outputs = predicted(question.task, question.query, found)
    except DataError as error:
        fail(number, error)
        return None
    return Answer(outputs, None if isinstance(found, str) else tuple(found))


def stream_answer(base: BaseModel, question: Question) -> Iterator[str]:
    """A generated answer in pieces, before the task's filters."""
    return stream(base, _generation_request(base, question))


def _choice_request(question: Question) -> ChoiceRequest:
    return ChoiceRequest(question.prefix, question.query.context, continuations(question.task, question.query))


def _generation_request(base: BaseModel, question: Question) -> GenerationRequest:
    task, settings = question.task, question.task.generation
    sampling = sampling_of(base, task, question.seed)
    return GenerationRequest(question.prefix, question.query.context, settings.until, settings.max_new_tokens, sampling)


def _answer_tokens(base: BaseModel, task: Task) -> int:
    if not task.is_multiple_choice:
        return task.generation.max_new_tokens
    if isinstance(task.doc_to_choice, Template) or task.doc_to_choice is None:
        return 0  # they are counted row by row
    return max(base.count_tokens(task.target_delimiter + choice) for choice in task.doc_to_choice)
