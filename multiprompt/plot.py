"""The accuracy matrix as a picture."""

from __future__ import annotations

from pathlib import Path

from multiprompt.errors import ConfigError
from multiprompt.records import Matrix

FORMATS = ("png", "svg", "pdf")
_MAX_NUMBERS = 20


def plot_matrix(matrix: Matrix, file: Path) -> None:
    """Write a heat map: a column a task, a row a task that was learned. Raises ConfigError without matplotlib."""
    kind = file.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ConfigError(f"{file} is no picture that can be written; its name must end in: {', '.join(FORMATS)}.")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('matplotlib draws the matrix; install it with `pip install "multiprompt[plot]"`.') from None
    size = len(matrix.tasks)
    figure = Figure(figsize=(2.5 + 0.5 * size, 1.8 + 0.45 * size), layout="constrained")
    axes = figure.subplots()
    cells = [[float("nan") if score is None else score for score in row] for row in matrix.scores]
    high = max((score for row in matrix.scores for score in row if score is not None), default=1.0)
    image = axes.imshow(cells, cmap="YlGn", vmin=0, vmax=max(1.0, high), aspect="auto")
    axes.set_xticks(range(size), matrix.tasks, rotation=60, ha="right")
    axes.set_yticks(range(size), matrix.tasks)
    axes.set_xlabel("score on")
    axes.set_ylabel("after learning")
    if size <= _MAX_NUMBERS:
        for i, row in enumerate(matrix.scores):
            for j, score in enumerate(row):
                if score is not None:
                    axes.text(j, i, f"{score:.2f}", ha="center", va="center", fontsize=8)
    figure.colorbar(image, ax=axes)
    figure.savefig(file)
