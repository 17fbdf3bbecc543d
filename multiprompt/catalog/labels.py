"""Labels: how people name a prompt version."""

from multiprompt.errors import NotFoundError


def parse_label(label: str) -> tuple[str, int | None]:
    """`sst2@2` → ("sst2", 2); `sst2` → ("sst2", None). Raises NotFoundError for anything else after the @."""
    name, at, number = label.partition("@")
    if not at:
        return name, None
    if not number.isdecimal() or len(number) > 9:
        raise NotFoundError(f"{label!r} names no version: write task@number, for example {name}@1.")
    return name, int(number)
