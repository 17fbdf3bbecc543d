"""The URL of a catalog: a path or a SQLAlchemy URL, and the form of it that is safe to show."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from multiprompt.errors import CatalogError

_SHOWN_PARAMETERS = ("host", "hostaddr", "port", "user", "sslmode", "connect_timeout", "application_name")


def parse_url(url: str) -> URL:
    """A path or a URL, with a password only in its place. Raises CatalogError, which shows none."""
    hidden = re.sub(r":.*@", ":…@", url, count=1, flags=re.DOTALL)
    if "\0" in url or url != url.encode(errors="replace").decode():
        raise CatalogError(f"{hidden!r} is no catalog: no path holds such a character.")
    try:
        if "://" not in url and not re.match(r"(postgres\w*|sqlite)(\+\w+)?:", url):
            return URL.create("sqlite", database=url)
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise CatalogError(f"{hidden!r} is no catalog: give a path, or a URL like sqlite:///multiprompt.db.") from None
    if parsed.get_backend_name() == "sqlite":
        return parsed
    if any("@" in part for part in (parsed.host or "", parsed.database or "", *parsed.query)):
        raise CatalogError(f"{hidden!r} holds more than one @: write one in a user's name or password as %40.")
    if "password" in parsed.query:
        parsed = parsed.set(password="".join(parsed.query["password"])).difference_update_query(["password"])
    return parsed


def with_whole_path(url: URL) -> URL:
    """The URL of the same file from any working directory, which a program may change later."""
    name = str(url.database)
    if "uri" not in url.query or not name.startswith("file:"):
        return url.set(database=str(Path(name).absolute()))
    path = name.removeprefix("file:")
    return url if path.startswith("/") else url.set(database=f"file:{quote(str(Path.cwd()))}/{path}")


def require_usable(url: URL) -> None:
    """Raises CatalogError for a URL whose driver is another one, or with a part that SQLite does not take."""
    reason = ""
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        reason = f"its driver is {url.drivername}"
    elif url.host or url.username or url.password:
        reason = "a path comes behind three slashes"
    elif "\0" in str(url.database):
        reason = "no path holds a NUL"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            url.set(drivername="sqlite").get_dialect()().create_connect_args(url)
    except (ArgumentError, ValueError, Warning):
        reason = reason or "a parameter of it is none of SQLite's, or has a wrong value"
    if reason:
        raise CatalogError(
            f"{shown_url(url)!r} is no catalog ({reason}): give a path, or a URL like sqlite:///multiprompt.db."
        )


def shown_url(url: URL) -> str:
    """A URL without its password, and with those parameters only that say where it leads."""
    return url.set(
        query={name: value if name in _SHOWN_PARAMETERS else "***" for name, value in url.query.items()}
    ).render_as_string()
