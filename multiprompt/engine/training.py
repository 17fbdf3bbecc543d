"""Training a soft prompt: one prefix forward a step at batch 1 with gradient, then the rows against it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from multiprompt.config import TrainingConfig
from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import encode_pairs
from multiprompt.engine.forward import Row, batches, forward
from multiprompt.engine.prefix import Prefix, compile_prefix
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.errors import TrainingError

_BUCKETED_BATCHES = 8

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class TrainingExample:
    """Token ids of a context and of the answer that the prompt has to bring out."""

    context: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True)
class Validation:
    """How a prompt does on validation: the share of rows whose every answer token is the most likely, and the loss.

    For greedy generation that share is exact match; for multiple choice it is accuracy against the whole vocabulary.
    """

    step: int
    exact: float
    loss: float


@dataclass(frozen=True, eq=False)
class Trained:
    """The prompt at its best validation, and the curves that led there."""

    prompt: SoftPrompt
    losses: tuple[float, ...]
    validations: tuple[Validation, ...]
    best_step: int


def encode_examples(base: BaseModel, contexts: Sequence[str], answers: Sequence[str]) -> list[TrainingExample]:
    pairs = encode_pairs(base, contexts, answers)
    return [TrainingExample(tuple(context), tuple(answer)) for context, answer in pairs]


def train(
    base: BaseModel,
    prompt: SoftPrompt,
    constant: Sequence[int],
    training: Sequence[TrainingExample],
    validation: Sequence[TrainingExample],
    config: TrainingConfig,
    on_step: OnStep = lambda step, steps, loss: None,
) -> Trained:
    """Train with AdamW, warm-up, cosine decay, clipping and early stopping; keep the lowest validation loss.

    `constant` are the ids of the text that follows the prompt in every row. The loss is the mean cross-entropy over
    answer tokens. Raises TrainingError when the loss is not a finite number.
    """
    embeddings = prompt.embeddings.clone().requires_grad_()
    optimizer = torch.optim.AdamW([embeddings], lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, config))
    lengths = [len(example.context) + len(example.answer) for example in training]
    picks = _picks(lengths, config.batch_size, config.seed)
    best, best_embeddings = validate(base, embeddings, constant, validation, 0), embeddings.detach().clone()
    losses: list[float] = []
    validations = [best]
    for step in range(1, config.steps + 1):
        loss = _loss(base, embeddings, constant, [training[i] for i in next(picks)])
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {step} with learning rate {schedule.get_last_lr()[0]:.3g}: "
                "lower multiprompt.training.learning_rate, or use dtype float32."
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([embeddings], config.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        on_step(step, config.steps, losses[-1])
        if step % config.validate_every and step != config.steps:
            continue
        validations.append(validate(base, embeddings, constant, validation, step))
        if validations[-1].loss < best.loss:
            best, best_embeddings = validations[-1], embeddings.detach().clone()
        elif len(validations) - 1 - validations.index(best) >= config.patience:
            break
    return Trained(SoftPrompt(prompt.config, best_embeddings), tuple(losses), tuple(validations), best.step)


def validate(
    base: BaseModel, embeddings: Tensor, constant: Sequence[int], examples: Sequence[TrainingExample], step: int
) -> Validation:
    """Teacher-forced exactness and loss over all examples."""
    hits, total, count = 0, 0.0, 0
    with torch.inference_mode():
        prefix = compile_prefix(base, embeddings, constant)
        rows = [_row(prefix, example) for example in examples]
        for batch in batches([len(row) for row in rows]):
            logits, targets, owners = _answer_logits(base, [rows[i] for i in batch], [examples[i] for i in batch])
            total += functional.cross_entropy(logits, targets, reduction="sum").item()
            count += len(targets)
            missed = set(owners[logits.argmax(dim=-1) != targets].tolist())
            hits += len(batch) - len(missed)
    return Validation(step, hits / len(examples), total / count)


def _loss(base: BaseModel, embeddings: Tensor, constant: Sequence[int], batch: Sequence[TrainingExample]) -> Tensor:
    prefix = compile_prefix(base, embeddings, constant)
    logits, targets, _ = _answer_logits(base, [_row(prefix, example) for example in batch], batch)
    return functional.cross_entropy(logits, targets)


def _row(prefix: Prefix, example: TrainingExample) -> Row:
    """The last answer token is predicted, never read. Where the answer starts, the row must still be its own."""
    head = Row.of(prefix, example.context)
    return Row(prefix, head.shared, head.tokens + example.answer[:-1])


def _answer_logits(
    base: BaseModel, rows: Sequence[Row], examples: Sequence[TrainingExample]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (answer tokens, vocabulary) at the answers alone, their targets, and the row that each belongs to."""
    owners: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for r, (row, example) in enumerate(zip(rows, examples, strict=True)):
        owners += [r] * len(example.answer)
        columns += range(len(row) - len(example.answer), len(row))
        targets += example.answer
    hidden = forward(base, rows).hidden[owners, columns]
    return base.logits(hidden), torch.tensor(targets, device=base.device), torch.tensor(owners, device=base.device)


def _learning_rate_factor(step: int, config: TrainingConfig) -> float:
    warmup = math.ceil(config.warmup * config.steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def _picks(lengths: Sequence[int], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row indices, every row once an epoch, in an order that the seed fixes.

    Rows are sorted by length within some batches at a time, so that little of a batch is padding.
    """
    rng = random.Random(seed)
    window = batch_size * _BUCKETED_BATCHES
    queue: list[int] = []
    while True:
        while len(queue) < window:
            queue += rng.sample(range(len(lengths)), len(lengths))
        bucket, queue = sorted(queue[:window], key=lengths.__getitem__), queue[window:]
        starts = range(0, window, batch_size)
        yield from (bucket[start : start + batch_size] for start in rng.sample(starts, len(starts)))
