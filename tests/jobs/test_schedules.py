"""Schedules submit jobs at the right times, once, over restarts, pauses, downtime and changes."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiprompt.catalog.jobs import Ledger
from multiprompt.catalog.labels import parse_label
from multiprompt.errors import ConfigError, DataError, NotFoundError
from multiprompt.gate.admission import end_known
from multiprompt.jobs.naming import named
from multiprompt.jobs.plan import plan
from multiprompt.jobs.schedules import Schedules
from multiprompt.records import CheckReport, CheckResult, Claim, Job, Schedule
from tests.catalog.databases import by
from tests.catalog.samples import BASE, a_candidate, a_task, learn
from tests.jobs.conftest import START, Jobs


def schedule(
    jobs: Jobs,
    task: str | None = "sst2",
    kind: str = "retrain",
    *,
    cron: str | None = None,
    every: timedelta | None = None,
    on: str | None = None,
    timezone: str = "UTC",
    name: str | None = None,
) -> Schedule:
    return jobs.schedules.add(kind, task, cron, every, on, timezone, 100, name)


def at_work(jobs: Jobs, hours: float, step: timedelta = timedelta(minutes=5)) -> list[tuple[str, str]]:
    """Let workers look at the schedules for so long, each job ending at once. Gives when what was submitted."""
    submitted = []
    for _ in range(round(timedelta(hours=hours) / step)):
        jobs.clock.now += step
        for job in jobs.schedules.dispatch():
            submitted.append((f"{jobs.clock.now:%a %H:%M}", job.task))
            jobs.queue.cancel(job.id)
    return submitted


def test_a_week_over_a_change_of_clocks_with_downtime_and_a_pause(jobs: Jobs) -> None:
    jobs.clock.now = datetime(2026, 3, 26, 12, tzinfo=UTC)  # a Thursday; on Sunday clocks move forward in Berlin
    schedule(jobs, "sst2", cron="30 2 * * *", timezone="Europe/Berlin")
    schedule(jobs, "trec", every=timedelta(hours=36))
    schedule(jobs, None, "check", cron="0 6 * * 1")
    step = timedelta(minutes=30)
    assert at_work(jobs, 48, step) == [("Fri 01:30", "sst2"), ("Sat 00:00", "trec"), ("Sat 01:30", "sst2")]
    assert at_work(jobs, 18, step) == [("Sun 01:30", "sst2")]
    jobs.schedules.pause("retrain:sst2")
    assert at_work(jobs, 30, step) == [("Sun 12:00", "trec"), ("Mon 06:00", "")]
    jobs.schedules.resume("retrain:sst2")
    jobs.clock.move(hours=48)  # nobody at work: two ticks of each are missed
    assert at_work(jobs, 1, step) == [("Wed 12:30", "sst2"), ("Wed 12:30", "trec")]
    assert at_work(jobs, 24, step) == [("Thu 00:30", "sst2")]
    assert at_work(jobs, 24, step) == [("Fri 00:00", "trec"), ("Fri 00:30", "sst2")]


def test_workers_that_look_at_once_submit_one_job(jobs: Jobs) -> None:
    schedule(jobs, cron="0 * * * *")
    jobs.clock.move(hours=1)
    together = threading.Barrier(4, timeout=20)

    def dispatch(schedules: Schedules) -> None:
        together.wait()
        schedules.dispatch()

    threads = [threading.Thread(target=dispatch, args=(jobs.schedules,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (job,) = jobs.queue()
    (found,) = jobs.schedules()
    assert (found.last_job, found.next_at) == (job.id, jobs.clock() + timedelta(hours=1))


def test_a_tick_whose_worker_died_before_it_was_noted_is_not_submitted_again(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule(jobs, cron="0 * * * *")
    jobs.clock.move(hours=1)
    with monkeypatch.context() as dying:
        dying.setattr(Ledger, "move_schedule", lambda self, old, new: False)
        (first,) = jobs.schedules.dispatch()
    jobs.queue.cancel(first.id)
    jobs.schedules.dispatch()
    assert [job.id for job in jobs.queue()] == [first.id]


def test_a_tick_while_the_last_job_lives_adds_none(jobs: Jobs) -> None:
    schedule(jobs, cron="0 * * * *")
    for _ in range(3):
        jobs.clock.move(hours=1)
        jobs.schedules.dispatch()
    assert len(jobs.queue()) == 1


def test_schedules_are_replaced_paused_resumed_triggered_and_removed(jobs: Jobs) -> None:
    schedule(jobs, cron="0 3 * * 0")
    schedule(jobs, cron="0 4 * * 0", timezone="Europe/Berlin")
    (found,) = jobs.schedules()
    assert (found.name, found.cron, found.timezone, found.active) == (
        "retrain:sst2", "0 4 * * 0", "Europe/Berlin", True,
    )  # fmt: skip
    assert not jobs.schedules.pause("retrain:sst2").active
    jobs.clock.move(days=30)
    assert jobs.schedules.dispatch() == []
    assert jobs.schedules.resume("retrain:sst2").active
    assert jobs.schedules.dispatch() == []
    job = jobs.schedules.trigger("retrain:sst2")
    assert jobs.schedules()[0].last_job == job.id
    jobs.schedules.remove("retrain:sst2")
    assert jobs.schedules() == []
    for change in (jobs.schedules.pause, jobs.schedules.resume, jobs.schedules.trigger, jobs.schedules.remove):
        with pytest.raises(NotFoundError, match="no schedule 'retrain:sst2'"):
            change("retrain:sst2")


PURPOSES = st.tuples(
    st.sampled_from(("learn", "retrain", "evaluate")),
    st.text(":%aA3 data", min_size=1),
    st.sampled_from((None, "data")),
)


def purposed(purpose: tuple[str, str, str | None], name: str = "") -> Schedule:
    kind, task, watch = purpose
    return Schedule(name, kind, task, None, None, watch, "UTC", 100, True, "", None, None, None, START)


@given(PURPOSES, PURPOSES)
def test_no_two_schedules_share_a_name_by_default(first: Any, second: Any) -> None:
    names = {named(purposed(purpose), None, [])[1].name for purpose in (first, second)}
    assert len(names) == len({first, second})


@given(PURPOSES, PURPOSES)
def test_a_schedule_with_a_former_name_is_replaced_by_one_of_the_same_purpose_only(first: Any, second: Any) -> None:
    former = purposed(first, ":".join(part for part in first if part))
    assert named(purposed(first), None, [former])[0] == former
    if first != second:
        with suppress(ConfigError):
            assert named(purposed(second), None, [former])[0] is None


def test_tasks_with_colons_have_schedules_of_their_own(jobs: Jobs) -> None:
    for name in ("a", "a:data"):
        by(jobs.catalog, "tester", START).tasks.add(a_task(name))
    jobs.catalog.ledger.save_schedule(replace(schedule(jobs, "a:data", cron="0 3 * * *"), name="retrain:a:data"))
    with pytest.raises(ConfigError, match="'retrain:a:data' is for retrain a:data: give another name"):
        schedule(jobs, "a", on="data")
    jobs.schedules.remove("retrain:a:data")
    schedule(jobs, "a", on="data")
    assert [found.name for found in jobs.schedules()] == ["retrain:a%3Adata", "retrain:a:data"]


def test_a_task_has_two_schedules_by_time_where_one_has_a_name(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    schedule(jobs, cron="0 3 * * *")
    schedule(jobs, cron="0 4 * * 0", name="weekly")
    assert caplog.messages == []
    schedule(jobs, cron="0 5 * * *")
    schedule(jobs, every=timedelta(days=7), name="weekly")
    assert [(found.name, found.when) for found in jobs.schedules()] == [
        ("retrain:sst2", "0 5 * * * UTC"), ("weekly", "every 7 days, 0:00:00"),
    ]  # fmt: skip
    assert "replaced retrain:sst2 (0 3 * * * UTC); so that both stay, give one of them a name" in caplog.text
    with pytest.raises(ConfigError, match="'weekly' is for retrain sst2: give another name"):
        schedule(jobs, "trec", cron="0 4 * * 0", name="weekly")
    for name in ("", " ", "two\nlines", "n" * 301):
        with pytest.raises(ConfigError, match="a schedule cannot be called"):
            schedule(jobs, cron="0 4 * * 0", name=name)


def looks(jobs: Jobs) -> list[Job]:
    jobs.clock.move(minutes=2)
    found = jobs.schedules.dispatch()
    for job in found:
        jobs.queue.cancel(job.id)
    return found


def test_changed_data_retrains_once_a_change(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "a"}\n')
    files = {"data_files": {split: str(file) for split in ("train", "validation", "test")}}
    by(jobs.catalog, "tester", START).tasks.add(a_task("sst2", dataset_kwargs=files))
    schedule(jobs, on="data")
    assert looks(jobs) == []
    file.write_text('{"text": "b"}\n')
    assert [job.task for job in looks(jobs)] == ["sst2"]
    assert looks(jobs) == []


def watching(jobs: Jobs, file: Path) -> Schedule:
    """A schedule on data, which lie in one file."""
    file.write_text('{"text": "a"}\n')
    files = {"data_files": {split: str(file) for split in ("train", "validation", "test")}}
    by(jobs.catalog, "tester", START).tasks.add(a_task("sst2", dataset_kwargs=files))
    return schedule(jobs, on="data")


def test_data_that_are_away_for_a_while_retrain_only_if_others_come_back(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    watching(jobs, file)
    file.rename(tmp_path / "away")
    assert looks(jobs) == []
    (tmp_path / "away").rename(file)
    assert looks(jobs) == []
    file.unlink()
    assert looks(jobs) == []
    file.write_text('{"text": "b"}\n')
    assert len(looks(jobs)) == 1


def test_data_that_come_after_their_schedule_retrain(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    watching(jobs, file)
    jobs.schedules.remove("retrain:sst2:data")
    file.unlink()
    schedule(jobs, on="data")
    assert looks(jobs) == []
    file.write_text('{"text": "a"}\n')
    assert len(looks(jobs)) == 1


def test_a_schedule_on_data_that_no_worker_sees_is_refused(jobs: Jobs) -> None:
    url = "https://localhost:1/rows.jsonl"
    files = {"data_files": dict.fromkeys(("train", "validation", "test"), url)}
    by(jobs.catalog, "tester", START).tasks.add(a_task("sst2", dataset_kwargs=files))
    with pytest.raises(ConfigError, match="the data of sst2 is fetched from an URL, which is not watched"):
        schedule(jobs, on="data")


def test_a_schedule_that_is_added_again_goes_on_where_it_was(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    watching(jobs, file)
    schedule(jobs, "trec", every=timedelta(days=2))
    file.write_text('{"text": "b"}\n')
    for _ in range(3):
        jobs.clock.move(days=1)
        schedule(jobs, on="data")
        schedule(jobs, "trec", every=timedelta(days=2))
    assert sorted(job.task for job in looks(jobs)) == ["sst2", "trec"]
    jobs.schedules.pause("retrain:trec")
    jobs.clock.move(days=5)
    assert schedule(jobs, "trec", every=timedelta(days=2)).active
    assert looks(jobs) == []


def broken_off(kind: str, task: str | None) -> str:
    raise DataError("no such field")


def test_a_change_whose_learning_broke_off_is_submitted_again_after_a_day(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    watching(jobs, file)
    file.write_text('{"text": "b"}\n')
    jobs.clock.move(minutes=2)
    (first,) = jobs.schedules.dispatch()
    jobs.work(broken_off)
    assert looks(jobs) == []
    jobs.clock.move(days=1)
    (again,) = jobs.schedules.dispatch()
    assert (again.id != first.id, again.task) == (True, "sst2")
    jobs.work(lambda kind, task: "done")
    jobs.clock.move(days=2)
    assert looks(jobs) == []


def test_a_change_whose_learning_gave_the_bytes_of_a_candidate_is_not_submitted_again(
    jobs: Jobs, tmp_path: Path
) -> None:
    """Such a job has failed, as nothing was published; another one would end likewise each day."""
    file = tmp_path / "train.jsonl"
    watching(jobs, file)
    held = a_candidate(a_task("sst2"))
    candidate = by(jobs.catalog, "tester", START).candidates.admit(
        held, CheckReport((), 0.0), decision="hold", reason="did not learn", epoch=jobs.catalog.settings.epoch()
    )
    file.write_text('{"text": "b"}\n')
    jobs.clock.move(minutes=2)
    (first,) = jobs.schedules.dispatch()

    def end(claim: Claim, kind: str, task: str | None) -> None:
        end_known(jobs.catalog.signed_by("w", jobs.clock).claimed_by(claim), candidate)

    jobs.do(end)
    assert (jobs.queue.get(first.id).state, looks(jobs)) == ("failed", [])
    jobs.clock.move(days=3)
    assert looks(jobs) == []


def test_a_tick_whose_job_a_restored_backup_does_not_know_is_submitted_again(jobs: Jobs, tmp_path: Path) -> None:
    """The file of the jobs stays where the catalog's is replaced by an older one, which lacks what the job made."""
    if not jobs.catalog.is_file:
        pytest.skip("a server is restored with its jobs")
    schedule(jobs, "sst2", cron="0 3 * * 0")
    jobs.catalog.backup(tmp_path / "saturday.db")
    jobs.clock.move(days=7)
    (first,) = jobs.schedules.dispatch()
    jobs.work(lambda kind, task: "done")
    shutil.copy(tmp_path / "saturday.db", jobs.catalog.path)
    (again,) = jobs.schedules.dispatch()
    assert (again.id != first.id, again.state, again.task) == (True, "queued", "sst2")
    assert jobs.schedules.dispatch() == []


