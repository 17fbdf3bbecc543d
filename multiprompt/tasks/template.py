"""Jinja templates from task files, rendered in a sandbox that bounds what they can reach, produce and repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import meta, nodes, pass_context, pass_environment
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.filters import do_round, do_sum, make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.visitor import NodeTransformer

from multiprompt.errors import TaskFileError, TemplateError
from multiprompt.tasks.pattern import pattern

MAX_TEMPLATE_CHARACTERS = 65_536
MAX_RENDERED_CHARACTERS = 4_000_000
MAX_LOOP_STEPS = 100_000
# The limit of all that one rendering reads and makes: a letter counts 1, a value `_VALUE` on top.
MAX_WORK = 50_000_000
_VALUE = 8
MAX_NUMBER_BITS = 16_384
MAX_PRECISION = 100

# All that a template may call; none of it can make much out of little without being counted.
_FILTERS = (
    "abs", "capitalize", "default", "d", "first", "float", "int", "items", "last", "length", "count", "list", "lower",
    "map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "sort", "string", "sum",
    "title", "trim", "truncate", "unique", "upper", "dictsort", "wordcount",
)  # fmt: skip
_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "get", "index", "isalnum", "isalpha", "isdigit", "islower",
    "isnumeric", "isspace", "istitle", "isupper", "items", "keys", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
    "strip", "swapcase", "title", "upper", "values", "join",
})  # fmt: skip
# Statements that repeat, capture or fetch text out of sight of the bounds.
_FORBIDDEN = (
    nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Block, nodes.Include, nodes.Import,
    nodes.FromImport, nodes.Extends,
)  # fmt: skip


_RESERVED = ("self", "super")


class NullFieldError(Exception):
    """A template would write out a field that is null in this row."""


class Null:
    """A null of a row: false and equal to none where a template tests for it, an error where it is used otherwise."""

    def __init__(self, field: str) -> None:
        self._field = field

    def refuse(self, *_: object) -> NoReturn:
        raise NullFieldError(self._field)

    __str__ = __repr__ = __iter__ = __len__ = __getitem__ = __add__ = __radd__ = __lt__ = __gt__ = refuse
    __int__ = __float__ = refuse

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Null)

    def __hash__(self) -> int:
        return hash(None)


def _marked(value: Any, field: str) -> Any:
    """A value with its nulls marked by the field that they stand in."""
    if value is None:
        return Null(field)
    if isinstance(value, dict):
        return {key: _marked(inner, f"{field}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        marked = [_marked(inner, field) for inner in value]
        return tuple(marked) if isinstance(value, tuple) else marked
    return value


class _Sandbox(ImmutableSandboxedEnvironment):
    make_range = staticmethod(safe_range)
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A row's key comes before a method of the same name, which only a call means: its text is an address."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, Null):
            obj.refuse()
        return _no_method(super().getattr(obj, attribute), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _no_method(super().getitem(obj, argument), argument)

    def method(self, obj: Any, name: str) -> Any:
        if isinstance(obj, Null):
            obj.refuse()
        return super().getattr(obj, name)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(side, (int, float)) for side in (left, right))
        if operator == "**" or (operator in ("*", "%") and not numbers):
            raise SecurityError(f"the operator {operator!r} is not allowed on {type(left).__name__} values")
        if operator == "+" and not numbers:
            _within(_size(left) + _size(right))
        _count(context, left, right)
        return _counted(context, super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> None:
        """No text is a format: its widths make much out of little."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return (not callable(value) or attr in _METHODS) and super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        name, owner = getattr(obj, "__name__", ""), getattr(obj, "__self__", None)
        _count(context, owner, *args, *kwargs.values())
        if isinstance(owner, str) and name == "replace":
            return _counted(context, _replace(owner, *args, **kwargs))
        if isinstance(owner, str) and name == "join":
            return _counted(context, _join(args[0] if args else (), owner))
        return _counted(context, super().call(context, obj, *args, **kwargs))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for node in tree.find_all(_FORBIDDEN):
            raise SecurityError(f"the statement {type(node).__name__.lower()!r} is not allowed")
        if any(node.name in _RESERVED for node in tree.find_all(nodes.Name)):
            raise SecurityError(f"{' and '.join(_RESERVED)} are names of jinja; a field of this name cannot be read")
        bounded: nodes.Template = _Bounds().visit(tree)
        return bounded


