"""The decoding of a task's answers, by its task file or else by the base model's generation settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiprompt.engine.base import BaseModel
from multiprompt.engine.generation import Sampling
from multiprompt.errors import BaseModelError
from multiprompt.tasks.generation import CHOOSING
from multiprompt.tasks.task import Task

_FILE = "generation_config.json"
# The settings that are applied here, with the value that transformers takes for none.
_APPLIED: Mapping[str, float] = {"top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}
_DRAWN = ("top_k", "top_p")
# Settings that transformers applies and multiprompt does not, each with the values that change nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "num_return_sequences": (1,), "diversity_penalty": (0,),
    "penalty_alpha": (0,), "dola_layers": (), "guidance_scale": (1,), "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,), "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": ([],), "force_words_ids": ([],), "constraints": ([],), "sequence_bias": ([], {}),
    "suppress_tokens": ([],), "begin_suppress_tokens": ([],), "forced_bos_token_id": (), "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (), "min_length": (0,), "min_new_tokens": (0,), "max_time": (),
    "stop_strings": ([],), "token_healing": (False,), "watermarking_config": (),
}  # fmt: skip
_REFUSED_DRAWN: dict[str, tuple[Any, ...]] = {
    "min_p": (0,), "typical_p": (1,), "top_h": (), "epsilon_cutoff": (0,), "eta_cutoff": (0,),
}  # fmt: skip


def sampling_of(base: BaseModel, task: Task, seed: int = 0) -> Sampling:
    """The choice of the next token. Raises BaseModelError for a setting of the base model that is not supported."""
    model, own = _settings(base), task.generation
    given = task.mapping.get("generation_kwargs") or {}
    for key, harmless in (_REFUSED | (_REFUSED_DRAWN if own.temperature else {})).items():
        value = model.get(key)
        if key not in given and value is not None and value not in harmless:
            raise BaseModelError(
                f"{task.name} generates answers, for which the settings of {base.record.name} have {key}: "
                f"{str(value)[:50]}; multiprompt does not apply it: give its folder a {_FILE} without it."
            )
    chosen = {
        key: _number(base, key, model.get(key, default)) if getattr(own, key) is None else getattr(own, key)
        for key, default in _APPLIED.items()
        if own.temperature or key not in _DRAWN
    }
    return Sampling(own.temperature, seed=seed, **chosen)


def _number(base: BaseModel, key: str, value: Any) -> Any:
    """A setting of the base model that is applied. Raises BaseModelError where it is no number within bounds."""
    (low, high, types) = next(rest for name, *rest in CHOOSING if name == key)
    if not isinstance(value, types) or isinstance(value, bool) or not low <= value <= high:
        raise BaseModelError(
            f"the settings of {base.record.name} have {key}: {str(value)[:50]}; it must lie between {low:g} and "
            f"{high:g}: give its folder a {_FILE} with another."
        )
    return value


def decoding(base: BaseModel, task: Task) -> str:
    """The settings that are part of a score's key; evaluations draw with seed 0."""
    if task.is_multiple_choice:
        return "greedy"
    found = sampling_of(base, task)
    named = "greedy"
    if found.temperature:
        named = f"sampled, temperature {found.temperature:g}, top_k {found.top_k}, top_p {found.top_p:g}, seed 0"
    penalty = [] if found.repetition_penalty == 1 else [f"repetition_penalty {found.repetition_penalty:g}"]
    ends = (f"ends at {token}" for token in base.end_tokens if token != base.tokenizer.eos_token_id)
    return ", ".join([named, *penalty, *ends])


def _settings(base: BaseModel) -> Mapping[str, Any]:
    settings = getattr(base.model, "generation_config", None)
    return {} if settings is None else {key: value for key, value in settings.to_dict().items() if value is not None}
