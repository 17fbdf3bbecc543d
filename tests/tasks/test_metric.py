"""Metrics: their values against hand-computed ones and against the libraries that define them."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import pytest
import sacrebleu
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

from multiprompt.errors import MetricError
from multiprompt.tasks import metric as metrics
from multiprompt.tasks.metric import MetricConfig, metric_version, per_example_scores, score

CHOICE, TEXT = "multiple_choice", "generate_until"


def metric(name: str, output_type: str = CHOICE, **options: Any) -> MetricConfig:
    return MetricConfig.from_mapping({"metric": name, **options}, output_type)


def test_accuracy_is_the_share_of_right_classes() -> None:
    assert score(metric("acc"), [0, 1, 1, 2], [0, 1, 2, 2]) == 0.75


def test_macro_f1_is_the_mean_over_classes() -> None:
    # Class 0: precision 1/2, recall 1; class 1: precision 1, recall 1/2; each has F1 2/3.
    assert score(metric("macro_f1"), [0, 0, 1], [0, 1, 1]) == pytest.approx(2 / 3)
    assert score(metric("macro_f1"), [0, 0, 0], [0, 0, 1]) == pytest.approx((4 / 5 + 0) / 2)


def test_matthews_correlation_is_one_minus_one_or_between() -> None:
    assert score(metric("mcc"), [0, 1, 0, 1], [0, 1, 0, 1]) == pytest.approx(1.0)
    assert score(metric("mcc"), [1, 0, 1, 0], [0, 1, 0, 1]) == pytest.approx(-1.0)
    assert score(metric("mcc"), [0, 0, 0, 0], [0, 1, 0, 1]) == 0.0
    # TP 2, TN 1, FP 1, FN 0.
    assert score(metric("mcc"), [1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(2 / math.sqrt(3 * 2 * 2 * 1))


CLASSES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20)


@given(CLASSES)
@settings(deadline=None, database=None, max_examples=25)
def test_scores_of_classes_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    predictions, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assume(len({*predictions, *references}) > 1)
    f1 = f1_score(references, predictions, average="macro", zero_division=0.0)
    assert score(metric("macro_f1"), predictions, references) == pytest.approx(f1)
    assert score(metric("mcc"), predictions, references) == pytest.approx(matthews_corrcoef(references, predictions))
    hits = per_example_scores(metric("acc"), predictions, references)
    assert hits is not None
    assert score(metric("acc"), predictions, references) == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize(
    ("options", "hits"),
    [
        ({}, [1.0, 0.0, 0.0, 0.0]),
        ({"ignore_case": True}, [1.0, 1.0, 0.0, 0.0]),
        ({"ignore_punctuation": True}, [1.0, 0.0, 1.0, 0.0]),
        ({"ignore_case": True, "ignore_punctuation": True}, [1.0, 1.0, 1.0, 0.0]),
    ],
)
def test_exact_match_ignores_what_it_is_told_to(options: dict[str, bool], hits: list[float]) -> None:
    exact = metric("exact_match", TEXT, **options)
    predictions, references = ["blue", "Blue", "blue.", " blue"], ["blue"] * 4
    assert per_example_scores(exact, predictions, references) == hits
    assert score(exact, predictions, references) == sum(hits) / 4


def test_bleu_is_that_of_sacrebleu() -> None:
    predictions = ["the cat sat on the mat", "a dog", "it rains in spring"]
    references = ["the cat sat on a mat", "a dog barks", "it rains in spring"]
    expected = sacrebleu.corpus_bleu(predictions, [references]).score
    assert 20 < expected < 90
    assert score(metric("bleu", TEXT), predictions, references) == pytest.approx(expected)
    assert score(metric("bleu", TEXT), references, references) == pytest.approx(100.0)


def test_rouge_l_is_the_mean_f_measure_of_the_longest_common_subsequence() -> None:
    # LCS "the sat mat": 3 of 4 predicted and 3 of 5 right words; F = 2 · 3/4 · 3/5 / (3/4 + 3/5).
    first = score(metric("rouge_l", TEXT), ["the dog sat mat"], ["the cat sat the mat"])
    assert first == pytest.approx(2 / 3)
    both = score(metric("rouge_l", TEXT), ["the dog sat mat", "x"], ["the cat sat the mat", "y"])
    assert both == pytest.approx(1 / 3)


def test_only_means_over_rows_have_a_score_a_row() -> None:
    assert per_example_scores(metric("acc"), [0, 1], [1, 1]) == [0.0, 1.0]
    for other in (metric("macro_f1"), metric("mcc"), metric("bleu", TEXT), metric("rouge_l", TEXT)):
        assert per_example_scores(other, [], []) is None


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([0], [0, 1]), (["red"], ["red"])])
def test_rows_that_cannot_be_scored_are_an_error(predictions: list[Any], references: list[Any]) -> None:
    with pytest.raises(MetricError, match=f"metric acc failed on {len(references)} rows"):
        score(metric("acc"), predictions, references)


def test_a_lower_score_may_be_the_better_one() -> None:
    assert metric("acc").higher_is_better
    assert not metric("acc", higher_is_better=False).higher_is_better


@pytest.mark.parametrize(
    ("entry", "output_type", "says"),
    [
        (
            {"metric": "accuracy"},
            CHOICE,
            "unknown metric 'accuracy'; known: acc, acc_bytes, acc_norm, f1, macro_f1, mcc",
        ),
        ({"metric": "zzz"}, CHOICE, "known: acc, acc_bytes, acc_norm, f1, macro_f1, mcc"),
        ({"metric": "zzz"}, TEXT, "known: bleu, chrf, chrf++, exact_match, rouge_l, ter"),
        ({"metric": "acc"}, TEXT, "metric acc cannot score generate_until"),
        ({"metric": "rouge_l"}, CHOICE, "metric rouge_l cannot score multiple_choice"),
        ({"metric": "exact_match", "ignore_cas": True}, TEXT, "did you mean 'ignore_case'?"),
    ],
)
def test_an_unfitting_metric_or_option_gives_the_nearest(entry: dict[str, Any], output_type: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        MetricConfig.from_mapping(entry, output_type)
    assert says in str(caught.value)


class Hub:
    """Stands in for `evaluate.load`; a metric of the hub is code that a test cannot fetch."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.loaded: list[str] = []

    def load(self, name: str, **_: Any) -> Hub:
        self.loaded.append(name)
        return self

    def compute(self, **given: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result | {"given": given}


@pytest.fixture
def from_hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    def hub(result: Any) -> Hub:
        made = Hub(result)
        monkeypatch.setattr(evaluate, "load", made.load)
        return made

    return hub


def test_a_metric_of_the_hub_is_refused_unless_allowed(from_hub: Any) -> None:
    hub = from_hub({"chrf": 31.5})
    chrf = metric("chrf", TEXT, hf_evaluate=True, word_order=2)
    with pytest.raises(MetricError, match="allow it with .*hub_metrics=True"):
        score(chrf, ["a"], ["b"])
    assert hub.loaded == []
    assert score(chrf, ["a"], ["b"], hub_metrics=True) == 31.5
    assert hub.loaded == ["chrf"]
    assert metric_version(chrf) == f"evaluate=={evaluate.__version__}"


def test_a_metric_of_the_hub_that_has_the_name_of_ours_is_the_hub_s(from_hub: Any) -> None:
    from_hub({"bleu": 0.25})
    assert score(metric("bleu", TEXT, hf_evaluate=True), ["a"], ["a"], hub_metrics=True) == 0.25


@pytest.mark.parametrize(
    "result", [{"chrf": math.nan}, {"chrf": math.inf}, {}, {"chrf": [0.1, 0.2]}, {"chrf": None}, {"chrf": "high"}]
)
def test_a_score_that_is_no_finite_number_is_an_error(from_hub: Any, result: Any) -> None:
    from_hub(result)
    with pytest.raises(MetricError, match="metric chrf gave .* on 1 rows, which is no finite score"):
        score(metric("chrf", TEXT, hf_evaluate=True), ["a"], ["b"], hub_metrics=True)


def test_a_metric_of_the_hub_that_fails_is_named(from_hub: Any) -> None:
    from_hub(RuntimeError("needs a download"))
    with pytest.raises(MetricError, match="metric chrf failed on 1 rows: needs a download"):
        score(metric("chrf", TEXT, hf_evaluate=True), ["a"], ["b"], hub_metrics=True)


def test_a_metric_that_the_hub_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise FileNotFoundError(f"no module {name}")

    monkeypatch.setattr(evaluate, "load", missing)
    with pytest.raises(MetricError, match="metric chrf could not be loaded from the evaluate hub: no module chrf"):
        score(metric("chrf", TEXT, hf_evaluate=True), ["a"], ["b"], hub_metrics=True)


def test_every_metric_of_ours_has_a_version_of_its_own() -> None:
    versions = {metric_version(metric(name, kinds[0])) for name, kinds in known_metrics()}
    assert len(versions) == len(known_metrics())


def known_metrics() -> list[tuple[str, tuple[str, ...]]]:
    return [(name, known.output_types) for name, known in metrics._KNOWN.items()]
