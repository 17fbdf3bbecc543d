"""Training prompts: gradients are exact, the best prompt is kept, tasks share passes and nothing else, and a training
that was broken off goes on as if it had not been."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from torch.nn import functional
from transformers import AutoModelForCausalLM

from multiprompt.config import TrainingConfig
from multiprompt.engine import training
from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import constant_tokens
from multiprompt.engine.packed import PackedForward
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.engine.rows import Row
from multiprompt.engine.teaching import TrainingExample, encode_examples, validate
from multiprompt.engine.training import Training, picks, train
from multiprompt.errors import TrainingError
from tests.engine.test_prompt import METHODS, made

CONSTANT = "Which colour? "
CONFIG = TrainingConfig(steps=12, batch_size=4, learning_rate=0.05, validate_every=4)
TEXTS = ("sky", "the deep blue sea", "rose 3", "a")
ANSWERS = (" blue", " green ish", " red", " blue")


def prepared(
    base: BaseModel,
    method: str = "prompt tuning",
    name: str = "colour",
    constant: str = CONSTANT,
    prompt: SoftPrompt | None = None,
    **changes: Any,
) -> Training:
    rows = encode_examples(base, [constant + text for text in TEXTS * 4], ANSWERS * 4)
    config = dataclasses.replace(CONFIG, **changes)
    prompt = prompt or made(base, method, num_virtual_tokens=5)
    return Training(name, prompt, constant_tokens(base, constant), rows, rows, config)


def trained(base: BaseModel, *args: Any, **changes: Any) -> Training:
    task = prepared(base, *args, **changes)
    train(base, [task])
    return task


def parameters(prompt: SoftPrompt) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in prompt.module.state_dict().items()}


def same(left: SoftPrompt, right: SoftPrompt) -> bool:
    ours, theirs = parameters(left), parameters(right)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def by_peft(
    tiny_model: Path, prompt: SoftPrompt, rows: Sequence[TrainingExample]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients by PEFT's own forward, one unpadded row after another."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), copy.deepcopy(prompt.config)).eval()
    encoder = model.prompt_encoder["default"]
    encoder.load_state_dict(prompt.module.state_dict())
    task = {"task_ids": torch.zeros(1, dtype=torch.long)} if prompt.method.startswith("multitask") else {}
    losses = []
    for row in rows:
        logits = model(input_ids=torch.tensor([[*row.context, *row.answer]]), **task).logits[0]
        answers = logits[-len(row.answer) - 1 : -1]
        losses.append(functional.cross_entropy(answers, torch.tensor(row.answer), reduction="sum"))
    loss = torch.stack(losses).sum() / sum(len(row.answer) for row in rows)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in encoder.named_parameters()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("constant", ["", CONSTANT])
@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_those_of_pefts_own_forward(
    base: BaseModel, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str, constant: str
) -> None:
    monkeypatch.setattr(training, "picks", lambda lengths, config: iter([list(range(len(lengths)))]))
    rows = encode_examples(base, [constant + text for text in TEXTS], ANSWERS)
    given = {"init": "tokens", "init_tokens": (40, 41, 42)} if method.startswith("multi") else {"init": "random"}
    start = made(base, method, num_virtual_tokens=5, **given)
    config = dataclasses.replace(CONFIG, batch_size=len(rows))
    ours = Training("colour", start, constant_tokens(base, constant), rows, rows, config)
    training._backward(base, ours.parts())
    found = {name: parameter.grad.clone() for name, parameter in ours.prompt.module.named_parameters()}
    ours.update()

    loss, gradients = by_peft(tiny_model, start, rows)
    assert ours.losses == [pytest.approx(loss, rel=1e-4)]
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name
        assert gradient.norm() > 0, name


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_and_keeps_the_best_prompt(base: BaseModel, method: str) -> None:
    task = trained(base, method, learning_rate=0.01 if method.startswith("p-tuning") else 0.05)
    losses = [validation.loss for validation in task.validations]
    assert [validation.step for validation in task.validations] == [0, 4, 8, 12]
    assert len(task.losses) == 12
    assert min(losses) < losses[0]
    assert task.best.loss == min(losses)
    again = validate(base, task.result(), task.constant, prepared(base)._validation, 0)
    assert again.loss == pytest.approx(task.best.loss, rel=1e-5)
    assert 0 <= task.best.exact <= 1


def test_a_prompt_that_only_gets_worse_comes_out_as_it_went_in(base: BaseModel) -> None:
    good = trained(base).result()
    task = trained(base, prompt=good, learning_rate=50.0, warmup=0.0)
    assert task.best.step == 0
    assert same(task.result(), good)
    assert not same(task.prompt, good)


def test_a_seed_fixes_the_result(base: BaseModel) -> None:
    first, again, other = (trained(base, seed=seed) for seed in (1, 1, 2))
    assert same(first.result(), again.result())
    assert first.losses == again.losses
    assert first.losses != other.losses


def test_training_moves_the_prompt_and_nothing_of_the_base_model(base: BaseModel) -> None:
    before = {name: parameter.clone() for name, parameter in base.model.named_parameters()}
    prompt = made(base, "prompt tuning")
    start = parameters(prompt)
    task = trained(base, prompt=prompt)
    assert torch.equal(prompt.output(), start["embedding.weight"])
    assert not same(task.result(), prompt)
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.model.named_parameters())
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_training_stops_early_when_validation_does_not_improve(base: BaseModel) -> None:
    task = trained(base, steps=100, learning_rate=0.0, validate_every=2, patience=3)
    assert len(task.losses) == 6
    assert task.best.step == 0


def broken(base: BaseModel) -> SoftPrompt:
    prompt = made(base, "prompt tuning", num_virtual_tokens=5)
    with torch.no_grad():
        prompt.module.embedding.weight.fill_(torch.inf)
    return prompt


def test_a_loss_that_is_not_a_number_names_task_step_and_learning_rate(base: BaseModel) -> None:
    task = trained(base, prompt=broken(base))
    assert task.done
    message = r"colour: the loss is nan at step 1 with learning rate 0\.025: lower .*learning_rate"
    with pytest.raises(TrainingError, match=message):
        task.result()


def test_small_batches_that_are_accumulated_are_one_large_batch(base: BaseModel) -> None:
    whole = trained(base, batch_size=8)
    parts = trained(base, batch_size=4, gradient_accumulation_steps=2)
    uneven = trained(base, batch_size=2, gradient_accumulation_steps=4)
    for other in (parts, uneven):
        assert other.losses == pytest.approx(whole.losses, rel=1e-5)
        assert [v.loss for v in other.validations] == pytest.approx([v.loss for v in whole.validations], rel=1e-5)
        torch.testing.assert_close(other.result().output(), whole.result().output(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("batch", "parts"), [(12, 2), (12, 8), (7, 2), (7, 4), (5, 16), (4, 1)])
def test_a_batch_in_parts_is_the_same_step(base: BaseModel, batch: int, parts: int) -> None:
    whole = prepared(base, batch_size=batch, steps=3)
    divided = Training("colour", whole.prompt, whole.constant, whole._training, whole._validation, whole.config, parts)
    sizes = [len(rows) for _, rows in divided.parts()]
    assert sum(sizes) == batch
    assert max(sizes) == -(-batch // min(parts, batch))
    divided = Training("colour", whole.prompt, whole.constant, whole._training, whole._validation, whole.config, parts)
    train(base, [whole, divided])
    assert divided.losses == pytest.approx(whole.losses, rel=1e-4)
    for name, value in parameters(whole.prompt).items():
        assert torch.allclose(parameters(divided.prompt)[name], value, atol=1e-3)


def mixed(base: BaseModel) -> list[Training]:
    """Three tasks that have nothing in common, one of which stops early."""
    return [
        prepared(base, "prompt tuning", "first", steps=10, patience=9),
        prepared(
            base, "p-tuning by LSTM", "second", "", learning_rate=0.005, batch_size=3, validate_every=3, patience=9
        ),
        prepared(
            base,
            "prefix tuning",
            "third",
            "A much longer text that stands in front: ",
            prompt=made(base, "prefix tuning", num_virtual_tokens=9),
            learning_rate=0.0,
            batch_size=5,
            gradient_accumulation_steps=2,
            validate_every=2,
            patience=2,
        ),
        prepared(base, "multitask prompt tuning", "fourth", "Say: ", steps=7, validate_every=5, weight_decay=0.1),
    ]


def assert_as_alone(together: Sequence[Training], alone: Sequence[Training]) -> None:
    for ours, theirs in zip(together, alone, strict=True):
        assert len(ours.losses) == len(theirs.losses) == ours.step
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
        assert [v.step for v in ours.validations] == [v.step for v in theirs.validations]
        assert [v.exact for v in ours.validations] == [v.exact for v in theirs.validations]
        assert [v.loss for v in ours.validations] == pytest.approx([v.loss for v in theirs.validations], rel=1e-4)
        assert ours.best.step == theirs.best.step
        torch.testing.assert_close(ours.result().output(), theirs.result().output(), rtol=1e-3, atol=1e-3)


def test_tasks_in_the_same_passes_end_as_each_would_alone(base: BaseModel) -> None:
    together, alone = mixed(base), mixed(base)
    train(base, together)
    for task in alone:
        train(base, [task])
    assert_as_alone(together, alone)
    assert [task.step for task in together] == [10, 12, 4, 7]


def test_a_task_that_fails_leaves_the_others_as_they_would_be_alone(base: BaseModel) -> None:
    together, alone = mixed(base), mixed(base)
    failing = prepared(base, name="failing", prompt=broken(base))
    train(base, [*together[:2], failing, *together[2:]])
    train(base, alone)
    assert_as_alone(together, alone)
    assert failing.failure is not None
    assert failing.losses == []


def packed_tokens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Tokens and prompts of each pass that trains, filled as passes are run."""
    passes: list[tuple[int, int]] = []
    real = PackedForward.run

    def run(forward: PackedForward, base: BaseModel, rows: Sequence[Row]) -> Any:
        prefixes = {id(row.prefix): row.prefix for row in rows if row.prefix.compiled is None}
        if prefixes:
            tokens = sum(prefix.length for prefix in prefixes.values()) + sum(map(len, rows))
            passes.append((tokens, len(prefixes)))
        return real(forward, base, rows)

    monkeypatch.setattr(PackedForward, "run", run)
    return passes


