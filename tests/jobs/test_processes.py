"""Child processes: what keeps one from its job is told, what may pass is tried again, and a stop is no failure."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import multiprompt as mp
from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import ConfigError, JobError, UnavailableError
from multiprompt.jobs.child import _may_pass, _StoppedError
from multiprompt.jobs.processes import Processes, WorkerOptions, visible_devices
from multiprompt.jobs.worker import work
from multiprompt.records import Claim
from tests.conftest import MakeTask

CLAIM = Claim("job", "owner")


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return Catalog.open(str(tmp_path / "catalog.db"), create=True).path


@pytest.fixture
def processes(catalog: Path) -> Iterator[Processes]:
    made = Processes(WorkerOptions(str(catalog), None, "tester", "cpu", False))
    yield made
    made.close()


def do(processes: Processes, kind: str = "check") -> None:
    processes.do(
        CLAIM, kind, None, is_mine=lambda _: True, on_progress=lambda what, done, total: None, on_kept=lambda: None
    )


def set_revision(catalog: Path, revision: str) -> str:
    with sqlite3.connect(catalog) as raw:
        (before,) = raw.execute("SELECT version_num FROM alembic_version").fetchone()
        raw.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    raw.close()
    return str(before)


def test_a_catalog_that_cannot_be_opened_fails_the_job_with_the_reason_and_the_child_goes_on(
    processes: Processes, catalog: Path, tiny_model: Path
) -> None:
    before = set_revision(catalog, "9999")
    with pytest.raises(JobError, match="^SchemaError: .*9999"):
        do(processes)
    (child,) = processes.pids
    set_revision(catalog, before)
    aside = catalog.rename(catalog.with_name("aside.db"))
    with pytest.raises(JobError, match="^CatalogError: there is no catalog at"):
        do(processes)
    aside.rename(catalog)
    with pytest.raises(JobError, match="^TypeError|KeyError: .*nothing"):
        do(processes, "nothing")
    assert processes.pids == [child]


def test_a_process_that_cannot_be_started_is_tried_again(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(UnavailableError, match="no process can be started for the job: No such file"):
        do(processes)
    assert processes.pids == []


@pytest.mark.parametrize(
    ("number", "passes"), [(11, True), (12, True), (24, True), (28, True), (2, False), (13, False)]
)
def test_what_is_scarce_may_pass(number: int, passes: bool) -> None:
    assert _may_pass(OSError(number, os.strerror(number))) == passes


@pytest.mark.parametrize("at", ["checking", "looking at canaries"])
def test_a_request_to_stop_is_no_failed_check(workspace: mp.Workspace, make_task: MakeTask, at: str) -> None:
    workspace.learn(workspace.add_task(make_task("colour")).name)
    checks = workspace.catalog.sql("SELECT count(*) FROM checks").rows

    def stopped(what: str, done: int, total: int) -> None:
        if what == at:
            raise _StoppedError

    workspace.context.progress = stopped
    with pytest.raises(_StoppedError):
        workspace.check(full=at == "checking")
    assert workspace.catalog.sql("SELECT count(*) FROM checks").rows == checks


@pytest.mark.parametrize(
    ("device", "given", "visible"),
    [
        ("cpu", "2,3", ""),
        ("cuda", None, "0"),
        ("cuda:1", None, "1"),
        ("cuda", "2,3", "2"),
        ("cuda:1", "2,3", "3"),
        ("cuda:0", "GPU-8932f937, GPU-1111", "GPU-8932f937"),
    ],
)
def test_a_device_is_counted_within_those_that_were_given(device: str, given: str | None, visible: str) -> None:
    assert visible_devices(device, given) == visible


@pytest.mark.parametrize(("device", "given"), [("cuda:2", "2,3"), ("cuda", "")])
def test_a_device_that_was_not_given_is_refused(device: str, given: str) -> None:
    with pytest.raises(ConfigError, match=f"`device='{device}'`, but CUDA_VISIBLE_DEVICES is"):
        visible_devices(device, given)


def test_a_worker_without_the_gpu_that_it_should_use_does_not_start(
    workspace: mp.Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "99")
    options = WorkerOptions(str(workspace.catalog.path), None, "tester", "cuda", False)
    with pytest.raises(ConfigError, match="`device='cuda'`, but torch finds no such GPU here"):
        work(workspace.jobs, options)
    assert workspace.catalog.ledger.workers() == []
