"""Inference: labels that move during a call, and rows that cannot be answered beside rows that can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy
import pytest

import multiprompt as mp
from multiprompt.errors import BaseModelError, ConfigError, DataError, NotFoundError
from multiprompt.tasks.pattern import Pattern, PatternError
from tests.conftest import COLOURS, MakeTask


class Moving(Sequence[Any]):
    """Rows of one label, behind the first of which another version is published."""

    def __init__(self, workspace: mp.Workspace, label: str) -> None:
        self.workspace, self.rows = workspace, [(label, "sky"), (label, "sea"), (label, "sky")]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[Any]:
        first, *others = self.rows
        yield first
        self.workspace.rollback("colour", to=1)
        # Another thread's call, which finds that the pointer has moved.
        self.workspace.predict([first])
        yield from others


def test_one_call_answers_a_label_from_one_version_while_its_pointer_moves(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    for seed in range(2):
        training = {"steps": 6, "seed": seed}
        tolerant = {"floor": "none", "max_drop": 1.0}
        workspace.add_task(make_task("colour", multiprompt={"training": training, "regression": tolerant}))
        workspace.learn("colour")
    assert {found.version for found in workspace.predict(Moving(workspace, "colour"))} == {"colour@2"}
    assert {found.version for found in workspace.predict([("colour", "sky")])} == {"colour@1"}


def test_a_row_that_has_no_tokens_fails_alone(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.add_task(make_task("own", doc_to_choice="{{['red', 'green', text]}}"))
    workspace.learn_many(["colour", "own"])
    rows: list[Any] = [("colour", "sky"), ("colour", "a \ud800"), ("own", "sea"), ("own", "a \udfff"), ("own", "sky")]
    found = workspace.predict(rows, strict=False)
    assert [one.error is None for one in found] == [True, False, True, False, True]
    assert "U+D800 is half of a character" in str(found[1].error)
    (alone,) = workspace.predict([rows[4]])
    assert alone.probabilities == pytest.approx(found[4].probabilities, abs=1e-5)
    for row, half in ((rows[1], "D800"), (rows[3], "DFFF")):
        with pytest.raises(DataError, match=rf"row 0 of the call: .*U\+{half} is half of a character"):
            workspace.predict([row])
        with pytest.raises(DataError, match=f"U\\+{half}"):
            workspace.predictor().stream(*row)


def test_a_choice_without_a_token_fails_its_row_alone(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("own", target_delimiter="", doc_to_choice="{{['red', 'green', text]}}"))
    workspace.learn("own")
    rows = [("own", "sea"), ("own", "~"), ("own", "sky")]
    workspace.base_model().tokenizer.backend_tokenizer.normalizer = _without_tilde()
    found = workspace.predict(rows, strict=False)
    assert [one.error is None for one in found] == [True, False, True]
    assert "own: the row: the choice '~' adds no token" in str(found[1].error)
    with pytest.raises(DataError, match="row 1 of the call: own: the row: the choice '~' adds no token"):
        workspace.predict(rows)


def _without_tilde() -> Any:
    from tokenizers import normalizers

    return normalizers.Replace("~", "")


def test_equal_choices_share_one_probability(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("own", doc_to_choice="{{['red', 'green', text]}}"))
    workspace.learn("own")
    equal, other = workspace.predict([("own", "red"), ("own", "sky")])
    assert set(equal.probabilities or {}) == {"red", "green"}
    for found in (equal, other):
        assert sum((found.probabilities or {}).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "keys",
    [
        {"doc_to_text": "{{text}} -> ", "target_delimiter": ""},
        {"doc_to_text": "{{text}} -> "},
        {"doc_to_text": "{{text}}\n", "generation_kwargs": {"until": ["<|end|>"], "max_gen_toks": 6}},
        {"doc_to_text": "{{text}} ->", "target_delimiter": "", "generation_kwargs": {"until": [], "max_gen_toks": 6}},
    ],
)
def test_what_is_right_token_by_token_in_training_is_right_when_it_is_generated(
    workspace: mp.Workspace, make_task: MakeTask, keys: dict[str, Any]
) -> None:
    training = {"steps": 80, "batch_size": 8, "learning_rate": 0.3, "validate_every": 20}
    short = {"num_virtual_tokens": 8, "training": training}
    keys = {"validation_split": "test", "filter_list": None, **keys}
    workspace.add_task(make_task("word", kind="generate", multiprompt=short, **keys))
    report = workspace.learn("word")
    run = workspace.catalog.runs.of(workspace.version(report.version))
    assert run is not None
    (exact,) = [exact for step, exact, _ in run.validations if step == run.best_step]
    assert report.soft >= exact > 0


@pytest.mark.parametrize("asking", [("colour",), "colour", None, (None, "x"), (["colour"], "x"), ("colour", "x", "y")])
def test_what_is_no_pair_of_label_and_row_fails_alone(
    workspace: mp.Workspace, make_task: MakeTask, asking: Any
) -> None:
    workspace.add_task(make_task())
    workspace.learn("colour")
    refused, answered = workspace.predict([asking, ("colour", "sky")], strict=False)
    assert "it must be a pair" in str(refused.error)
    assert answered.output in COLOURS
    with pytest.raises(DataError, match="row 0 of the call: it must be a pair"):
        workspace.predict([asking])


def test_a_bare_text_is_given_to_the_column_that_the_task_names(workspace: mp.Workspace, make_task: MakeTask) -> None:
    rows = "Review Text,Gold Label\n" + "".join(f"sky {n},{('red', 'green')[n % 2]}\n" for n in range(12))
    path = make_task("colour", doc_to_text="Review Text", doc_to_target="Gold Label", description="Which?\n")
    path.write_text(path.read_text().replace("dataset_path: json", "dataset_path: csv").replace(".jsonl", ".csv"))
    for split in ("train", "validation", "test"):
        path.with_name(f"{split}.csv").write_text(rows)
    workspace.add_task(path)
    assert workspace.learn("colour").published
    whole: list[Any] = [("colour", {"Review Text": "sky 1"}), ("colour", "sky 1"), ("colour", "sea")]
    row, bare, other = workspace.predict(whole)
    assert row.probabilities == bare.probabilities != other.probabilities
    with pytest.raises(DataError, match="lacks the field 'Review Text'"):
        workspace.predict([("colour", {"text": "sky 1"})])


def _spoil(workspace: mp.Workspace, monkeypatch: pytest.MonkeyPatch, letter: str) -> None:
    """Makes the model give no finite numbers for a text that holds a letter."""
    base = workspace.base_model()
    embeddings = base.model.get_input_embeddings().weight
    spoilt = embeddings.detach().clone()
    spoilt[base.encode(letter)] = float("nan")
    monkeypatch.setattr(embeddings, "data", spoilt)


@pytest.mark.parametrize("kind", ["choice", "generate"])
def test_a_row_without_finite_numbers_fails_alone(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    workspace.add_task(make_task(kind=kind))
    workspace.learn("colour")
    rows: list[Any] = [("colour", text) for text in ("sky", "Zebra", "sea", "a Z", "rose")]
    expected = workspace.predict([rows[0], rows[2], rows[4]])
    _spoil(workspace, monkeypatch, "Z")
    found = workspace.predict(rows, strict=False)
    assert [one.error is None for one in found] == [True, False, True, False, True]
    assert [one.output for one in found[::2]] == [one.output for one in expected]
    assert "colour: the row: tiny gives numbers that are not finite" in str(found[3].error)
    with pytest.raises(BaseModelError, match="colour: the row: tiny gives numbers"):
        workspace.predict(rows)


def test_a_filter_that_takes_too_long_on_a_text_fails_its_row_alone(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"function": "regex", "regex_pattern": "(.*)"}
    filters = [{"name": "none", "filter": [step, {"function": "take_first"}]}]
    workspace.add_task(make_task(kind="generate", filter_list=filters))
    workspace.learn("colour")
    slow = workspace.predict([("colour", "sea")])[0].output
    monkeypatch.setattr(Pattern, "findall", lambda _, text: _too_long() if text.strip() == slow else [text])
    rows = [("colour", text) for text in ("sky", "sea", "rose")]
    found = workspace.predict(rows, strict=False)
    assert "colour: the row: filter_list: the pattern" in str(found[1].error)
    assert [one.error is None for one in found] == [True, False, True]
    with pytest.raises(DataError, match="colour: the row: filter_list"):
        workspace.predict(rows)


def _too_long() -> list[str]:
    raise PatternError("the pattern took more than 2 seconds on one text; make it simpler")


@pytest.mark.parametrize("seed", ["x", None, 1.5, True])
def test_a_seed_that_is_no_whole_number_is_refused(workspace: mp.Workspace, make_task: MakeTask, seed: Any) -> None:
    workspace.add_task(make_task(kind="generate"))
    workspace.learn("colour")
    for ask in (
        lambda: workspace.predict([("colour", "sky")], seed=seed),
        lambda: workspace.stream("colour", "sky", seed=seed),
    ):
        with pytest.raises(ConfigError, match="seed is .*; it must be a whole number"):
            ask()


@pytest.mark.parametrize("rows", [None, 3, "colour", {"colour": "sky"}])
def test_rows_that_are_no_rows_are_refused(workspace: mp.Workspace, rows: Any) -> None:
    with pytest.raises(DataError, match="it must be a list of pairs"):
        workspace.predict(rows)


def test_rows_may_come_from_a_generator(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task())
    workspace.learn("colour")
    assert len(workspace.predict(("colour", text) for text in ("sky", "sea"))) == 2


@pytest.mark.parametrize("label", [None, 3, ["colour"]])
def test_a_label_that_is_no_text_is_refused(workspace: mp.Workspace, make_task: MakeTask, label: Any) -> None:
    workspace.add_task(make_task())
    for ask in (workspace.stream, workspace.render):
        with pytest.raises(NotFoundError, match="is no name of a task or version"):
            ask(label, "sky")


def test_a_row_that_is_none_or_a_truth_is_refused(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task())
    workspace.learn("colour")
    for row in (None, True, 1.5):
        with pytest.raises(DataError, match="it must be a mapping of fields or a text"):
            workspace.stream("colour", row)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="it must be a mapping of fields or a text"):
            workspace.render("colour", row)  # type: ignore[arg-type]


def test_a_task_that_is_not_there_is_named_before_the_base_model_is_loaded(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add_task(make_task())
    monkeypatch.setattr(workspace, "base_model", lambda: pytest.fail("the base model was loaded"))
    for ask in (
        lambda: workspace.predict([("nosuch", "sky")]),
        lambda: workspace.predict([("colour", "sky")]),
        lambda: workspace.stream("nosuch", "sky"),
        lambda: workspace.render("nosuch", "sky"),
    ):
        with pytest.raises(NotFoundError):
            ask()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"caf\xc3\xa9", "café"),
        (numpy.int64(7), "7"),
        (numpy.float32(0.1), "0.1"),
        (numpy.array(["a", "b"]), "['a', 'b']"),
        (("a", "b"), "['a', 'b']"),
        (MappingProxyType({"b": 1, "a": 2}), "{'b': 1, 'a': 2}"),
        (date(2026, 1, 2), "2026-01-02"),
        (Decimal("1.10"), "1.10"),
        (7, "7"),
        (True, "True"),
    ],
)
def test_a_value_is_read_as_from_a_data_file(
    workspace: mp.Workspace, make_task: MakeTask, value: object, text: str
) -> None:
    workspace.add_task(make_task())
    assert workspace.render("colour", {"text": value, "unread": object()}).text == f"Which colour?\n{text}\nAnswer:"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("nan"), "the field 'text' is empty"),
        (numpy.float32("nan"), "the field 'text' is empty"),
        (None, "the field 'text' is empty"),
        ({"a"}, "the field 'text' holds a set"),
        (object(), "the field 'text' holds a object"),
        (b"\xff", "the field 'text' holds bytes that are not UTF-8"),
        ({(1, 2): 3}, "the field 'text' holds a"),
        pytest.param(10**5000, "the field 'text' holds a", id="a number of many digits"),
    ],
)
def test_a_value_that_no_data_file_holds_is_refused(
    workspace: mp.Workspace, make_task: MakeTask, value: object, says: str
) -> None:
    workspace.add_task(make_task())
    workspace.learn("colour")
    (found,) = workspace.predict([("colour", {"text": value})], strict=False)
    assert says in str(found.error)


def test_a_catalog_file_that_is_replaced_is_served_from_then_on(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    workspace.base_model()
    restored = tmp_path / "restored.db"
    workspace.backup(restored)
    workspace.learn(workspace.add_task(make_task("colour", description="Which colour?\n")).name)
    other = mp.open(restored)
    other.learn(other.add_task(make_task("colour", description="Name it.\n")).name)
    rows = [("colour", {"text": f"sky {number}"}) for number in range(4)]
    former, expected = workspace.predict(rows), other.predict(rows)
    assert former != expected
    other.close()
    restored.replace(workspace.catalog.path)
    assert workspace.predict(rows) == expected
