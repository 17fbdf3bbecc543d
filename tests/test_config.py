"""Settings: each wrong type and each value out of range is named with its bounds."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.config import METHODS, PromptConfig, RegressionConfig, TaskConfig, TrainingConfig
from multiprompt.errors import ConfigError

# name: (section, lowest, highest)
RANGES: dict[str, tuple[str, float, float]] = {
    "num_virtual_tokens": ("", 1, 1000),
    "encoder_hidden_size": ("", 1, 16384),
    "encoder_layers": ("", 1, 16),
    "num_ranks": ("", 1, 256),
    "max_input_tokens": ("", 1, 10_000_000),
    "steps": ("training", 1, 1_000_000),
    "batch_size": ("training", 1, 4096),
    "gradient_accumulation_steps": ("training", 1, 4096),
    "learning_rate": ("training", 0.0, 100.0),
    "warmup": ("training", 0.0, 1.0),
    "weight_decay": ("training", 0.0, 10.0),
    "max_grad_norm": ("training", 1e-6, 1e6),
    "validate_every": ("training", 1, 1_000_000),
    "validation_rows": ("training", 1, 100_000),
    "patience": ("training", 1, 1_000_000),
    "seed": ("training", 0, 2**32 - 1),
    "max_drop": ("regression", 0.0, 100.0),
}
OF_THE_PROMPT = ("num_virtual_tokens", "encoder_hidden_size", "encoder_layers", "num_ranks")
# What null leaves to the method or the base model.
OPEN = ("max_input_tokens", "encoder_hidden_size", "learning_rate")
WHOLE = [name for name, (_, low, _high) in RANGES.items() if isinstance(low, int)]


def read(name: str, value: Any) -> TaskConfig:
    section = RANGES[name][0] if name in RANGES else ""
    return TaskConfig.from_mapping({section: {name: value}} if section else {name: value})


def value(config: TaskConfig, name: str) -> Any:
    section = RANGES[name][0]
    own = config.prompt if name in OF_THE_PROMPT else config
    return getattr(getattr(config, section) if section else own, name)


def refusal(mapping: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        TaskConfig.from_mapping(mapping)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_settings_are_the_defaults() -> None:
    assert TaskConfig.from_mapping({}) == TaskConfig(PromptConfig(), TrainingConfig(), RegressionConfig())


def test_settings_stand_where_the_task_file_format_puts_them() -> None:
    config = TaskConfig.from_mapping(
        {
            "method": "prompt-tuning",
            "num_virtual_tokens": 7,
            "init": "text",
            "init_text": "Which colour?",
            "keep_description": False,
            "max_input_tokens": 99,
            "training": {"steps": 5, "learning_rate": 1, "seed": 3},
            "regression": {"max_drop": 0.2},
        }
    )
    assert config.prompt == PromptConfig("prompt-tuning", 7, "text", "Which colour?")
    assert (config.keep_description, config.max_input_tokens) == (False, 99)
    assert config.training == TrainingConfig(steps=5, learning_rate=1, seed=3)
    assert config.regression.max_drop == 0.2


@pytest.mark.parametrize("name", RANGES)
def test_the_bounds_themselves_are_allowed(name: str) -> None:
    for bound in RANGES[name][1:]:
        assert value(read(name, bound), name) == bound


@pytest.mark.parametrize("name", RANGES)
def test_a_value_out_of_range_is_named_with_its_bounds(name: str) -> None:
    section, low, high = RANGES[name]
    below, above = (low - 1, high + 1)
    for wrong in (below, above):
        with pytest.raises(ConfigError) as caught:
            read(name, wrong)
        where = f"multiprompt.{section}.{name}" if section else f"multiprompt.{name}"
        assert str(caught.value) == f"{where} is {wrong}, but it must lie between {low:g} and {high:g}."


@pytest.mark.parametrize("name", [name for name in RANGES if name not in WHOLE])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_out_of_range(name: str, wrong: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {wrong}"):
        read(name, wrong)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("wrong", ["5", True, [1], {"a": 1}])
def test_a_value_of_another_type_is_named_with_the_type_it_must_have(name: str, wrong: Any) -> None:
    expected = "int" if name in WHOLE else "float"
    with pytest.raises(ConfigError) as caught:
        read(name, wrong)
    assert f"{name} is {wrong!r}, but it must be {expected}" in str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_half_a_step_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is 1\.5, but it must be int"):
        read(name, 1.5)


def test_a_whole_number_may_stand_for_a_fraction() -> None:
    assert read("learning_rate", 1).training.learning_rate == 1


@pytest.mark.parametrize("name", [name for name in RANGES if name not in OPEN])
def test_null_is_no_number(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is None"):
        read(name, None)


def test_null_is_no_bound_and_no_text() -> None:
    settings = ("max_input_tokens", "encoder_hidden_size", "init", "init_text", "init_tokens", "init_version")
    assert TaskConfig.from_mapping(dict.fromkeys(settings)) == TaskConfig()
    assert read("learning_rate", None) == TaskConfig()


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (
            {"method": "prefix"},
            "multiprompt.method is 'prefix', but it must be one of: "
            "prompt-tuning, multitask-prompt-tuning, prefix-tuning, p-tuning",
        ),
        (
            {"init": "zeros"},
            "multiprompt.init is 'zeros', but it must be one of: text, sample-vocab, random, tokens, version",
        ),
        (
            {"method": "p-tuning", "init": "text"},
            "multiprompt.init is 'text', but it must be one of: random, version",
        ),
        (
            {"method": "prefix-tuning", "init": "sample-vocab"},
            "multiprompt.init is 'sample-vocab', but it must be one of: text, random, version",
        ),
        (
            {"method": "prefix-tuning", "projection": True, "init": "text"},
            "multiprompt.init is 'text', but it must be one of: random, version",
        ),
        ({"init": "tokens"}, "multiprompt.init_tokens and init: tokens belong together, but init is tokens"),
        ({"init_tokens": [1]}, "multiprompt.init_tokens and init: tokens belong together, but init is text"),
        ({"init": "version"}, "multiprompt.init_version and init: version belong together, but init is version"),
        (
            {"method": "p-tuning", "init_version": "a@1"},
            "multiprompt.init_version and init: version belong together, but init is random",
        ),
        (
            {"init": "tokens", "init_tokens": []},
            "multiprompt.init_tokens is '[]', but it must be a list of 1 to 1000 token ids",
        ),
        (
            {"init": "tokens", "init_tokens": 5},
            "multiprompt.init_tokens is '5', but it must be a list of 1 to 1000 token ids",
        ),
        ({"init": "tokens", "init_tokens": [1, -1]}, "multiprompt.init_tokens holds -1, which is no token id"),
        ({"init": "tokens", "init_tokens": [True]}, "multiprompt.init_tokens holds True, which is no token id"),
        ({"init": "tokens", "init_tokens": ["sky"]}, "multiprompt.init_tokens holds 'sky', which is no token id"),
        ({"encoder": "gru"}, "multiprompt.encoder is 'gru', but it must be one of: mlp, lstm"),
        ({"projection": 1}, "multiprompt.projection is 1, but it must be bool"),
        ({"init": 1}, "multiprompt.init is 1, but it must be str or null"),
        ({"init_text": 5}, "multiprompt.init_text is 5, but it must be str or null"),
        ({"max_input_tokens": "9"}, "multiprompt.max_input_tokens is '9', but it must be int or null"),
        ({"keep_description": "no"}, "multiprompt.keep_description is 'no', but it must be bool"),
        ({"keep_description": 1}, "multiprompt.keep_description is 1, but it must be bool"),
        ({"training": [1]}, "multiprompt.training is [1], but it must be a mapping of settings"),
        ({"regression": None}, "multiprompt.regression is None, but it must be a mapping of settings"),
        ([], "multiprompt is [], but it must be a mapping of settings"),
    ],
)
def test_what_is_wrong_is_said_with_the_value_and_the_way_out(mapping: Any, says: str) -> None:
    assert refusal(mapping) == f"{says}."


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (
            {"num_virtual_token": 5},
            "multiprompt has no setting 'num_virtual_token'; did you mean 'num_virtual_tokens'?",
        ),
        ({"training": {"learning_rat": 1}}, "multiprompt.training has no setting 'learning_rat'; did you mean"),
        ({"regression": {"drop": 1}}, "multiprompt.regression has no setting 'drop'; did you mean 'max_drop'?"),
        ({"steps": 5}, "multiprompt has no setting 'steps'; known: "),
        ({"prompt": {}}, "multiprompt has no setting 'prompt'; "),
        ({1: 2}, "multiprompt has no setting 1; "),
    ],
)
def test_an_unknown_setting_gives_the_nearest(mapping: dict[Any, Any], says: str) -> None:
    assert refusal(mapping).startswith(says)


@pytest.mark.parametrize(
    ("method", "start", "rate"),
    [
        ("prompt-tuning", "text", 0.03),
        ("multitask-prompt-tuning", "text", 0.03),
        ("prefix-tuning", "text", 0.03),
        ("p-tuning", "random", 0.003),
    ],
)
def test_a_method_brings_its_start_and_its_learning_rate(method: str, start: str, rate: float) -> None:
    config = TaskConfig.from_mapping({"method": method})
    assert config.prompt.start == start
    assert config.training.learning_rate is None
    assert config.recipe == TrainingConfig(learning_rate=rate)
    assert METHODS[method].learning_rate == rate


def test_a_projection_starts_at_random() -> None:
    assert PromptConfig(method="prefix-tuning", projection=True).start == "random"


@pytest.mark.parametrize("rate", [0, 0.5])
def test_a_learning_rate_that_is_set_stays(rate: float) -> None:
    config = TaskConfig.from_mapping({"method": "p-tuning", "training": {"learning_rate": rate, "steps": 3}})
    assert config.recipe == config.training == TrainingConfig(learning_rate=rate, steps=3)


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_of_any_method_may_start_from_another_version(method: str) -> None:
    config = TaskConfig.from_mapping({"method": method, "init": "version", "init_version": "sst2@2"})
    assert (config.prompt.start, config.prompt.init_version) == ("version", "sst2@2")


def test_token_ids_are_read_from_a_list() -> None:
    config = TaskConfig.from_mapping({"init": "tokens", "init_tokens": [3, 0, 7]})
    assert config.prompt.init_tokens == (3, 0, 7)


def test_settings_made_in_python_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="steps is 0, but it must lie between 1 and 1e\\+06"):
        TrainingConfig(steps=0)
    with pytest.raises(ConfigError, match="max_drop is -1"):
        RegressionConfig(max_drop=-1)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TaskConfig().training.steps = 1  # type: ignore[misc]


@given(
    st.dictionaries(
        st.sampled_from(
            [*RANGES, "method", "init", "init_tokens", "projection", "keep_description", "training", "regression", "x"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=3)
        | st.dictionaries(
            st.sampled_from([*RANGES, "y"]), st.none() | st.booleans() | st.integers() | st.floats(), max_size=2
        ),
        max_size=3,
    )
)
@settings(deadline=None, database=None)
def test_any_mapping_is_settings_or_a_config_error(mapping: dict[str, Any]) -> None:
    try:
        config = TaskConfig.from_mapping(mapping)
    except ConfigError as error:
        assert str(error).startswith("multiprompt")
        return
    for name, (_, low, high) in RANGES.items():
        number = value(config, name)
        assert number is None or low <= number <= high
