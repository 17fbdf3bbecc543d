"""A task as its lm-evaluation-harness task file describes it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multiprompt.config import TaskConfig, changed_settings
from multiprompt.errors import ConfigError, DataError, MetricError, TaskFileError, TemplateError, nearest
from multiprompt.records.shown import Shown
from multiprompt.tasks.data import Split
from multiprompt.tasks.filters import Pipeline, check_order, read_pipelines
from multiprompt.tasks.memory import draft_dataset, draft_frame, draft_rows, snapshots_of
from multiprompt.tasks.metric import DEFAULT_METRICS, MetricConfig, check_as_harness
from multiprompt.tasks.rows import as_read
from multiprompt.tasks.task_file import parse, read_file, write
from multiprompt.tasks.template import Template, template
from multiprompt.tasks.urls import has_secret, without_secrets

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    from multiprompt.tasks.draft import Draft

# The dataset_path of a task whose rows a catalog keeps; its data_files are the fingerprints of these.
SNAPSHOT = "snapshot"
MAX_NAME_CHARACTERS = 200
MAX_CHOICES = 1000

_REQUIRED = ("task", "dataset_path", "output_type", "doc_to_text", "doc_to_target")
_OPTIONAL = (
    "metric_list",
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
# The keys that a score depends on, beside data, prompt and base model.
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
# The names that the harness knows for the number of tokens that are generated at most, the first found wins.
_TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# How the next token is chosen, with bounds and types.
CHOOSING: tuple[tuple[str, float, float, Any], ...] = (
    ("temperature", 0.0, 100.0, (int, float)),
    ("top_k", 0, 1_000_000, (int,)),
    ("top_p", 1e-6, 1.0, (int, float)),
    ("repetition_penalty", 1e-3, 1000.0, (int, float)),
)


@dataclass(frozen=True)
class DataSource:
    """The source of the rows; a folder and `data_files` are relative to the task file's folder."""

    path: str
    name: str | None
    data_files: Mapping[str, list[str]] | None
    training: str | None
    validation: str | None
    test: str | None

    @property
    def snapshots(self) -> Mapping[str, str]:
        """The fingerprint of each split, by its name, where a catalog keeps the rows; empty for other data."""
        files = self.data_files or {}
        if self.path != SNAPSHOT or not all(len(f) == 1 and f[0].startswith("sha256:") for f in files.values()):
            return {}
        return {split: fingerprint for split, (fingerprint,) in files.items()}


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


