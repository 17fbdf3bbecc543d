"""The words of messages: numbers with their nouns, and shares."""

from __future__ import annotations

import pytest

from multiprompt.errors import counted, percent
from multiprompt.records import CheckReport, Interval, measured


@pytest.mark.parametrize(("number", "told"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_one_row_is_told_in_the_singular(number: int, told: str) -> None:
    assert counted(number, "row") == told
    assert CheckReport((), 0.0, evaluated=number, canaries=1).cost.startswith(f"{told} evaluated, 1 canary, 0 rows")


def test_a_share_is_told_in_one_form() -> None:
    assert (percent(0.95), percent(0.0314, 1)) == ("95 %", "3.1 %")
    assert measured("acc", 1.0, Interval(0.2, 1.0, 0.95), 1) == "acc 1.0000 (95 % 0.2000 to 1.0000, 1 row)"
