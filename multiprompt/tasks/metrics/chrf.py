"""Corpus chrF from 0 to 100 as in sacrebleu; chrF++ with a word order of 2 (Popović 2015, 2017)."""

import datasets
import evaluate
import numpy
from sacrebleu.metrics import CHRF


class Chrf(evaluate.Metric):
    """Corpus chrF from 0 to 100, as sacrebleu computes it by default; chrF++ with a word order of 2."""

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

    def statistics(self, predictions, references, word_order=0):
        """Of each row and n-gram order: n-grams of the prediction, of the reference, and of both."""
        return numpy.array(
            CHRF(word_order=word_order)._extract_corpus_statistics(predictions, [references]), dtype=float
        )

    def of_sums(self, sums, rows, word_order=0):
        scorer = CHRF(word_order=word_order)
        return numpy.array([scorer._compute_score_from_stats(row.astype(int).tolist()).score for row in sums])

    def _compute(self, predictions, references, word_order=0):
        return {"chrf": CHRF(word_order=word_order).corpus_score(predictions, [references]).score}
