"""The catalog: what goes in comes out, publishing is one step, and history explains the state."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from multiprompt.catalog import candidates
from multiprompt.catalog.candidates import Candidate
from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.lineage import Parent
from multiprompt.errors import CatalogError, ConflictError, IntegrityError, NotFoundError, StateError
from multiprompt.records import (
    Adapter,
    BaseModelRecord,
    CheckReport,
    CheckResult,
    Edge,
    Evaluation,
    Event,
    Matrix,
    Run,
    VersionRecord,
)
from multiprompt.tasks.canaries import order
from multiprompt.tasks.data import Split
from multiprompt.tasks.task import Task
from tests.catalog.databases import DATABASES, by, contents, damage, execute
from tests.conftest import between_versions, task_mapping

AT = datetime(2026, 1, 1, tzinfo=UTC)
BASE = BaseModelRecord("tiny", "hub/tiny", "main", "Llama", "float32", "sha256:" + "a" * 64, "sha256:" + "b" * 64, "c")
ROWS = Split("test", ({"text": "sky", "label": "blue"}, {"text": "rose", "label": "red"}))


def new_catalog(folder: Path) -> Catalog:
    return DATABASES.new(folder)


def catalog_of_one_version(folder: Path) -> Catalog:
    """A catalog that holds colour@1, published."""
    return DATABASES.filled("one version", learn, folder)


def a_task(name: str = "colour", **keys: Any) -> Task:
    return Task.from_mapping(task_mapping(name) | keys, Path("tasks"))


def an_evaluation(name: str, score: float, **values: Any) -> Evaluation:
    made = Evaluation(
        task=name,
        kind="soft",
        metric="acc",
        score=score,
        higher_is_better=True,
        metrics={"acc": score, "macro_f1": score / 2},
        key={"prompt": f"{name} {score}", "weights": BASE.weights},
        predictions=(0, 1),
        references=(0, 0),
        truncated=1,
        seconds=0.25,
    )
    return replace(made, **values)


def a_candidate(task: Task, score: float = 0.5, seed: int = 0, **values: Any) -> Candidate:
    made = Candidate(
        task=task,
        base_model=BASE,
        adapter=Adapter(b'{"peft_type": "PROMPT_TUNING"}', f"weights of {task.name} {seed}".encode()),
        method="prompt-tuning",
        num_virtual_tokens=4,
        run=None,
        parents=(),
        hard=an_evaluation(task.name, 0.1, kind="hard", key={"prompt": "hard", "task": task.name}),
        soft=an_evaluation(task.name, score),
        data=ROWS,
        training_data=None,
    )
    return replace(made, **values)


def learn(
    catalog: Catalog,
    name: str = "colour",
    score: float = 0.5,
    *,
    publish: bool = True,
    checked: Sequence[CheckResult] = (),
    at: datetime = AT,
    task: Task | None = None,
    **values: Any,
) -> VersionRecord:
    """Admit one more version of a task, with an adapter that no other version has."""
    task = task or a_task(name)
    by(catalog, "tester", at).tasks.add(task)
    return by(catalog, "tester", at).candidates.admit(
        a_candidate(task, score, seed=len(catalog.versions.find()), **values),
        CheckReport(tuple(checked), 1.0),
        decision="publish" if publish else "reject",
        reason="better" if publish else "worse",
        epoch=catalog.versions.published()[0],
    )


def a_check(version: str, baseline: float, score: float | None) -> CheckResult:
    drop = None if score is None else baseline - score
    return CheckResult(version, "acc", baseline, score, drop, 0.5, "failed" if score is None else "unchanged", "noise")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog, which must be sound after the test too."""
    made = new_catalog(tmp_path)
    yield made
    assert made.verify() == []


def test_a_task_comes_back_as_it_was_added(catalog: Catalog) -> None:
    task = a_task(tag=["nlp", "team:a"])
    record = by(catalog, "tester", AT).tasks.add(task)
    assert (record.name, record.tags, record.metric) == ("colour", ("nlp", "team:a"), "acc")
    assert (record.fingerprint, record.source, record.folder) == (task.fingerprint, task.source, str(task.folder))
    assert (record.description, record.created_at) == ("Which colour?", AT)
    assert (record.published, record.published_at, record.score) == (None, None, None)
    assert catalog.tasks.get("colour") == record
    assert catalog.tasks.find() == [record]


