"""Values of a SQLite file that another program stored as another type than their columns'."""

from __future__ import annotations

from sqlalchemy import Column, Connection, DateTime, Float, Integer, LargeBinary, String, Table, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from multiprompt.catalog.schema import metadata
from multiprompt.records import Problem

# SQLite's names of the types in which values of a column are stored. JSON may be a bare number.
_KEPT_AS = {
    Integer: ("integer",),
    Float: ("real", "integer"),
    LargeBinary: ("blob",),
    DateTime: ("text",),
    String: ("text",),
}
_JSON = ("text", "integer", "real")


def misplaced(connection: Connection) -> list[Problem]:
    """The columns of a catalog on SQLite that hold values of other types, with how many rows do."""
    return [problem for table in metadata.sorted_tables for problem in _of_table(connection, table)]


def _of_table(connection: Connection, table: Table) -> list[Problem]:
    odd = {column.name: _is_odd(column) for column in table.columns}
    if connection.execute(select(1).select_from(table).where(or_(*odd.values())).limit(1)).first() is None:
        return []
    counts = {name: select(func.count()).select_from(table).where(wrong) for name, wrong in odd.items()}
    found = {name: connection.execute(query).scalar_one() for name, query in counts.items()}
    return [
        Problem(
            f"table {table.name}",
            f"{name} is of another type than its column in {count} rows: the catalog is damaged; restore a backup",
        )
        for name, count in found.items()
        if count
    ]


def _is_odd(column: Column[object]) -> ColumnElement[bool]:
    kind = getattr(column.type, "impl", column.type)
    allowed = next((names for known, names in _KEPT_AS.items() if isinstance(kind, known)), _JSON)
    return func.typeof(column).not_in([*allowed, "null"])
