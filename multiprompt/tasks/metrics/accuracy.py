"""The share of rows whose predicted class is the right one."""

import datasets
import evaluate
import numpy


class Accuracy(evaluate.Metric):
    """The share of rows whose predicted class is the right one."""

    revision = "1"

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="Class indices.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def hits(self, predictions, references):
        return [prediction == reference for prediction, reference in zip(predictions, references, strict=True)]

    def statistics(self, predictions, references):
        return numpy.array(self.hits(predictions, references), dtype=float)[:, None]

    def of_sums(self, sums, rows):
        return sums[:, 0] / rows

    def _compute(self, predictions, references):
        return {"accuracy": sum(self.hits(predictions, references)) / len(references)}
