"""The share of rows whose predicted text equals the right one."""

import string

import datasets
import evaluate
import numpy

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactMatch(evaluate.Metric):
    """The share of rows whose predicted text equals the right one."""

    revision = "1"

    def _info(self):
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="Texts.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def hits(self, predictions, references, ignore_case=False, ignore_punctuation=False):
        def normal(text):
            if ignore_case:
                text = text.lower()
            return text.translate(_NO_PUNCTUATION) if ignore_punctuation else text

        return [normal(p) == normal(r) for p, r in zip(predictions, references, strict=True)]

    def statistics(self, predictions, references, **options):
        return numpy.array(self.hits(predictions, references, **options), dtype=float)[:, None]

    def of_sums(self, sums, rows):
        return sums[:, 0] / rows

    def _compute(self, predictions, references, **options):
        return {"exact_match": sum(self.hits(predictions, references, **options)) / len(references)}