@dataclass(frozen=True, repr=False)
class Task(Shown):
    """One machine-learning problem: data, template, labels, metric.

    `from_file` and `from_mapping` read a task file; `from_dataframe`, `from_dataset` and `from_rows` take rows.

    `source` is the task file's text and `folder` what its paths are relative to; everything else is read from it.
    `metrics` has an entry for each metric of each filter pipeline; stored predictions are those that the first reads.
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
    pipelines: tuple[Pipeline, ...]
    metrics: tuple[MetricConfig, ...]
    tags: tuple[str, ...]
    config: TaskConfig
    # The file that it was read from, None where it was built from a mapping.
    file: Path | None = field(default=None, compare=False)
    # Gives the rows of a fingerprint in `data.snapshots`; None for data of files.
    read_snapshot: Callable[[str], Split] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_file(cls, path: str | Path) -> Task:
        """Read a task file. Raises TaskFileError, TemplateError or ConfigError, each naming file and key."""
        path = Path(path)
        source, mapping = read_file(path)
        return replace(cls._strict(mapping, source, path.resolve().parent, str(path)), file=path.resolve())

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], folder: str | Path = ".") -> Task:
        """Build a task from what its task file would hold."""
        where = str(mapping.get("task", "task"))
        source = write(mapping)
        return cls._strict(parse(source, where), source, Path(folder).resolve(), where)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        text: str,
        label: str | None = None,
        target: str | None = None,
        instruction: str | None = None,
        name: str | None = None,
        seed: int = 0,
    ) -> Task:
        """A task of rows in memory, which the catalog keeps once the task is added.

        `text` and `label` (or `target`, for generation) name keys of the rows. The split is that of `multiprompt new`.
        The name is by default that of the label. Raises DataError and NotFoundError.
        """
        return cls._of_draft(draft_rows(rows, text, label, target, instruction, name, seed))

    @classmethod
    def from_dataframe(
        cls,
        frame: DataFrame,
        *,
        text: str,
        label: str | None = None,
        target: str | None = None,
        instruction: str | None = None,
        name: str | None = None,
        seed: int = 0,
    ) -> Task:
        """A task of a pandas DataFrame; see `from_rows`."""
        return cls._of_draft(draft_frame(frame, text, label, target, instruction, name, seed))

    @classmethod
    def from_dataset(
        cls,
        dataset: Dataset,
        *,
        text: str,
        label: str | None = None,
        target: str | None = None,
        instruction: str | None = None,
        name: str | None = None,
        seed: int = 0,
    ) -> Task:
        """A task of one split of `datasets`, with the names of a ClassLabel column; see `from_rows`."""
        return cls._of_draft(draft_dataset(dataset, text, label, target, instruction, name, seed))

    @classmethod
    def _of_draft(cls, draft: Draft) -> Task:
        kept = snapshots_of(draft)
        files = {split.name: fingerprint for fingerprint, split in kept.items()}
        return replace(cls.from_mapping(draft.mapping(SNAPSHOT, files), "/"), read_snapshot=kept.__getitem__)

    @classmethod
    def _strict(cls, mapping: Mapping[str, Any], source: str, folder: Path, where: str) -> Task:
        """A new task file, which may hold nothing that the harness scores otherwise."""
        task = cls._from(mapping, source, folder, where)
        try:
            _refuse_secrets(task.data)
            _check_as_harness(mapping, task)
        except TaskFileError as error:
            raise TaskFileError(f"{where}: {error}") from None
        return task

    @classmethod
    def from_source(cls, source: str, folder: Path, where: str) -> Task:
        """A task from a text that a catalog holds."""
        return cls._from(parse(source, where), source, folder, where)

    @classmethod
    def _from(cls, mapping: Mapping[str, Any], source: str, folder: Path, where: str) -> Task:
        _check_keys(mapping, where)
        try:
            return _read(mapping, source, folder)
        except (ConfigError, MetricError, TaskFileError, TemplateError) as error:
            raise type(error)(f"{where}: {error}") from None

    def with_settings(self, settings: Mapping[str, Any]) -> Task:
        """The same task with other settings, such as `{"training.steps": 40}`. Raises ConfigError."""
        if not isinstance(settings, Mapping):
            raise ConfigError(f"settings is a {type(settings).__name__}, but it must be a mapping of settings.")
        mapping = parse(self.source, self.name)
        within = (mapping.get("metadata") or {}).get("multiprompt") is not None
        place = mapping["metadata"] if within else mapping
        try:
            plain = {name: _setting(name, value) for name, value in settings.items()}
            place["multiprompt"] = changed_settings(place.get("multiprompt") or {}, plain)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"{self.name}: {error}") from None
        source = write(mapping)
        changed = self._from(parse(source, self.name), source, self.folder, self.name)
        return replace(changed, read_snapshot=self.read_snapshot)

    def _facts(self) -> Mapping[str, Any]:
        """What a console and a notebook show of it."""
        made = f"{self.config.prompt.method} of {self.config.prompt.num_virtual_tokens} tokens"
        kind = {"task": self.name, "kind": self.output_type, "metric": self.metrics[0].name, "prompt": made}
        data = ", ".join(self.data.data_files or ()) or self.data.path
        return {**kind, "splits": data, "instruction": self.description.source, "tags": self.tags}

    @property
    def _line(self) -> str:
        facts = self._facts()
        return f"{self.name}: {self.output_type}, {facts['metric']}, {facts['prompt']}"

    @property
    def is_multiple_choice(self) -> bool:
        return self.output_type == "multiple_choice"

    @cached_property
    def fields(self) -> frozenset[str]:
        """The fields of a row that the task reads to build the model's input."""
        return self.description.fields | self.doc_to_text.fields

    @cached_property
    def mapping(self) -> Mapping[str, Any]:
        """The content of its task file, key by key; choices that it names are a list, as their order counts."""
        found = parse(self.source, self.name)
        choices = found.get("doc_to_choice")
        return found | {"doc_to_choice": list(choices.values())} if isinstance(choices, dict) else found

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what moves a score: templates, choices, generation, filters, metrics, truncation."""
        scored = {key: self.mapping[key] for key in _SCORED if key in self.mapping}
        if self.generation.until != _until(self.mapping.get("generation_kwargs") or {}, Generation.until[0]):
            scored["fewshot_delimiter"] = self.mapping["fewshot_delimiter"]
        scored["keep_description"] = self.config.keep_description
        scored["max_input_tokens"] = self.config.max_input_tokens
        return "sha256:" + hashlib.sha256(_as_json(scored).encode()).hexdigest()


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except TypeError:  # keys of several types have no order
        return json.dumps(_with_text_keys(value), sort_keys=True, default=str)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"{type(key).__name__} {key}": _with_text_keys(inner) for key, inner in value.items()}
    return [_with_text_keys(inner) for inner in value] if isinstance(value, list) else value


def _check_keys(mapping: Mapping[str, Any], where: str) -> None:
    if is_group(mapping):
        raise TaskFileError(
            f"{where} is a group of tasks; add its tasks with `multiprompt add --group {where}`, which looks for them."
        )
    if "include" in mapping:
        raise TaskFileError(f"{where} uses include, which only a file can do; write the included keys out.")
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


def _setting(name: str, value: Any) -> Any:
    """A setting's value in plain types. Raises ConfigError for one that is no number, which a file would lack."""
    plain = as_read(value)
    if plain is None and value is not None:
        raise ConfigError(f"{name} is {str(value)[:100]}, which is no value; give a number, a text or None.")
    return plain


