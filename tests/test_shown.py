"""How a workspace, tasks and records look in a console and in a notebook: short, escaped, without rows of data."""

from __future__ import annotations

from typing import Any

import pytest

import multiprompt as mp
from multiprompt.records import Listing, Matrix, Problem, VersionDiff
from multiprompt.records.shown import cell
from tests.conftest import MakeTask

SECRET = "sky"  # stands in every row of the data


@pytest.fixture
def learned(workspace: mp.Workspace, make_task: MakeTask) -> mp.Workspace:
    for name in ("colour", "<b>bold</b>"):
        workspace.add_task(make_task(name, description="Which <i>colour</i>?\n"))
        workspace.learn(name)
    return workspace


def test_every_text_is_short_and_every_table_is_escaped_and_neither_shows_rows(learned: mp.Workspace) -> None:
    label = "<b>bold</b>"
    learned.add_task(learned.task(label).with_settings({"num_virtual_tokens": 3, "regression.max_drop": 1.0}))
    report = learned.learn(label)
    evaluation = learned.evaluations()[0]
    shown: dict[str, Any] = {
        "workspace": learned,
        "task": learned.task(label),
        "record": learned.task_record(label),
        "version": learned.version(label),
        "report": report,
        "check": learned.check(full=True),
        "matrix": learned.matrix(),
        "tasks": learned.tasks(),
        "versions": learned.versions(),
        "evaluation": learned.evaluation(evaluation.id),
        "diff": learned.diff(f"{label}@1", f"{label}@2", tokens=False),
    }
    for name, value in shown.items():
        text, html = repr(value), value._repr_html_()
        assert len(text.splitlines()) <= 4, name
        assert all(len(line) < 300 for line in text.splitlines()), name
        assert "<b>" not in html, name
        assert SECRET not in text + html, name
        assert "\n\n" not in text, name


def test_the_texts_say_what_a_person_looks_for(learned: mp.Workspace) -> None:
    score = learned.task_record("colour").score
    assert repr(learned.task_record("colour")) == f"<TaskRecord colour: acc {score:.4f}, published colour@1>"
    assert repr(learned.version("colour")) == (
        f"<VersionRecord colour@1 published, acc {score:.4f}, prompt-tuning of 4 tokens>"
    )
    assert repr(learned.task("colour")) == "<Task colour: multiple_choice, acc, prompt-tuning of 4 tokens>"
    assert repr(learned) == f"<Workspace catalog {cell(learned.location)}, base model tiny, tasks 2, published 2>"
    assert repr(learned.learn("colour")).startswith("<LearnReport colour@1 published: nothing new to learn")
    assert repr(learned.check()).startswith("<CheckReport passed: 2 checked: 2 identical; ")
    head, first, second = repr(learned.matrix()).splitlines()
    assert head.split() == ["after", "learning", "colour", "<b>bold</b>"]
    assert (first.split()[0], second.split()[0]) == ("colour", "<b>bold</b>")


def test_listings_reports_and_the_matrix_become_data_frames(learned: mp.Workspace) -> None:
    assert list(learned.matrix().to_pandas().columns) == ["colour", "<b>bold</b>"]
    assert list(learned.check().to_pandas()["verdict"]) == ["identical", "identical"]
    assert list(learned.sql("SELECT name FROM v_tasks ORDER BY name").to_pandas()["name"]) == ["<b>bold</b>", "colour"]
    learned.note("colour", "a note")
    learned.submit("colour")
    learned.schedule("colour", cron="0 3 * * *")
    listings = {
        "tasks": learned.tasks(), "versions": learned.versions(), "evaluations": learned.evaluations(),
        "events": learned.events(), "notes": learned.notes("colour"), "lineage": learned.lineage("colour"),
        "jobs": learned.jobs(), "schedules": learned.schedules(), "plan": learned.plan(),
        "impact": learned.impact_of_base("tiny"), "predictions": learned.predict(["sky"], task="colour"),
    }  # fmt: skip
    for name, listing in listings.items():
        assert len(listing.to_pandas()) == len(listing) > 0, name
        assert listing._repr_html_().startswith("<table>"), name
    assert len(learned.verify().to_pandas()) == 0


def test_a_long_listing_says_how_much_it_hides() -> None:
    listing = Listing(Problem(f"place {n}", "a <script>") for n in range(30))
    assert repr(listing).endswith("… 10 more]")
    assert "<script>" not in listing._repr_html_()
    assert listing._repr_html_().endswith("<p>… 10 more</p>")
    assert (repr(Listing()), Listing()._repr_html_()) == ("[]", "<p>no records</p>")
    assert repr(Matrix((), ())) == "<Matrix of no task>"
    assert repr(VersionDiff("a@1", "a@2", (), (), (), ())) == "<VersionDiff versions a@1 → a@2, changes , flips 0>"


def test_a_workspace_whose_catalog_is_gone_still_has_a_text(learned: mp.Workspace) -> None:
    learned.close()
    learned.catalog.path.write_bytes(b"no catalog any more")
    assert repr(learned).startswith(f"<Workspace catalog {cell(learned.location)}, error ")
    assert learned._repr_html_().startswith("<table>")
