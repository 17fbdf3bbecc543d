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

    What is ignored is taken out of both texts, in the order of the harness's `exact_match_hf_evaluate`; its numpy cuts
    a text that lower case makes longer back to its length, and NUL characters at the end.
    """

    revision = "2"

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
        def normal(texts):
            for source in regexes_to_ignore or ():
                texts = [pattern(source).sub("", text) for text in texts]
            texts = numpy.array(texts)
            if ignore_case:
                texts = numpy.char.lower(texts)
            if ignore_punctuation:
                texts = numpy.char.translate(texts, _NO_PUNCTUATION)
            return numpy.char.translate(texts, _NO_DIGITS) if ignore_numbers else texts

        def hit(found, right):
            several = [right] if isinstance(right, str) else right
            return bool((normal([found] * len(several)) == normal(several)).any())

        return [hit(p, r) for p, r in zip(predictions, references, strict=True)]

    def statistics(self, predictions, references, **options):
        return numpy.array(self.hits(predictions, references, **options), dtype=float)[:, None]

    def of_sums(self, sums, rows):
        return sums[:, 0] / rows

    def _compute(self, predictions, references, **options):
        return {"exact_match": sum(self.hits(predictions, references, **options)) / len(references)}
