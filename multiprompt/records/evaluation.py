"""An evaluation as people read it: texts, labels, wrong rows, and scores of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiprompt.records.catalog import Evaluation

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class AnsweredRow:
    """A row of an evaluation: its text, the right answer and the given one; choices are texts.

    `is_right` is None where the metric has no right or wrong for a row.
    """

    row: int
    text: str
    right: Any
    given: Any
    is_right: bool | None


@dataclass(frozen=True)
class ClassScore:
    """The scores of one label; `support` counts the rows whose right label it is."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """`counts[i][j]`: the rows with the right label i that were given the label j."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def to_pandas(self) -> DataFrame:
        """A row for each right label and a column for each given one, for which pandas must be installed."""
        import pandas

        return pandas.DataFrame(self.counts, index=list(self.labels), columns=list(self.labels))


@dataclass(frozen=True, repr=False)
class EvaluationReport(Evaluation):
    """An evaluation with its rows as texts, the wrong ones first.

    `version` is None for the hard prompt. `classes` and `confusion` are there where all rows have the same choices.
    """

    id: int = 0
    version: str | None = None
    answers: tuple[AnsweredRow, ...] = ()
    classes: tuple[ClassScore, ...] = ()
    confusion: ConfusionMatrix | None = None
