"""Every method of a task file has a kind, and each kind brings a prompt from its start to its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multiprompt.config import METHODS, PromptConfig
from multiprompt.engine import kinds
from multiprompt.engine.adapter import from_adapter, to_adapter, trainable
from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds import KINDS, method_of
from multiprompt.engine.kinds.kind import EMBEDDINGS, Kind, table
from multiprompt.engine.prompt import SoftPrompt, empty_prompt, new_prompt

LENGTH = 6
GIVEN = {"tokens": {"init_tokens": (7, 8)}, "version": {"init_version": "other@1"}}
STARTS = [(method, init) for method in METHODS for init in METHODS[method].inits]


def started(base: BaseModel, method: str, init: str) -> tuple[PromptConfig, SoftPrompt]:
    config = PromptConfig(method=method, num_virtual_tokens=LENGTH, init=init, **GIVEN.get(init, {}))
    other = PromptConfig(method=method, num_virtual_tokens=LENGTH, init="random")
    start = new_prompt(base, other, "", 1) if init == "version" else None
    return config, new_prompt(base, config, "Which colour is it?", 2, start)


def test_every_method_of_a_task_file_has_a_kind_in_a_module_of_its_name() -> None:
    assert set(KINDS) == set(METHODS)
    assert all(isinstance(kind, Kind) for kind in KINDS.values())
    assert [method_of(kind.peft_config()) for kind in KINDS.values()] == list(KINDS)
    modules = {path.stem.replace("_", "-") for path in Path(str(kinds.__file__)).parent.glob("*.py")}
    assert modules - {"--init--", "kind"} == set(METHODS)


@pytest.mark.parametrize(("method", "init"), STARTS)
def test_each_start_that_a_task_file_may_name_gives_a_prompt_of_finite_numbers(
    base: BaseModel, method: str, init: str
) -> None:
    config, prompt = started(base, method, init)
    assert prompt.method == method
    assert prompt.virtual_tokens().length == len(table(prompt.module)) == LENGTH
    assert prompt.output().isfinite().all()
    assert prompt.has_shape_of(empty_prompt(base, config))


@pytest.mark.parametrize("method", METHODS)
def test_each_kind_makes_files_that_it_reads_back(base: BaseModel, method: str) -> None:
    _, prompt = started(base, method, "random")
    adapter = to_adapter(prompt)
    assert EMBEDDINGS in prompt.kind.weights(prompt.config, prompt.module)
    assert (adapter.encoder is not None) == prompt.is_encoded
    for read in (from_adapter, trainable):
        assert torch.equal(read(base, adapter, "mine").output(), prompt.output())


@pytest.mark.parametrize("method", METHODS)
def test_each_kind_starts_from_its_own_virtual_tokens(base: BaseModel, method: str) -> None:
    _, prompt = started(base, method, "random")
    with torch.no_grad():
        found = prompt.kind.start(base, prompt.virtual_tokens())
    assert found is not None
    assert torch.equal(found, prompt.output())


@pytest.mark.parametrize("method", METHODS)
def test_no_size_that_an_adapter_may_ask_for_is_below_the_task_files(base: BaseModel, method: str) -> None:
    largest = {"encoder_hidden_size": 16384, "encoder_num_layers": 16, "num_ranks": 256}
    config = KINDS[method].settings(base, PromptConfig(method=method), "a text")
    bounds = KINDS[method].bounds
    assert dict(bounds) == {name: largest[name] for name in config.keys() & largest.keys()}


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_has_no_shape_of_a_longer_one_or_of_another_method(base: BaseModel, method: str) -> None:
    _, prompt = started(base, method, "random")
    assert not prompt.has_shape_of(empty_prompt(base, PromptConfig(method=method, num_virtual_tokens=LENGTH + 1)))
    for other in METHODS.keys() - {method}:
        assert not prompt.has_shape_of(empty_prompt(base, PromptConfig(method=other, num_virtual_tokens=LENGTH)))
