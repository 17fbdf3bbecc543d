"""Small tasks, candidates and catalogs for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from multiprompt.catalog.candidates import Candidate
from multiprompt.catalog.catalog import Catalog
from multiprompt.records import Adapter, BaseModelRecord, CheckReport, CheckResult, Evaluation, VersionRecord
from multiprompt.tasks.data import Split
from multiprompt.tasks.task import Task
from tests.catalog.databases import DATABASES, by
from tests.conftest import task_mapping

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
    if catalog.base_models.get()[2] is None:
        by(catalog, "tester", at).base_models.bind(BASE)
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
