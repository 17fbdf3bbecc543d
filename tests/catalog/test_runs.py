"""Runs: the training of a version."""

from __future__ import annotations

from multiprompt.catalog.catalog import Catalog
from multiprompt.records import Run
from multiprompt.tasks.data import Split
from tests.catalog.samples import learn


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
