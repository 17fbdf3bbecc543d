"""Moving a whole catalog between databases, and copying one while others work in it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Connection,
    Engine,
    ForeignKeyConstraint,
    MetaData,
    Row,
    Select,
    Table,
    bindparam,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import sort_tables_and_constraints

from multiprompt.catalog import migration
from multiprompt.catalog.database import (
    database_engine,
    database_path,
    is_sqlite,
    location,
    make_like,
    reading,
    writing,
)
from multiprompt.errors import CatalogError, IntegrityError

Advance = Callable[[str, int, int], None]
_ROWS_A_STATEMENT = 500
_PAGES_A_STEP = 256


def copy_catalog(source: Engine, target: Engine, advance: Advance = lambda what, done, total: None) -> None:
    """Copy every row of one catalog into a new one, on the same or on another kind of database, and compare both.

    The source is read in one transaction and the target written in one. Raises CatalogError when the target holds a
    catalog already, and IntegrityError when a table came out with other rows.
    """
    migration.prepare(target)
    with reading(source) as old, writing(target) as new:
        if migration.revision_of(new, location(target)) is not None:
            raise CatalogError(
                f"{location(target)} holds a catalog already: choose another place, nothing was written."
            )
        migration.run_migrations(new, str(migration.revision_of(old, location(source))))
        tables = _tables(old)
        _require_same(tables, _tables(new), location(source))
        with _triggers_off(new):
            for table in tables:
                _copy_rows(old, new, table, advance)
            _close_circles(old, new, tables)
        _continue_numbers(new, tables)
        for table in tables:
            if _digest(old, table, advance) != _digest(new, table, advance):
                raise IntegrityError(f"{table.name} came out with other rows in {location(target)}; nothing is kept.")


def backup(source: Engine, target: Path, advance: Advance = lambda what, done, total: None) -> None:
    """Copy a catalog into a SQLite file while others read and write it. Raises CatalogError when the file exists."""
    try:
        if target.exists():
            raise CatalogError(f"{target} exists: choose another name, nothing was written.")
        if not target.parent.is_dir():
            raise CatalogError(f"{target.parent} does not exist: create the folder, or choose another path.")
        _write(source, target, target.absolute().with_name(f"{target.name}.{uuid4().hex[:8]}.partial"), advance)
    except FileExistsError:
        raise CatalogError(f"{target} was written by another process meanwhile: choose another name.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path holds such a character"
        raise CatalogError(f"{str(target)!r} cannot be written: {reason}. Choose another path.") from error


def _write(source: Engine, target: Path, partial: Path, advance: Advance) -> None:
    """Copy to `partial`, and give it its name when it is whole, unless another process has taken that."""
    try:
        if is_sqlite(source):
            _copy_file(database_path(source), partial, advance)
        else:
            copy_catalog(source, database_engine(str(partial)), advance)
        make_like(target, partial)
        partial.replace(target)
    finally:
        for leftover in (partial, *(partial.with_name(partial.name + suffix) for suffix in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)


def _copy_file(source: Path, target: Path, advance: Advance) -> None:
    make_like(target, source)
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(
                new,
                pages=_PAGES_A_STEP,
                progress=lambda _, remaining, total: advance("copying pages", total - remaining, total),
            )
            new.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise CatalogError(f"{source} could not be copied to {target}: {error}.") from error
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are, in an order that puts a table behind those it refers to, but for circles."""
    metadata = MetaData()
    names = [name for name in inspect(connection).get_table_names() if not _is_search(name)]
    metadata.reflect(connection, only=[name for name in names if name != "alembic_version"])
    ordered: Any = sort_tables_and_constraints(  # type: ignore[no-untyped-call]
        metadata.tables.values(), filter_fn=_is_circular
    )
    return [table for table, _ in ordered if table is not None]


def _require_same(found: Sequence[Table], known: Sequence[Table], where: str) -> None:
    """Raises CatalogError when a catalog has other tables or columns than its schema."""
    has, needs = ({str(column) for table in tables for column in table.c} for tables in (found, known))
    for what, names in (("lacks", needs - has), ("holds", has - needs)):
        if names:
            raise CatalogError(
                f"{where} {what} {', '.join(sorted(names)[:3])}, other than its schema: restore a backup of it; "
                "nothing was copied."
            )


