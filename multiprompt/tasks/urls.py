"""Secrets in URLs of data files: refused in a new task file, and never shown."""

from __future__ import annotations

import re

_USER = re.compile(r"(?P<scheme>[a-z0-9+.-]+)://(?P<user>[^/@\s?#]+)@", re.IGNORECASE)
_PARAMETER = re.compile(r"(?<=[?&])(?P<name>[^=&\s]+)=(?P<value>[^&\s'\"]*)")
_SECRET_NAME = re.compile(
    r"token|secret|passw|signature|credential|auth|api.?key|key.?id|(?:^|[-_])(?:sig|key|pwd|pw)$", re.I
)


def has_secret(url: str) -> bool:
    """Whether a URL carries a password, or a parameter whose name is that of a secret."""
    if "://" not in url:
        return False
    users = any(_is_secret_user(match) for match in _USER.finditer(url))
    return users or any(match["value"] and _SECRET_NAME.search(match["name"]) for match in _PARAMETER.finditer(url))


def without_secrets(text: str) -> str:
    """A text whose URLs show no password and no value of a parameter."""
    shown = _USER.sub(lambda match: f"{match['scheme']}://***@" if _is_secret_user(match) else match[0], text)
    return _PARAMETER.sub(r"\g<name>=***", shown) if "://" in shown else shown


def _is_secret_user(match: re.Match[str]) -> bool:
    """A user may be no secret: `abfs://container@account`, `github://owner:repository@branch`."""
    scheme = match["scheme"].lower()
    return scheme in ("http", "https") or (":" in match["user"] and scheme != "github")
