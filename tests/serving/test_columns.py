"""Rows of one task: a data frame is answered by a column, and bare texts need no task's name each."""

from __future__ import annotations

from typing import Any

import pandas
import pytest

import multiprompt as mp
from multiprompt.errors import DataError
from tests.conftest import COLOURS, MakeTask


@pytest.fixture
def colour(workspace: mp.Workspace, make_task: MakeTask) -> mp.Workspace:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    return workspace


def test_a_data_frame_is_answered_by_a_column_with_its_index(colour: mp.Workspace) -> None:
    frame = pandas.DataFrame({"id": [object()] * 3, "text": ["sky 1", "sea 2", "sky 1"]}, index=["x", "y", "x"])
    answers = colour.predict(frame, task="colour")
    assert answers.index.tolist() == ["x", "y", "x"]
    assert answers.tolist() == [one.output for one in colour.predict([("colour", text) for text in frame["text"]])]
    assert set(answers) <= set(COLOURS)
    assert colour.predict(frame["text"], task="colour@1").tolist() == answers.tolist()
    frame["answer"] = answers.to_numpy()
    assert colour.predict(frame.iloc[:0], task="colour").tolist() == []


def test_texts_and_mappings_of_one_task_need_no_name_each(colour: mp.Workspace) -> None:
    found = colour.predict(["sky 1", {"text": "sea 2"}], task="colour")
    assert found == colour.predict([("colour", "sky 1"), ("colour", "sea 2")])
    assert list(found.to_pandas()["output"]) == [one.output for one in found]


def test_a_column_that_no_template_can_name_is_found(workspace: mp.Workspace) -> None:
    rows = [{"the message": f"message {n}", "queue": "ab"[n % 2]} for n in range(40)]
    task = mp.Task.from_rows(rows, text="the message", label="queue")
    workspace.add_task(task.with_settings({"training.steps": 2, "regression.floor": "none"}))
    workspace.learn("queue")
    answers = workspace.predict(pandas.DataFrame(rows), task="queue")
    assert len(answers) == 40
    with pytest.raises(DataError, match="row 0 of the call: queue: the row lacks the field 'the_message'"):
        workspace.predict(pandas.DataFrame({"other": ["a"]}), task="queue")


def test_a_row_with_an_error_has_no_answer(colour: mp.Workspace) -> None:
    frame = pandas.DataFrame({"text": ["sky 1", None]})
    assert colour.predict(frame, task="colour", strict=False).isna().tolist() == [False, True]
    with pytest.raises(DataError, match="row 1 of the call"):
        colour.predict(frame, task="colour")


@pytest.mark.parametrize("rows", ["sky", {"text": "sky"}, 3])
def test_what_is_no_list_of_rows_is_refused(colour: mp.Workspace, rows: Any) -> None:
    with pytest.raises(DataError, match="give a list of them, or a data frame"):
        colour.predict(rows, task="colour")


def test_a_data_frame_without_a_task_is_refused(colour: mp.Workspace) -> None:
    with pytest.raises(DataError, match="come without its name where task= names it"):
        colour.predict(pandas.DataFrame({"text": ["sky"]}))  # type: ignore[call-overload]


def test_several_columns_of_a_field_that_is_read_are_refused(colour: mp.Workspace) -> None:
    twice = pandas.DataFrame([["sky 1", "sea 2"]], columns=["text", "text"])
    with pytest.raises(DataError, match="the field 'text' is that of the columns 'text', 'text': give one"):
        colour.predict(twice, task="colour")
    with pytest.raises(DataError, match="the field 'text' is that of the columns 'text', '#text': give one"):
        colour.predict(twice.set_axis(["text", "#text"], axis=1), task="colour")
    unread = twice.assign(other=1, **{"other %": 2})[["other", "other %"]].assign(text=["sky 1"])
    assert colour.predict(unread, task="colour").tolist() == [colour.predict(["sky 1"], task="colour")[0].output]


def test_a_short_float_is_read_with_the_same_digits_beside_a_missing_cell_and_without(colour: mp.Workspace) -> None:
    from multiprompt.serving.columns import asked_of

    for kind in ("float32", "Float32", "float[pyarrow]"):
        for values in ([0.1, 0.2], [0.1, None]):
            frame = pandas.DataFrame({"text": pandas.Series(values, dtype=kind)})
            (_, row), _ = asked_of(colour.catalog, "colour", frame)
            assert isinstance(row, dict)
            assert colour.render("colour", row).text == colour.render("colour", "0.1").text


def test_a_frame_without_columns_lacks_the_field(colour: mp.Workspace) -> None:
    with pytest.raises(DataError, match="row 0 of the call: colour: the row lacks the field 'text'"):
        colour.predict(pandas.DataFrame(index=[1, 2]), task="colour")
