"""Corpus translation edit rate in percent, lower is better, as sacrebleu computes it by default (Snover 2006)."""

import datasets
import evaluate
import numpy
from sacrebleu.metrics import TER


class Ter(evaluate.Metric):
    """Corpus translation edit rate in percent, lower is better, as sacrebleu computes it by default (Snover 2006)."""

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
        """Of each row: edits, and words of the reference."""
        return numpy.array(TER()._extract_corpus_statistics(predictions, [references]), dtype=float)

    def of_sums(self, sums, rows):
        scorer = TER()
        return numpy.array([scorer._compute_score_from_stats(row.tolist()).score for row in sums])

    def _compute(self, predictions, references):
        return {"ter": TER().corpus_score(predictions, [references]).score}
