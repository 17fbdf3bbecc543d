"""A task as its lm-evaluation-harness task file describes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from multiprompt.config import TaskConfig
from multiprompt.errors import ConfigError, MetricError, TaskFileError, TemplateError, nearest
from multiprompt.tasks.metric import MetricConfig
from multiprompt.tasks.template import Template

MAX_TASK_FILE_BYTES = 1_000_000
MAX_NAME_CHARACTERS = 200
MAX_CHOICES = 1000

_REQUIRED = ("task", "dataset_path", "output_type", "doc_to_text", "doc_to_target", "metric_list")
_OPTIONAL = (
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "description",
    "doc_to_choice",
    "target_delimiter",
    "generation_kwargs",
    "filter_list",
    "tag",
    "metadata",
    "multiprompt",
)
# Keys of the harness that change no score when a task is run without few-shot examples.
_WITHOUT_EFFECT = (
    "task_alias",
    "group",
    "num_fewshot",
    "fewshot_delimiter",
    "fewshot_split",
    "fewshot_config",
    "repeats",
    "should_decontaminate",
    "doc_to_decontamination_query",
)
# What a score depends on, beside data, prompt and base model.
_SCORED = (
    "output_type",
    "description",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "target_delimiter",
    "generation_kwargs",
    "filter_list",
    "metric_list",
)
_FILTERS = ("take_first", "remove_whitespace", "lowercase", "uppercase")


@dataclass(frozen=True)
class DataSource:
    """Where the rows come from; a folder and `data_files` are relative to the task file's folder."""

    path: str
    name: str | None
    data_files: Mapping[str, list[str]] | None
    training: str | None
    validation: str | None
    test: str | None


@dataclass(frozen=True)
class Generation:
    """How answers are generated, until a stop string, the end token or `max_new_tokens`: greedily at `temperature` 0,
    else sampled from the `top_k` likeliest tokens (0: all) that make up `top_p` of the probability."""

    until: tuple[str, ...] = ("\n\n",)
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def decoding(self) -> str:
        """What of it is part of a score's key; evaluations draw with seed 0."""
        if self.temperature == 0:
            return "greedy"
        return f"sampled, temperature {self.temperature:g}, top_k {self.top_k}, top_p {self.top_p:g}, seed 0"


@dataclass(frozen=True)
class Task:
    """One machine-learning problem: data, template, labels, metric. Built by `from_file` or `from_mapping`.

    `source` is the task file's text and `folder` what its paths are relative to; everything else is read from it.
    """

    name: str
    source: str
    folder: Path
    data: DataSource
    output_type: str
    description: Template
    doc_to_text: Template
    doc_to_target: Template | int
    doc_to_choice: tuple[str, ...] | Template | None
    target_delimiter: str
    generation: Generation
    filters: tuple[str, ...]
    metrics: tuple[MetricConfig, ...]
    tags: tuple[str, ...]
    config: TaskConfig
    # The file that it was read from, None where it was built from a mapping.
    file: Path | None = field(default=None, compare=False)

    @classmethod
    def from_file(cls, path: str | Path) -> Task:
        """Read a task file. Raises TaskFileError, TemplateError or ConfigError, each naming file and key."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_TASK_FILE_BYTES:
                raise TaskFileError(f"{path} is larger than {MAX_TASK_FILE_BYTES} bytes; data belongs in data files.")
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TaskFileError(f"{path} cannot be read: {error}") from None
        return replace(cls.from_source(source, path.resolve().parent, where=str(path)), file=path.resolve())

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], folder: str | Path = ".") -> Task:
        """Build a task from what its task file would hold."""
        source = yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        return cls.from_source(source, Path(folder).resolve(), where=str(mapping.get("task", "task")))

    @classmethod
    def from_source(cls, source: str, folder: Path, where: str) -> Task:
        mapping = _parse(source, where)
        _check_keys(mapping, where)
        try:
            return _read(mapping, source, folder)
        except (ConfigError, MetricError, TaskFileError, TemplateError) as error:
            raise type(error)(f"{where}: {error}") from None

    @property
    def is_multiple_choice(self) -> bool:
        return self.output_type == "multiple_choice"

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields of a row that the task reads to build the model's input."""
        return self.description.fields | self.doc_to_text.fields

    @cached_property
    def mapping(self) -> Mapping[str, Any]:
        """What its task file holds, key by key."""
        return _parse(self.source, self.name)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what moves a score: templates, choices, generation, filters, metrics, truncation."""
        scored = {key: self.mapping[key] for key in _SCORED if key in self.mapping}
        scored["keep_description"] = self.config.keep_description
        scored["max_input_tokens"] = self.config.max_input_tokens
        return "sha256:" + hashlib.sha256(json.dumps(scored, sort_keys=True, default=str).encode()).hexdigest()


class _Dumper(yaml.SafeDumper):
    """Writes a value out each time, as aliases are refused when a task file is read."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