def test_no_pass_is_larger_than_the_limit_unless_one_batch_is(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, limited = mixed(base), mixed(base)
    passes = packed_tokens(monkeypatch)
    train(base, expected)
    assert max(prompts for _, prompts in passes) == 4, "tasks share passes"
    passes.clear()
    monkeypatch.setattr(training, "MAX_PASS_TOKENS", 100)
    train(base, limited)
    assert all(tokens <= 100 or prompts == 1 for tokens, prompts in passes)
    assert {prompts for _, prompts in passes} >= {1, 2}
    assert_as_alone(limited, expected)


@pytest.mark.parametrize("method", ["prompt tuning", "p-tuning by LSTM", "prefix tuning"])
def test_a_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(base: BaseModel, method: str) -> None:
    changes = {"validate_every": 3, "gradient_accumulation_steps": 2, "weight_decay": 0.01}
    whole = trained(base, method, **changes)
    for stop in (validation.step for validation in whole.validations[1:]):
        kept: list[bytes] = []

        def keep(task: Training, stop: int = stop, kept: list[bytes] = kept) -> None:
            if task.step == stop:
                kept.append(task.checkpoint())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(base, [prepared(base, method, **changes)], on_validation=keep)
        resumed = prepared(base, method, **changes)
        resumed.restore(kept[0])
        assert resumed.step == stop
        steps: list[int] = []
        train(base, [resumed], on_step=lambda task, steps=steps: steps.append(task.step))
        assert steps == list(range(stop + 1, 13))
        assert resumed.losses == whole.losses
        assert resumed.validations == whole.validations
        assert same(resumed.prompt, whole.prompt)
        assert same(resumed.result(), whole.result())


def test_a_restored_task_trains_beside_a_new_one_as_it_would_alone(base: BaseModel) -> None:
    checkpoints: list[bytes] = []
    whole = prepared(base)
    train(base, [whole], on_validation=lambda task: checkpoints.append(task.checkpoint()))
    resumed, other = prepared(base), prepared(base, "p-tuning by MLP", "other", learning_rate=0.005)
    resumed.restore(checkpoints[0])
    train(base, [other, resumed])
    assert_as_alone([resumed, other], [whole, trained(base, "p-tuning by MLP", "other", learning_rate=0.005)])


def test_every_row_is_seen_once_an_epoch_in_batches_of_like_length() -> None:
    lengths = [row % 8 for row in range(32)]
    steps = picks(lengths, TrainingConfig(batch_size=4, seed=3))
    first, second = ([next(steps) for _ in range(8)] for _ in range(2))
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == list(range(32))
        assert all(len({lengths[row] for row in batch}) == 1 for batch in epoch)
    assert first != second
    assert [lengths[batch[0]] for batch in first] != list(range(8)), "short rows do not come first"


def test_a_step_takes_no_row_twice_while_there_are_rows_enough() -> None:
    """A step of two rows, four times each, has the noise of a step of two."""
    steps = picks(list(range(1, 17)), TrainingConfig(batch_size=8))
    assert [len(set(next(steps))) for _ in range(8)] == [8] * 8


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, database=None)
def test_no_row_is_ever_an_epoch_ahead_of_another(lengths: list[int], batch: int, accumulated: int, seed: int) -> None:
    config = TrainingConfig(batch_size=batch, gradient_accumulation_steps=accumulated, seed=seed)
    steps, again = picks(lengths, config), picks(lengths, config)
    seen = [0] * len(lengths)
    bucketed = max(1, min(training._BUCKETED_BATCHES, len(lengths) // (batch * accumulated)))
    for _ in range(4):
        window = [next(steps) for _ in range(bucketed)]
        assert window == [next(again) for _ in range(bucketed)]
        assert all(len(step) == batch * accumulated for step in window)
        for row in (row for step in window for row in step):
            seen[row] += 1
        assert max(seen) - min(seen) <= 1
