"""Matthews correlation of predicted and right classes (Matthews 1975; Gorodkin 2004 for several)."""

import datasets
import evaluate
import numpy
from sklearn.metrics import matthews_corrcoef


class Matthews(evaluate.Metric):
    """Matthews correlation of predicted and right classes (Matthews 1975; Gorodkin 2004 for several)."""

    revision = "1"

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="Class indices.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def statistics(self, predictions, references):
        """Of each row: whether it is right, then by class whether it is predicted, and there."""
        predicted, right = (numpy.array(side)[:, None] for side in (predictions, references))
        classes = numpy.arange(max(predicted.max(), right.max()) + 1)
        return numpy.concatenate([predicted == right, predicted == classes, right == classes], axis=1).astype(float)

    def of_sums(self, sums, rows):
        means = sums / rows
        right, (found, there) = means[:, 0], numpy.split(means[:, 1:], 2, axis=1)
        covariance = right - (found * there).sum(axis=1)
        spread = numpy.sqrt((1 - (found**2).sum(axis=1)).clip(0) * (1 - (there**2).sum(axis=1)).clip(0))
        return numpy.divide(covariance, spread, out=numpy.zeros_like(spread), where=spread > 1e-12)

    def _compute(self, predictions, references):
        return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}
