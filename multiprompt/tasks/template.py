"""Jinja templates from task files, rendered in a sandbox that bounds what they can reach and produce."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from multiprompt.errors import TemplateError

MAX_TEMPLATE_CHARACTERS = 65_536
MAX_RENDERED_CHARACTERS = 4_000_000

# Each of these can make gigabytes out of a few characters.
_AMPLIFYING_FILTERS = ("center", "format", "indent", "pprint", "wordwrap", "xmlattr")
_AMPLIFYING_METHODS = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if all(isinstance(side, (int, float)) for side in (left, right)) and operator != "**":
            return super().call_binop(context, operator, left, right)
        raise SecurityError(f"the operator {operator!r} is not allowed on {type(left).__name__} values")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _AMPLIFYING_METHODS and super().is_safe_attribute(obj, attr, value)


def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.globals.clear()
    for name in _AMPLIFYING_FILTERS:
        environment.filters.pop(name, None)
    return environment


_ENVIRONMENT = _environment()


class Template:
    """A template, parsed once: `fields` are the fields that it reads, `constant_head` the text before the first."""

    def __init__(self, source: str, where: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateError(f"{where} has {len(source)} characters; the limit is {MAX_TEMPLATE_CHARACTERS}.")
        try:
            tree = _ENVIRONMENT.parse(source)
            self._compiled = _compile(source)
        except jinja2.TemplateError as error:
            raise TemplateError(f"{where} is not a valid template: {error}") from None
        self.source = source
        self.where = where
        self.fields: frozenset[str] = frozenset(meta.find_undeclared_variables(tree))
        self.constant_head = _constant_head(tree)

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row. Raises TemplateError when the template fails or leaves the sandbox."""
        try:
            text = "".join(_bounded(self._compiled.generate(row), self.where))
        except SecurityError as error:
            raise TemplateError(f"{self.where} tried to leave the sandbox: {error}") from None
        except TemplateError:
            raise
        except Exception as error:  # a template may raise anything: a filter on a wrong type, a division by zero
            raise TemplateError(f"{self.where} failed: {type(error).__name__}: {error}") from None
        return text


@lru_cache(maxsize=1024)
def _compile(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


def _bounded(pieces: Any, where: str) -> Any:
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_RENDERED_CHARACTERS:
            raise TemplateError(f"{where} renders to more than {MAX_RENDERED_CHARACTERS} characters.")
        yield piece


def _constant_head(tree: nodes.Template) -> str:
    """The literal text that every rendering starts with."""
    head: list[str] = []
    for statement in tree.body:
        if not isinstance(statement, nodes.Output):
            break
        for piece in statement.nodes:
            if not isinstance(piece, nodes.TemplateData):
                return "".join(head)
            head.append(piece.data)
    return "".join(head)
