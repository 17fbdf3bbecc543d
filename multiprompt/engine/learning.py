"""Learning: trained prompts from tasks' rows, with records of their runs."""

from __future__ import annotations

import hashlib
import json
import platform
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as library_version

from multiprompt.engine.answering import budget
from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import constant_tokens
from multiprompt.engine.inputs import taught, warn_of_lost_answers
from multiprompt.engine.prompt import SoftPrompt, new_prompt
from multiprompt.engine.teaching import TrainingExample
from multiprompt.engine.training import OnTraining, Training, train
from multiprompt.errors import DataError, TrainingError
from multiprompt.records import Run
from multiprompt.tasks.data import Split
from multiprompt.tasks.example import Example, constant_text, examples
from multiprompt.tasks.task import Task

_LIBRARIES = ("multiprompt", "torch", "transformers", "peft", "tokenizers", "datasets", "evaluate")

FindCheckpoint = Callable[[str, str], bytes | None]
KeepCheckpoint = Callable[[str, str, bytes], None]


@dataclass(frozen=True, eq=False)
class TrainingInput:
    """The task and rows of a training. The prompt starts as `start`, or else by the task file's `init`.

    A batch runs in `parts` of about equal size. More parts take less memory and change no step.
    """

    task: Task
    training: Split
    validation: Split
    start: SoftPrompt | None = None
    parts: int = 1


@dataclass(frozen=True, eq=False)
class TrainedPrompt:
    """A trained prompt and the record of its run."""

    prompt: SoftPrompt
    run: Run


def learn_prompts(
    base: BaseModel,
    inputs: Sequence[TrainingInput],
    on_step: OnTraining = lambda _: None,
    find: FindCheckpoint = lambda name, key: None,
    keep: KeepCheckpoint = lambda name, key, checkpoint: None,
) -> list[TrainedPrompt | TrainingError]:
    """Train a prompt for each task. All share passes over the base model; each ends as it would alone.

    A task whose loss is not finite gets its TrainingError. `keep` gets a checkpoint at each validation, under a key of
    all that the training depends on; `find` gives it back at the start. Raises DataError for a row that is not an
    example.
    """
    trainings, cut = [], []
    for asked in inputs:
        training, truncated = _prepare(base, asked)
        cut.append(truncated)
        trainings.append(training)
    keys = {id(t): _key(base, asked, t) for t, asked in zip(trainings, inputs, strict=True)}
    for training in trainings:
        checkpoint = find(training.name, keys[id(training)])
        if checkpoint is not None:
            training.restore(checkpoint)
    train(base, trainings, on_step, lambda training: keep(training.name, keys[id(training)], training.checkpoint()))
    return [
        training.failure or TrainedPrompt(training.result(), _run(base, asked, training, truncated))
        for asked, training, truncated in zip(inputs, trainings, cut, strict=True)
    ]


def _prepare(base: BaseModel, asked: TrainingInput) -> tuple[Training, int]:
    """The training of an input, and the number of its rows that were cut."""
    task, config = asked.task, asked.task.config
    prompt = new_prompt(base, config.prompt, task.description.source, config.training.seed, asked.start)
    room = budget(base, task, prompt.num_virtual_tokens)
    training = examples(task, asked.training, room)
    validation = examples(task, _sample(asked.validation, config.training.validation_rows, config.training.seed), room)
    constant = constant_tokens(base, constant_text(task))
    encoded, held_out = taught(base, task, training), taught(base, task, validation)
    for rows, taught_rows in ((training, encoded), (validation, held_out)):
        _require_room(base, rows, taught_rows, prompt.num_virtual_tokens)
    warn_of_lost_answers(base, task, training, encoded)
    truncated = sum(example.query.truncated for example in training)
    return Training(task.name, prompt, constant, encoded, held_out, config.recipe, asked.parts), truncated


def _run(base: BaseModel, asked: TrainingInput, training: Training, truncated: int) -> Run:
    return Run(
        settings={"prompt": asdict(asked.task.config.prompt), "training": asdict(training.config)},
        environment={
            **{name: library_version(name) for name in _LIBRARIES},
            "python": platform.python_version(),
            "device": base.device.type,
            "dtype": base.record.dtype,
            "forward": ": ".join(filter(None, (base.forward.name, base.forward.reason))),
        },
        training_data=asked.training.fingerprint,
        validation_data=asked.validation.fingerprint,
        losses=tuple(training.losses),
        validations=tuple((v.step, v.exact, v.loss) for v in training.validations),
        best_step=training.best.step,
        truncated=truncated,
        seconds=training.seconds,
    )


def _key(base: BaseModel, asked: TrainingInput, training: Training) -> str:
    """A digest of all that a training depends on, so that no other training takes its checkpoint."""
    start = hashlib.sha256()
    for name, tensor in training.prompt.module.state_dict().items():
        start.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    parts = {
        "base": base.record.identity,
        "task": [asked.task.fingerprint, asdict(asked.task.config.prompt), asdict(training.config)],
        "data": [asked.training.fingerprint, asked.validation.fingerprint],
        "start": start.hexdigest(),
        "library": [library_version(name) for name in _LIBRARIES],
    }
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _require_room(
    base: BaseModel, rows: Sequence[Example], examples: Sequence[TrainingExample], num_virtual_tokens: int
) -> None:
    """Raises DataError for a row that is longer than the model's longest input. Its last token is never read."""
    for row, example in zip(rows, examples, strict=True):
        if num_virtual_tokens + len(example) - 1 > base.max_tokens:
            raise DataError(
                f"{row.query.where}: its answer has {len(example.answer)} tokens behind {num_virtual_tokens} of prompt "
                f"and {len(example.context)} of text, but {base.record.name} takes {base.max_tokens}. Shorten the "
                "answer, or set generation_kwargs.max_gen_toks to its length, so that the text is cut."
            )


def _sample(split: Split, rows: int, seed: int) -> Split:
    if len(split.rows) <= rows:
        return split
    return Split(split.name, tuple(random.Random(seed).sample(split.rows, rows)))