def _is_search(name: str) -> bool:
    return name == "task_search" or name.startswith("task_search_")


# The columns that close a circle of references, with their values until all rows are in.
_LATE: Mapping[str, Mapping[str, Any]] = {
    "tasks": {"task_file_id": None},
    "prompt_versions": {"baseline_id": None, "state": "candidate"},
}


def _is_circular(key: ForeignKeyConstraint) -> bool | None:
    return True if set(key.column_keys) & _LATE.get(key.table.name, {}).keys() else None


def _copy_rows(old: Connection, new: Connection, table: Table, advance: Advance) -> None:
    new.execute(table.delete())
    late = _LATE.get(table.name, {})
    total, done = count(old, table), 0
    for rows in _partitions(old, select(table)):
        new.execute(table.insert(), [{**row._mapping, **late} for row in rows])
        done += len(rows)
        advance(f"copying {table.name}", done, total)


def _close_circles(old: Connection, new: Connection, tables: list[Table]) -> None:
    for table in tables:
        late = _LATE.get(table.name)
        if late is not None:
            values: dict[str, Any] = {name: bindparam(f"late_{name}") for name in late}
            update = table.update().where(table.c.id == bindparam("row_id")).values(values)
            columns = [table.c.id.label("row_id"), *(table.c[name].label(f"late_{name}") for name in late)]
            for rows in _partitions(old, select(*columns)):
                new.execute(update, [dict(row._mapping) for row in rows])


def _partitions(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
    """The rows of a query, some at a time, from a cursor that keeps its place."""
    try:
        yield from connection.execution_options(yield_per=_ROWS_A_STATEMENT).execute(query).partitions()
    except (ValueError, TypeError) as error:
        table = query.get_final_froms()[0]
        raise IntegrityError(
            f"{table} holds a value of another type than its column: the catalog is damaged; restore a backup."
        ) from error


@contextmanager
def _triggers_off(connection: Connection) -> Iterator[None]:
    """Within it, rows go in as they were; the transaction makes sure that nobody else sees the time between."""
    if not is_sqlite(connection):
        names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        for switch in ("DISABLE", "ENABLE"):
            for name in names:
                connection.execute(text(f"ALTER TABLE {name} {switch} TRIGGER USER"))
            if switch == "DISABLE":
                yield
        return
    known = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
    for name, _ in known:
        connection.execute(text(f"DROP TRIGGER {name}"))
    yield
    for _, sql in known:
        connection.exec_driver_sql(sql)
    connection.execute(text("INSERT INTO task_search (task_search) VALUES ('rebuild')"))


def _continue_numbers(connection: Connection, tables: list[Table]) -> None:
    """PostgreSQL goes on numbering behind the rows that came with their numbers."""
    if not is_sqlite(connection):
        for table in tables:
            if "id" in table.c:
                last = connection.execute(select(func.max(table.c.id))).scalar()
                if last is not None:
                    connection.execute(
                        text("SELECT setval(pg_get_serial_sequence(:t, 'id'), :n)"), {"t": table.name, "n": last}
                    )


def _digest(connection: Connection, table: Table, advance: Advance) -> int:
    """A sum over the rows of a table. It is the same on every database, whatever the order in which one sorts texts."""
    digest, total, done = 0, count(connection, table), 0
    for rows in _partitions(connection, select(*sorted(table.c, key=lambda column: column.name))):
        for row in rows:
            plain = json.dumps([_plain(value) for value in row], sort_keys=True)
            digest += int.from_bytes(hashlib.sha256(plain.encode()).digest(), "big")
        done += len(rows)
        advance(f"comparing {table.name}", done, total)
    return digest % 2**256


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value.isoformat() if isinstance(value, datetime) else value


def count(connection: Connection, table: Table) -> int:
    """The number of rows of a table."""
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
