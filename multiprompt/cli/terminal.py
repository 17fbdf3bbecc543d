"""Tables on a terminal: they fit its width, and rich draws them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Characters between columns, of a folded text at least, of a text that is not folded, and of a heading that is not.
_GAP, _LEAST, _SHORT, _HEADING = 2, 8, 28, 10
_STYLES = {
    **dict.fromkeys(("regressed", "failed", "rejected", "wrong", "parked"), "red"),
    **dict.fromkeys(("improved", "published", "done"), "green"),
    **dict.fromkeys(("inconclusive", "running"), "yellow"),
}


def print_fitted(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    optional: Sequence[str] = (),
    cut: Sequence[str] = (),
) -> None:
    """Print a table that fits the terminal.

    Long text is folded, in `cut` columns cut. Where that is not enough, `optional` columns are left out and named.
    """
    console = Console(highlight=False)
    shown, left_out = list(range(len(columns))), []
    cells = [_least_cell([row[i] for row in rows], numeric[i]) for i in shown]
    least = [max(cell, min(len(column), _HEADING)) for cell, column in zip(cells, columns, strict=True)]
    for name in optional:
        if name in columns and _total(least[i] for i in shown) > console.width:
            shown.remove(columns.index(name))
            left_out.append(name)
    if _total(least[i] for i in shown) > console.width:
        least = cells  # headings are folded before numbers are
    widths = _widths(columns, rows, {i: least[i] for i in shown}, console.width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, collapse_padding=True)
    for i in shown:
        is_cut = columns[i] in cut
        table.add_column(
            Text(columns[i]),
            justify="right" if numeric[i] else "left",
            width=widths[i],
            overflow="ellipsis" if is_cut else "fold",
            no_wrap=is_cut,
        )
    for row in rows:
        table.add_row(*(Text(row[i], style=_STYLES.get(row[i], "")) for i in shown))
    console.print(table)
    if left_out:
        console.print(
            Text(f"left out: {', '.join(left_out)}; a wider terminal or a pipe shows all columns", style="dim")
        )


def _least_cell(cells: Sequence[str], is_number: bool) -> int:
    """A number and a short text stay on one line; a long text may be folded."""
    longest = max(map(len, cells), default=1)
    return longest if is_number or longest <= _SHORT else _LEAST


def _widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], least: Mapping[int, int], most: int
) -> dict[int, int]:
    """The width of each shown column: what it takes, less what the widest of them can spare."""
    widths = {i: max(len(columns[i]), *(len(row[i]) for row in rows), 1) if rows else len(columns[i]) for i in least}
    while _total(widths.values()) > most:
        spare = [i for i in widths if widths[i] > least[i]]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Iterable[int]) -> int:
    listed = list(widths)
    return sum(listed) + _GAP * (len(listed) - 1)
