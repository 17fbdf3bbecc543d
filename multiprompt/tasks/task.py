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
from multiprompt.errors import ConfigError, DataError, MetricError, TaskFileError, TemplateError
from multiprompt.records.shown import Shown
from multiprompt.tasks.data import Split
from multiprompt.tasks.data_source import SNAPSHOT, DataSource, read_data_source, refuse_secrets
from multiprompt.tasks.filters import Pipeline, check_order, read_pipelines
from multiprompt.tasks.generation import Generation, read_generation, stop_strings
from multiprompt.tasks.keys import check_keys, text_of
from multiprompt.tasks.memory import draft_dataset, draft_frame, draft_rows, snapshots_of
from multiprompt.tasks.metric import DEFAULT_METRICS, MetricConfig, check_as_harness
from multiprompt.tasks.rows import as_read
from multiprompt.tasks.task_file import parse, read_file, write
from multiprompt.tasks.template import Template, template

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

    from multiprompt.tasks.draft import Draft

MAX_NAME_CHARACTERS = 200
MAX_CHOICES = 1000

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
            refuse_secrets(task.data)
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
        check_keys(mapping, where)
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
        """The facts that a console and a notebook show."""
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
        if self.generation.until != stop_strings(self.mapping.get("generation_kwargs") or {}, Generation.until[0]):
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


def _setting(name: str, value: Any) -> Any:
    """A setting's value in plain types. Raises ConfigError for one that is no number, which a file would lack."""
    plain = as_read(value)
    if plain is None and value is not None:
        raise ConfigError(f"{name} is {str(value)[:100]}, which is no value; give a number, a text or None.")
    return plain


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
        data=read_data_source(mapping),
        output_type=output_type,
        description=_template(mapping.get("description") or "", "description"),
        doc_to_text=template(text_of(mapping["doc_to_text"], "doc_to_text"), "doc_to_text", is_column=True),
        doc_to_target=_target(mapping["doc_to_target"]),
        doc_to_choice=choices,
        target_delimiter=text_of(mapping.get("target_delimiter", " "), "target_delimiter"),
        generation=read_generation(mapping.get("generation_kwargs") or {}, delimiter),
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
    name = text_of(value, "task")
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise TaskFileError(f"the task's name has {len(name)} characters; it must have 1 to {MAX_NAME_CHARACTERS}.")
    if name != name.strip() or not name.isprintable() or "@" in name:
        raise TaskFileError(f"the task's name is {name!r}; it may not hold '@', control characters or outer spaces.")
    return name


def _template(value: Any, key: str) -> Template:
    return Template(text_of(value, key), key)


def _target(value: Any) -> Template | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return template(text_of(value, "doc_to_target"), "doc_to_target")


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


def _metrics(value: Any, output_type: str, pipelines: tuple[Pipeline, ...]) -> tuple[MetricConfig, ...]:
    if value is None:
        value = list(DEFAULT_METRICS[output_type])
    if not isinstance(value, list) or not value or not all(isinstance(entry, dict) for entry in value):
        raise TaskFileError(f"metric_list is {value!r}; it must be a list of mappings with a 'metric'.")
    metrics = [MetricConfig.from_mapping(entry, output_type) for entry in value]
    return tuple(metric.of(pipeline, first=pipeline is pipelines[0]) for pipeline in pipelines for metric in metrics)


def _tags(value: Any) -> tuple[str, ...]:
    listed = [] if value is None else value if isinstance(value, list) else [value]
    return tuple(text_of(tag, "tag") for tag in listed)