def test_a_schedule_whose_last_job_is_in_another_catalog_still_sees_a_change(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    found = watching(jobs, file)
    jobs.catalog.ledger.save_schedule(replace(found, last_job="20250101-0", last_at=START - timedelta(days=9)))
    assert looks(jobs) == []
    file.write_text('{"text": "b"}\n')
    assert len(looks(jobs)) == 1


def test_a_change_that_was_learned_by_hand_is_not_submitted_again(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    watching(jobs, file)
    file.write_text('{"text": "b"}\n')
    jobs.clock.move(minutes=2)
    jobs.schedules.dispatch()
    jobs.work(broken_off)
    jobs.clock.move(hours=2)
    learn(jobs.catalog, "sst2", at=jobs.clock())
    jobs.clock.move(days=2)
    assert looks(jobs) == []


def test_a_clock_that_was_put_back_lets_no_schedule_sleep(jobs: Jobs) -> None:
    schedule(jobs, "sst2", cron="0 3 * * *")
    schedule(jobs, "trec", every=timedelta(hours=1))
    jobs.clock.move(days=900)
    assert len(looks(jobs)) == 2
    jobs.clock.move(days=-900)
    jobs.schedules.dispatch()
    assert {job.task for job in at_work_once(jobs, hours=30)} == {"sst2", "trec"}


def at_work_once(jobs: Jobs, hours: float) -> list[Job]:
    jobs.clock.move(hours=hours)
    return jobs.schedules.dispatch()


def test_a_last_time_that_passed_and_an_unknown_zone_hold_up_no_other(jobs: Jobs) -> None:
    found = schedule(jobs, "sst2", cron="0 3 * * *")
    jobs.catalog.ledger.save_schedule(replace(found, cron="0 0 3 1 1 * 2026"))
    jobs.catalog.ledger.save_schedule(replace(schedule(jobs, "bad", cron="0 3 * * *"), timezone="Mars/Olympus"))
    schedule(jobs, "trec", every=timedelta(hours=1))
    assert sorted(job.task for job in at_work_once(jobs, hours=4)) == ["sst2", "trec"]
    assert [job.task for job in at_work_once(jobs, hours=24)] == ["trec"]
    assert {found.name: found.next_at for found in jobs.schedules()}["retrain:sst2"] is None


def test_a_schedule_that_cannot_look_holds_up_no_other(jobs: Jobs, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    files = {"data_files": {split: str(folder / "rows.jsonl") for split in ("train", "validation", "test")}}
    by(jobs.catalog, "tester", START).tasks.add(a_task("bad", dataset_kwargs=files))
    schedule(jobs, "bad", on="data")
    schedule(jobs, "trec", every=timedelta(minutes=1))
    (folder / "rows.jsonl").symlink_to(folder / "rows.jsonl")
    assert [job.task for job in looks(jobs)] == ["trec"]


def test_a_check_that_finds_a_drop_retrains_that_task(jobs: Jobs) -> None:
    for name in ("sst2", "trec"):
        learn(jobs.catalog, name)
    schedule(jobs, "sst2", on="score")
    schedule(jobs, "trec", on="score")
    dropped = CheckResult("sst2@1", "acc", 0.5, 0.3, 0.2, 0.01, "regressed", "data")
    assert looks(jobs) == []
    learn(jobs.catalog, "bad", checked=[dropped], publish=False)
    assert [job.task for job in looks(jobs)] == ["sst2"]
    assert looks(jobs) == []


def check(jobs: Jobs, *results: CheckResult) -> None:
    """What a check of everything found."""
    by(jobs.catalog, "tester", jobs.clock()).checks.save(CheckReport(results, 1.0))


def regressed(label: str, score: float = 0.3, key: str = "", jobs: Jobs | None = None) -> CheckResult:
    found = CheckResult(label, "acc", 0.5, score, 0.5 - score, 0.01, "regressed", "data")
    if jobs is not None:
        version = jobs.catalog.versions.get(*parse_label(label))
        baseline = jobs.catalog.baselines.of(version).evaluation
        by(jobs.catalog, "tester", jobs.clock()).baselines.save_comparison(
            version, baseline, {"data": key}, found, None, None
        )
    return found


def test_a_check_on_score_does_not_submit_itself_while_a_regression_stands(jobs: Jobs) -> None:
    for name in ("sst2", "trec"):
        learn(jobs.catalog, name)
    schedule(jobs, None, "check", on="score")
    assert looks(jobs) == []
    check(jobs, regressed("sst2@1"))
    assert [job.kind for job in looks(jobs)] == ["check"]
    for _ in range(3):
        check(jobs, replace(regressed("sst2@1"), reused=True))
        assert looks(jobs) == []
    check(jobs, regressed("sst2@1"), regressed("trec@1"))
    assert len(looks(jobs)) == 1
    check(jobs)
    assert looks(jobs) == []
    check(jobs, regressed("sst2@1"))
    assert len(looks(jobs)) == 1


def test_a_regression_under_another_key_is_another(jobs: Jobs) -> None:
    learn(jobs.catalog, "sst2")
    schedule(jobs, "sst2", on="score")
    check(jobs, regressed("sst2@1", key="first", jobs=jobs))
    assert len(looks(jobs)) == 1
    check(jobs, regressed("sst2@1"))
    assert looks(jobs) == []
    check(jobs, regressed("sst2@1", score=0.2, key="second", jobs=jobs))
    assert len(looks(jobs)) == 1


def test_two_regressed_tasks_that_are_retrained_do_not_keep_each_other_awake(jobs: Jobs) -> None:
    for name in ("sst2", "trec"):
        learn(jobs.catalog, name)
        schedule(jobs, name, on="score")
    check(jobs, regressed("sst2@1"), regressed("trec@1"))
    assert {job.task for job in looks(jobs)} == {"sst2", "trec"}
    for _ in range(2):
        learn(jobs.catalog, "sst2", checked=[regressed("trec@1")], publish=False)
        learn(jobs.catalog, "trec", checked=[regressed("sst2@1")], publish=False)
        assert looks(jobs) == []


def test_a_schedule_of_an_older_catalog_takes_what_stands_for_seen(jobs: Jobs) -> None:
    learn(jobs.catalog, "sst2")
    check(jobs, regressed("sst2@1"))
    found = schedule(jobs, on="score")
    jobs.catalog.ledger.save_schedule(replace(found, seen="7"))
    assert looks(jobs) == []
    check(jobs, replace(regressed("sst2@1"), verdict="failed"))
    assert len(looks(jobs)) == 1


def test_a_base_model_whose_files_change_submits_a_job(jobs: Jobs, tmp_path: Path) -> None:
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"first")
    by(jobs.catalog, "tester", START).base_models.bind(replace(BASE, source=str(weights.parent)))
    schedule(jobs, None, "check", on="base")
    assert looks(jobs) == []
    weights.write_bytes(b"other")
    assert [job.kind for job in looks(jobs)] == ["check"]
    assert looks(jobs) == []
    weights.with_name("vocab.txt").write_text("word")
    assert len(looks(jobs)) == 1


def test_a_base_model_that_is_away_for_a_while_submits_nothing(jobs: Jobs, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"first")
    by(jobs.catalog, "tester", START).base_models.bind(replace(BASE, source=str(folder)))
    schedule(jobs, None, "check", on="base")
    folder.rename(tmp_path / "away")
    assert looks(jobs) == []
    (tmp_path / "away").rename(folder)
    assert looks(jobs) == []


def test_an_old_version_is_retrained_once_in_its_age_whatever_comes_of_it(jobs: Jobs) -> None:
    learn(jobs.catalog, "sst2", at=START)
    schedule(jobs, on="age", every=timedelta(days=30))
    jobs.clock.move(days=29)
    assert looks(jobs) == []
    jobs.clock.move(days=1)
    assert len(looks(jobs)) == 1
    jobs.clock.move(days=29)
    assert looks(jobs) == []
    jobs.clock.move(days=2)
    assert len(looks(jobs)) == 1


def test_the_plan_lists_what_is_known_with_what_it_took_last(jobs: Jobs) -> None:
    learn(jobs.catalog, "sst2")
    schedule(jobs, "sst2", cron="0 3 * * *")
    schedule(jobs, "trec", cron="0 4 * * 0")
    schedule(jobs, "sst2", on="data")
    now = jobs.clock()
    planned = plan(jobs.catalog, jobs.schedules(), now, now + timedelta(days=7))
    assert [(job.task, f"{job.at:%a %H}") for job in planned if job.task == "trec"] == [("trec", "Sun 04")]
    assert len(planned) == 8
    assert {(job.task, job.seconds is None) for job in planned} == {("sst2", False), ("trec", True)}


def test_the_plan_begins_with_what_was_missed_and_says_what_then_happens(jobs: Jobs) -> None:
    schedule(jobs, "sst2", cron="0 3 * * *")
    jobs.clock.move(hours=76)
    now = jobs.clock()
    planned = [job.at for job in plan(jobs.catalog, jobs.schedules(), now, now + timedelta(days=1))]
    assert planned == [now, now + timedelta(hours=23)]
    assert at_work(jobs, 24) == [(f"{now + timedelta(minutes=5):%a %H:%M}", "sst2"), (f"{planned[1]:%a %H:%M}", "sst2")]


@pytest.mark.parametrize("ends", [True, False])
def test_data_that_change_while_a_job_learns_from_what_they_were_retrain_after_it(
    jobs: Jobs, tmp_path: Path, ends: bool
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "a"}\n')
    files = {"data_files": {split: str(file) for split in ("train", "validation", "test")}}
    by(jobs.catalog, "tester", START).tasks.add(a_task("sst2", dataset_kwargs=files))
    schedule(jobs, on="data")
    running = jobs.queue.submit("retrain", "sst2", 100)

    def learn_while_the_data_change(kind: str, task: str | None) -> str:
        file.write_text('{"text": "b"}\n')
        for _ in range(2):
            jobs.clock.move(minutes=2)
            assert [job.id for job in jobs.schedules.dispatch()] == [running.id]
        if not ends:
            raise DataError("no such field")
        return "done"

    jobs.work(learn_while_the_data_change)
    (job,) = looks(jobs)
    assert job.id != running.id
    assert looks(jobs) == []


def test_data_that_change_before_a_job_begins_need_no_other_job(jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "a"}\n')
    files = {"data_files": {split: str(file) for split in ("train", "validation", "test")}}
    by(jobs.catalog, "tester", START).tasks.add(a_task("sst2", dataset_kwargs=files))
    schedule(jobs, on="data")
    waiting = jobs.queue.submit("retrain", "sst2", 100)
    file.write_text('{"text": "b"}\n')
    assert [job.id for job in looks(jobs)] == [waiting.id]
    assert looks(jobs) == []
