"""Training of soft prompts, one or several tasks at once.

The idea: the prefix of a task runs once a step, with its gradient, and the rows of the step attend to it. Several tasks
share passes over the weights. Each has its own loss, clipping and optimizer state, so it ends as it would alone.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from multiprompt.config import TrainingConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import Prefix
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.engine.teaching import TrainingExample, Validation, answer_logits, validate
from multiprompt.errors import TrainingError

# Tasks share a pass up to about this many tokens. Larger matrices are no faster, and activations fill memory.
logger = logging.getLogger(__name__)

# Tasks share a pass up to about this many tokens; beyond, larger matrices are no faster and activations fill memory.
MAX_PASS_TOKENS = 2048
_BUCKETED_BATCHES = 8


Part = tuple["Training", Sequence[TrainingExample]]
OnTraining = Callable[["Training"], None]


class Training:
    """The state of one task's training: parameters, optimizer, place in the data, and the best prompt so far.

    `constant` holds the token ids that follow the prompt in every row. The loss is the mean cross-entropy over a step's
    answer tokens. `config.learning_rate` must be set. Each batch runs in `parts` of about equal size.
    """

    def __init__(
        self,
        name: str,
        prompt: SoftPrompt,
        constant: Sequence[int],
        training: Sequence[TrainingExample],
        validation: Sequence[TrainingExample],
        config: TrainingConfig,
        parts: int = 1,
    ) -> None:
        assert config.learning_rate is not None, "TaskConfig.recipe fills it in"
        self.name = name
        self.prompt = prompt.copy()
        self.constant = tuple(constant)
        self.config = config
        self.step = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.validations: list[Validation] = []
        self.failure: TrainingError | None = None
        self._training, self._validation = training, validation
        self._rows_a_part = math.ceil(config.batch_size / parts)
        self._parameters = dict(self.prompt.module.named_parameters())
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=0.0, weight_decay=config.weight_decay)
        self._picks = picks([len(row) for row in training], config)
        self._best = self._copied()
        self._loss = 0.0

    @property
    def best(self) -> Validation:
        return min(self.validations, key=lambda validation: (math.isnan(validation.loss), validation.loss))

    @property
    def done(self) -> bool:
        """True after a failure, after all steps, or after `patience` validations without improvement."""
        if self.failure or self.step >= self.config.steps:
            return True
        stale = len(self.validations) - 1 - self.validations.index(self.best) if self.validations else 0
        return stale >= self.config.patience

    @property
    def due(self) -> bool:
        """True where a validation follows this step."""
        return self.step % self.config.validate_every == 0 or self.step == self.config.steps

    def result(self) -> SoftPrompt:
        """The prompt at its lowest validation loss. Raises TrainingError when training failed."""
        if self.failure:
            raise self.failure
        best = self.prompt.copy()
        best.module.load_state_dict(self._best)
        return best

    def prefix(self) -> Prefix:
        """Prompt and constant text, not compiled, with the gradient of the prompt's parameters."""
        return Prefix(self.prompt.virtual_tokens(), self.constant)

    def parts(self) -> list[Part]:
        """The rows of the next step, in parts of at most a batch."""
        rows = [self._training[i] for i in next(self._picks)]
        size = self._rows_a_part
        self._answer_tokens = sum(len(row.answer) for row in rows)
        return [(self, rows[start : start + size]) for start in range(0, len(rows), size)]

    def part_loss(self, total: Tensor) -> Tensor:
        """A part's share of the step's loss; its answer tokens cost `total` nats."""
        loss = total / self._answer_tokens
        self._loss += loss.item()
        return loss

    def update(self) -> None:
        """Clip the gradient and take the step. A loss that is not finite becomes the failure."""
        loss, self._loss = self._loss, 0.0
        rate = self.config.learning_rate * _decay(self.step, self.config)  # type: ignore[operator]
        self.step += 1
        if not math.isfinite(loss):
            self.failure = TrainingError(
                f"{self.name}: the loss is {loss} at step {self.step} with learning rate {rate:.3g}: "
                "lower multiprompt.training.learning_rate, or use dtype float32."
            )
            return
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.losses.append(loss)

    def validate(self, base: BaseModel) -> None:
        """Validate the prompt, and keep it if it is the best."""
        found = validate(base, self.prompt, self.constant, self._validation, self.step)
        self.validations.append(found)
        logger.info("%s: step %d of %d, validation loss %.4f", self.name, self.step, self.config.steps, found.loss)
        if self.best is self.validations[-1]:
            self._best = self._copied()

    def checkpoint(self) -> bytes:
        """The state as safetensors. The order of the rows is not in it; it follows from seed and step."""
        moments = self._optimizer.state_dict()["state"]
        tensors: dict[str, Tensor] = {f"parameter.{name}": value for name, value in self._parameters.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        tensors |= {f"adam.{i}.{name}": value for i, state in moments.items() for name, value in state.items()}
        progress = {
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "validations": [asdict(validation) for validation in self.validations],
        }
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return safetensors.torch.save(plain, metadata={"progress": json.dumps(progress)})

    def restore(self, checkpoint: bytes) -> None:
        """Continue from a checkpoint of the same prompt, data and settings, as if the training had never stopped."""
        tensors = safetensors.torch.load(checkpoint)
        progress = _progress(checkpoint)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
        self._best = {name: tensors[f"best.{name}"].to(value.device) for name, value in self._best.items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "adam":
                number, _, moment = rest.partition(".")
                moments.setdefault(int(number), {})[moment] = tensor
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})
        self.step, self.seconds, self.losses = progress["step"], progress["seconds"], progress["losses"]
        self.validations = [Validation(**validation) for validation in progress["validations"]]
        for _ in range(self.step):
            next(self._picks)

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.prompt.module.state_dict().items()}


