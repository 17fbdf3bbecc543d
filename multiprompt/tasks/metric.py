"""Metrics: `evaluate.Metric` objects under the names that the harness gives them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
from numpy.typing import NDArray

from multiprompt.errors import MetricError, TaskFileError, nearest
from multiprompt.tasks.filters import NO_FILTERS, Pipeline
from multiprompt.tasks.pattern import pattern

_MODULES = Path(__file__).parent / "metrics"


# The divisor of a choice's log-likelihood before the largest is taken: none, its characters, its UTF-8 bytes.
SUM, BY_CHARACTERS, BY_BYTES = "sum", "by characters", "by bytes"
_LENGTHS: Mapping[str, Callable[[str], int]] = MappingProxyType(
    {SUM: lambda _: 1, BY_CHARACTERS: len, BY_BYTES: lambda choice: len(choice.encode(errors="replace"))}
)


@dataclass(frozen=True)
class _Known:
    """A metric that comes with the package: its module, the key of its result, what it scores, one row at a time?

    `aggregation` is the harness's name for how rows are put together; None for a metric that the harness lacks.
    `library` computes it, where that is not the module itself.
    """

    module: str
    key: str
    output_types: tuple[str, ...]
    aggregation: str | None
    per_example: bool = False
    higher_is_better: bool = True
    reading: str = SUM
    settings: Mapping[str, Any] = field(default_factory=dict)
    library: str | None = None


_CHOICE, _TEXT = "multiple_choice", "generate_until"
_KNOWN: Mapping[str, _Known] = MappingProxyType(
    {
        "acc": _Known("accuracy", "accuracy", (_CHOICE,), "mean", per_example=True),
        "acc_norm": _Known("accuracy", "accuracy", (_CHOICE,), "mean", per_example=True, reading=BY_CHARACTERS),
        "acc_bytes": _Known("accuracy", "accuracy", (_CHOICE,), "mean", per_example=True, reading=BY_BYTES),
        "f1": _Known("f1", "f1", (_CHOICE,), "f1", library="scikit-learn"),
        "macro_f1": _Known("macro_f1", "f1", (_CHOICE,), None, library="scikit-learn"),
        "mcc": _Known("matthews", "matthews_correlation", (_CHOICE,), "matthews_corrcoef", library="scikit-learn"),
        "exact_match": _Known("exact_match", "exact_match", (_TEXT,), "mean", per_example=True),
        "bleu": _Known("bleu", "bleu", (_TEXT,), "bleu", library="sacrebleu"),
        "chrf": _Known("chrf", "chrf", (_TEXT,), "chrf", library="sacrebleu"),
        "chrf++": _Known("chrf", "chrf", (_TEXT,), "chrf++", settings={"word_order": 2}, library="sacrebleu"),
        "ter": _Known("ter", "ter", (_TEXT,), "ter", higher_is_better=False, library="sacrebleu"),
        "rouge_l": _Known("rouge_l", "rouge_l", (_TEXT,), None, library="rouge_score"),
    }
)
_OPTIONS = {"exact_match": ("ignore_case", "ignore_punctuation", "ignore_numbers", "regexes_to_ignore")}
# The harness's defaults where a task file has no metric_list.
DEFAULT_METRICS: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType(
    {_CHOICE: ({"metric": "acc"}, {"metric": "acc_norm"}), _TEXT: ({"metric": "exact_match"},)}
)
_REFUSED = {
    "acc_mutual_info": "it needs every choice scored a second time, without its text",
    "brier_score": "predictions are kept as choices, without their probabilities",
    "likelihood": "predictions are kept as choices, without their likelihoods",
}
_NOT_OPTIONS = ("metric", "aggregation", "higher_is_better", "hf_evaluate", "weight_by_size")


@dataclass(frozen=True)
class MetricConfig:
    """One score of a task: an entry of `metric_list`, of one filter pipeline.

    `name` is the score's name: the metric's, and behind a comma the pipeline's where that is not the first.
    `hf_evaluate: true` names a metric of the evaluate hub instead of one of ours.
    """

    metric: str
    higher_is_better: bool = True
    from_hub: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Pipeline = NO_FILTERS
    is_first_pipeline: bool = True

    @classmethod
    def from_mapping(cls, entry: Mapping[str, Any], output_type: str) -> MetricConfig:
        """Read an entry. Raises TaskFileError or MetricError, naming the nearest metric or option."""
        name = entry.get("metric")
        if not isinstance(name, str):
            raise TaskFileError(f"metric_list has the entry {dict(entry)!r}; its 'metric' must be a name.")
        options = {key: value for key, value in entry.items() if key not in _NOT_OPTIONS}
        for sign in ("higher_is_better", "hf_evaluate"):
            if not isinstance(entry.get(sign, True), bool):
                raise TaskFileError(f"metric {name} has {sign}: {entry[sign]!r}, but it must be true or false.")
        from_hub = entry.get("hf_evaluate", False)
        if not from_hub:
            _check_known(name, output_type)
            _check_options(name, options)
        default = from_hub or _KNOWN[name].higher_is_better
        return cls(name, entry.get("higher_is_better", default), from_hub, options)

    def of(self, pipeline: Pipeline, *, first: bool) -> MetricConfig:
        """The same metric of the texts that a pipeline gives."""
        return replace(self, pipeline=pipeline, is_first_pipeline=first)

    @property
    def name(self) -> str:
        return self.metric if self.is_first_pipeline else f"{self.metric},{self.pipeline.name}"

    def predicted(self, scores: Sequence[float], choices: Sequence[str]) -> int:
        """The choice that a row is answered with, from the summed log-likelihoods (nats) of its choices."""
        values = [score / _LENGTHS[self._reading](choice) for score, choice in zip(scores, choices, strict=True)]
        return max(range(len(values)), key=values.__getitem__)

    def reads_as(self, other: MetricConfig) -> bool:
        """Whether both take the same prediction from what the model gave."""
        return self._reading == other._reading and self.pipeline == other.pipeline

    @property
    def _reading(self) -> str:
        return _KNOWN[self.metric].reading if self.metric in _KNOWN and not self.from_hub else SUM

    @property
    def per_example(self) -> bool:
        """Whether each row has a 0/1 score of its own, whose mean is the score."""
        return not self.from_hub and _KNOWN[self.metric].per_example


def score(
    metric: MetricConfig, predictions: Sequence[Any], references: Sequence[Any], *, hub_metrics: bool = False
) -> float:
    """The metric of these predictions: class indices for multiple choice, texts for generation.

    A metric of the hub is code from the hub, so it is loaded only where the caller allows it with `hub_metrics`; of
    texts it scores each row, and the score is their mean, as in the harness.
    Raises MetricError when it is not allowed, cannot be loaded, fails, or gives something that is not a finite number.
    """
    module = _hub_module(metric.metric, hub_metrics) if metric.from_hub else _local(metric)
    right = _comparable(metric, references)
    if metric.from_hub and predictions and isinstance(predictions[0], str):
        values = [_computed(metric, module, [found], [one]) for found, one in zip(predictions, right, strict=True)]
        return sum(values) / len(values)
    return _computed(metric, module, predictions, right)


def _computed(metric: MetricConfig, module: Any, predictions: Sequence[Any], references: Sequence[Any]) -> float:
    try:
        result = module.compute(predictions=list(predictions), references=list(references), **_options(metric))
    except Exception as error:  # a metric of the hub may raise anything
        raise MetricError(f"metric {metric.name} failed on {len(references)} rows: {error}") from error
    key = metric.metric if metric.from_hub else _KNOWN[metric.metric].key
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
    hits = _local(metric).hits(list(predictions), list(references), **_options(metric))
    return [float(hit) for hit in hits]


@dataclass(frozen=True)
class RowStatistics:
    """The statistics that a metric takes from each row (rows x statistics); resampling needs their sums alone.

    `of_sums` maps sums (resamples x statistics) over `rows` rows to scores (resamples).
    """

    values: NDArray[numpy.float64]
    of_sums: Callable[[NDArray[numpy.float64], int], NDArray[numpy.float64]]


def row_statistics(metric: MetricConfig, predictions: Sequence[Any], references: Sequence[Any]) -> RowStatistics | None:
    """None for a metric of the hub, of which nothing but its score is known. Raises MetricError."""
    if metric.from_hub:
        return None
    module = _local(metric)
    try:
        values = module.statistics(list(predictions), _comparable(metric, references), **_options(metric))
    except Exception as error:  # what was stored or predicted may be no class or text
        raise MetricError(f"metric {metric.name} failed on {len(references)} rows: {error}") from error
    return RowStatistics(values, partial(module.of_sums, **_KNOWN[metric.metric].settings))


def metric_version(metric: MetricConfig) -> str:
    """The name of a metric's code in a score's key, with the library that computes it."""
    if metric.from_hub:
        import evaluate

        return f"evaluate=={evaluate.__version__}, mean over rows"
    options = "".join(f" {name}={value}" for name, value in sorted(metric.options.items()))
    library = _KNOWN[metric.metric].library
    computed = "" if library is None else f" {library}=={version(library)}"
    return f"{metric.name}=={_local(metric).revision}{options}{computed}"


def check_as_harness(entry: Mapping[str, Any], output_type: str) -> None:
    """Refuse an aggregation that is not the metric's own, and a hub's metric of choices. Raises TaskFileError."""
    if entry.get("hf_evaluate") and output_type == _CHOICE:
        raise TaskFileError(
            f"metric {entry['metric']} is one of the hub, which the harness does not use for {_CHOICE}."
        )
    known = _KNOWN.get(str(entry.get("metric")))
    own = "mean" if entry.get("hf_evaluate") else known and known.aggregation
    wanted = entry.get("aggregation")
    if own is not None and wanted not in (None, own):
        raise TaskFileError(
            f"metric {entry['metric']} has aggregation: {str(wanted)[:100]!r}; only {own!r} is supported."
        )


def _options(metric: MetricConfig) -> dict[str, Any]:
    return dict(metric.options) if metric.from_hub else {**metric.options, **_KNOWN[metric.metric].settings}


def _comparable(metric: MetricConfig, references: Sequence[Any]) -> list[Any]:
    """References of one kind: where a row has several, each row has a list. Raises MetricError."""
    if not any(isinstance(right, (list, tuple)) for right in references):
        return list(references)
    if metric.metric != "exact_match" or metric.from_hub:
        raise MetricError(
            f"metric {metric.metric} cannot score rows with several right answers; exact_match counts any of them."
        )
    return [list(right) if isinstance(right, (list, tuple)) else [right] for right in references]


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    known = _OPTIONS.get(name, ())
    for option, value in options.items():
        if option not in known:
            raise TaskFileError(f"metric {name} has the option {option!r}; {nearest(str(option), known)}")
        if option != "regexes_to_ignore":
            if not isinstance(value, bool):
                raise TaskFileError(f"metric {name} has {option}: {str(value)[:100]}, but it must be true or false.")
        elif not isinstance(value, list) or not all(isinstance(source, str) for source in value):
            raise TaskFileError(f"metric {name} has {option}: {str(value)[:100]}, but it must be a list of patterns.")
        else:
            for source in value:
                pattern(source)


def _check_known(name: str, output_type: str) -> None:
    fitting = [known for known, entry in _KNOWN.items() if output_type in entry.output_types]
    if name in _REFUSED:
        raise MetricError(f"metric {name} is not supported, as {_REFUSED[name]}; {nearest(name, fitting)}")
    if name in _KNOWN and name not in fitting:
        raise MetricError(f"metric {name} cannot score {output_type}; {nearest(name, fitting)}")
    if name not in _KNOWN:
        raise MetricError(
            f"unknown metric {name!r}; {nearest(name, fitting)} (one of the evaluate hub needs `hf_evaluate: true`)"
        )


def _local(metric: MetricConfig) -> Any:
    return _local_module(_KNOWN[metric.metric].module)


@lru_cache
def _local_module(name: str) -> Any:
    import evaluate

    return evaluate.load(str(_MODULES / f"{name}.py"), keep_in_memory=True)


def _hub_module(name: str, allowed: bool) -> Any:
    if not allowed:
        raise MetricError(f"metric {name} is code from the evaluate hub; open the workspace with `hub_metrics=True`.")
    import evaluate

    try:
        return evaluate.load(name)
    except Exception as error:  # the hub answers with errors of many libraries
        raise MetricError(f"metric {name} could not be loaded from the evaluate hub: {error}") from error
