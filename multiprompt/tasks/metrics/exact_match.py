"""The share of rows whose predicted text equals the right one, or one of several right ones."""

import string

import datasets
import evaluate
import numpy

from multiprompt.tasks.pattern import pattern

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_DIGITS = str.maketrans("", "", string.digits)


class ExactMatch(evaluate.Metric):
    """The share of rows whose predicted text equals the right one, or one of several right ones.

    What is ignored is taken out of both texts, in the order of the harness's `exact_match_hf_evaluate`.
    """

    revision = "1"

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="Texts; a list of texts where several are right.",
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def hits(
        self,
        predictions,
        references,
        ignore_case=False,
        ignore_punctuation=False,
        ignore_numbers=False,
        regexes_to_ignore=None,
    ):
        def normal(text):
            for source in regexes_to_ignore or ():
                text = pattern(source).sub("", text)
            if ignore_case:
                text = text.lower()
            if ignore_punctuation:
                text = text.translate(_NO_PUNCTUATION)
            return text.translate(_NO_DIGITS) if ignore_numbers else text

        def hit(found, right):
            several = [right] if isinstance(right, str) else right
            return normal(found) in map(normal, several)

        return [hit(p, r) for p, r in zip(predictions, references, strict=True)]

    def statistics(self, predictions, references, **options):
        return numpy.array(self.hits(predictions, references, **options), dtype=float)[:, None]

    def of_sums(self, sums, rows):
        return sums[:, 0] / rows

    def _compute(self, predictions, references, **options):
        return {"exact_match": sum(self.hits(predictions, references, **options)) / len(references)}
