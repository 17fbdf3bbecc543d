"""Opening a workspace: a catalog, made where there is none, with its base model."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from multiprompt.catalog.catalog import Catalog
from multiprompt.config import DEFAULT_BASE_MODEL, DTYPE_NAMES
from multiprompt.context import Context, Notify, log, silent
from multiprompt.errors import ConfigError, nearest
from multiprompt.notebook import Bars, in_notebook
from multiprompt.records import Progress
from multiprompt.workspace import Workspace


def open_workspace(
    catalog: str | Path = "multiprompt.db",
    base_model: str | None = None,
    *,
    create: bool = True,
    dtype: str | None = None,
    hub_metrics: bool = False,
    actor: str | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    progress: Progress | None = None,
    notify: Notify = log.info,
) -> Workspace:
    """Open a catalog (a path or a SQLAlchemy URL), making a missing one.

    `base_model` is an alias, a folder or a hub id; by default the catalog's own, or smollm2-135m for a new catalog.
    A catalog remembers the name and the `dtype` (auto, float32, bfloat16 or float16), also where the model then cannot
    be loaded. `actor` and `clock` sign the events. `progress` is by default bars in a notebook and nothing elsewhere.
    Messages go to `notify`, by default the logger `multiprompt` at INFO. Raises ConfigError for another dtype.
    """
    if dtype not in (None, *DTYPE_NAMES):
        raise ConfigError(f"no dtype {dtype!r}; {nearest(str(dtype), DTYPE_NAMES)}")
    if progress is None:
        progress = Bars() if in_notebook() else silent
    opened = Catalog.open(str(catalog), create=create).signed_by(actor or _user(), clock)
    if base_model is not None:
        folder = Path(base_model).expanduser()
        base_model = str(folder.resolve()) if folder.is_dir() else base_model
    if (base_model, dtype) != (None, None):
        opened.base_models.name(base_model, dtype)
    return Workspace(
        Context(opened, base_model, dtype=dtype, hub_metrics=hub_metrics, progress=progress, notify=notify)
    )


def init_workspace(
    catalog: str | Path, base_model: str | None = None, dtype: str | None = None, **options: Any
) -> Workspace:
    """Open a catalog with its base model loaded; a missing one is made after the base model was found to be usable.

    A catalog that is bound to the same base model in another place keeps the new place. `options` are those of
    `open_workspace`. Raises BaseModelError, with no catalog made.
    """
    if Catalog.exists(str(catalog)):
        workspace = open_workspace(catalog, base_model, create=False, dtype=dtype, **options)
        found = workspace.base_model()
        if base_model is not None:
            workspace.catalog.base_models.move(found.record.source)
        return workspace
    from multiprompt.engine.hub import locate
    from multiprompt.engine.loading import load_base_model

    source = locate(base_model or DEFAULT_BASE_MODEL, options.get("notify", lambda _: None))
    base = load_base_model(source, dtype or "auto")
    workspace = open_workspace(catalog, base_model, dtype=dtype, **options)
    workspace.context.bind(base)
    return workspace


def _user() -> str:
    """The user's name; in a container it may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
