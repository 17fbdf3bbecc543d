"""Bringing a catalog to this release's schema, or refusing it with the cure."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from multiprompt.catalog.database import database_path, reading, writing
from multiprompt.catalog.schema import REVISION, settings
from multiprompt.errors import CatalogError, SchemaError


def migrations_folder() -> Path:
    """Beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).parents[1]
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def revision(engine: Engine) -> str | None:
    """The catalog's schema revision, None for an empty file. Raises SchemaError when the file is no catalog."""
    with reading(engine) as connection:
        return _revision(connection, database_path(engine))


def require_current(engine: Engine) -> None:
    """Raises SchemaError, with the cure, unless the catalog has this release's schema."""
    path = database_path(engine)
    found = revision(engine)
    if found is None:
        raise SchemaError(f"{path} holds no catalog: create one with `multiprompt init`.")
    if found > REVISION:
        raise SchemaError(
            f"{path} has schema {found}, but this release of multiprompt knows {REVISION}: install a newer release."
        )
    if found < REVISION:
        raise SchemaError(
            f"{path} has schema {found}, but this release of multiprompt needs {REVISION}: run `multiprompt upgrade`."
        )


def create(engine: Engine) -> None:
    """Make the catalog in an empty or missing file. Several processes may try at once; one does it."""
    path = database_path(engine)
    if not path.parent.is_dir():
        raise CatalogError(f"{path.parent} does not exist: create the folder, or choose another path.")
    with reading(engine) as connection:
        fresh = _revision(connection, path) is None
    if fresh:
        with sqlite3.connect(path) as raw:
            raw.execute("PRAGMA journal_mode = WAL")
        raw.close()
        with writing(engine) as connection:
            if _revision(connection, path) is None:
                _run_migrations(connection)
                connection.execute(settings.insert().values(id=1, dtype="auto", epoch=0))


def upgrade(engine: Engine) -> tuple[str, str, Path | None]:
    """Migrate to this release's schema after making a copy. Gives (old revision, new revision, the copy's path)."""
    path = database_path(engine)
    found = revision(engine)
    if found is None or found > REVISION:
        require_current(engine)
    assert found is not None
    if found == REVISION:
        return found, REVISION, None
    copy = path.with_name(f"{path.name}.{found}.{datetime.now(UTC):%Y%m%dT%H%M%S}.bak")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    with writing(engine) as connection:
        _run_migrations(connection)
    return found, REVISION, copy


def _revision(connection: Connection, path: Path) -> str | None:
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if "alembic_version" not in tables or "prompt_versions" not in tables:
        raise SchemaError(f"{path} is an SQLite file, but no multiprompt catalog. Choose another path.")
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    if found is None:
        raise SchemaError(f"{path} is a catalog that was never finished. Choose another path, or restore a backup.")
    return str(found)


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
