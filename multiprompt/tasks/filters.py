"""Filter pipelines: how a generated text is made ready for a metric, as in the harness's `filter_list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiprompt.errors import DataError, TaskFileError, nearest
from multiprompt.tasks.pattern import PatternError, pattern

_FILTERS = ("take_first", "remove_whitespace", "lowercase", "uppercase", "regex")
_REGEX: Mapping[str, tuple[Any, type]] = {
    "regex_pattern": (r"#### (\-?[0-9\.\,]+)", str),
    "group_select": (0, int),
    "fallback": ("[invalid]", str),
}


@dataclass(frozen=True)
class Filter:
    """One step of a pipeline; only `regex` uses the settings."""

    function: str
    regex_pattern: str = ""
    group_select: int = 0
    fallback: str = ""

    def apply(self, text: str) -> str:
        """Raises DataError when a pattern takes too long."""
        match self.function:
            case "remove_whitespace":
                return text.strip()
            case "lowercase":
                return text.lower()
            case "uppercase":
                return text.upper()
            case "regex":
                return self._extract(text)
            case _:
                return text

    def _extract(self, text: str) -> str:
        """The match numbered `group_select`, of several groups the first that is not empty (the harness's rule)."""
        try:
            found = pattern(self.regex_pattern).findall(text)
        except PatternError as error:
            raise DataError(f"filter_list: {error}.") from None
        if not -len(found) <= self.group_select < len(found):
            return self.fallback
        match = found[self.group_select]
        if isinstance(match, tuple):
            match = next((group for group in match if group), self.fallback)
        return str(match).strip()


@dataclass(frozen=True)
class Pipeline:
    """Filters that are applied one after another."""

    name: str
    filters: tuple[Filter, ...]

    def apply(self, text: str) -> str:
        for step in self.filters:
            text = step.apply(text)
        return text

    @property
    def takes_first(self) -> bool:
        """Whether it ends in `take_first`; without that, the harness compares a list of texts."""
        return bool(self.filters) and self.filters[-1].function == "take_first"


# The filters of a task file without a filter_list.
NO_FILTERS = Pipeline("none", (Filter("take_first"),))


def read_pipelines(value: Any) -> tuple[Pipeline, ...]:
    """The value of `filter_list`. Raises TaskFileError."""
    if value is None:
        return (NO_FILTERS,)
    try:
        pipelines = tuple(Pipeline(_name(entry), tuple(map(_filter, entry["filter"]))) for entry in value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, TaskFileError):
            raise
        raise TaskFileError(
            f"filter_list is {_shown(value)}; it must hold pipelines: [{{name: …, filter: [{{function: …}}]}}]."
        ) from None
    names = [pipeline.name for pipeline in pipelines]
    if not names or len(set(names)) < len(names):
        raise TaskFileError(
            f"filter_list must hold pipelines of different names; it has: {', '.join(names) or 'none'}."
        )
    return pipelines


def check_order(pipelines: Sequence[Pipeline], output_type: str) -> None:
    """Refuse what the harness would apply to the letters of an answer, or to log-likelihoods. Raises TaskFileError."""
    for pipeline in pipelines:
        names = [step.function for step in pipeline.filters]
        if output_type == "multiple_choice" and set(names) - {"take_first"}:
            raise TaskFileError(
                f"filter_list uses {names[0]!r}, but output_type multiple_choice has no text to filter."
            )
        if "take_first" in names[:-1]:
            raise TaskFileError(
                f"filter_list has {names[names.index('take_first') + 1]!r} behind 'take_first'; "
                "'take_first' must come last."
            )


def _name(entry: Any) -> str:
    if not isinstance(entry["filter"], list):
        raise TypeError("a pipeline is a list of filters")
    return str(entry.get("name", NO_FILTERS.name))


def _filter(step: Any) -> Filter:
    function = step["function"]
    if function not in _FILTERS:
        raise TaskFileError(
            f"filter_list uses {function!r}, which is not supported; {nearest(str(function), _FILTERS)}"
        )
    known: Mapping[str, tuple[Any, type]] = _REGEX if function == "regex" else {}
    for key in step:
        if key != "function" and key not in known:
            raise TaskFileError(f"the filter {function} has no setting {key!r}; {nearest(str(key), known)}")
    settings = {key: step.get(key, default) for key, (default, _) in known.items()}
    for key, (_, kind) in known.items():
        if not isinstance(settings[key], kind) or isinstance(settings[key], bool):
            raise TaskFileError(
                f"the filter {function} has {key}: {_shown(settings[key])}, which is no {kind.__name__}."
            )
    if function == "regex":
        pattern(settings["regex_pattern"])
    return Filter(function, **settings)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python prints
        return "a number of too many digits"
    return text if len(text) <= 200 else text[:200] + "…"
