"""The mean over rows of the ROUGE-L F-measure, unstemmed (Lin 2004)."""

import datasets
import evaluate
import numpy
from rouge_score.rouge_scorer import RougeScorer


class RougeL(evaluate.Metric):
    """The mean over rows of the ROUGE-L F-measure, unstemmed (Lin 2004)."""

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

    def statistics(self, predictions, references):
        scorer = RougeScorer(["rougeL"])
        scores = [scorer.score(r, p)["rougeL"].fmeasure for p, r in zip(predictions, references, strict=True)]
        return numpy.array(scores, dtype=float)[:, None]

    def of_sums(self, sums, rows):
        return sums[:, 0] / rows

    def _compute(self, predictions, references):
        scores = self.statistics(predictions, references)[:, 0].tolist()
        return {"rouge_l": sum(scores) / len(scores)}
