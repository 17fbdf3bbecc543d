"""The accuracy matrix as a picture."""

from __future__ import annotations

from pathlib import Path

from multiprompt.errors import ConfigError
from multiprompt.records import Matrix

FORMATS = ("png", "svg", "pdf")
_MAX_NUMBERS, _MAX_NAMES = 20, 60


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
    if not size:
        raise ConfigError("the accuracy matrix is empty: nothing was published yet; run `ws.learn('…')`.")
    shown = min(size, _MAX_NAMES)
    figure = Figure(figsize=(2.5 + 0.5 * shown, 1.8 + 0.45 * shown), layout="constrained")
    axes = figure.subplots()
    cells = [[float("nan") if score is None else score for score in row] for row in matrix.scores]
    known = [score for row in matrix.scores for score in row if score is not None]
    image = axes.imshow(cells, cmap="YlGn", vmin=min(0.0, *known), vmax=max(1.0, *known), aspect="auto")
    places = range(0, size, -(-size // _MAX_NAMES))
    names = [matrix.tasks[place].replace("$", r"\$") for place in places]
    axes.set_xticks(places, names, rotation=60, ha="right")
    axes.set_yticks(places, names)
    axes.set_xlabel("score on")
    axes.set_ylabel("after learning")
    if size <= _MAX_NUMBERS:
        for i, row in enumerate(matrix.scores):
            for j, score in enumerate(row):
                if score is not None:
                    axes.text(j, i, f"{score:.2f}", ha="center", va="center", fontsize=8)
    figure.colorbar(image, ax=axes)
    figure.savefig(file)
