"""The settings of generation in a task file, read as the harness reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multiprompt.errors import TaskFileError, nearest

# The names that the harness knows for the number of tokens that are generated at most, the first found wins.
_TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# The settings that choose the next token, with bounds and types.
CHOOSING: tuple[tuple[str, float, float, Any], ...] = (
    ("temperature", 0.0, 100.0, (int, float)),
    ("top_k", 0, 1_000_000, (int,)),
    ("top_p", 1e-6, 1.0, (int, float)),
    ("repetition_penalty", 1e-3, 1000.0, (int, float)),
)


@dataclass(frozen=True)
class Generation:
    """The settings of generation, until a stop string, the end token or `max_new_tokens`: greedily at `temperature` 0,
    else sampled from the `top_k` likeliest tokens (0: all) that make up `top_p` of the probability.

    The base model's own setting holds for each that is None.
    """

    until: tuple[str, ...] = ("\n\n",)
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None


def read_generation(options: Mapping[str, Any], delimiter: Any) -> Generation:
    """The settings of `generation_kwargs`; without `until` the stop string is `delimiter`. Raises TaskFileError."""
    if not isinstance(options, dict):
        raise TaskFileError(f"generation_kwargs is {options!r}, but it must be a mapping.")
    known = {"until", *_TOKEN_LIMITS, "do_sample", "num_beams", *(key for key, *_ in CHOOSING)}
    for key in options:
        if key not in known:
            raise TaskFileError(f"generation_kwargs has {key!r}, which is not supported; {nearest(str(key), known)}")
    if options.get("num_beams", 1) != 1:
        raise TaskFileError(f"generation_kwargs.num_beams is {options['num_beams']!r}; only 1 is supported.")
    stops = stop_strings(options, Generation.until[0] if delimiter is None else delimiter)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise TaskFileError(f"generation_kwargs.until is {list(stops)!r}; it must be a list of non-empty texts.")
    given = ((key, options[key]) for key in _TOKEN_LIMITS if options.get(key) is not None)
    key, limit = next(given, ("max_gen_toks", Generation.max_new_tokens))
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 100_000:
        raise TaskFileError(f"generation_kwargs.{key} is {limit!r}; it must lie between 1 and 100000.")
    return Generation(stops, limit, **_sampling(options))


def stop_strings(options: Mapping[str, Any], delimiter: Any) -> tuple[Any, ...]:
    """The stop strings; without any, the text that would stand between few-shot examples, as in the harness."""
    until = options.get("until", delimiter)
    return tuple(until) if isinstance(until, (list, tuple)) else (until,)


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """As in the harness: `do_sample: false`, or a temperature of 0 or none, is greedy; `do_sample` alone is at 1."""
    sample = options.get("do_sample")
    if not (sample is None or isinstance(sample, bool)):
        raise TaskFileError(f"generation_kwargs.do_sample is {sample!r}; it must be true or false.")
    settings = {key: options[key] for key, *_ in CHOOSING if options.get(key) is not None}
    if not (options.get("temperature") if sample is None else sample):
        settings = {key: value for key, value in settings.items() if key == "repetition_penalty"}
    elif "temperature" not in settings:
        settings["temperature"] = 1.0
    for key, low, high, types in CHOOSING:
        value: Any = settings.get(key, low)
        if not isinstance(value, types) or isinstance(value, bool) or not low <= value <= high:
            raise TaskFileError(f"generation_kwargs.{key} is {value!r}; it must lie between {low:g} and {high:g}.")
    return settings