class _Bounds(NodeTransformer):
    """Turns all that takes time or memory into calls that are counted; tells calls of methods from keys of a row."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filter(node.iter, "steps")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            piece if isinstance(piece, nodes.TemplateData) else _filter(piece, "shown") for piece in node.nodes
        ]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(node.expr, "count_value")
        return node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filter(node.expr, "count_value")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "count_value") if isinstance(node.arg, nodes.Slice) else node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:  # noqa: N802
        if isinstance(node.node, nodes.Name) and node.node.name == "range":
            node.node = nodes.EnvironmentAttribute("make_range", lineno=node.lineno)
        self.generic_visit(node)
        if isinstance(node.node, nodes.Getattr):
            node.node = _filter(node.node.node, "method", nodes.Const(node.node.attr))
        return node


def _filter(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


@pass_context
def _steps(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    """Each value of a loop, until all loops of one rendering together have taken too many steps."""
    taken = context.parent.setdefault(_STEPS, [0])
    for value in values:
        taken[0] += 1
        if taken[0] > MAX_LOOP_STEPS:
            raise SecurityError(f"its loops take more than {MAX_LOOP_STEPS} steps")
        yield value


# No row has a field of these names.
_STEPS, _WORK = "loop steps\0", "work\0"


def _count(context: Context, *values: Any) -> None:
    """Count values, with all that they hold, as work of one rendering. Raises SecurityError when it is too much."""
    work = context.parent.setdefault(_WORK, [0])
    left = list(values)
    while left:
        value = left.pop()
        work[0] += _VALUE
        if isinstance(value, str):
            work[0] += len(value)
        elif isinstance(value, int):
            if value.bit_length() > MAX_NUMBER_BITS:
                raise SecurityError(f"it makes a number of more than {MAX_NUMBER_BITS} bits")
        elif isinstance(value, range):
            work[0] += _VALUE * len(value)
        elif isinstance(value, (list, tuple)):
            left.extend(value)
        elif isinstance(value, dict):
            left.extend(value)
            left.extend(value.values())
        if work[0] + _VALUE * len(left) > MAX_WORK:
            raise SecurityError(f"its values come to more than {MAX_WORK} characters")


def _counted(context: Context, value: Any) -> Any:
    """A value once it is counted; what comes one by one is counted as it comes."""
    if isinstance(value, Iterator):
        return (_counted(context, one) for one in value)
    _count(context, value)
    return value


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """A value that is written out. What has no text of its own would be written as its address in memory."""
    if (callable(value) or isinstance(value, Iterator)) and not isinstance(value, jinja2.Undefined):
        raise TypeError(f"it writes out a {type(value).__name__}; end it with `()`, `|list` or `|join`")
    return _counted(context, value)


def _counting(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A filter or a test that counts what it gets and gives; `call` is how its environment calls it by name."""

    @pass_context
    def counting(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        _count(context, value, *args, *kwargs.values())
        return _counted(context, call(name, value, args, kwargs, context))

    return counting


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > MAX_PRECISION:
        raise SecurityError(f"it rounds to {precision} digits; the limit is {MAX_PRECISION}")
    return do_round(value, precision, method)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a {type(value).__name__} cannot be added to a list")
    return value


@pass_environment
def _sum(environment: jinja2.Environment, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    """Jinja's filter; lists are put together in one, where Python's sum makes one for each."""
    if not isinstance(start, list):
        return do_sum(environment, values, attribute, start)
    get = make_attrgetter(environment, attribute) if attribute is not None else lambda value: value
    found = list(start)
    for part in map(get, values):
        _within(len(found) + _size(part))
        found.extend(_list(part))
    return found


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    _within(len(text) + max(0, len(new) - len(old)) * text.count(old))
    return text.replace(old, new, -1 if count is None else count)


def _regex_replace(text: Any, source: str, replacement: str, count: int = 0) -> str:
    """The harness's filter: `re.sub`."""
    if not isinstance(text, str):
        raise TypeError(f"regex_replace needs a text, not a {type(text).__name__}")
    return pattern(source).sub(str(replacement), text, count)


def _join(values: Iterable[Any], delimiter: str = "") -> str:
    pieces = [str(_written(value)) for value in values]
    _within(sum(map(len, pieces)) + len(delimiter) * len(pieces))
    return str(delimiter).join(pieces)


def _no_method(found: Any, name: object) -> Any:
    """A method that is not called would be written out as an address in memory."""
    if callable(found) and not isinstance(found, jinja2.Undefined):
        raise SecurityError(f"{name} is a method; write {name}()")
    return found


def _written(value: Any) -> Any:
    """The text that a template writes. Raises TemplateRuntimeError for a null that no field of the row holds."""
    if value is None:
        raise TemplateRuntimeError("it writes out a null; give a default for what is missing")
    return value


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple)) else 0


