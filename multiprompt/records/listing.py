"""A page of records, and what rows and progress are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pandas import DataFrame

T = TypeVar("T")
# The work, the number of its parts that are done, and the number of all.
Progress = Callable[[str, int, int], None]


class Listing(list[T], Generic[T]):
    """A page of records; `after` is where the next page begins, None on the last one."""

    def __init__(self, records: Iterable[T] = (), after: str | None = None) -> None:
        super().__init__(records)
        self.after = after

    def to_pandas(self) -> DataFrame:
        """A row a record and a column a field, for which pandas must be installed."""
        import pandas

        return pandas.json_normalize([asdict(record) for record in self])  # type: ignore[call-overload,no-any-return,unused-ignore]
