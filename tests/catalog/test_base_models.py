"""Base models: a catalog is bound to one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiprompt.catalog.catalog import Catalog
from multiprompt.errors import StateError
from tests.catalog.databases import by
from tests.catalog.samples import AT, BASE


def test_a_catalog_is_bound_to_one_base_model(catalog: Catalog) -> None:
    assert catalog.base_models.get() == (None, "auto", None)
    by(catalog, "tester", AT).base_models.bind(BASE)
    by(catalog, "tester", AT).base_models.bind(replace(BASE, name="the same under another name"))
    assert catalog.base_models.get() == ("hub/tiny", "float32", BASE)
    for part in ("weights", "tokenizer", "config", "dtype"):
        with pytest.raises(StateError, match="is bound to tiny .* already"):
            by(catalog, "tester", AT).base_models.bind(replace(BASE, **{part: "other"}))
    assert len(catalog.events.find("kind = 'base-model-bound'")) == 1
