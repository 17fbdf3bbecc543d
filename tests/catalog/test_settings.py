"""Settings of a catalog."""

from __future__ import annotations

from multiprompt.catalog.catalog import Catalog
from tests.catalog.databases import by
from tests.catalog.samples import AT


def test_the_policy_of_a_catalog_is_kept_with_an_event(catalog: Catalog) -> None:
    assert catalog.settings.policy() == "block"
    for _ in range(2):
        by(catalog, "ann", AT).settings.set_policy("warn", "a migration")
    assert catalog.settings.policy() == "warn"
    (event,) = catalog.events.find("kind = 'policy-warn'")
    assert (event.actor, event.reason) == ("ann", "a migration")
