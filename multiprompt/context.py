"""The context: a catalog, its base model, and who works with them, when, and how far."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from multiprompt.catalog.catalog import Catalog
from multiprompt.config import DEFAULT_BASE_MODEL
from multiprompt.errors import BaseMismatchError, NotFoundError
from multiprompt.records import BaseModelRecord, Claim, Progress, TaskRecord

if TYPE_CHECKING:
    from multiprompt.engine.base import BaseModel
    from multiprompt.engine.hub import Source
    from multiprompt.tasks.task import Task

Notify = Callable[[str], None]
log = logging.getLogger("multiprompt")


def silent(what: str, done: int, total: int) -> None:
    pass


class Context:
    """A catalog with its base model, and what each step of the work needs beside them.

    The catalog signs its writes with the actor and the clock. The base model is loaded on first use.
    """

    def __init__(
        self,
        catalog: Catalog,
        base_model: str | None = None,
        *,
        dtype: str | None = None,
        hub_metrics: bool = False,
        progress: Progress = silent,
        notify: Notify = log.info,
    ) -> None:
        self.catalog = catalog
        self.hub_metrics = hub_metrics
        self.progress = progress
        self.notify = notify
        self._reference = base_model
        self._dtype = dtype
        self._base: BaseModel | None = None
        # The catalog's base model, as it was when this one was loaded.
        self._bound: BaseModelRecord | None = None
        self._lock = Lock()

    def claimed_by(self, claim: Claim, progress: Progress) -> Context:
        """The same context, on the same loaded base model, for a job, whose log gets the messages.

        See `Catalog.claimed_by`.
        """
        claimed = copy(self)
        claimed.catalog, claimed.progress = self.catalog.claimed_by(claim), progress
        claimed.notify = lambda message: claimed.catalog.ledger.log(claim, message, claimed.catalog.now())
        return claimed

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """A function that takes counts of finished items and reports their sum as progress."""
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, total)

        return advance

    def task(self, name: str) -> Task:
        """A task as its file said when it was added. Raises NotFoundError."""
        return self.task_of(self.catalog.tasks.get(name))

    def task_of(self, record: TaskRecord) -> Task:
        """The task of a record."""
        from multiprompt.tasks.task import Task

        return self.catalog.snapshots.attach(Task.from_source(record.source, Path(record.folder), where=record.name))

    @property
    def loaded(self) -> BaseModel | None:
        """The base model where it is loaded already."""
        return self._base

    def base_model(self) -> BaseModel:
        """The base model, loaded on first use and compared with the catalog's fingerprints.

        Raises BaseMismatchError naming both where they differ.
        """
        base = self._any_base_model()
        if self._bound is not None and not base.is_of(self._bound):
            raise BaseMismatchError(
                f"{self.catalog.location} is bound to {self._bound}, but {base.record} was loaded, with "
                f"{self._bound.difference(base.record)}. "
                "Open it with that base model and dtype, or make another catalog for this one."
            )
        return base

    def reload_base_model(self) -> None:
        """Load the base model, again where its files changed since; any fingerprint is taken."""
        with self._lock:
            if self._base is not None and self._base.files_changed:
                self._base = None
        self._any_base_model()

    def base_model_to_check(self, *, dry_run: bool = False) -> BaseModel:
        """The base model that its files hold now, whatever its fingerprint; the loaded one stays in its place."""
        base = self._any_base_model(dry_run=dry_run)
        return self._load() if base.files_changed else base

    def is_foreign(self, base: BaseModelRecord) -> bool:
        """Whether it has another name or dtype than the catalog's; a changed file of the catalog's own is not one."""
        bound = self._bound
        return (
            bound is not None
            and (base.source, base.dtype) != (bound.source, bound.dtype)
            and base.identity != bound.identity
        )

    def bind(self, base: BaseModel, *, dry_run: bool = False) -> None:
        """Work on a loaded base model; a catalog that has none is bound to it.

        Fingerprints of an earlier release are replaced by those of this one. A dry run writes nothing.
        """
        _, _, bound = self.catalog.base_models.get()
        if not dry_run:
            if bound is None or (base.is_of(bound) and bound.identity != base.record.identity):
                self.catalog.base_models.bind(base.record, former=bound)
                bound = self.catalog.base_models.get()[2]
            if bound is None or base.is_of(bound):
                self.catalog.base_models.set_forward(base.forward.reason)
        self._base, self._bound = base, bound

    def _any_base_model(self, *, dry_run: bool = False) -> BaseModel:
        with self._lock:
            if self._base is None:
                self.bind(self._load(), dry_run=dry_run)
            assert self._base is not None
            return self._base

    def _load(self) -> BaseModel:
        from multiprompt.engine.loading import load_base_model

        source = self.locate_base_model()
        log.info("loading the base model from %s", source.folder)
        base = load_base_model(source, self._dtype or self.catalog.base_models.get()[1])
        log.info("loaded %s", base.record)
        return base

    def locate_base_model(self) -> Source:
        """The place of the base model's files on this machine. Raises NotFoundError or BaseModelError."""
        from multiprompt.engine.hub import locate

        reference, _, bound = self.catalog.base_models.get()
        try:
            return locate(self._reference or reference or DEFAULT_BASE_MODEL, self.notify)
        except NotFoundError as error:
            if self._reference is not None or bound is None:
                raise
            raise NotFoundError(
                f"{self.catalog.location} is bound to {bound}, but {error}. Where it was moved, name its "
                "new place: `mp.open(base_model='…')`."
            ) from None