def _refuse_secrets(source: DataSource) -> None:
    """Raises TaskFileError for a URL with a password or token, as a catalog keeps and shows the task file."""
    files = [path for paths in (source.data_files or {}).values() for path in paths]
    for url in filter(has_secret, [source.path, *files]):
        raise TaskFileError(
            f"{without_secrets(url)} holds a password or token, which a catalog would keep; give it to fsspec by its "
            "configuration or environment, or fetch the file."
        )


def is_group(mapping: Mapping[str, Any]) -> bool:
    """Whether a file groups other tasks instead of being one."""
    return "group" in mapping and not isinstance(mapping.get("task"), str)


def _check_as_harness(mapping: Mapping[str, Any], task: Task) -> None:
    """Refuse settings that the harness scores in another way. Raises TaskFileError."""
    check_order(task.pipelines, task.output_type)
    for entry in mapping.get("metric_list") or ():
        check_as_harness(entry, task.output_type)
    names = [metric.name for metric in task.metrics]
    if len(set(names)) < len(names):
        raise TaskFileError(f"metric_list names a metric twice: {', '.join(names)}.")
    repeats = mapping.get("repeats", 1)
    if repeats != 1 and not all(pipeline.takes_first for pipeline in task.pipelines):
        raise TaskFileError(
            f"repeats is {repeats!r}, but only the first answer is scored; end each filter in take_first."
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
    pipelines = read_pipelines(mapping.get("filter_list"))
    delimiter = mapping.get("fewshot_delimiter") if output_type == "generate_until" else None
    return Task(
        name=_name(mapping["task"]),
        source=source,
        folder=folder,
        data=_data_source(mapping),
        output_type=output_type,
        description=_template(mapping.get("description") or "", "description"),
        doc_to_text=template(_text(mapping["doc_to_text"], "doc_to_text"), "doc_to_text", is_column=True),
        doc_to_target=_target(mapping["doc_to_target"]),
        doc_to_choice=choices,
        target_delimiter=_text(mapping.get("target_delimiter", " "), "target_delimiter"),
        generation=_generation(mapping.get("generation_kwargs") or {}, delimiter),
        pipelines=pipelines,
        metrics=_metrics(mapping.get("metric_list"), output_type, pipelines),
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


def _target(value: Any) -> Template | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return template(_text(value, "doc_to_target"), "doc_to_target")


def _choices(value: Any) -> tuple[str, ...] | Template | None:
    if value is None:
        return None
    if isinstance(value, str):
        return template(value, "doc_to_choice")
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
        if key == "trust_remote_code" and options[key] is not False:
            raise TaskFileError("dataset_kwargs asks for trust_remote_code, which would run code from data; remove it.")
        if key not in ("data_files", "trust_remote_code"):
            raise TaskFileError(f"dataset_kwargs has {key!r}; only 'data_files' is supported.")
    splits = {key: mapping.get(key) for key in ("training_split", "validation_split", "test_split")}
    for key, value in splits.items():
        if value is not None and not _text(value, key):
            raise TaskFileError(f"{key} is empty; name a split, or leave the key out.")
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


def _generation(options: Mapping[str, Any], delimiter: Any) -> Generation:
    if not isinstance(options, dict):
        raise TaskFileError(f"generation_kwargs is {options!r}, but it must be a mapping.")
    known = {"until", *_TOKEN_LIMITS, "do_sample", "num_beams", *(key for key, *_ in CHOOSING)}
    for key in options:
        if key not in known:
            raise TaskFileError(f"generation_kwargs has {key!r}, which is not supported; {nearest(str(key), known)}")
    if options.get("num_beams", 1) != 1:
        raise TaskFileError(f"generation_kwargs.num_beams is {options['num_beams']!r}; only 1 is supported.")
    stops = _until(options, Generation.until[0] if delimiter is None else delimiter)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise TaskFileError(f"generation_kwargs.until is {list(stops)!r}; it must be a list of non-empty texts.")
    given = ((key, options[key]) for key in _TOKEN_LIMITS if options.get(key) is not None)
    key, limit = next(given, ("max_gen_toks", Generation.max_new_tokens))
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 100_000:
        raise TaskFileError(f"generation_kwargs.{key} is {limit!r}; it must lie between 1 and 100000.")
    return Generation(stops, limit, **_sampling(options))


def _until(options: Mapping[str, Any], delimiter: Any) -> tuple[Any, ...]:
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


def _metrics(value: Any, output_type: str, pipelines: tuple[Pipeline, ...]) -> tuple[MetricConfig, ...]:
    if value is None:
        value = list(DEFAULT_METRICS[output_type])
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise TaskFileError(f"metric_list is {value!r}; it must be a list of mappings with a 'metric'.")
    metrics = [MetricConfig.from_mapping(entry, output_type) for entry in value]
    return tuple(metric.of(pipeline, first=pipeline is pipelines[0]) for pipeline in pipelines for metric in metrics)


def _tags(value: Any) -> tuple[str, ...]:
    listed = [] if value is None else value if isinstance(value, list) else [value]
    return tuple(_text(tag, "tag") for tag in listed)