def test_adding_the_same_task_again_changes_nothing(catalog: Catalog) -> None:
    first = by(catalog, "tester", AT).tasks.add(a_task())
    assert by(catalog, "tester", AT + timedelta(days=1)).tasks.add(a_task()) == first
    assert [event.kind for event in catalog.events.find()] == ["task-added"]


def test_a_changed_task_file_is_the_task_s_and_versions_keep_theirs(catalog: Catalog) -> None:
    old, new = a_task(), a_task(description="What colour?\n")
    version = learn(catalog, task=old)
    by(catalog, "tester", AT).tasks.add(new)
    assert catalog.tasks.get("colour").fingerprint == new.fingerprint
    assert catalog.versions.task(version).fingerprint == old.fingerprint
    assert [event.kind for event in catalog.events.find()] == ["task-added", "published", "task-changed"]


def test_an_unknown_task_gives_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="no task 'colour' in the catalog; there are none yet"):
        catalog.tasks.get("colour")
    by(catalog, "tester", AT).tasks.add(a_task())
    for lookup in (catalog.tasks.get, catalog.versions.get, catalog.versions.of, catalog.lineage.of):
        with pytest.raises(NotFoundError, match="no task 'color' in the catalog; did you mean 'colour'?"):
            lookup("color")


def test_a_candidate_for_an_unknown_task_is_refused(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        by(catalog, "tester", AT).candidates.admit(
            a_candidate(a_task()), CheckReport((), 0.0), decision="publish", reason="", epoch=0
        )
    assert catalog.versions.find() == []


def test_a_published_version_has_all_that_it_was_admitted_with(catalog: Catalog) -> None:
    version = learn(catalog, score=0.75)
    assert (version.label, version.state, version.method, version.reason) == (
        "colour@1",
        "published",
        "prompt-tuning",
        "better",
    )
    assert (version.base_model, version.num_virtual_tokens, version.metric, version.score) == (BASE, 4, "acc", 0.75)
    assert (version.created_at, version.published_at, version.retired_at) == (AT, AT, None)
    adapter = a_candidate(a_task()).adapter
    assert catalog.versions.adapter(version) == adapter
    assert catalog.evaluations.rows(version) == ROWS
    task = catalog.tasks.get("colour")
    assert (task.published, task.published_at, task.score) == (1, AT, 0.75)


def test_a_digest_identifies_the_two_files(catalog: Catalog) -> None:
    version = learn(catalog)
    adapter = catalog.versions.adapter(version)
    config, weights = (hashlib.sha256(part).hexdigest() for part in (adapter.config, adapter.weights))
    expected = "sha256:" + hashlib.sha256((config + weights).encode()).hexdigest()
    assert version.digest == expected
    assert catalog.versions.digests() == {"colour@1": expected}
    assert learn(catalog).digest != expected


def test_evaluations_come_back_equal_with_every_row(catalog: Catalog) -> None:
    soft = an_evaluation(
        "colour",
        0.5,
        predictions=("blau\n", "zwölf", "", "'\u2028\x00"),
        references=(3, "x", "", "𝄞"),
        metric="exact_match",
        metrics={"exact_match": 0.5, "bleu": 1e-9},
        higher_is_better=False,
    )
    hard = replace(soft, kind="hard", score=0.25, metrics={"exact_match": 0.25, "bleu": 0.0}, key={"prompt": "hard"})
    version = learn(catalog, soft=soft, hard=hard)
    assert [catalog.evaluations.get(record.id) for record in catalog.evaluations.find()] == [hard, soft]
    assert catalog.baselines.evaluation_of(version) == soft
    assert catalog.evaluations.with_key(soft.key) == soft
    assert soft.rows == 4


def test_a_score_is_found_by_all_of_its_key_or_not_at_all(catalog: Catalog) -> None:
    learn(catalog, soft=an_evaluation("colour", 0.5, key={"prompt": "p", "weights": "w"}))
    assert catalog.evaluations.with_key({"weights": "w", "prompt": "p"}) is not None
    for key in ({"prompt": "p"}, {"prompt": "p", "weights": "v"}, {"prompt": "p", "weights": "w", "more": ""}):
        assert catalog.evaluations.with_key(key) is None


def test_the_newest_of_equal_keys_is_found(catalog: Catalog) -> None:
    for score in (0.5, 0.6):
        learn(catalog, soft=an_evaluation("colour", score, key={"prompt": "same"}))
    found = catalog.evaluations.with_key({"prompt": "same"})
    assert found is not None
    assert found.score == 0.6


def test_a_run_keeps_its_losses_and_its_time(catalog: Catalog) -> None:
    data = Split("train", ({"text": "a"},)), Split("validation", ({"text": "b"},))
    run = Run(
        settings={"steps": 3},
        environment={"torch": "2"},
        training_data=data[0].fingerprint,
        validation_data=data[1].fingerprint,
        losses=(3.0, 2.5, 0.1),
        validations=((3, 0.2, 0.9),),
        best_step=3,
        truncated=0,
        seconds=12.5,
    )
    trained = learn(catalog, run=run, training_data=data)
    imported = learn(catalog)
    assert catalog.runs.of(trained) == run
    assert catalog.runs.of(imported) is None


def test_publishing_retires_the_version_before_it(catalog: Catalog) -> None:
    learn(catalog, at=AT)
    learn(catalog, at=AT + timedelta(days=1))
    first, second = catalog.versions.of("colour")
    assert (first.state, first.retired_at) == ("retired", AT + timedelta(days=1))
    assert (second.state, second.published_at) == ("published", AT + timedelta(days=1))
    assert catalog.versions.get("colour") == second
    assert [version.label for version in catalog.versions.published()[1]] == ["colour@2"]


def test_a_rejected_candidate_is_kept_with_its_evidence(catalog: Catalog) -> None:
    published = learn(catalog, score=0.9)
    rejected = learn(catalog, score=0.4, publish=False)
    assert (rejected.state, rejected.reason, rejected.score, rejected.published_at) == ("rejected", "worse", 0.4, None)
    assert catalog.versions.get("colour") == published
    assert catalog.baselines.evaluation_of(rejected).score == 0.4
    assert catalog.evaluations.rows(rejected) == ROWS


def test_numbers_count_a_task_s_versions_from_one(catalog: Catalog) -> None:
    labels = [
        learn(catalog, name, publish=publish).label for name, publish in zip("abaab", (1, 1, 0, 1, 0), strict=True)
    ]
    assert labels == ["a@1", "b@1", "a@2", "a@3", "b@2"]
    with pytest.raises(
        NotFoundError, match=r"task 'a' has no version 4; its versions: 1 \(retired\), 2 \(rejected\), 3"
    ):
        catalog.versions.get("a", 4)


def test_a_task_without_a_published_version_says_what_to_run(catalog: Catalog) -> None:
    learn(catalog, publish=False)
    with pytest.raises(
        NotFoundError, match=r"no published version \(versions: 1 \(rejected\)\); run `multiprompt learn"
    ):
        catalog.versions.get("colour")


def test_publishing_since_the_epoch_was_read_is_a_conflict_that_writes_nothing(catalog: Catalog) -> None:
    learn(catalog, "colour")
    learn(catalog, "shape", publish=False)
    epoch, _ = catalog.versions.published()
    learn(catalog, "shape")
    before = contents(catalog)
    with pytest.raises(ConflictError, match="colour: another prompt was published meanwhile"):
        by(catalog, "tester", AT).candidates.admit(
            a_candidate(a_task(), 0.9, seed=99), CheckReport((), 0.0), decision="publish", reason="late", epoch=epoch
        )
    assert contents(catalog) == before


def test_only_moved_pointers_move_the_epoch(catalog: Catalog) -> None:
    epochs = [catalog.versions.published()[0]]
    for act in (
        lambda: by(catalog, "tester", AT).tasks.add(a_task()),
        lambda: learn(catalog, publish=False),
        lambda: learn(catalog),
        lambda: learn(catalog),
        lambda: by(catalog, "tester", AT).pointers.roll_back("colour", 2, "why"),
    ):
        act()
        epochs.append(catalog.versions.published()[0])
    assert [later - earlier for earlier, later in itertools.pairwise(epochs)] == [0, 0, 1, 1, 1]


def test_an_error_in_the_middle_of_admitting_leaves_nothing(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(catalog)
    before = contents(catalog)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(candidates, "point_at", broken)
    with pytest.raises(RuntimeError):
        learn(catalog)
    assert contents(catalog) == before


def test_a_score_that_is_no_number_is_not_stored(catalog: Catalog) -> None:
    learn(catalog)
    before = contents(catalog)
    with pytest.raises(CatalogError):
        learn(catalog, score=float("nan"))
    assert contents(catalog) == before


def test_two_tasks_with_the_same_adapter_store_it_once(catalog: Catalog) -> None:
    same = Adapter(b"{}", b"shared")
    first, second = learn(catalog, "a", adapter=same), learn(catalog, "b", adapter=same)
    assert first.digest == second.digest
    assert catalog.versions.adapter(first) == catalog.versions.adapter(second) == same
    assert len(contents(catalog)["artifacts"]) == 3


def test_rolling_back_publishes_the_version_retired_last(catalog: Catalog) -> None:
    for day in range(3):
        learn(catalog, at=AT + timedelta(days=day))
    back = by(catalog, "someone", AT + timedelta(days=9)).pointers.roll_back("colour", None, "complaints")
    assert (back.number, back.state, back.retired_at) == (2, "published", None)
    assert [version.state for version in catalog.versions.of("colour")] == ["retired", "published", "retired"]
    event = catalog.events.find()[-1]
    assert (event.kind, event.from_version, event.to_version) == ("rolled-back", 3, 2)
    assert (event.reason, event.actor) == ("complaints", "someone")


def test_rolling_back_twice_goes_forth_again(catalog: Catalog) -> None:
    for day in range(2):
        learn(catalog, at=AT + timedelta(days=day))
    numbers = [
        by(catalog, "tester", AT + timedelta(days=day)).pointers.roll_back("colour", None, "").number
        for day in range(2, 5)
    ]
    assert numbers == [1, 2, 1]


def test_only_a_retired_version_can_be_rolled_back_to(catalog: Catalog) -> None:
    learn(catalog)
    learn(catalog, publish=False)
    before = contents(catalog)
    for number, says in ((1, "colour@1 is published"), (2, "colour@2 is rejected"), (None, "has no retired version")):
        with pytest.raises(StateError, match=says):
            by(catalog, "tester", AT).pointers.roll_back("colour", number, "")
    with pytest.raises(NotFoundError, match="no version 7"):
        by(catalog, "tester", AT).pointers.roll_back("colour", 7, "")
    assert contents(catalog) == before


def test_rolling_back_keeps_bytes_baseline_and_digest(catalog: Catalog) -> None:
    first = learn(catalog, score=0.8)
    kept = catalog.versions.adapter(first), catalog.baselines.evaluation_of(first), catalog.evaluations.rows(first)
    learn(catalog, score=0.9)
    back = by(catalog, "tester", AT).pointers.roll_back("colour", 1, "")
    assert back.digest == first.digest
    assert (
        catalog.versions.adapter(back),
        catalog.baselines.evaluation_of(back),
        catalog.evaluations.rows(back),
    ) == kept


def test_lineage_names_what_each_version_came_from(catalog: Catalog) -> None:
    first = learn(catalog, "a", parents=(Parent("imported-from", "a folder"),))
    learn(catalog, "b", parents=(Parent("transferred-from", first.label, first),))
    second = learn(catalog, "a", parents=(Parent("retrained-from", first.label, first),))
    edges = [
        Edge("a@1", "imported-from", "a folder"),
        Edge("b@1", "transferred-from", "a@1"),
        Edge("a@2", "retrained-from", "a@1"),
    ]
    assert between_versions(catalog.lineage.of("a")) == edges
    assert between_versions(catalog.lineage.of("a", 2)) == [edges[0], edges[2]]
    assert between_versions(catalog.lineage.of("b", 1)) == edges[:2]
    made_of = {(e.relation, e.parent) for e in catalog.lineage.of("b", 1) if e.child == "b@1"} - set(edges)
    assert {("runs-on", BASE.weights), ("evaluated-on", ROWS.fingerprint)} <= made_of
    assert second.label == "a@2"


def test_an_unknown_relation_is_refused_and_nothing_is_written(catalog: Catalog) -> None:
    by(catalog, "tester", AT).tasks.add(a_task())
    before = contents(catalog)
    with pytest.raises(IntegrityError, match="refuses the change"):
        learn(catalog, parents=(Parent("inspired-by", "a friend"),))
    assert contents(catalog) == before


def test_events_say_who_did_what_when_and_why(catalog: Catalog) -> None:
    by(catalog, "me", AT).base_models.bind(BASE)
    by(catalog, "me", AT).tasks.add(a_task())
    learn(catalog)
    learn(catalog, publish=False)
    assert [replace(event, id=0) for event in catalog.events.find()] == [
        Event(0, AT, "me", "base-model-bound", None, None, None, str(BASE)),
        Event(0, AT, "me", "task-added", "colour", None, None, a_task().fingerprint),
        Event(0, AT, "tester", "published", "colour", None, 1, "better"),
        Event(0, AT, "tester", "rejected", "colour", None, 2, "worse"),
    ]


def test_times_of_other_zones_come_back_as_the_same_moment(catalog: Catalog) -> None:
    at = datetime(2026, 6, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    version = learn(catalog, at=at)
    assert version.created_at == at
    assert version.created_at.tzinfo == UTC


def test_the_matrix_is_what_was_measured_when_each_task_was_learned(catalog: Catalog) -> None:
    learn(catalog, "a", 0.9)
    learn(catalog, "b", 0.8, checked=[a_check("a@1", 0.9, 0.85)])
    learn(catalog, "c", 0.3, publish=False, checked=[a_check("a@1", 0.9, 0.1), a_check("b@1", 0.8, 0.1)])
    learn(catalog, "a", 0.95, checked=[a_check("b@1", 0.8, 0.2)])
    learn(catalog, "c", 0.7, checked=[a_check("a@2", 0.95, 0.93), a_check("b@1", 0.8, None)])
    by(catalog, "tester", AT).pointers.roll_back("a", 1, "")
    scores = ((0.9, None, None), (0.85, 0.8, None), (0.93, None, 0.7))
    assert catalog.matrix.get() == Matrix(("a", "b", "c"), scores, (0.1,) * 3, (True,) * 3)


def test_a_version_that_a_check_did_not_run_again_had_the_score_of_its_baseline(catalog: Catalog) -> None:
    learn(catalog, "a", 0.9)
    learn(catalog, "b", 0.8, checked=[replace(a_check("a@1", 0.9, 0.9), verdict="identical", reused=True)])
    learn(catalog, "a", 0.95)
    learn(catalog, "c", 0.7)
    by(catalog, "tester", AT).pointers.roll_back("a", 1, "")
    learn(catalog, "d", 0.6)
    assert catalog.matrix.get().scores == (
        (0.9, None, None, None),
        (0.9, 0.8, None, None),
        (0.95, 0.8, 0.7, None),
        (0.9, 0.8, 0.7, 0.6),
    )
    with catalog.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM check_results").scalar() == 0


def test_a_catalog_without_published_versions_has_an_empty_matrix(catalog: Catalog) -> None:
    learn(catalog, publish=False)
    assert catalog.matrix.get() == Matrix((), ())


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


def test_a_regression_stands_while_the_newest_check_of_that_version_found_it(catalog: Catalog) -> None:
    learn(catalog, "colour", 0.9)
    learn(catalog, "shape", 0.4)
    assert catalog.checks.found_worse("colour@1") is None
    lost = replace(a_check("colour@1", 0.9, 0.5), verdict="regressed")
    by(catalog, "tester", AT).checks.save(CheckReport((lost,), 1.0))
    assert catalog.checks.found_worse("colour@1") is not None
    assert catalog.checks.found_worse("shape@1") is None
    learn(catalog, "colour", 0.3, publish=False)
    assert catalog.checks.found_worse("colour@1") is not None, "a candidate of its own task checked the others alone"
    same = replace(lost, verdict="identical", reused=True)
    by(catalog, "tester", AT).checks.save(CheckReport((same,), 1.0))
    assert catalog.checks.found_worse("colour@1") is None
    learn(catalog, "shape", 0.5, checked=[replace(lost, verdict="failed", score=None)])
    assert catalog.checks.found_worse("colour@1") is not None


def test_a_candidate_below_its_floor_is_published_by_force_and_with_a_reason(catalog: Catalog) -> None:
    by(catalog, "tester", AT).tasks.add(a_task())
    epoch = catalog.settings.epoch()
    version = by(catalog, "tester", AT).candidates.admit(
        a_candidate(a_task()), CheckReport((), 0.0), decision="hold", reason="did not learn", epoch=epoch
    )
    assert (version.state, catalog.versions.is_below_floor(version)) == ("candidate", True)
    assert catalog.events.find()[-1].kind == "below-floor"
    for force, reason in ((False, "for now"), (True, " ")):
        with pytest.raises(StateError, match="colour@1 did not learn; it is published only with --force"):
            by(catalog, "tester", AT).pointers.publish("colour", 1, reason, force=force)
    assert by(catalog, "tester", AT).pointers.publish("colour", 1, "for now", force=True).state == "published"


def test_the_path_of_a_task_file_is_kept_and_follows_the_file(catalog: Catalog, tmp_path: Path) -> None:
    assert by(catalog, "tester", AT).tasks.add(a_task()).file == ""
    file = tmp_path / "colour.yaml"
    file.write_text(a_task().source)
    assert by(catalog, "tester", AT).tasks.add(Task.from_file(file)).file == str(file)
    assert catalog.tasks.find()[0].file == str(file)


def test_the_policy_of_a_catalog_is_kept_with_an_event(catalog: Catalog) -> None:
    assert catalog.settings.policy() == "block"
    for _ in range(2):
        by(catalog, "ann", AT).settings.set_policy("warn", "a migration")
    assert catalog.settings.policy() == "warn"
    (event,) = catalog.events.find("kind = 'policy-warn'")
    assert (event.actor, event.reason) == ("ann", "a migration")


def test_a_catalog_is_bound_to_one_base_model(catalog: Catalog) -> None:
    assert catalog.base_models.get() == (None, "auto", None)
    by(catalog, "tester", AT).base_models.bind(BASE)
    by(catalog, "tester", AT).base_models.bind(replace(BASE, name="the same under another name"))
    assert catalog.base_models.get() == ("hub/tiny", "float32", BASE)
    for part in ("weights", "tokenizer", "config", "dtype"):
        with pytest.raises(StateError, match="is bound to tiny .* already"):
            by(catalog, "tester", AT).base_models.bind(replace(BASE, **{part: "other"}))
    assert len(catalog.events.find("kind = 'base-model-bound'")) == 1


def test_records_are_frozen_and_detached(catalog: Catalog) -> None:
    version, task = learn(catalog), catalog.tasks.get("colour")
    for record in (version, task, catalog.events.find()[0], catalog.evaluations.find()[0]):
        with pytest.raises(FrozenInstanceError):
            record.task = "other"
    learn(catalog)
    assert (version.state, task.published, version.base_model.name) == ("published", 1, "tiny")


def test_changing_what_a_record_holds_changes_nothing_stored(catalog: Catalog) -> None:
    learn(catalog)
    before = catalog.evaluations.find()[1]
    catalog.evaluations.find()[1].metrics.clear()
    assert catalog.evaluations.find()[1] == before
    assert before.metrics == {"acc": 0.5, "macro_f1": 0.25}


def test_a_second_catalog_object_sees_what_the_first_wrote(catalog: Catalog) -> None:
    other = Catalog.open(catalog.engine.url.render_as_string(hide_password=False))
    version = learn(catalog)
    assert other.versions.get("colour") == version
    learn(other)
    assert catalog.versions.get("colour").number == 2


# What is done, and where it is found; in PostgreSQL's words where they differ.
DAMAGE = {
    "a flipped byte in the weights": (
        "UPDATE artifacts SET data = CAST('W' || substr(data, 2) AS BLOB) WHERE kind = 'adapter-weights'",
        "artifacts",
        "UPDATE artifacts SET data = set_byte(data, 0, 87) WHERE kind = 'adapter-weights'",
    ),
    "a flipped byte in the config": (
        "UPDATE artifacts SET data = CAST('[' || substr(data, 2) AS BLOB) WHERE kind = 'adapter-config'",
        "colour@1",
        "UPDATE artifacts SET data = set_byte(data, 0, 91) WHERE kind = 'adapter-config'",
    ),
    "a flipped byte in the evaluation rows": (
        "UPDATE artifacts SET data = x'00' WHERE kind = 'rows'",
        "artifacts",
        "UPDATE artifacts SET data = set_byte(data, 5, 1 - get_byte(data, 5)) WHERE kind = 'rows'",
    ),
    "missing weights": ("DELETE FROM artifacts WHERE kind = 'adapter-weights'", "colour@1"),
    "missing evaluation rows": ("DELETE FROM artifacts WHERE kind = 'rows'", "table data_snapshots"),
    "another digest": ("UPDATE prompt_versions SET digest = 'sha256:0'", "colour@1"),
    "swapped files": (
        "UPDATE prompt_versions SET config_sha256 = weights_sha256, weights_sha256 = config_sha256",
        "colour@1",
    ),
    "a missing task": ("DELETE FROM tasks", "table prompt_versions"),
    "a missing baseline": ("DELETE FROM evaluations WHERE kind = 'soft'", "table prompt_versions"),
    "damaged results": (
        "UPDATE evaluation_results SET results = x'00'",
        "",
        "UPDATE evaluation_results SET results = set_byte(results, 0, 0)",
    ),
    "missing results": ("DELETE FROM evaluation_results WHERE evaluation_id = 1", "evaluation 1"),
    "another score": ("UPDATE evaluation_scores SET score = 0.123", ""),
    "a better score": ("UPDATE evaluations SET score = 0.99", ""),
    "another main metric": ("UPDATE evaluations SET metric = 'other'", ""),
    "missing scores": ("DELETE FROM evaluation_scores", ""),
    "another key than its parts": ("UPDATE evaluations SET key = 'sha256:0'", ""),
    "another fingerprint of the rows": ("UPDATE data_snapshots SET fingerprint = 'sha256:0'", ""),
    "no evaluation rows": ("UPDATE data_snapshots SET sha256 = NULL", ""),
    "a lost event": ("DELETE FROM events WHERE kind = 'published'", ""),
    "another text than the task's": ("UPDATE task_texts SET words = 'nothing'", "task colour"),
}


def damaged(folder: Path, kind: str) -> Catalog:
    catalog = catalog_of_one_version(folder)
    here, _, *there = DAMAGE[kind]
    damage(catalog, there[0] if there and DATABASES.kind == "postgresql" else here)
    return catalog


@pytest.mark.parametrize("kind", DAMAGE)
def test_verify_finds_damage(tmp_path: Path, kind: str) -> None:
    assert catalog_of_one_version(tmp_path).verify() == []
    problems = damaged(tmp_path, kind).verify()
    assert problems != []
    where = DAMAGE[kind][1]
    assert not where or where in {problem.where for problem in problems}


def test_verify_says_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    catalog_of_one_version(tmp_path).verify(lambda what, done, total: told.append((what, done, total)))
    assert {("verifying artifacts", 3, 3), ("verifying evaluations", 2, 2)} <= set(told)
    for what in {what for what, _, _ in told}:
        done = [done / total for said, done, total in told if said == what]
        assert done == sorted(done)
        assert done[-1] == 1


def test_verify_finds_a_dropped_trigger(tmp_path: Path) -> None:
    catalog = catalog_of_one_version(tmp_path)
    on_table = "" if DATABASES.kind == "sqlite" else " ON prompt_versions"
    execute(catalog, f"DROP TRIGGER versions_kept{on_table}")
    assert any("versions_kept" in problem.what for problem in catalog.verify())


def test_verify_finds_damaged_pages(tmp_path: Path, on_sqlite: None) -> None:
    catalog = new_catalog(tmp_path)
    for _ in range(3):
        learn(catalog)
    whole = catalog.path.read_bytes()
    found = 0
    for page in range(1, len(whole) // 4096):
        catalog.path.write_bytes(whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :])
        try:
            found += catalog.verify() != []
        except CatalogError as error:
            assert "\n" not in str(error)
            found += 1
    assert found == len(whole) // 4096 - 1


def test_damaged_weights_are_never_served(tmp_path: Path) -> None:
    catalog = damaged(tmp_path, "a flipped byte in the weights")
    version = catalog.versions.get("colour")
    for read in (lambda: catalog.versions.adapter(version), catalog.versions.digests):
        with pytest.raises(
            IntegrityError, match="colour@1: stored as sha256 .*, but the bytes have .*restore a backup"
        ):
            read()


def test_every_flipped_byte_of_an_artifact_is_found_and_refused(tmp_path: Path) -> None:
    catalog = catalog_of_one_version(tmp_path)
    version = catalog.versions.get("colour")
    adapter = catalog.versions.adapter(version)
    for data in (adapter.config, adapter.weights):
        sha256 = hashlib.sha256(data).hexdigest()
        for place in range(len(data)):
            flipped = (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]).hex()
            store(catalog, sha256, flipped)
            with pytest.raises(IntegrityError):
                catalog.versions.adapter(version)
            assert "artifacts" in {problem.where for problem in catalog.verify()}
        store(catalog, sha256, data.hex())
    assert catalog.verify() == []


def store(catalog: Catalog, sha256: str, data: str) -> None:
    """Put other bytes, given in hexadecimal, into an artifact."""
    value = f"x'{data}'" if DATABASES.kind == "sqlite" else f"decode('{data}', 'hex')"
    damage(catalog, f"UPDATE artifacts SET data = {value} WHERE sha256 = '{sha256}'")


def test_missing_weights_are_said_to_be_missing(tmp_path: Path) -> None:
    catalog = damaged(tmp_path, "missing weights")
    version = catalog.versions.get("colour")
    with pytest.raises(IntegrityError, match="colour@1: the artifact .* is missing; restore a backup"):
        catalog.versions.adapter(version)


@pytest.mark.parametrize("kind", ["a flipped byte in the evaluation rows", "another fingerprint of the rows"])
def test_damaged_evaluation_rows_are_never_scored(tmp_path: Path, kind: str) -> None:
    catalog = damaged(tmp_path, kind)
    version = catalog.versions.get("colour")
    with pytest.raises(IntegrityError, match="colour@1"):
        catalog.evaluations.rows(version)


def test_damaged_results_are_never_compared(tmp_path: Path) -> None:
    catalog = damaged(tmp_path, "damaged results")
    version = catalog.versions.get("colour")
    with pytest.raises(IntegrityError, match="an evaluation of colour cannot be read"):
        catalog.baselines.evaluation_of(version)


def replayed(events: Sequence[Event]) -> dict[str, str]:
    """The state of each version, from events alone."""
    states: dict[str, str] = {}
    for event in events:
        if event.kind in ("published", "rolled-back"):
            if event.from_version is not None:
                assert states[f"{event.task}@{event.from_version}"] == "published"
                states[f"{event.task}@{event.from_version}"] = "retired"
            states[f"{event.task}@{event.to_version}"] = "published"
        elif event.kind == "rejected":
            states[f"{event.task}@{event.to_version}"] = "rejected"
    return states


class CatalogMachine(RuleBasedStateMachine):
    """Any order of publishing, rejecting, late publishing and rolling back, against a model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.catalog = new_catalog(self.folder)
        self.states: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.seconds = 0

    def teardown(self) -> None:
        assert self.catalog.verify() == []
        shutil.rmtree(self.folder)

    def now(self) -> datetime:
        self.seconds += 1
        return AT + timedelta(seconds=self.seconds)

    def publish(self, label: str) -> None:
        task = label.partition("@")[0]
        for other, state in self.states.items():
            if other.partition("@")[0] == task and state == "published":
                self.states[other] = "retired"
        self.states[label] = "published"

    @rule(task=st.sampled_from("ab"), score=st.floats(0, 1), publish=st.booleans())
    def admit(self, task: str, score: float, publish: bool) -> None:
        version = learn(self.catalog, task, score, publish=publish, at=self.now())
        self.digests[version.label] = version.digest
        if publish:
            self.publish(version.label)
        else:
            self.states[version.label] = "rejected"

    @precondition(lambda self: "published" in self.states.values())
    @rule(task=st.sampled_from("ab"))
    def admit_too_late(self, task: str) -> None:
        candidate = a_candidate(a_task(task), seed=1000)
        late = self.catalog.versions.published()[0] - 1
        with pytest.raises((ConflictError, NotFoundError)):
            by(self.catalog, "late", self.now()).candidates.admit(
                candidate, CheckReport((), 0.0), decision="publish", reason="", epoch=late
            )

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        label = data.draw(st.sampled_from(sorted(self.states)))
        task, _, number = label.partition("@")
        if self.states[label] == "retired":
            by(self.catalog, "tester", self.now()).pointers.roll_back(task, int(number), "")
            self.publish(label)
        else:
            with pytest.raises(StateError):
                by(self.catalog, "tester", self.now()).pointers.roll_back(task, int(number), "")

    @invariant()
    def the_catalog_is_what_happened(self) -> None:
        versions = self.catalog.versions.find()
        assert {version.label: version.state for version in versions} == self.states
        assert {version.label: version.digest for version in versions} == self.digests
        published = [version for version in versions if version.state == "published"]
        assert len({version.task for version in published}) == len(published)
        assert self.catalog.versions.digests() == {version.label: version.digest for version in published}

    @invariant()
    def events_replay_to_the_state(self) -> None:
        assert replayed(self.catalog.events.find()) == self.states


def test_any_order_of_moves_is_what_the_catalog_says() -> None:
    examples = 8 if DATABASES.kind == "sqlite" else 3
    limits = settings(deadline=None, database=None, max_examples=examples, stateful_step_count=8)
    run_state_machine_as_test(CatalogMachine, settings=limits)
