"""Measures over the accuracy matrix, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiprompt.records import Matrix
from multiprompt.reports.measures import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    just_learned,
    measures,
)


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


def test_forgetting_is_what_was_lost_from_the_best() -> None:
    learned = matrix((0.5, None, None), (0.9, 0.7, None), (0.6, 0.8, 0.4))
    # The first fell from 0.9 to 0.6, the second rose from 0.7 to 0.8.
    assert forgetting(learned) == pytest.approx((0.3 - 0.1) / 2)
    assert just_learned(learned) == pytest.approx((0.5 + 0.7 + 0.4) / 3)


def test_forward_transfer_is_what_a_task_gains_before_it_is_learned() -> None:
    scores = ((0.9, 0.4, None), (0.8, 0.7, 0.1), (0.5, 0.7, 0.6))
    known = Matrix(("a", "b", "c"), scores, before=(0.2, 0.3, 0.2))
    assert forward_transfer(known) == pytest.approx(((0.4 - 0.3) + (0.1 - 0.2)) / 2)
    assert forward_transfer(matrix(*scores)) is None
    assert forward_transfer(Matrix(("a", "b"), ((0.9, None), (0.9, 0.4)), before=(0.1, 0.1))) is None


def test_for_a_loss_all_signs_turn() -> None:
    scores = ((0.9, 0.4), (0.5, 0.7))
    gains = Matrix(("a", "b"), scores, (0.1, 0.2))
    losses = Matrix(("a", "b"), scores, (0.1, 0.2), (False, False))
    for measure in (backward_transfer, forward_transfer, forgetting):
        assert measure(losses) == pytest.approx(-(measure(gains) or 0))


def test_each_measure_says_its_formula_and_source() -> None:
    told = measures(matrix((0.9, None), (0.8, 0.4)))
    assert [measure.name for measure in told] == ["ACC", "BWT", "FWT", "forgetting", "just learned"]
    assert all(measure.formula and measure.source for measure in told)
