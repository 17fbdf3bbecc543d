"""Results that stand without a run: stored ones, and those of prompts whose key is the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiprompt.gate.sampling import Comparison
from multiprompt.records import Change, CheckResult, Evidence, Flip, Interval


def identical(case: Comparison) -> CheckResult:
    """The result of a prompt that keeps its baseline's score."""
    baseline = case.baseline
    return CheckResult(
        case.label,
        baseline.metric,
        baseline.score,
        baseline.score,
        0.0,
        case.tolerated.max_drop,
        "identical",
        "",
        alpha=case.tolerated.alpha,
        policy=case.policy,
        reused=True,
    )


def read_result(stored: Mapping[str, Any]) -> CheckResult:
    """A comparison as it was kept."""
    evidence = dict(stored["evidence"])
    interval = evidence["interval"]
    evidence["interval"] = None if interval is None else Interval(**interval)
    evidence["flips"] = tuple(Flip(**flip) for flip in evidence["flips"])
    changes = tuple(Change(**change) for change in stored["changes"])
    return CheckResult(**{**stored, "evidence": Evidence(**evidence), "changes": changes})


def is_open(result: CheckResult) -> bool:
    """Whether too few rows were run: what looked certain alone is not so among the others."""
    evidence = result.evidence
    return result.verdict == "inconclusive" and evidence is not None and evidence.rows < evidence.total


def answers_as_before(result: CheckResult) -> bool:
    """Whether every row that was run is answered as at the baseline, on the same rows; then canaries must be, too."""
    evidence = result.evidence
    same = result.verdict == "identical" or (evidence is not None and evidence.moved == 0)
    return same and not {"data", "task file"} & {change.name for change in result.changes}
