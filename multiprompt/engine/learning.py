"""Learning: a task's rows to a trained prompt and the record of its run."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version as library_version

from multiprompt.engine.answering import budget
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import constant_tokens
from multiprompt.engine.prompt import SoftPrompt, new_prompt
from multiprompt.engine.training import TrainingExample, encode_examples, train
from multiprompt.records import Run
from multiprompt.tasks.example import Example, constant_text, examples
from multiprompt.tasks.split import Split, TaskData
from multiprompt.tasks.task import Task

OnStep = Callable[[int, int], None]
_LIBRARIES = ("multiprompt", "torch", "transformers", "peft", "tokenizers", "datasets", "evaluate")


@dataclass(frozen=True, eq=False)
class Learned:
    """A trained prompt and how it came about."""

    prompt: SoftPrompt
    run: Run


def learn_prompt(base: BaseModel, task: Task, data: TaskData, on_step: OnStep = lambda done, total: None) -> Learned:
    """Train a prompt for a task. Raises DataError for a row that is no example, TrainingError for a NaN loss."""
    started = time.perf_counter()
    config = task.config
    prompt = new_prompt(base, config.prompt, task.description.source, config.training.seed)
    room = budget(base, task, prompt.num_virtual_tokens)
    training = examples(task, data.training, room)
    validation = examples(task, _sample(data.validation, config.training.validation_rows, config.training.seed), room)
    trained = train(
        base,
        prompt,
        constant_tokens(base, constant_text(task)),
        _encode(base, task, training),
        _encode(base, task, validation),
        config.training,
        lambda step, steps, loss: on_step(step, steps),
    )
    run = Run(
        settings={"prompt": asdict(config.prompt), "training": asdict(config.training)},
        environment={
            **{name: library_version(name) for name in _LIBRARIES},
            "python": platform.python_version(),
            "device": base.device.type,
            "dtype": base.record.dtype,
        },
        training_data=data.training.fingerprint,
        validation_data=data.validation.fingerprint,
        losses=trained.losses,
        validations=tuple((v.step, v.exact, v.loss) for v in trained.validations),
        best_step=trained.best_step,
        truncated=sum(example.query.truncated for example in training),
        seconds=time.perf_counter() - started,
    )
    return Learned(trained.prompt, run)


def _encode(base: BaseModel, task: Task, rows: Sequence[Example]) -> list[TrainingExample]:
    """Answers as the model has to write them; a generated one ends with the first stop string, or the end token."""
    end = ""
    if not task.is_multiple_choice:
        end = task.generation.until[0] if task.generation.until else str(base.tokenizer.eos_token)
    answers = [task.target_delimiter + row.answer + end for row in rows]
    return encode_examples(base, [row.query.context for row in rows], answers)


def _sample(split: Split, rows: int, seed: int) -> Split:
    if len(split.rows) <= rows:
        return split
    return Split(split.name, tuple(random.Random(seed).sample(split.rows, rows)))