# libyaml, where PyYAML was built with it, reads a thousand task files in one second instead of seven.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """A safe loader that names Python tags as what they are and refuses repeated keys."""


def _refuse_tag(_: _Loader, suffix: str, node: yaml.Node) -> Any:
    line = node.start_mark.line + 1
    raise TaskFileError(
        f"line {line} uses !{suffix}, which would run code from a task file; write a template or a plain value instead."
    )


def _unique_keys(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list, set)):
            raise TaskFileError(f"line {key_node.start_mark.line + 1} uses a {type(key).__name__} as a key.")
        if key in seen:
            raise TaskFileError(f"line {key_node.start_mark.line + 1} repeats the key {key!r}.")
        seen.add(key)
    made: dict[Any, Any] = loader.construct_mapping(node, deep=deep)
    return made


_Loader.add_multi_constructor("!", _refuse_tag)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_tag)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


def _parse(source: str, where: str) -> dict[str, Any]:
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(source, Loader=_SafeLoader)):
            raise TaskFileError("it uses YAML aliases (*name); write the value out.")
        mapping = yaml.load(source, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except TaskFileError as error:
        raise TaskFileError(f"{where}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError, AttributeError, TypeError) as error:
        raise TaskFileError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(mapping, dict):
        raise TaskFileError(f"{where} holds a {type(mapping).__name__}, but a task file is a mapping of keys.")
    return mapping


def _check_keys(mapping: Mapping[str, Any], where: str) -> None:
    for key in _REQUIRED:
        if mapping.get(key) is None:
            raise TaskFileError(f"{where} lacks the key {key!r}.")
    known = {*_REQUIRED, *_OPTIONAL, *_WITHOUT_EFFECT}
    for key in mapping:
        if key not in known:
            raise TaskFileError(f"{where} has the key {key!r}, which is not supported; {nearest(str(key), known)}")
    if mapping.get("num_fewshot"):
        raise TaskFileError(
            f"{where} asks for {mapping['num_fewshot']} few-shot examples; a soft prompt replaces them."
        )


def _read(mapping: Mapping[str, Any], source: str, folder: Path) -> Task:
    output_type = mapping["output_type"]
    if output_type not in ("multiple_choice", "generate_until"):
        raise TaskFileError(
            f"output_type is {output_type!r}; the supported ones are 'multiple_choice' and 'generate_until'."
        )
    choices = _choices(mapping.get("doc_to_choice"))
    if output_type == "multiple_choice" and choices is None:
        raise TaskFileError("output_type is 'multiple_choice', so doc_to_choice must list the choices.")
    return Task(
        name=_name(mapping["task"]),
        source=source,
        folder=folder,
        data=_data_source(mapping),
        output_type=output_type,
        description=_template(mapping.get("description") or "", "description"),
        doc_to_text=_field_or_template(mapping["doc_to_text"], "doc_to_text"),
        doc_to_target=_target(mapping["doc_to_target"]),
        doc_to_choice=choices,
        target_delimiter=_text(mapping.get("target_delimiter", " "), "target_delimiter"),
        generation=_generation(mapping.get("generation_kwargs") or {}),
        filters=_filters(mapping.get("filter_list")),
        metrics=_metrics(mapping["metric_list"], output_type),
        tags=_tags(mapping.get("tag")),
        config=TaskConfig.from_mapping(_settings(mapping)),
    )


def _settings(mapping: Mapping[str, Any]) -> Any:
    """Our own settings. The harness refuses a key that it does not know, but not one within `metadata`."""
    metadata = mapping.get("metadata") or {}
    within = metadata.get("multiprompt") if isinstance(metadata, dict) else None
    if within is not None and mapping.get("multiprompt") is not None:
        raise TaskFileError("its settings stand both under multiprompt and under metadata.multiprompt; keep one.")
    return within or mapping.get("multiprompt") or {}


def _name(value: Any) -> str:
    name = _text(value, "task")
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise TaskFileError(f"the task's name has {len(name)} characters; it must have 1 to {MAX_NAME_CHARACTERS}.")
    if name != name.strip() or not name.isprintable() or "@" in name:
        raise TaskFileError(f"the task's name is {name!r}; it may not hold '@', control characters or outer spaces.")
    return name


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise TaskFileError(f"{key} is {value!r}, but it must be text.")
    return value


def _template(value: Any, key: str) -> Template:
    return Template(_text(value, key), key)


def _field_or_template(value: Any, key: str) -> Template:
    """A bare word names a field of the row, as in the harness; anything else is a template."""
    text = _text(value, key)
    return Template("{{ " + text + " }}" if text.isidentifier() else text, key)


def _target(value: Any) -> Template | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _field_or_template(value, "doc_to_target")


def _choices(value: Any) -> tuple[str, ...] | Template | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _field_or_template(value, "doc_to_choice")
    listed = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(listed, list) or not all(isinstance(choice, str) for choice in listed):
        raise TaskFileError(
            f"doc_to_choice is {value!r}; it must be a list of texts (quote yes, no, true and numbers)."
        )
    if not 2 <= len(listed) <= MAX_CHOICES or len(set(listed)) != len(listed) or "" in listed:
        raise TaskFileError(f"doc_to_choice must hold 2 to {MAX_CHOICES} different, non-empty choices.")
    return tuple(listed)


def _data_source(mapping: Mapping[str, Any]) -> DataSource:
    options = mapping.get("dataset_kwargs") or {}
    if not isinstance(options, dict):
        raise TaskFileError(f"dataset_kwargs is {options!r}, but it must be a mapping.")
    for key in options:
        if key == "trust_remote_code":
            raise TaskFileError("dataset_kwargs asks for trust_remote_code, which would run code from data; remove it.")
        if key != "data_files":
            raise TaskFileError(f"dataset_kwargs has {key!r}; only 'data_files' is supported.")
    splits = {key: mapping.get(key) for key in ("training_split", "validation_split", "test_split")}
    for key, value in splits.items():
        if value is not None:
            _text(value, key)
    if splits["test_split"] is None and splits["validation_split"] is None:
        raise TaskFileError("it names neither test_split nor validation_split, so there are no rows to evaluate on.")
    name = mapping.get("dataset_name")
    return DataSource(
        path=_text(mapping["dataset_path"], "dataset_path"),
        name=None if name is None else _text(name, "dataset_name"),
        data_files=_data_files(options.get("data_files"), splits["training_split"]),
        training=splits["training_split"],
        validation=splits["validation_split"],
        test=splits["test_split"],
    )


def _data_files(value: Any, training_split: str | None) -> Mapping[str, list[str]] | None:
    if value is None:
        return None
    by_split = value if isinstance(value, dict) else {training_split or "train": value}
    files: dict[str, list[str]] = {}
    for split, paths in by_split.items():
        listed = paths if isinstance(paths, list) else [paths]
        files[_text(split, "data_files")] = [_text(path, f"data_files.{split}") for path in listed]
    return files


def _generation(options: Mapping[str, Any]) -> Generation:
    if not isinstance(options, dict):
        raise TaskFileError(f"generation_kwargs is {options!r}, but it must be a mapping.")
    known = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
    for key in options:
        if key not in known:
            raise TaskFileError(f"generation_kwargs has {key!r}, which is not supported; {nearest(str(key), known)}")
    until = options.get("until", Generation.until)
    stops = tuple(until) if isinstance(until, (list, tuple)) else (until,)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise TaskFileError(f"generation_kwargs.until is {until!r}; it must be a list of non-empty texts.")
    limit = options.get("max_gen_toks", Generation.max_new_tokens)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 100_000:
        raise TaskFileError(f"generation_kwargs.max_gen_toks is {limit!r}; it must lie between 1 and 100000.")
    return Generation(stops, limit, **_sampling(options))


def _sampling(options: Mapping[str, Any]) -> dict[str, Any]:
    """As in the harness: `do_sample: false`, or a temperature of 0 or none, is greedy; `do_sample` alone is at 1."""
    if not options.get("do_sample", bool(options.get("temperature"))):
        return {}
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | {
        key: options[key] for key in ("temperature", "top_k", "top_p") if options.get(key) is not None
    }
    for key, low, high, types in (
        ("temperature", 0.0, 100.0, (int, float)),
        ("top_k", 0, 1_000_000, (int,)),
        ("top_p", 1e-6, 1.0, (int, float)),
    ):
        value = settings[key]
        if not isinstance(value, types) or isinstance(value, bool) or not low <= value <= high:
            raise TaskFileError(f"generation_kwargs.{key} is {value!r}; it must lie between {low:g} and {high:g}.")
    return settings


def _filters(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    try:
        (pipeline,) = value
        names = tuple(step["function"] for step in pipeline["filter"])
    except (TypeError, ValueError, KeyError):
        raise TaskFileError(
            f"filter_list is {value!r}; it must hold one pipeline: [{{name: …, filter: [{{function: …}}]}}]."
        ) from None
    for name in names:
        if name not in _FILTERS:
            raise TaskFileError(f"filter_list uses {name!r}, which is not supported; {nearest(str(name), _FILTERS)}")
    return names


def _metrics(value: Any, output_type: str) -> tuple[MetricConfig, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise TaskFileError(f"metric_list is {value!r}; it must be a list of mappings with a 'metric'.")
    return tuple(MetricConfig.from_mapping(entry, output_type) for entry in value)


def _tags(value: Any) -> tuple[str, ...]:
    listed = [] if value is None else value if isinstance(value, list) else [value]
    return tuple(_text(tag, "tag") for tag in listed)
