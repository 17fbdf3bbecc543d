"""Teacher forcing: the logits at the tokens of right answers, and a prompt's loss and exactness on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import encode_pairs
from multiprompt.engine.prefix import Prefix
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.engine.rows import Row, batches


@dataclass(frozen=True)
class TrainingExample:
    """Token ids of a context and of its right answer."""

    context: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.context) + len(self.answer)


@dataclass(frozen=True)
class Validation:
    """A prompt's loss, and its exactness: the share of rows where each answer token is the likeliest.

    For greedy generation that is exact match. For multiple choice it is accuracy against the whole vocabulary.
    """

    step: int
    exact: float
    loss: float


def encode_examples(base: BaseModel, contexts: Sequence[str], answers: Sequence[str]) -> list[TrainingExample]:
    pairs = encode_pairs(base, contexts, answers)
    return [TrainingExample(tuple(context), tuple(answer)) for context, answer in pairs]


def validate(
    base: BaseModel, prompt: SoftPrompt, constant: Sequence[int], examples: Sequence[TrainingExample], step: int
) -> Validation:
    """Exactness and loss over all examples, in nats a token of an answer."""
    hits, total, count = 0, 0.0, 0
    with torch.inference_mode():
        prefix = base.forward.compile_prefix(base, prompt.virtual_tokens(), constant)
        lengths = [len(_row(prefix, example)) for example in examples]
        for batch in batches(lengths):
            logits, targets, owners = answer_logits(base, [(prefix, [examples[i] for i in batch])])
            total += functional.cross_entropy(logits, targets, reduction="sum").item()
            count += len(targets)
            hits += len(batch) - len(set(owners[logits.argmax(dim=-1) != targets].tolist()))
    return Validation(step, hits / len(examples), total / count)


def answer_logits(
    base: BaseModel, parts: Sequence[tuple[Prefix, Sequence[TrainingExample]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at the answers alone, (answer tokens, vocabulary), with the target and the row of each."""
    examples = [example for _, group in parts for example in group]
    rows = [_row(prefix, example) for prefix, group in parts for example in group]
    hidden = base.forward.run(base, rows)
    columns: list[int] = []
    owners: list[int] = []
    for r, (start, row, example) in enumerate(zip(hidden.starts, rows, examples, strict=True)):
        end = start + len(row)
        columns += range(end - len(example.answer), end)
        owners += [r] * len(example.answer)
    targets = [token for example in examples for token in example.answer]
    states = hidden.states[torch.tensor(columns, device=base.device)]
    return base.logits(states), torch.tensor(targets, device=base.device), torch.tensor(owners, device=base.device)


def _row(prefix: Prefix, example: TrainingExample) -> Row:
    """The row of an example, without the last token of its answer, which is predicted and never read."""
    head = Row.of(prefix, example.context)
    return Row(prefix, head.shared, head.tokens + example.answer[:-1])
