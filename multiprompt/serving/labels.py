"""Labels of a call, looked up before a base model is loaded for them."""

from __future__ import annotations

from collections.abc import Sequence

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import InputRow, as_pair
from multiprompt.errors import DataError, NotFoundError


def require_versions(catalog: Catalog, rows: Sequence[InputRow]) -> None:
    """Raises NotFoundError, naming the row, for a label without a version."""
    known: set[str] = set()
    for number, asked in enumerate(rows):
        try:
            label = as_pair(asked)[0]
            if label not in known:
                catalog.versions.labelled(label)
                known.add(label)
        except (DataError, NotFoundError) as error:
            raise type(error)(f"row {number} of the call: {error}") from None
