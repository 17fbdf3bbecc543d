"""Task files: what is read from one, what is refused, and what a fingerprint depends on."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiprompt.errors import ConfigError, MetricError, MultipromptError, TaskFileError, TemplateError
from multiprompt.tasks.file_change import difference
from multiprompt.tasks.task import Task
from tests.conftest import COLOURS, task_mapping


def write(folder: Path, text: str) -> Path:
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def written(folder: Path, kind: str = "choice", **keys: Any) -> Path:
    return write(folder, yaml.safe_dump(task_mapping(kind=kind) | keys, sort_keys=False))


def task(kind: str = "choice", **keys: Any) -> Task:
    return Task.from_mapping(task_mapping(kind=kind) | keys)


def refusal(path: Path) -> str:
    """The one line that a task file is refused with."""
    with pytest.raises(MultipromptError) as caught:
        Task.from_file(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def filters(*names: str) -> list[dict[str, Any]]:
    return [{"name": "none", "filter": [{"function": name} for name in names]}]


def test_a_task_file_gives_a_task(tmp_path: Path) -> None:
    read = Task.from_file(written(tmp_path, tag=["nlp", "team:a"]))
    assert (read.name, read.output_type, read.doc_to_choice) == ("colour", "multiple_choice", COLOURS)
    assert (read.tags, read.folder, read.target_delimiter) == (("nlp", "team:a"), tmp_path.resolve(), " ")
    assert (read.data.training, read.data.validation, read.data.test) == ("train", "validation", "test")
    assert read.data.data_files == {name: [f"{name}.jsonl"] for name in ("train", "validation", "test")}
    assert (read.config.prompt.num_virtual_tokens, read.config.training.steps) == (4, 6)
    assert [metric.name for metric in read.metrics] == ["acc"]


def test_a_generation_task_file_gives_stops_limit_and_filters(tmp_path: Path) -> None:
    keys = {"generation_kwargs": {"until": ".", "max_gen_toks": 7, "do_sample": False, "temperature": 0.0}}
    read = Task.from_file(written(tmp_path, "text", filter_list=filters("remove_whitespace", "lowercase"), **keys))
    assert (read.generation.until, read.generation.max_new_tokens) == ((".",), 7)
    assert [step.function for step in read.pipelines[0].filters] == ["remove_whitespace", "lowercase"]
    assert not read.is_multiple_choice


def test_a_mapping_and_its_file_are_the_same_task(tmp_path: Path) -> None:
    from_file, from_mapping = Task.from_file(written(tmp_path)), Task.from_mapping(task_mapping(), tmp_path)
    assert from_file.fingerprint == from_mapping.fingerprint
    assert from_file.source == from_mapping.source


def test_choices_may_be_a_mapping_whose_values_are_the_texts() -> None:
    assert task(doc_to_choice={"A": "red", "B": "green"}).doc_to_choice == ("red", "green")


def test_settings_under_metadata_are_those_under_the_own_key_but_not_both() -> None:
    settings = {"num_virtual_tokens": 7, "training": {"steps": 3}}
    within = task(multiprompt=None, metadata={"version": 1.0, "multiprompt": settings})
    assert within.config == task(multiprompt=settings).config
    with pytest.raises(TaskFileError, match="both under multiprompt and under metadata.multiprompt"):
        task(multiprompt=settings, metadata={"multiprompt": settings})


def test_one_tag_or_none_is_as_good_as_a_list() -> None:
    assert task(tag="nlp").tags == ("nlp",)
    assert task().tags == ()


def test_data_files_that_are_not_by_split_are_the_training_split() -> None:
    assert task(dataset_kwargs={"data_files": "all.csv"}).data.data_files == {"train": ["all.csv"]}
    assert task(dataset_kwargs={"data_files": ["a.csv", "b.csv"]}).data.data_files == {"train": ["a.csv", "b.csv"]}


def test_keys_of_the_harness_that_move_no_score_are_accepted() -> None:
    keys = {
        "task_alias": "c",
        "num_fewshot": 0,
        "repeats": 1,
        "should_decontaminate": False,
        "metadata": {"version": 1},
    }
    assert task(**keys).fingerprint == task().fingerprint


def test_settings_may_stand_under_metadata_where_the_harness_leaves_them_alone(tmp_path: Path) -> None:
    keys = {key: value for key, value in task_mapping().items() if key != "multiprompt"}
    within = Task.from_mapping(keys | {"metadata": {"version": 1, "multiprompt": {"num_virtual_tokens": 9}}})
    assert within.config.prompt.num_virtual_tokens == 9
    path = written(tmp_path, metadata={"multiprompt": {"num_virtual_tokens": 9}})
    assert "both under multiprompt and under metadata.multiprompt; keep one" in refusal(path)


def test_a_mapping_that_uses_one_list_twice_is_a_task() -> None:
    files = ["all.jsonl"]
    read = task(dataset_kwargs={"data_files": {"train": files, "validation": files, "test": files}})
    assert read.data.data_files == {"train": files, "validation": files, "test": files}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task: [unclosed\n", "is not YAML"),
        ("task: a: b\n", "line 1, column 8"),
        ("task: \x00\n", "is not YAML"),
        ("[" * 1000, "is not YAML"),
        ("x: !!int many\n", "is not YAML"),
        ("x: 2020-13-45\n", "is not YAML"),
        ("- task\n", "holds a list"),
        ("", "a task file is a mapping of keys"),
        ("task: a\ntask: b\n", "line 2 repeats the key 'task'"),
        ("metadata: {version: 1, version: 2}\n", "line 1 repeats the key 'version'"),
        ("? [a, b]\n: 1\n", "line 1 uses a list as a key"),
        ("task: a\nprocess_docs: !function utils.process\n", "line 2 uses !function, which would run code"),
        ("task: !!python/object/apply:os.system [ls]\n", "which would run code"),
        ("a: &x [1]\nb: *x\n", "uses YAML aliases"),
    ],
)
def test_a_file_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    message = refusal(path)
    assert message.startswith(str(path))
    assert says in message


def test_a_value_that_its_yaml_tag_cannot_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "metadata: !!timestamp yesterday\n")
    assert refusal(path).startswith(str(path))


def test_a_tag_that_would_run_code_runs_none(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    refusal(
        write(tmp_path, f"task: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:str ['{marker}']]\n")
    )
    assert not marker.exists()


def test_nested_aliases_are_refused_before_they_grow(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert "aliases" in refusal(write(tmp_path, "\n".join(lines)))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("task: café\n".encode("latin-1"))
    for path in (tmp_path / "missing.yaml", tmp_path, latin):
        assert refusal(path).startswith(f"{path} cannot be read")


def test_a_missing_file_is_named_once_and_without_the_number_of_the_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert refusal(missing) == f"{missing} cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path} cannot be read: it is a folder; give the task file in it."


def test_a_file_full_of_data_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    assert "data belongs in data files" in refusal(write(tmp_path, "# " + "x" * 1_000_001))


@pytest.mark.parametrize("key", ["task", "dataset_path", "output_type", "doc_to_text", "doc_to_target"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, yaml.safe_dump({k: v for k, v in task_mapping().items() if k != key}))
    assert refusal(path) == f"{path} lacks the key {key!r}."


def test_an_unknown_key_gives_the_nearest(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, doc_to_txt="{{text}}"))
    assert message == f"{tmp_path / 'task.yaml'} has the key 'doc_to_txt', which is not supported; " + (
        "did you mean 'doc_to_text'?"
    )


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"task": 5}, "task is 5, but it must be text"),
        ({"task": "x" * 201}, "201 characters"),
        ({"task": ""}, "0 characters"),
        ({"task": "a@1"}, "'a@1'"),
        ({"task": " a"}, "outer spaces"),
        ({"task": "a\nb"}, "control characters"),
        ({"output_type": "loglikelihood"}, "'multiple_choice' and 'generate_until'"),
        ({"doc_to_text": 7}, "doc_to_text is 7, but it must be text"),
        ({"doc_to_target": True}, "doc_to_target is True"),
        ({"description": ["x"]}, "description is ['x']"),
        ({"target_delimiter": 1}, "target_delimiter is 1"),
        ({"doc_to_choice": None}, "doc_to_choice must list the choices"),
        ({"doc_to_choice": [True, False]}, "quote yes, no, true and numbers"),
        ({"doc_to_choice": [1, 2]}, "doc_to_choice is [1, 2]"),
        ({"doc_to_choice": ["a"]}, "2 to 1000"),
        ({"doc_to_choice": ["a", "a"]}, "different"),
        ({"doc_to_choice": ["a", ""]}, "non-empty"),
        ({"doc_to_choice": [str(n) for n in range(1001)]}, "2 to 1000"),
        ({"tag": [1]}, "tag is 1"),
        ({"test_split": None, "validation_split": None}, "neither test_split nor validation_split"),
        ({"training_split": 1}, "training_split is 1"),
        ({"dataset_name": 1}, "dataset_name is 1"),
        ({"dataset_kwargs": ["x"]}, "dataset_kwargs is ['x']"),
        ({"dataset_kwargs": {"trust_remote_code": True}}, "trust_remote_code, which would run code"),
        ({"dataset_kwargs": {"streaming": True}}, "dataset_kwargs has 'streaming'; only 'data_files'"),
        ({"dataset_kwargs": {"data_files": {"train": 3}}}, "data_files.train is 3"),
        ({"num_fewshot": 5}, "asks for 5 few-shot examples"),
        ({"generation_kwargs": [1]}, "generation_kwargs is [1]"),
        ({"generation_kwargs": {"temperature": -0.7}}, "generation_kwargs.temperature is -0.7"),
        ({"generation_kwargs": {"do_sample": "no"}}, "generation_kwargs.do_sample is 'no'"),
        ({"generation_kwargs": {"do_sample": True, "top_p": 0}}, "generation_kwargs.top_p is 0"),
        ({"generation_kwargs": {"do_sample": True, "top_k": 1.5}}, "generation_kwargs.top_k is 1.5"),
        ({"generation_kwargs": {"do_sample": "no"}}, "generation_kwargs.do_sample is 'no'; it must be true or false"),
        ({"generation_kwargs": {"do_sample": 1}}, "generation_kwargs.do_sample is 1; it must be true or false"),
        ({"generation_kwargs": {"untl": ["x"]}}, "did you mean 'until'?"),
        ({"generation_kwargs": {"until": [""]}}, "generation_kwargs.until is ['']"),
        ({"generation_kwargs": {"max_gen_toks": 0}}, "generation_kwargs.max_gen_toks is 0"),
        ({"generation_kwargs": {"max_gen_toks": True}}, "generation_kwargs.max_gen_toks is True"),
        ({"filter_list": "strip"}, "filter_list is 'strip'"),
        ({"filter_list": [*filters("take_first"), *filters("take_first")]}, "pipelines of different names"),
        ({"filter_list": filters("lower_case")}, "did you mean 'lowercase'?"),
        ({"metric_list": []}, "metric_list is []"),
        ({"metric_list": ["acc"]}, "metric_list is ['acc']"),
        ({"metric_list": [{"aggregation": "mean"}]}, "its 'metric' must be a name"),
        ({"metric_list": [{"metric": "acc", "ignore_case": True}]}, "metric acc has the option 'ignore_case'"),
        ({"multiprompt": [1]}, "multiprompt is [1]"),
        ({"multiprompt": {"training": {"steps": 0}}}, "multiprompt.training.steps is 0"),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_and_value(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    path = written(tmp_path, **keys)
    message = refusal(path)
    assert message.startswith(str(path))
    assert says in message


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ({"doc_to_text": "{{ text"}, TemplateError, "doc_to_text is not a valid template"),
        ({"description": "{% if %}"}, TemplateError, "description is not a valid template"),
        ({"doc_to_choice": "{{ options | nothing }}"}, TemplateError, "No filter named 'nothing'"),
        ({"metric_list": [{"metric": "macro-f1"}]}, MetricError, "unknown metric 'macro-f1'; did you mean 'macro_f1'?"),
        ({"metric_list": [{"metric": "bleu"}]}, MetricError, "metric bleu cannot score multiple_choice"),
        ({"multiprompt": {"init": "zeros"}}, ConfigError, "multiprompt.init is 'zeros'"),
    ],
)
def test_a_template_a_metric_and_a_setting_are_refused_with_errors_of_their_own(
    tmp_path: Path, keys: dict[str, Any], error: type[MultipromptError], says: str
) -> None:
    with pytest.raises(error) as caught:
        Task.from_file(written(tmp_path, **keys))
    assert says in str(caught.value)


@pytest.mark.parametrize("keys", [{"doc_to_text": "{{ text"}, {"metric_list": [{"metric": "nothing"}]}])
def test_a_bad_template_or_metric_names_the_file(tmp_path: Path, keys: dict[str, Any]) -> None:
    path = written(tmp_path, **keys)
    assert refusal(path).startswith(str(path))


@pytest.mark.parametrize("value", ["false", None, 0.5])
def test_a_sign_that_is_no_truth_value_is_refused(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path, metric_list=[{"metric": "acc", "higher_is_better": value}])
    assert "higher_is_better" in refusal(path)


def test_every_error_of_a_task_file_is_a_value_error(tmp_path: Path) -> None:
    for keys in ({"doc_to_text": "{{"}, {"metric_list": [{"metric": "x"}]}, {"multiprompt": {"x": 1}}, {"task": 1}):
        with pytest.raises(ValueError):
            Task.from_file(written(tmp_path, **keys))
    with pytest.raises(TaskFileError):
        Task.from_file(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    "keys",
    [
        {"description": "Name the colour.\n"},
        {"doc_to_text": "{{text}} Answer:"},
        {"doc_to_target": "{{label}}"},
        {"doc_to_choice": list(reversed(COLOURS))},
        {"target_delimiter": ""},
        {"metric_list": [{"metric": "macro_f1"}]},
        {"metric_list": [{"metric": "acc", "higher_is_better": False}]},
        {"multiprompt": {"keep_description": False}},
        {"multiprompt": {"max_input_tokens": 9}},
    ],
)
def test_what_moves_a_score_moves_the_fingerprint(keys: dict[str, Any]) -> None:
    assert task(**keys).fingerprint != task().fingerprint


@pytest.mark.parametrize(
    "keys",
    [
        {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 7}},
        {"generation_kwargs": {"until": ["."], "max_gen_toks": 6}},
        {"filter_list": filters("lowercase")},
        {"metric_list": [{"metric": "exact_match", "ignore_case": True}]},
    ],
)
def test_what_moves_a_generated_score_moves_the_fingerprint(keys: dict[str, Any]) -> None:
    assert task("text", **keys).fingerprint != task("text").fingerprint


@pytest.mark.parametrize(
    "keys",
    [
        {"tag": ["nlp"]},
        {"metadata": {"version": 2}},
        {"training_split": "test"},
        {"dataset_kwargs": {"data_files": {"train": "moved.jsonl", "validation": "v.jsonl", "test": "t.jsonl"}}},
        {"multiprompt": {"num_virtual_tokens": 50, "init": "random", "training": {"steps": 1}}},
        {"multiprompt": {"regression": {"max_drop": 0.5}}},
        {"repeats": 2},
    ],
)
def test_what_moves_no_score_keeps_the_fingerprint(keys: dict[str, Any]) -> None:
    assert task(**keys).fingerprint == task().fingerprint


def test_choices_of_a_mapping_in_another_order_are_another_task() -> None:
    first, second = ({"A": "red", "B": "green"}, {"B": "green", "A": "red"})
    before, after = (task(doc_to_choice=choices) for choices in (first, second))
    assert before.doc_to_choice != after.doc_to_choice
    assert before.fingerprint != after.fingerprint
    assert difference(before.mapping, after.mapping) == (
        '-doc_to_choice: ["red", "green"]',
        '+doc_to_choice: ["green", "red"]',
    )


def test_comments_key_order_and_folder_keep_the_fingerprint(tmp_path: Path) -> None:
    source = yaml.safe_dump(dict(reversed(task_mapping().items())), sort_keys=False)
    moved = Task.from_source("# a comment\n" + source, tmp_path / "elsewhere", where="moved")
    assert moved.fingerprint == task().fingerprint


def test_a_filter_named_by_a_date_has_a_fingerprint() -> None:
    named = [{"name": datetime.date(2026, 1, 1), "filter": [{"function": "take_first"}]}]
    assert task("text", filter_list=named).fingerprint.startswith("sha256:")


def test_fields_are_those_that_description_and_text_read() -> None:
    read = task(description="About {{topic}}.\n", doc_to_text="{% for w in words %}{{w}} {% endfor %}{{text}}")
    assert read.fields == {"topic", "words", "text"}


def test_a_bare_word_is_a_field() -> None:
    read = task(doc_to_text="text")
    assert read.fields == {"text"}
    assert read.doc_to_text.render({"text": "a {{ b }}"}) == "a {{ b }}"


def test_sampling_that_is_left_open_follows_the_temperature() -> None:
    def temperature(**options: Any) -> float:
        return task("text", generation_kwargs=options).generation.temperature

    assert temperature(do_sample=None, temperature=0.7) == temperature(temperature=0.7) == 0.7
    assert temperature(do_sample=None) == temperature(do_sample=False, temperature=0.7) == 0.0


def test_what_a_task_file_does_not_say_of_sampling_is_left_to_the_base_model() -> None:
    def top_k(**options: Any) -> int | None:
        return task("text", generation_kwargs=options).generation.top_k

    assert [top_k(temperature=0.7), top_k(temperature=0.7, top_k=0), top_k(do_sample=False, temperature=0.7)] == [
        None,
        0,
        None,
    ]
