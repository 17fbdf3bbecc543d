"""Metrics: their values against hand-computed ones and against the libraries that define them."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import evaluate
import pytest
import sacrebleu
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF, TER
from sklearn.metrics import f1_score, matthews_corrcoef

from multiprompt.errors import MetricError, TaskFileError
from multiprompt.tasks import metric as metrics
from multiprompt.tasks.metric import (
    MetricConfig,
    check_as_harness,
    metric_version,
    per_example_scores,
    row_statistics,
    score,
)

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
    with pytest.raises(MetricError, match="open the workspace with .*hub_metrics=True"):
        score(chrf, ["a"], ["b"])
    assert hub.loaded == []
    assert score(chrf, ["a"], ["b"], hub_metrics=True) == 31.5
    assert hub.loaded == ["chrf"]
    assert metric_version(chrf) == f"evaluate=={evaluate.__version__}, mean over rows"


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


@pytest.mark.parametrize(
    ("name", "kind", "library"),
    [("bleu", TEXT, "sacrebleu"), ("ter", TEXT, "sacrebleu"), ("rouge_l", TEXT, "rouge_score"),
     ("macro_f1", CHOICE, "scikit-learn")],
)  # fmt: skip
def test_a_metric_of_a_library_has_that_librarys_version(
    name: str, kind: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another release may split words otherwise; a score of before is none of now."""
    before = metric_version(metric(name, kind))
    assert before.endswith(f" {library}=={version(library)}")
    monkeypatch.setattr("multiprompt.tasks.metric.version", lambda _: "99")
    assert metric_version(metric(name, kind)) != before
    assert metric_version(metric("acc")) == "acc==1", "what needs no library keeps its key"


def test_every_metric_of_ours_has_a_version_of_its_own() -> None:
    versions = {metric_version(metric(name, kinds[0])) for name, kinds in known_metrics()}
    assert len(versions) == len(known_metrics())


def known_metrics() -> list[tuple[str, tuple[str, ...]]]:
    return [(name, known.output_types) for name, known in metrics._KNOWN.items()]


def rouge(prediction: str, reference: str) -> float:
    return score(metric("rouge_l", TEXT), [prediction], [reference])


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("今天天气很好", "今天天气很好", 1.0),
        ("今天很好", "今天天气很好", 2 * 1 * (4 / 6) / (1 + 4 / 6)),  # 4 of 4 predicted and 4 of 6 right characters
        ("сегодня тепло", "Сегодня очень тепло", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("الطقس جميل", "الطقس جميل اليوم", 2 * 1 * (2 / 3) / (1 + 2 / 3)),
        ("हिन्दी भाषा", "हिन्दी भाषा", 1.0),
        ("วันนี้", "วันนี้", 1.0),
        ("오늘 날씨", "오늘 날씨", 1.0),
        ("GPT 模型 good", "gpt 模型 bad", 3 / 4),  # gpt, 模 and 型 of four tokens a side
        ("今天", "明日", 0.0),
        ("12", "12", 1.0),
        ("", "今天", 0.0),
        ("…!", "…!", 0.0),
    ],
)
def test_rouge_l_reads_every_script(prediction: str, reference: str, value: float) -> None:
    assert rouge(prediction, reference) == pytest.approx(value)


@given(
    st.text(st.characters(max_codepoint=0x24F), max_size=30), st.text(st.characters(max_codepoint=0x24F), max_size=30)
)
@settings(deadline=None, database=None, max_examples=50)
def test_rouge_l_of_latin_text_is_that_of_rouge_score(prediction: str, reference: str) -> None:
    expected = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert rouge(prediction, reference) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "chosen"), [("acc", 1), ("acc_norm", 2), ("acc_bytes", 0)])
def test_a_choice_is_taken_by_its_likelihood_a_text_a_character_or_a_byte(name: str, chosen: int) -> None:
    choices = ("日本日本", "b", "abcdef")
    assert metric(name).predicted([-2.2, -1.0, -1.4], choices) == chosen


@pytest.mark.parametrize("name", ["acc", "acc_norm"])
def test_of_equally_good_choices_the_first_is_taken(name: str) -> None:
    assert metric(name).predicted([-3.0, -1.0, -1.0], ("aa", "bb", "cc")) == 1


