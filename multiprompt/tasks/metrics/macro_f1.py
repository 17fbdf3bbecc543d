"""The mean over classes of the harmonic mean of precision and recall (van Rijsbergen 1979)."""

import datasets
import evaluate
import numpy
from sklearn.metrics import f1_score


class MacroF1(evaluate.Metric):
    """The mean over classes of the harmonic mean of precision and recall (van Rijsbergen 1979)."""

    revision = "1"

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="Class indices.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def statistics(self, predictions, references):
        """Of each row, by class: rightly found, predicted, and there."""
        predicted, right = (numpy.array(side)[:, None] for side in (predictions, references))
        classes = numpy.arange(max(predicted.max(), right.max()) + 1)
        found, there = predicted == classes, right == classes
        return numpy.concatenate([found & there, found, there], axis=1).astype(float)

    def of_sums(self, sums, rows):
        right, found, there = numpy.split(sums, 3, axis=1)
        seen = found + there > 0
        f1 = numpy.divide(2 * right, found + there, out=numpy.zeros_like(right), where=seen)
        return f1.sum(axis=1) / seen.sum(axis=1)

    def _compute(self, predictions, references):
        return {"f1": float(f1_score(references, predictions, average="macro", zero_division=0.0))}
