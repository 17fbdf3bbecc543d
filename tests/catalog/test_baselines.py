"""Baselines: comparisons and blessings."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from multiprompt.catalog.catalog import Catalog
from multiprompt.tasks.canaries import order
from multiprompt.tasks.data import Split
from tests.catalog.databases import by
from tests.catalog.samples import AT, ROWS, a_check, a_task, an_evaluation, learn


def test_a_comparison_is_kept_with_its_evaluation_to_be_used_again(catalog: Catalog) -> None:
    version = learn(catalog, "colour", 0.9)
    baseline = catalog.baselines.of(version).evaluation
    key = {"prompt": "again"}
    again = an_evaluation("colour", 0.85, key=key)
    result = a_check("colour@1", 0.9, 0.85)
    assert catalog.baselines.comparison(baseline, key) is None
    for drop in (0.04, 0.05):
        by(catalog, "tester", AT).baselines.save_comparison(
            version, baseline, key, replace(result, drop=drop), ROWS, again
        )
    found = catalog.baselines.comparison(baseline, key)
    assert found is not None
    assert (found["version"], found["drop"]) == ("colour@1", 0.05)
    assert catalog.baselines.comparison(baseline, {"prompt": "another"}) is None
    record = catalog.evaluations.find("version = 1 and score < 0.9")[0]
    assert catalog.evaluations.get(record.id) == again
    assert catalog.baselines.evaluation_of(catalog.versions.get("colour")).score == 0.9


def test_a_blessed_evaluation_is_the_baseline_from_then_on(catalog: Catalog) -> None:
    version = learn(catalog, "colour", 0.9)
    learn(catalog, "shape", 0.4)
    for score in (0.7, 0.8):
        evaluation = an_evaluation("colour", score, key={"prompt": "again", "score": str(score)})
        by(catalog, "ann", AT).baselines.bless(version, a_task("colour"), ROWS, evaluation, f"labels mended, {score}")
    assert catalog.baselines.evaluation_of(version) == evaluation
    _, held = catalog.baselines.published()
    assert [(v.label, b.score) for v, b in held] == [("colour@1", 0.8), ("shape@1", 0.4)]
    assert held[0][1].key == evaluation.key
    event = catalog.events.find("kind = 'blessed'")[-1]
    assert (event.actor, event.task, event.to_version, event.reason) == ("ann", "colour", 1, "labels mended, 0.8")
    assert [canary.index for canary in catalog.baselines.canaries(held[0][1].evaluation) or ()] == sorted(
        range(2), key=order(ROWS.fingerprint, 2).index
    )
    assert catalog.verify() == []


def test_a_version_has_one_baseline_wherever_it_is_asked_for(catalog: Catalog) -> None:
    version = learn(catalog, "colour", 0.9)
    blessed_rows = Split("test", ({"text": "sea", "label": "blue"}, {"text": "sun", "label": "red"}))
    evaluation = an_evaluation("colour", 0.7, key={"prompt": "again"}, seconds=8.0)
    later = AT + timedelta(days=1)
    by(catalog, "ann", later).baselines.bless(version, a_task("colour"), blessed_rows, evaluation, "labels mended")
    assert catalog.baselines.evaluation_of(version).score == catalog.baselines.of(version).score == 0.7
    assert [
        record.score for record in (*catalog.tasks.find(), *catalog.versions.find(), catalog.versions.get("colour"))
    ] == [0.7] * 3
    for listing in (catalog.tasks.find, catalog.versions.find):
        assert [len(listing(f"{query} limit 9")) for query in ("score < 0.8", "score.macro_f1 = 0.35")] == [1, 1]
        assert listing("score.acc > 0.8 limit 9") == listing("score > 0.8") == []
    assert [task.score for time in (AT, later) for task in catalog.tasks.find(as_of=time)] == [0.9, 0.7]
    for view in ("v_tasks", "v_versions"):
        assert catalog.sql(f"SELECT score FROM {view}").rows == ((0.7,),)
    assert ("colour@1", "evaluated-on", blessed_rows.fingerprint) in catalog.sql("SELECT * FROM v_lineage").rows
    assert [i.relation for i in catalog.lineage.impact_of_data(blessed_rows.fingerprint)] == ["evaluated-on"]
    assert catalog.lineage.impact_of_data(ROWS.fingerprint) == []
    assert [(i.rows, i.seconds) for i in catalog.lineage.impact_of_base("tiny")] == [(2, 8.0)]
    assert {e.parent for e in catalog.lineage.of("colour") if e.relation == "evaluated-on"} == {
        blessed_rows.fingerprint
    }
    assert catalog.runs.job_seconds("evaluate", "colour") == 8.0
    assert catalog.matrix.get().scores == ((0.9,),), "history keeps what was learned then"