def train(
    base: BaseModel,
    trainings: Sequence[Training],
    on_step: OnTraining = lambda _: None,
    on_validation: OnTraining = lambda _: None,
) -> None:
    """Train with AdamW, warm-up, cosine decay, clipping and early stopping, each task by its own settings.

    A task that fails (see `Training.failure`) leaves the others going.
    """
    for training in trainings:
        if not training.validations:
            training.validate(base)
    while active := [training for training in trainings if not training.done]:
        started = time.perf_counter()
        for parts in _passes([part for training in active for part in training.parts()]):
            _backward(base, parts)
        for training in active:
            training.update()
            training.seconds += (time.perf_counter() - started) / len(active)
            on_step(training)
        for training in active:
            if training.due and not training.failure:
                started = time.perf_counter()
                training.validate(base)
                training.seconds += time.perf_counter() - started
                on_validation(training)


def picks(lengths: Sequence[int], config: TrainingConfig) -> Iterator[list[int]]:
    """Row indices of each step, without end. Every row comes once an epoch; the seed fixes the order.

    The rows of some steps at a time are sorted by length, so that a step has rows of like length.
    """
    rng = random.Random(config.seed)
    size = config.batch_size * config.gradient_accumulation_steps
    window = size * max(1, min(_BUCKETED_BATCHES, len(lengths) // size))
    queue: list[int] = []
    while True:
        while len(queue) < window:
            queue += rng.sample(range(len(lengths)), len(lengths))
        bucket, queue = sorted(queue[:window], key=lengths.__getitem__), queue[window:]
        starts = range(0, window, size)
        yield from (bucket[start : start + size] for start in rng.sample(starts, len(starts)))


def _passes(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts in their order, as many as fit in a pass, and never two of one task."""
    waiting = list(parts)
    while waiting:
        taken: list[Part] = []
        tokens = 0
        for part in list(waiting):
            size = part[0].prompt.num_virtual_tokens + sum(map(len, part[1]))
            if taken and (tokens + size > MAX_PASS_TOKENS or any(part[0] is other for other, _ in taken)):
                continue
            tokens += size
            taken.append(part)
            waiting.remove(part)
        yield taken


def _backward(base: BaseModel, parts: Sequence[Part]) -> None:
    """One pass: it adds the gradient of each part's loss to that of its task's parameters."""
    logits, targets, owners = answer_logits(base, [(training.prefix(), rows) for training, rows in parts])
    costs = functional.cross_entropy(logits, targets, reduction="none")
    ends = torch.tensor([len(rows) for _, rows in parts], device=owners.device).cumsum(0)
    owner = torch.searchsorted(ends, owners, right=True)
    losses = [training.part_loss(costs[owner == i].sum()) for i, (training, _) in enumerate(parts)]
    torch.stack(losses).sum().backward()


def _decay(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a half cosine, as a share of the learning rate (Loshchilov & Hutter 2017)."""
    warmup = math.ceil(config.warmup * config.steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def _progress(checkpoint: bytes) -> Any:
    header = json.loads(checkpoint[8 : 8 + int.from_bytes(checkpoint[:8], "little")])
    return json.loads(header["__metadata__"]["progress"])
