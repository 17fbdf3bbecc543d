"""Validation gives the loss and the exactness that the plain forward gives, row by row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import constant_tokens
from multiprompt.engine.teaching import TrainingExample, encode_examples, validate
from tests.engine.reference import plain_logits
from tests.engine.test_prompt import made

CONSTANT = "Which colour? "
TEXTS = ("sky", "the deep blue sea", "rose 3", "a", "is the sea as blue as the sky?")
ANSWERS = (" blue", " green ish", " red", " blue", " green")


def test_validation_is_the_mean_loss_of_answer_tokens_and_the_share_of_exact_rows(base: BaseModel) -> None:
    prompt = made(base, "prompt tuning", init="random")
    rows = encode_examples(base, [CONSTANT + text for text in TEXTS], ANSWERS)
    found = validate(base, prompt, constant_tokens(base, CONSTANT), rows, 7)

    losses: list[float] = []
    for row in rows:
        logits = plain_logits(base, prompt.output(), [*row.context, *row.answer])[-len(row.answer) - 1 : -1]
        losses += functional.cross_entropy(logits, torch.tensor(row.answer), reduction="none").tolist()
    assert (found.step, found.exact) == (7, 0.0)
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_row_is_exact_where_every_token_of_its_answer_is_the_likeliest(base: BaseModel) -> None:
    prompt = made(base, "prompt tuning", init="random")
    rows = encode_examples(base, [CONSTANT + text for text in TEXTS], ANSWERS)
    context = rows[0].context
    for _ in range(2):
        likeliest = int(plain_logits(base, prompt.output(), context)[-1].argmax())
        context = (*context, likeliest)
    right = TrainingExample(rows[0].context, context[-2:])
    half = TrainingExample(rows[0].context, (context[-2], (context[-1] + 1) % base.vocabulary))
    groups = ([right], [half], [right, half], [half, right, right])
    exact = [validate(base, prompt, (), group, 0).exact for group in groups]
    assert exact == [1.0, 0.0, 0.5, pytest.approx(2 / 3)]
