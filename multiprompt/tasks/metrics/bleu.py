"""Corpus BLEU from 0 to 100, tokenised and smoothed as sacrebleu does by default (Papineni 2002; Post 2018)."""

import datasets
import evaluate
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

    def _compute(self, predictions, references):
        return {"bleu": sacrebleu.corpus_bleu(predictions, [references]).score}
