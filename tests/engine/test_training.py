"""Training a prompt: the gradient is exact, the best prompt is kept, the base model stays frozen."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from multiprompt.config import PromptConfig, TrainingConfig
from multiprompt.engine import training
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import constant_tokens
from multiprompt.engine.prompt import SoftPrompt, new_prompt
from multiprompt.engine.training import TrainingExample, encode_examples, train
from multiprompt.errors import TrainingError
from tests.engine.reference import plain_logits

CONSTANT = "Which colour? "
CONFIG = TrainingConfig(steps=12, batch_size=4, learning_rate=0.05, validate_every=4)


@pytest.fixture
def soft(base: BaseModel) -> SoftPrompt:
    return new_prompt(base, PromptConfig(num_virtual_tokens=5), "Which colour is it?", seed=0)


@pytest.fixture
def rows(base: BaseModel) -> list[TrainingExample]:
    texts = ["sky", "the deep blue sea", "rose 3", "a"] * 4
    return encode_examples(base, [CONSTANT + text for text in texts], [" blue", " green ish", " red", " blue"] * 4)


def test_loss_and_gradient_equal_those_of_the_plain_forward(
    base: BaseModel, soft: SoftPrompt, rows: list[TrainingExample]
) -> None:
    shared = soft.embeddings.clone().requires_grad_()
    loss = training._loss(base, shared, constant_tokens(base, CONSTANT), rows[:4])
    loss.backward()

    plain = soft.embeddings.clone().requires_grad_()
    logits, targets = [], []
    for row in rows[:4]:
        logits.append(plain_logits(base, plain, [*row.context, *row.answer])[len(row.context) - 1 : -1])
        targets += row.answer
    expected = functional.cross_entropy(torch.cat(logits), torch.tensor(targets))
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(shared.grad, plain.grad, rtol=1e-4, atol=1e-6)


def test_training_lowers_the_loss_and_keeps_the_best_prompt(
    base: BaseModel, soft: SoftPrompt, rows: list[TrainingExample]
) -> None:
    constant = constant_tokens(base, CONSTANT)
    trained = train(base, soft, constant, rows, rows, CONFIG)
    losses = [validation.loss for validation in trained.validations]
    assert [validation.step for validation in trained.validations] == [0, 4, 8, 12]
    assert min(losses) < losses[0]
    best = min(trained.validations, key=lambda validation: validation.loss)
    assert trained.best_step == best.step
    again = training.validate(base, trained.prompt.embeddings, constant, rows, 0)
    assert again.loss == pytest.approx(best.loss, rel=1e-5)


def test_a_seed_fixes_the_result(base: BaseModel, soft: SoftPrompt, rows: list[TrainingExample]) -> None:
    def learned(seed: int) -> torch.Tensor:
        return train(base, soft, [], rows, rows, dataclasses.replace(CONFIG, seed=seed)).prompt.embeddings

    assert torch.equal(learned(1), learned(1))
    assert not torch.equal(learned(1), learned(2))


def test_training_moves_the_prompt_and_nothing_of_the_base_model(
    base: BaseModel, soft: SoftPrompt, rows: list[TrainingExample]
) -> None:
    before = {name: parameter.clone() for name, parameter in base.model.named_parameters()}
    start = soft.embeddings.clone()
    trained = train(base, soft, [], rows, rows, CONFIG)
    assert torch.equal(soft.embeddings, start)
    assert not torch.equal(trained.prompt.embeddings, start)
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.model.named_parameters())
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_training_stops_early_when_validation_does_not_improve(
    base: BaseModel, soft: SoftPrompt, rows: list[TrainingExample]
) -> None:
    still = dataclasses.replace(CONFIG, steps=100, learning_rate=0.0, validate_every=2, patience=3)
    trained = train(base, soft, [], rows, rows, still)
    assert len(trained.losses) == 6
    assert trained.best_step == 0


def test_a_loss_that_is_not_a_number_names_step_and_learning_rate(
    base: BaseModel, soft: SoftPrompt, rows: list[TrainingExample]
) -> None:
    broken = SoftPrompt(soft.config, torch.full_like(soft.embeddings, torch.inf))
    with pytest.raises(TrainingError, match=r"loss is nan at step 1 with learning rate .*lower .*learning_rate"):
        train(base, broken, [], rows, rows, CONFIG)


def test_every_row_is_seen_once_an_epoch_in_batches_of_like_length() -> None:
    lengths = [row % 8 for row in range(32)]
    picks = training._picks(lengths, 4, seed=3)
    first, second = ([next(picks) for _ in range(8)] for _ in range(2))
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(32))
        assert all(len({lengths[row] for row in batch}) == 1 for batch in epoch)
    assert first != second
    assert [lengths[batch[0]] for batch in first] != list(range(8)), "short rows do not come first"
