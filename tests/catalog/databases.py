"""Catalogs for tests on SQLite and on a real PostgreSQL from a wheel: made quickly, read raw, damaged on purpose."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url
from sqlalchemy.pool import NullPool

from multiprompt.catalog import schema
from multiprompt.catalog.catalog import Catalog

KINDS = ("sqlite", "postgresql")
_numbers = itertools.count()
# What the tests of a module made, to be dropped after them.
_made: list[str] = []
_MEMORY = Path("/dev/shm")


class Databases:
    """Where the tests of a module make their catalogs."""

    kind = "sqlite"

    def new(self, folder: Path) -> Catalog:
        """An empty catalog."""
        return self._copy("empty", _leave_empty, folder)

    def filled(self, name: str, fill: Callable[[Catalog], Any], folder: Path) -> Catalog:
        """A catalog that `fill`, a function of a module, filled; it does so once, and is copied from then on."""
        return self._copy(name, fill, folder)

    def _copy(self, name: str, fill: Callable[[Catalog], Any], folder: Path) -> Catalog:
        if self.kind == "sqlite":
            path = folder / "catalog.db"
            path.write_bytes(_file(name, fill))
            return Catalog.open(str(path))
        return Catalog.open(new_database(_template(name, fill)))


def _leave_empty(catalog: Catalog) -> None:
    pass


DATABASES = Databases()


@functools.cache
def _file(name: str, fill: Callable[[Catalog], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Catalog.open(f"{folder}/catalog.db", create=True)
        fill(made)
        return made.path.read_bytes()


@functools.cache
def _template(name: str, fill: Callable[[Catalog], Any]) -> str:
    url = new_database()
    made = Catalog.open(url, create=True)
    fill(made)
    made.close()
    name = str(make_url(url).database)
    _made.remove(name)
    return name


@functools.cache
def _server() -> Any:
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 4_000_000_000
    folder = tempfile.mkdtemp(prefix="pg", dir=_MEMORY if roomy else None)
    server = new_server(folder)
    atexit.register(_stop, server, folder)
    for setting in ("fsync = off", "full_page_writes = off", "synchronous_commit = off"):
        server.psql(f"ALTER SYSTEM SET {setting};")
    server.psql("SELECT pg_reload_conf();")
    return server


def new_server(folder: str) -> Any:
    """A server of its own, whose data lies in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgserver

        return pgserver.get_server(folder)


def crash(server: Any) -> None:
    """End a server at once, as if its machine had; `ensure_postgres_running` starts it again."""
    import pgserver

    pgserver.pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=server.pgdata, user=server.system_user)


def _stop(server: Any, folder: str) -> None:
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def new_database(template: str = "template0") -> str:
    """The URL of a new database on the server, a copy of `template`."""
    name = f"catalog{next(_numbers)}"
    _administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    _made.append(name)
    return make_url(_server().get_uri()).set(database=name).render_as_string(hide_password=False)


def drop_databases() -> None:
    """Drop what `new_database` made so far, but the templates."""
    if _made:
        _administer(*(f"DROP DATABASE {name} WITH (FORCE)" for name in _made))
        _made.clear()


def _administer(*statements: str) -> None:
    url = make_url(_server().get_uri()).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def contents(catalog: Catalog) -> dict[str, list[Any]]:
    """Every row of every table, and the revision."""
    with catalog.engine.connect() as connection:
        found = {
            name: sorted(map(tuple, connection.execute(table.select())), key=repr)
            for name, table in schema.metadata.tables.items()
        }
        found["alembic_version"] = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
    return found


def execute(catalog: Catalog, *statements: str) -> list[int]:
    """Run SQL in one transaction of a connection of another program. Gives how many rows each statement changed."""
    engine = create_engine(catalog.engine.url, poolclass=NullPool)
    with engine.begin() as connection:
        return [connection.exec_driver_sql(statement).rowcount for statement in statements]


def damage(catalog: Catalog, *statements: str) -> None:
    """Change a catalog behind its back; its triggers are there again afterwards."""
    if catalog.engine.dialect.name == "postgresql":
        counts = execute(catalog, "SET LOCAL session_replication_role = replica", *statements)[1:]
    else:
        with catalog.engine.connect() as connection:
            known = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
        drops, creates = [f"DROP TRIGGER {name}" for name, _ in known], [sql for _, sql in known]
        counts = execute(catalog, *drops, *statements, *creates)[len(drops) : len(drops) + len(statements)]
    assert all(count > 0 for count in counts)


def by(catalog: Catalog, actor: str, time: datetime) -> Catalog:
    """The catalog as this actor writes in it at this time."""
    return catalog.signed_by(actor, lambda: time)
