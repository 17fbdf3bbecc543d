"""Metrics: `evaluate.Metric` objects under the names that the harness gives them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
from numpy.typing import NDArray

from multiprompt.errors import MetricError, TaskFileError, nearest

_MODULES = Path(__file__).parent / "metrics"


@dataclass(frozen=True)
class _Known:
    """A metric that comes with the package: its module, the key of its result, what it scores, one row at a time?"""

    module: str
    key: str
    output_types: tuple[str, ...]
    per_example: bool = False


_CHOICE, _TEXT = "multiple_choice", "generate_until"
_KNOWN: Mapping[str, _Known] = MappingProxyType(
    {
        "acc": _Known("accuracy", "accuracy", (_CHOICE,), per_example=True),
        "macro_f1": _Known("macro_f1", "f1", (_CHOICE,)),
        "mcc": _Known("matthews", "matthews_correlation", (_CHOICE,)),
        "exact_match": _Known("exact_match", "exact_match", (_TEXT,), per_example=True),
        "bleu": _Known("bleu", "bleu", (_TEXT,)),
        "rouge_l": _Known("rouge_l", "rouge_l", (_TEXT,)),
    }
)
_OPTIONS = {"exact_match": ("ignore_case", "ignore_punctuation")}


@dataclass(frozen=True)
class MetricConfig:
    """One entry of `metric_list`. `hf_evaluate: true` names a metric of the evaluate hub instead of one of ours."""

    name: str
    higher_is_better: bool = True
    from_hub: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_mapping(cls, entry: Mapping[str, Any], output_type: str) -> MetricConfig:
        """Read an entry. Raises TaskFileError or MetricError, naming the nearest metric or option."""
        name = entry.get("metric")
        if not isinstance(name, str):
            raise TaskFileError(f"metric_list has the entry {dict(entry)!r}; its 'metric' must be a name.")
        options = {
            k: v for k, v in entry.items() if k not in ("metric", "aggregation", "higher_is_better", "hf_evaluate")
        }
        for sign in ("higher_is_better", "hf_evaluate"):
            if not isinstance(entry.get(sign, True), bool):
                raise TaskFileError(f"metric {name} has {sign}: {entry[sign]!r}, but it must be true or false.")
        from_hub = entry.get("hf_evaluate", False)
        if not from_hub:
            _check_known(name, output_type)
            for option in options:
                known = _OPTIONS.get(name, ())
                if option not in known:
                    raise TaskFileError(f"metric {name} has the option {option!r}; {nearest(str(option), known)}")
        return cls(name, entry.get("higher_is_better", True), from_hub, options)

    @property
    def per_example(self) -> bool:
        """Whether each row has a 0/1 score of its own, whose mean is the score."""
        return not self.from_hub and _KNOWN[self.name].per_example


def score(
    metric: MetricConfig, predictions: Sequence[Any], references: Sequence[Any], *, hub_metrics: bool = False
) -> float:
    """The metric of these predictions: class indices for multiple choice, texts for generation.

    A metric of the hub is code from the hub, so it is loaded only where the caller allows it with `hub_metrics`.
    Raises MetricError when it is not allowed, cannot be loaded, fails, or gives something that is not a finite number.
    """
    module = _hub_module(metric.name, hub_metrics) if metric.from_hub else _local_module(_KNOWN[metric.name].module)
    try:
        result = module.compute(predictions=list(predictions), references=list(references), **metric.options)
    except Exception as error:  # a metric of the hub may raise anything
        raise MetricError(f"metric {metric.name} failed on {len(references)} rows: {error}") from error
    key = metric.name if metric.from_hub else _KNOWN[metric.name].key
    value = result.get(key) if isinstance(result, dict) else None
    if not isinstance(value, (int, float, numbers.Real)) or not math.isfinite(value):
        raise MetricError(f"metric {metric.name} gave {result!r} on {len(references)} rows, which is no finite score.")
    return float(value)


def per_example_scores(
    metric: MetricConfig, predictions: Sequence[Any], references: Sequence[Any]
) -> list[float] | None:
    """0.0 or 1.0 a row where the metric is a mean over rows, None where it is not."""
    if not metric.per_example:
        return None
    module = _local_module(_KNOWN[metric.name].module)
    return [float(hit) for hit in module.hits(list(predictions), list(references), **metric.options)]


@dataclass(frozen=True)
class RowStatistics:
    """What a metric takes from each row (rows x statistics); it is a function of their sums, so rows can be resampled.

    `of_sums` maps sums (resamples x statistics) over `rows` rows to scores (resamples).
    """

    values: NDArray[numpy.float64]
    of_sums: Callable[[NDArray[numpy.float64], int], NDArray[numpy.float64]]


def row_statistics(metric: MetricConfig, predictions: Sequence[Any], references: Sequence[Any]) -> RowStatistics | None:
    """None for a metric of the hub, of which nothing but its score is known. Raises MetricError."""
    if metric.from_hub:
        return None
    module = _local_module(_KNOWN[metric.name].module)
    try:
        values = module.statistics(list(predictions), list(references), **metric.options)
    except Exception as error:  # what was stored or predicted may be no class or text
        raise MetricError(f"metric {metric.name} failed on {len(references)} rows: {error}") from error
    return RowStatistics(values, module.of_sums)


def metric_version(metric: MetricConfig) -> str:
    """What identifies the code of a metric in a score's key."""
    if metric.from_hub:
        import evaluate

        return f"evaluate=={evaluate.__version__}"
    options = "".join(f" {name}={value}" for name, value in sorted(metric.options.items()))
    return f"{metric.name}=={_local_module(_KNOWN[metric.name].module).revision}{options}"


def _check_known(name: str, output_type: str) -> None:
    fitting = [known for known, entry in _KNOWN.items() if output_type in entry.output_types]
    if name in _KNOWN and name not in fitting:
        raise MetricError(f"metric {name} cannot score {output_type}; {nearest(name, fitting)}")
    if name not in _KNOWN:
        raise MetricError(
            f"unknown metric {name!r}; {nearest(name, fitting)} (one of the evaluate hub needs `hf_evaluate: true`)"
        )


@lru_cache
def _local_module(name: str) -> Any:
    import evaluate

    return evaluate.load(str(_MODULES / f"{name}.py"), keep_in_memory=True)


def _hub_module(name: str, allowed: bool) -> Any:
    if not allowed:
        raise MetricError(
            f"metric {name} is code from the evaluate hub; allow it with mp.open(…, hub_metrics=True) or --hub-metrics."
        )
    import evaluate

    try:
        return evaluate.load(name)
    except Exception as error:  # the hub answers with errors of many libraries
        raise MetricError(f"metric {name} could not be loaded from the evaluate hub: {error}") from error
