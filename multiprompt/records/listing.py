"""A page of records, and what rows and progress are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Generic, TypeVar

from multiprompt.records.shown import MAX_ROWS, facts_of, html_table

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

    def __repr__(self) -> str:
        lines = [repr(record) for record in self[:MAX_ROWS]]
        more = [f"… {self._rest}"] if self._rest else []
        return "[" + ",\n ".join([*lines, *more]) + "]"

    def _repr_html_(self) -> str:
        if not self:
            return "<p>no records</p>"
        facts = [facts_of(record) for record in self[:MAX_ROWS]]
        columns = list(dict.fromkeys(name for one in facts for name in one))
        table = html_table(columns, [[one.get(name, "") for name in columns] for one in facts])
        return table + (f"<p>… {self._rest}</p>" if self._rest else "")

    @property
    def _rest(self) -> str:
        """The records that are not shown, in words."""
        hidden = len(self) - MAX_ROWS
        return f"{hidden} more" if hidden > 0 else "more pages" if self.after is not None else ""
