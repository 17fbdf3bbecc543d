"""Evaluations as people read them: texts, labels, wrong rows first, scores of each class, pages of a check."""

from __future__ import annotations

import json

import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

import multiprompt as mp
from multiprompt.records import EvaluationReport
from tests.conftest import COLOURS, MakeTask


def shown(workspace: mp.Workspace, query: str) -> EvaluationReport:
    return workspace.evaluation(workspace.evaluations(query)[0].id)


def test_an_evaluation_shows_texts_of_rows_and_labels_in_words(workspace: mp.Workspace, make_task: MakeTask) -> None:
    path = make_task("colour")
    workspace.add_task(path)
    workspace.learn("colour")
    rows = [json.loads(line) for line in (path.parent / "test.jsonl").read_text().splitlines()]
    for kind in ("soft", "hard"):
        found = shown(workspace, f"kind = '{kind}'")
        assert {a.row: (a.text, a.right) for a in found.answers} == {
            number: (row["text"], row["label"]) for number, row in enumerate(rows)
        }
        for answer in found.answers:
            assert answer.given == COLOURS[found.predictions[answer.row]]
        order = [answer.is_right for answer in found.answers]
        assert order == sorted(order)
        assert sum(map(bool, order)) == round(found.score * 12)
        assert found.version == ("colour@1" if kind == "soft" else None)


def test_predictions_of_an_evaluation_are_those_of_predict(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    answers = shown(workspace, "kind = 'soft'").answers
    given = workspace.predict([("colour", answer.text) for answer in answers])
    assert [answer.given for answer in answers] == [prediction.output for prediction in given]


def test_scores_of_each_class_are_those_of_scikit_learn(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    found = shown(workspace, "kind = 'soft'")
    right, given = [a.right for a in found.answers], [a.given for a in found.answers]
    assert found.confusion is not None
    assert found.confusion.labels == COLOURS
    assert [list(row) for row in found.confusion.counts] == confusion_matrix(right, given, labels=COLOURS).tolist()
    columns = precision_recall_fscore_support(right, given, labels=COLOURS, zero_division=0)
    for score, *expected in zip(found.classes, *columns, strict=True):
        assert (score.precision, score.recall, score.f1, score.support) == pytest.approx(expected)
    assert found.confusion.to_pandas().loc["red"].sum() == 6


def test_a_generation_task_has_answers_and_no_classes(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("word", kind="generate", doc_to_text="{{text}} {{label}}\nAnswer:"))
    workspace.learn("word")
    found = shown(workspace, "kind = 'soft'")
    assert (found.confusion, found.classes) == (None, ())
    assert found.answers[0].text.startswith("label: red; text: ")
    assert {answer.right for answer in found.answers} == {"red"}


def test_an_evaluation_is_read_with_the_task_file_that_it_was_taken_with(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    before = shown(workspace, "kind = 'hard'")
    workspace.add_task(make_task("colour", doc_to_choice=list(reversed(COLOURS))))
    workspace.learn("colour")
    assert workspace.evaluation(before.id) == before


def test_data_and_base_model_of_a_lineage_have_names(workspace: mp.Workspace, make_task: MakeTask) -> None:
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    edges = {edge.relation: edge for edge in workspace.lineage("colour")}
    for relation, says in (("trained-on", "train.jsonl, 24 rows"), ("validated-on", "validation.jsonl, 8 rows")):
        assert edges[relation].name == f"{says}, {edges[relation].parent[:19]}…"
    assert edges["runs-on"].name == f"tiny, {edges['runs-on'].parent[:19]}…"
    for form in ("tree", "mermaid", "dot"):
        assert "test.jsonl, 12 rows, sha256:" in workspace.provenance("colour", form)


def test_rows_that_were_held_out_of_the_training_file_are_called_so(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    workspace.add_task(make_task("colour", validation_split=None))
    workspace.learn("colour")
    (edge,) = [edge for edge in workspace.lineage("colour") if edge.relation == "validated-on"]
    assert (edge.name or "").startswith("train.jsonl (held out), 2 rows, sha256:")


def test_the_page_of_a_check_shows_rows_classes_templates_and_names(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    path = make_task("colour")
    rows = (path.parent / "test.jsonl").read_text().splitlines()
    changed = json.loads(rows[0]) | {"text": "a \u202e<b>row</b>"}
    (path.parent / "test.jsonl").write_text("\n".join([json.dumps(changed), *rows[1:]]))
    workspace.add_task(path)
    workspace.learn("colour")
    path.write_text(path.read_text().replace("Which colour?", "Name <it>!"))
    workspace.add_task(path)
    page = workspace.report_html(workspace.check())
    for said in ("precision", "given answer", "validation.jsonl, 8 rows", "-  Which colour?", "+  Name &lt;it&gt;!"):
        assert said in page, said
    assert "a \\u202e&lt;b&gt;row&lt;/b&gt;" in page
    assert page.index(">wrong<") < page.index("Rows by right label")
