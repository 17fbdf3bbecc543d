"""The mean over rows of the ROUGE-L F-measure, unstemmed (Lin 2004)."""

import re
import unicodedata

import datasets
import evaluate
import numpy
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

# Scripts that put no space between words: each character is a token.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U000323af]"
)


# Letters, digits and marks of other scripts than Latin; what Latin text is written with lies below U+0250.
_LATIN = ("LATIN", "COMBINING", "MODIFIER")
_KEPT = ("L", "M", "Nd")


class _Words(Tokenizer):
    """Words of every script; those of Latin letters are rouge_score's own, which ends a word at an accented letter."""

    def tokenize(self, text):
        return "".join(map(_spaced, text.lower())).split()


def _spaced(character):
    if character < "\u0250":
        return character if character.isascii() and character.isalnum() else " "
    if not unicodedata.category(character).startswith(_KEPT) or unicodedata.name(character, "").startswith(_LATIN):
        return " "
    return f" {character} " if _SPACELESS.match(character) else character


class RougeL(evaluate.Metric):
    """The mean over rows of the ROUGE-L F-measure, unstemmed (Lin 2004)."""

    revision = "2"

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
        scorer = RougeScorer(["rougeL"], tokenizer=_Words())
        scores = [scorer.score(r, p)["rougeL"].fmeasure for p, r in zip(predictions, references, strict=True)]
        return numpy.array(scores, dtype=float)[:, None]

    def of_sums(self, sums, rows):
        return sums[:, 0] / rows

    def _compute(self, predictions, references):
        scores = self.statistics(predictions, references)[:, 0].tolist()
        return {"rouge_l": sum(scores) / len(scores)}