def _within(characters: int) -> None:
    if characters > MAX_RENDERED_CHARACTERS:
        raise SecurityError(f"it makes a text of more than {MAX_RENDERED_CHARACTERS} characters")


def _plain_environment() -> _Sandbox:
    """All that a template may use, not counted."""
    environment = _Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_written)
    environment.globals.clear()
    allowed = {name: environment.filters[name] for name in _FILTERS}
    environment.filters.clear()
    environment.filters.update(allowed, replace=_replace, join=_join, regex_replace=_regex_replace)
    environment.filters.update(round=_round, sum=_sum)
    environment.tests["none"] = lambda value: value is None or isinstance(value, Null)
    environment.tests["sameas"] = lambda value, other: value is other or (value == other and isinstance(value, Null))
    return environment


def _environment() -> _Sandbox:
    plain, counted = _plain_environment(), _plain_environment()
    counted.filters.update({name: _counting(plain.call_filter, name) for name in plain.filters})
    counted.tests.update({name: _counting(plain.call_test, name) for name in plain.tests})
    counted.filters.update(count_value=pass_context(_counted), steps=_steps, shown=_shown, method=counted.method)
    return counted


_ENVIRONMENT = _environment()


class Template:
    """A template, parsed once.

    `fields` are the fields of a row that it reads, `worked_fields` those that it does not only write out.
    `constant_head` is the text before the first.
    """

    def __init__(self, source: str, where: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateError(f"{where} has {len(source)} characters; the limit is {MAX_TEMPLATE_CHARACTERS}.")
        try:
            tree = _ENVIRONMENT.parse(source)
            self._compiled = _compile(source)
        except SecurityError as error:
            raise TemplateError(f"{where} tried to leave the sandbox: {error}") from None
        except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise TemplateError(f"{where} is not a valid template: {error}") from None
        self.source = source
        self.where = where
        self.fields: frozenset[str] = frozenset(meta.find_undeclared_variables(tree))
        self.constant_head = _constant_head(tree)
        self.worked_fields = self.fields & _worked_names(tree)

    def read_by(self, _: Mapping[str, Any], /) -> frozenset[str]:
        """The fields that rendering this row reads."""
        return self.fields

    def value(self, row: Mapping[str, Any]) -> Any:
        """The harness's reading of it: the text, or the value of the column that it names."""
        return self.render(row)

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row; `row` may hold nulls where the template asks for them.

        Raises TemplateError when the template fails or leaves the sandbox, NullFieldError when it writes out a null.
        """
        try:
            marked = {name: _marked(value, name) for name, value in row.items()}
            text = "".join(_bounded(self._compiled.generate(marked), self.where))
        except SecurityError as error:
            raise TemplateError(f"{self.where} tried to leave the sandbox: {error}") from None
        except (TemplateError, NullFieldError):
            raise
        except TaskFileError as error:
            raise TemplateError(f"{self.where} failed: {error}") from None
        except Exception as error:  # a template may raise anything: a filter on a wrong type, a division by zero
            raise TemplateError(f"{self.where} failed: {type(error).__name__}: {error}") from None
        return text


class Column(Template):
    """A bare text: the column of that name, or where rows have none, the text itself (the harness's rule).

    A text that is an identifier is always taken for a column, and so is any with `is_column`.
    """

    def __init__(self, source: str, where: str, *, is_column: bool = False) -> None:
        super().__init__(source, where)
        self.constant_head = ""
        if is_column or source.isidentifier():
            self.fields = frozenset({source})

    def read_by(self, row: Mapping[str, Any], /) -> frozenset[str]:
        return self.fields | ({self.source} & row.keys())

    def value(self, row: Mapping[str, Any]) -> Any:
        if self.source not in self.read_by(row):
            return super().render(row)
        found = row[self.source]
        if found is None:
            raise NullFieldError(self.source)
        return found

    def render(self, row: Mapping[str, Any]) -> str:
        return str(_marked(self.value(row), self.source))


def template(source: str, where: str, *, is_column: bool = False) -> Template:
    """A text without markup may name a column, or must with `is_column`; anything else is a template."""
    bare = source.strip() and not any(mark in source for mark in ("{{", "{%", "{#"))
    return Column(source, where, is_column=is_column) if bare else Template(source, where)


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


def _worked_names(tree: nodes.Template) -> set[str]:
    """The names that stand elsewhere than alone between braces."""
    written = {id(node.node) for node in tree.find_all(nodes.Filter) if node.name == "shown"}
    return {node.name for node in tree.find_all(nodes.Name) if id(node) not in written}


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
