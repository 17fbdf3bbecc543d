"""Rendering: what is shown is what the engine is fed, in training and in predicting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import multiprompt as mp
from multiprompt.engine import learning
from multiprompt.engine.packed import PackedForward
from multiprompt.engine.rows import Row
from multiprompt.errors import DataError, NotFoundError
from multiprompt.records import Rendering, Token
from tests.conftest import MakeTask

KINDS: dict[str, dict[str, Any]] = {
    "colour": {"kind": "choice"},
    "seam": {"kind": "choice", "doc_to_text": "{{text}} colou", "target_delimiter": "", "doc_to_choice": ["r", "red"]}
    | {"doc_to_target": 0},
    "word": {"kind": "generate"},
    "space": {"kind": "generate", "doc_to_text": "{{text}} -> ", "target_delimiter": ""},
}


def ids(tokens: Sequence[Token]) -> list[int]:
    return [token.id for token in tokens]


def fed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """What a function of the engine is called with."""
    calls: list[Any] = []
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **options: calls.append(args) or original(*args, **options))
    return calls


def tokens_of(row: Row) -> list[int]:
    return [*row.prefix.tokens[: row.shared - row.prefix.virtual.length], *row.tokens]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_shown_is_what_the_engine_is_fed(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    workspace.add_task(make_task(name, **KINDS[name]))
    trainings = fed(monkeypatch, learning, "train")
    workspace.learn(name)
    ((_, (training,), *_),) = trainings
    for number, example in enumerate(training._training):
        shown = workspace.render(name, number, split="training")
        assert tuple(ids(shown.tokens)) == example.context
        answers = [shown.answer] if shown.answer else [choice for choice in shown.choices if choice.right]
        assert [tuple(ids(answer.tokens)) for answer in answers] == [example.answer]

    shown = workspace.render(name, "the sky")
    asked = fed(monkeypatch, PackedForward, "run" if shown.choices else "decoder")
    workspace.predict([(name, "the sky")])
    ((_, _, (row,)),) = asked
    assert tokens_of(row) == ids(shown.tokens)
    assert row.prefix.virtual.length == shown.num_virtual_tokens
    paths = {tuple(row.tree.tokens[node] for node in row.tree.path(leaf)) for leaf in row.tree.leaves}
    assert paths <= {tuple(ids(choice.tokens)[:-1]) for choice in shown.choices}


def test_a_row_is_shown_with_its_version_its_choices_and_the_right_one(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    workspace.add_task(make_task("colour"))
    assert workspace.render("colour", "sky").version is None
    workspace.learn("colour")
    shown = workspace.render("colour@1", 1)
    assert (shown.version, shown.num_virtual_tokens, shown.truncated) == ("colour@1", 4, False)
    assert "".join(token.text for token in shown.tokens) == shown.text
    assert [(choice.text, choice.right) for choice in shown.choices] == [
        (" red", False), (" green", True), (" blue", False), (" yellow", False)
    ]  # fmt: skip
    assert shown.tokens[: shown.constant] == workspace.render("colour", "sea").tokens[: shown.constant] != ()


def test_a_generated_answer_is_shown_with_the_end_that_training_teaches(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    workspace.add_task(make_task("word", kind="generate", generation_kwargs={"until": [], "max_gen_toks": 6}))
    shown = workspace.render("word", 0)
    assert isinstance(shown, Rendering)
    assert shown.answer is not None
    assert shown.answer.text == " red<|end|>"
    assert workspace.render("word", {"text": "sky"}).answer is None


def test_a_row_or_a_split_that_is_not_there_is_named(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    with pytest.raises(NotFoundError, match="the test rows are 0 to 11; there is no row 12"):
        workspace.render("colour", 12)
    with pytest.raises(NotFoundError, match="no split 'dev'; give training, validation or test"):
        workspace.render("colour", 0, split="dev")
    with pytest.raises(NotFoundError):
        workspace.render("shape", "sky")
    with pytest.raises(DataError, match="half of a character"):
        workspace.render("colour", "\ud800")
