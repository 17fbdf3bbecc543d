"""Measures over the accuracy matrix, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.continual.measures import average_accuracy, backward_transfer
from multiprompt.records import Matrix


def matrix(*rows: tuple[float | None, ...]) -> Matrix:
    return Matrix(tuple(f"task{n}" for n in range(len(rows))), rows)


def test_three_tasks_by_hand() -> None:
    learned = matrix((0.9, None, None), (0.8, 0.7, None), (0.5, 0.75, 0.6))
    # ACC = (0.5 + 0.75 + 0.6) / 3; BWT = ((0.5 - 0.9) + (0.75 - 0.7)) / 2.
    assert average_accuracy(learned) == pytest.approx(0.61667, abs=1e-5)
    assert backward_transfer(learned) == pytest.approx(-0.175)


def test_prompts_that_nobody_touched_transfer_nothing_back() -> None:
    assert backward_transfer(matrix((0.9, None), (0.9, 0.4))) == 0.0


def test_one_task_has_an_average_and_nothing_to_transfer_to() -> None:
    assert average_accuracy(matrix((0.4,))) == 0.4
    assert backward_transfer(matrix((0.4,))) is None


def test_an_empty_matrix_has_no_measures() -> None:
    assert average_accuracy(matrix()) is None
    assert backward_transfer(matrix()) is None


def test_what_was_not_measured_is_left_out() -> None:
    assert average_accuracy(matrix((0.9, None), (None, 0.4))) == 0.4
    assert backward_transfer(matrix((0.9, None), (None, 0.4))) is None
    partly = matrix((0.9, None, None), (0.9, 0.8, None), (None, 0.6, 0.5))
    assert average_accuracy(partly) == pytest.approx(0.55)
    assert backward_transfer(partly) == pytest.approx(-0.2)


@given(st.integers(1, 6), st.data())
@settings(deadline=None, database=None)
def test_measures_are_those_of_the_paper(size: int, data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.lists(st.floats(0, 1), min_size=size, max_size=size), min_size=size, max_size=size))
    full = matrix(*(tuple(row) for row in scores))
    assert average_accuracy(full) == pytest.approx(sum(scores[-1]) / size)
    moves = [scores[-1][j] - scores[j][j] for j in range(size - 1)]
    expected = sum(moves) / len(moves) if moves else None
    assert backward_transfer(full) == (expected if expected is None else pytest.approx(expected))
