"""The plan: what the schedules will submit, and what such jobs cost so far."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile

from multiprompt.catalog.catalog import Catalog
from multiprompt.jobs.ticks import coming
from multiprompt.records import PlannedJob, Schedule

# Of one schedule; one that ticks each second would fill the plan.
TICKS_A_SCHEDULE = 1000


def _kind(catalog: Catalog, schedule: Schedule) -> str:
    """The work of a job: a retraining of a task without a published version is a first learning."""
    if schedule.kind != "retrain" or schedule.task is None:
        return schedule.kind
    return "learn" if catalog.tasks.get(schedule.task).published is None else "retrain"


def plan(catalog: Catalog, schedules: Sequence[Schedule], now: datetime, until: datetime) -> list[PlannedJob]:
    """The jobs of active schedules between two times, in their order, first those that are due by now.

    What watches submit, nobody knows before.
    """
    planned = []
    for schedule in schedules:
        if schedule.active and schedule.watch is None:
            seconds, kind = catalog.runs.job_seconds(schedule.kind, schedule.task), _kind(catalog, schedule)
            for number, at in enumerate(takewhile(lambda tick: tick <= until, coming(schedule, now))):
                if number == TICKS_A_SCHEDULE:
                    break
                planned.append(PlannedJob(at, schedule.name, kind, schedule.task, seconds))
    return sorted(planned, key=lambda job: (job.at, job.schedule))
