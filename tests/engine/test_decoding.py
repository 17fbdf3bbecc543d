"""Answers are decoded as transformers decodes them with the settings of a base model's folder and of the task file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from multiprompt.engine.answering import Question, answer, compile_task
from multiprompt.engine.base import BaseModel
from multiprompt.engine.decoding import decoding, sampling_of
from multiprompt.engine.hub import locate
from multiprompt.engine.inputs import taught
from multiprompt.engine.loading import load_base_model
from multiprompt.errors import BaseModelError
from multiprompt.tasks.example import Budget, Example, query_of
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping, write_tiny_model
from tests.engine.reference import plain_model

TEXTS = ("the colour of the sky", "Answer: red", "the the the the", "Which colour?")


def model(folder: Path, **settings: Any) -> BaseModel:
    """A tiny model that repeats itself, with settings in its generation_config.json."""
    path = write_tiny_model(folder / "model", initializer_range=0.1)
    file = path / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return load_base_model(locate(str(path)), "float32")


def text_task(kind: str = "text", **options: Any) -> Task:
    return Task.from_mapping(
        task_mapping(kind=kind)
        | {"filter_list": None}
        | ({} if kind == "choice" else {"generation_kwargs": {"until": ["\x00"], "max_gen_toks": 24, **options}})
    )


def answers(base: BaseModel, task: Task) -> list[Any]:
    prefix = compile_task(base, task, None)
    budget = Budget(200, base.count_tokens)
    questions = [Question(task, prefix, query_of(task, {"text": text}, budget)) for text in TEXTS]
    together = [found.output for found in answer(base, questions)]
    assert together == [answer(base, [question])[0].output for question in questions]
    return together


def of_transformers(base: BaseModel, task: Task, **settings: Any) -> list[str]:
    """What `generate` makes of each context, settings of the folder included."""
    texts = []
    for text in TEXTS:
        context = base.encode(query_of(task, {"text": text}, Budget(200, base.count_tokens)).context)
        made = plain_model(base).generate(
            torch.tensor([context]), do_sample=False, max_new_tokens=24, pad_token_id=0, **settings
        )
        texts.append(base.decode(made[0, len(context) :].tolist()).partition("\x00")[0])
    return texts


@pytest.mark.parametrize("penalty", [1.3, 5.0, 0.5])
def test_a_repetition_penalty_of_the_folder_is_applied(tmp_path: Path, penalty: float) -> None:
    base, task = model(tmp_path, repetition_penalty=penalty), text_task()
    found = answers(base, task)
    assert found == of_transformers(base, task)
    assert found != of_transformers(base, task, repetition_penalty=1.0)


def test_settings_that_older_folders_keep_in_config_json_are_applied_or_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model", initializer_range=0.1)
    own, task = path / "generation_config.json", text_task()
    own.unlink()
    file, settings = path / "config.json", json.loads((path / "config.json").read_text())
    file.write_text(json.dumps(settings | {"repetition_penalty": 1.3}))
    base = load_base_model(locate(str(path)), "float32")
    assert answers(base, task) == of_transformers(base, task) != of_transformers(base, task, repetition_penalty=1.0)
    file.write_text(json.dumps(settings | {"no_repeat_ngram_size": 2}))
    with pytest.raises(BaseModelError, match="no_repeat_ngram_size: 2"):
        answers(load_base_model(locate(str(path)), "float32"), task)
    own.write_text("{}")
    assert answers(load_base_model(locate(str(path)), "float32"), task)


def test_a_repetition_penalty_of_the_task_file_comes_first(tmp_path: Path) -> None:
    base, task = model(tmp_path, repetition_penalty=1.3), text_task(repetition_penalty=3.0)
    assert answers(base, task) == of_transformers(base, task, repetition_penalty=3.0) != of_transformers(base, task)
    assert decoding(base, task) == "greedy, repetition_penalty 3"
    assert decoding(base, text_task(repetition_penalty=1)) == "greedy"


def test_what_samples_are_drawn_from_is_the_folders_unless_the_task_file_says(tmp_path: Path, base: BaseModel) -> None:
    own = model(tmp_path, top_k=7, top_p=0.8, temperature=0.1, do_sample=True)
    sampled = text_task(do_sample=True)
    assert decoding(own, text_task()) == "greedy"
    assert decoding(own, sampled) == "sampled, temperature 1, top_k 7, top_p 0.8, seed 0"
    assert decoding(base, sampled) == "sampled, temperature 1, top_k 50, top_p 1, seed 0"
    told = sampling_of(own, text_task(temperature=0.5, top_k=3, top_p=0.5))
    assert (told.temperature, told.top_k, told.top_p) == (0.5, 3, 0.5)


def test_a_folder_that_decodes_otherwise_is_another_base_model(tmp_path: Path) -> None:
    one, other = model(tmp_path / "one"), model(tmp_path / "other", repetition_penalty=1.1)
    assert one.record.weights == other.record.weights
    assert one.record.config != other.record.config


@pytest.mark.parametrize(("key", "value"), [("repetition_penalty", "1.1"), ("repetition_penalty", 0), ("top_k", -1)])
def test_a_setting_of_the_folder_that_is_no_number_within_bounds_is_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    base = model(tmp_path, **{key: value})
    with pytest.raises(BaseModelError, match=f"have {key}: {value}; it must lie between"):
        answers(base, text_task(do_sample=True))
    assert answers(base, text_task(do_sample=True, **{key: 3}))


@pytest.mark.parametrize(
    ("key", "value", "options"),
    [
        ("min_new_tokens", 4, {}),
        ("no_repeat_ngram_size", 2, {}),
        ("encoder_repetition_penalty", 1.5, {}),
        ("encoder_no_repeat_ngram_size", 2, {}),
        ("suppress_tokens", [30, 31], {}),
        ("num_beams", 2, {}),
        ("min_p", 0.1, {"do_sample": True}),
    ],
)
def test_a_setting_that_is_not_applied_is_refused_by_name_where_answers_are_generated(
    tmp_path: Path, key: str, value: Any, options: dict[str, Any]
) -> None:
    base = model(tmp_path, **{key: value})
    task, row = text_task(**options), {"text": "the sky"}
    example = Example(query_of(task, row, Budget(200, base.count_tokens)), "blue")
    with pytest.raises(BaseModelError, match=rf"have {key}: .* give its folder a generation_config.json without it"):
        compile_task(base, task, None)
    with pytest.raises(BaseModelError, match=key):
        taught(base, task, [example])
    assert all(answer in range(4) for answer in answers(base, text_task("choice")))
    if options:
        assert answers(base, text_task())
