"""F1 of class 1 of two classes: the harmonic mean of its precision and recall (van Rijsbergen 1979)."""

import datasets
import evaluate
import numpy
from sklearn.metrics import f1_score


class F1(evaluate.Metric):
    """F1 of class 1 of two classes: the harmonic mean of its precision and recall (van Rijsbergen 1979)."""

    revision = "1"

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="Class indices.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def statistics(self, predictions, references):
        """Of each row: whether class 1 is rightly predicted, predicted, and there."""
        found, there = (numpy.array(side) == 1 for side in (predictions, references))
        return numpy.stack([found & there, found, there], axis=1).astype(float)

    def of_sums(self, sums, rows):
        right, found, there = sums.T
        return numpy.divide(2 * right, found + there, out=numpy.zeros_like(right), where=found + there > 0)

    def _compute(self, predictions, references):
        return {"f1": float(f1_score(references, predictions, zero_division=0.0))}