def test_any_of_several_right_answers_counts() -> None:
    exact = metric("exact_match", TEXT, ignore_case=True)
    right: list[Any] = [["Paris", "the city"], "Rome", ["Bonn"]]
    assert score(exact, ["paris", "rome", "Berlin"], right) == pytest.approx(2 / 3)
    assert per_example_scores(exact, ["THE CITY", "x", "bonn"], right) == [1.0, 0.0, 1.0]
    with pytest.raises(MetricError, match="metric bleu cannot score rows with several right answers"):
        score(metric("bleu", TEXT), ["a", "b", "c"], right)


@pytest.mark.parametrize(
    ("options", "hit"),
    [
        ({"ignore_numbers": True}, True),
        ({"regexes_to_ignore": ["[0-9]"]}, True),
        ({"regexes_to_ignore": ["b"]}, False),
        ({}, False),
    ],
)
def test_exact_match_takes_out_of_both_texts_what_it_ignores(options: dict[str, Any], hit: bool) -> None:
    assert score(metric("exact_match", TEXT, **options), ["a1b"], ["a2b"]) == float(hit)


def test_exact_match_compares_lower_case_as_numpy_writes_it() -> None:
    lower = metric("exact_match", TEXT, ignore_case=True)
    assert per_example_scores(lower, ["İ", "İx", "a\0", "Iı"], ["i", "İy", "A", "iI"]) == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("value", ["[0-9]", [1], ["("]])
def test_patterns_that_cannot_be_ignored_are_refused(value: Any) -> None:
    with pytest.raises(TaskFileError):
        metric("exact_match", TEXT, regexes_to_ignore=value)


def test_f1_is_that_of_class_one() -> None:
    # Class 1: one rightly found of two predicted and two there.
    assert score(metric("f1"), [1, 1, 0, 0], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert score(metric("f1"), [0, 0], [0, 0]) == 0.0


def test_translation_metrics_are_those_of_sacrebleu() -> None:
    predictions, references = ["the cat sat", "a dog barks loudly"], ["the cat sat down", "the dog barks"]
    for name, scorer in (("chrf", CHRF()), ("chrf++", CHRF(word_order=2)), ("ter", TER())):
        found = metric(name, TEXT)
        assert score(found, predictions, references) == pytest.approx(
            scorer.corpus_score(predictions, [references]).score
        )
        assert found.higher_is_better is (name != "ter")


@pytest.mark.parametrize("name", ["chrf", "chrf++", "ter", "f1", "rouge_l"])
def test_the_sum_over_rows_gives_the_score(name: str) -> None:
    choice = name == "f1"
    found = metric(name, CHOICE if choice else TEXT)
    sides: Any = ([1, 0, 1], [1, 1, 0]) if choice else (["the cat", "a dog", "x y"], ["the cat sat", "dog", "x z"])
    rows = row_statistics(found, *sides)
    assert rows is not None
    assert rows.of_sums(rows.values.sum(axis=0, keepdims=True), 3)[0] == pytest.approx(score(found, *sides))


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            {"metric": "acc_norm", "aggregation": "median"},
            "acc_norm has aggregation: 'median'; only 'mean' is supported",
        ),
        ({"metric": "bleu", "hf_evaluate": True, "aggregation": "bleu"}, "bleu has aggregation: 'bleu'; only 'mean'"),
        ({"metric": "f1", "aggregation": "mean"}, "f1 has aggregation: 'mean'; only 'f1' is supported"),
    ],
)
def test_an_aggregation_that_is_not_the_metric_s_own_is_refused(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(TaskFileError, match=says):
        check_as_harness(entry, TEXT)


def test_a_metric_of_the_hub_is_one_of_texts() -> None:
    check_as_harness({"metric": "squad", "hf_evaluate": True, "aggregation": "mean"}, TEXT)
    with pytest.raises(TaskFileError, match="metric f1 is one of the hub.* does not use for multiple_choice"):
        check_as_harness({"metric": "f1", "hf_evaluate": True}, "multiple_choice")


def test_a_metric_of_the_hub_scores_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class ByLength:
        def compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
            return {"by_length": len("".join(predictions)) / len("".join(references))}

    monkeypatch.setattr(evaluate, "load", lambda name: ByLength())
    by_length = metric("by_length", TEXT, hf_evaluate=True)
    assert score(by_length, ["a", "bb"], ["a", "bbbb"], hub_metrics=True) == 0.75
