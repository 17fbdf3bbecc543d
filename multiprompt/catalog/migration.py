"""Bringing a catalog to this release's schema, or refusing it with the cure."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from multiprompt.catalog.database import (
    database_path,
    is_sqlite,
    location,
    make_like,
    making,
    reading,
    write_ahead,
    writing,
)
from multiprompt.catalog.schema import REVISION, settings
from multiprompt.errors import CatalogError, SchemaError


def migrations_folder() -> Path:
    """Beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def revision(engine: Engine) -> str | None:
    """The catalog's schema revision, None for an empty database. Raises SchemaError when it holds something else."""
    with reading(engine) as connection:
        return revision_of(connection, location(engine))


def exists(engine: Engine) -> bool:
    """Whether there is a catalog, without making a file by looking. Raises SchemaError when there is something else."""
    _require_parent(engine)
    return (not is_sqlite(engine) or database_path(engine).exists()) and revision(engine) is not None


def require_file(engine: Engine) -> None:
    """Raises CatalogError when a catalog on SQLite has no file; looking for it would make one."""
    if is_sqlite(engine) and not database_path(engine).exists():
        raise CatalogError(
            f"there is no catalog at {database_path(engine)}: create one with `mp.open()`, or name another with "
            "`catalog='…'` or MULTIPROMPT_CATALOG."
        )


def require_current(engine: Engine) -> None:
    """Raises SchemaError, with the cure, unless the catalog has this release's schema."""
    where = location(engine)
    found = revision(engine)
    if found is None:
        raise SchemaError(f"{where} holds no catalog: create one with `mp.open()`.")
    if found > REVISION:
        raise SchemaError(
            f"{where} has schema {found}, but this release of multiprompt knows {REVISION}: install a newer release."
        )
    if found < REVISION:
        raise SchemaError(
            f"{where} has schema {found}, but this release of multiprompt needs {REVISION}: run `multiprompt upgrade`."
        )


def create(engine: Engine) -> None:
    """Make the catalog in an empty or missing database. Several processes may try at once; one does it."""
    if prepare(engine):
        with writing(engine) as connection:
            if revision_of(connection, location(engine)) is None:
                run_migrations(connection)
                connection.execute(settings.insert().values(id=1, dtype="auto", epoch=0))


def prepare(engine: Engine) -> bool:
    """Make ready for a catalog to be created, where there is none. Says whether there is none."""
    _require_parent(engine)
    if not is_sqlite(engine):
        return revision(engine) is None
    path = database_path(engine)
    with making(path):
        is_new = revision(engine) is None
        if is_new:
            write_ahead(path)
    return is_new


def _require_parent(engine: Engine) -> None:
    if is_sqlite(engine) and not database_path(engine).parent.is_dir():
        raise CatalogError(f"{database_path(engine).parent} does not exist: create the folder, or choose another path.")


def upgrade(engine: Engine) -> tuple[str, str, Path | None]:
    """Migrate to this release's schema in one transaction. Gives (old revision, new revision, the copy's path).

    A copy of a SQLite file is made before; on PostgreSQL a copy is `multiprompt backup`'s or pg_dump's to make.
    """
    require_file(engine)
    found = revision(engine)
    if found is None or found > REVISION:
        require_current(engine)
    assert found is not None
    if found == REVISION:
        return found, REVISION, None
    copy = _copy(database_path(engine), found) if is_sqlite(engine) else None
    with writing(engine) as connection:
        run_migrations(connection)
    return found, REVISION, copy


def run_migrations(connection: Connection, to: str = "head") -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _copy(path: Path, revision: str) -> Path:
    copy = path.with_name(f"{path.name}.{revision}.{datetime.now(UTC):%Y%m%dT%H%M%S}.bak")
    try:
        make_like(copy, path)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except (sqlite3.Error, OSError) as error:
        raise CatalogError(f"{path} could not be copied to {copy} before the upgrade: {error}.") from error
    return copy


def revision_of(connection: Connection, where: str) -> str | None:
    """As `revision`, within a transaction."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if "alembic_version" not in tables or "prompt_versions" not in tables:
        kind = "an SQLite file" if is_sqlite(connection) else "a database"
        raise SchemaError(f"{where} is {kind}, but no multiprompt catalog. Choose another one.")
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found is None:
        raise SchemaError(f"{where} is a catalog that was never finished. Choose another one, or restore a backup.")
    return str(found)
