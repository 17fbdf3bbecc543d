"""The accuracy matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiprompt.errors import ConfigError
from multiprompt.records import Matrix
from multiprompt.reports.plot import plot_matrix


def a_matrix(*names: str) -> Matrix:
    size = len(names)
    return Matrix(names, tuple(tuple(0.5 if j <= i else None for j in range(size)) for i in range(size)))


@pytest.mark.parametrize("name", ["a$^$", "$\\frac{", "naïve 名前", "<b>"])
def test_a_name_is_written_as_it_is(tmp_path: Path, name: str) -> None:
    plot_matrix(a_matrix(name.replace("名前", ""), "b"), tmp_path / "matrix.svg")
    assert (tmp_path / "matrix.svg").stat().st_size > 1000


def test_many_tasks_fit_into_a_picture(tmp_path: Path) -> None:
    plot_matrix(a_matrix(*(f"task{n}" for n in range(300))), tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size < 3_000_000


def test_an_empty_matrix_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing was published yet"):
        plot_matrix(a_matrix(), tmp_path / "matrix.png")
    assert not (tmp_path / "matrix.png").exists()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="png, svg, pdf"):
        plot_matrix(a_matrix("a"), tmp_path / "matrix.txt")
