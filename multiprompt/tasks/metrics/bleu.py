"""Corpus BLEU from 0 to 100, tokenised and smoothed as sacrebleu does by default (Papineni 2002; Post 2018)."""

import datasets
import evaluate
import numpy
import sacrebleu


class Bleu(evaluate.Metric):
    """Corpus BLEU from 0 to 100, tokenised and smoothed as sacrebleu does by default (Papineni 2002; Post 2018)."""

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
        """Of each row: right n-grams, n-grams (n from 1 to 4), words, and words of the reference."""
        found = [sacrebleu.sentence_bleu(p, [r]) for p, r in zip(predictions, references, strict=True)]
        return numpy.array([[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in found], dtype=float)

    def of_sums(self, sums, rows):
        return numpy.array(
            [
                sacrebleu.BLEU.compute_bleu(
                    row[:4].tolist(), row[4:8].tolist(), int(row[8]), int(row[9]), smooth_method="exp"
                ).score
                for row in sums.astype(int)
            ]
        )

    def _compute(self, predictions, references):
        return {"bleu": sacrebleu.corpus_bleu(predictions, [references]).score}
