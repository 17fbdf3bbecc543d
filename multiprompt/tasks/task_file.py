"""Task files as mappings: safe YAML, with the files that they include."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from multiprompt.errors import TaskFileError

MAX_TASK_FILE_BYTES = 1_000_000
MAX_FILES = 16
MAX_DIGITS = 4000


class _Dumper(yaml.SafeDumper):
    """Writes a value out each time, as aliases are refused when a task file is read."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


# libyaml, where PyYAML was built with it, reads a thousand task files in one second instead of seven.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """A safe loader that names Python tags as what they are and refuses repeated keys."""


def _refuse_tag(_: _Loader, suffix: str, node: yaml.Node) -> Any:
    line = node.start_mark.line + 1
    raise TaskFileError(
        f"line {line} uses !{suffix}, which would run code from a task file; write a template or a plain value instead."
    )


def _unique_keys(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list, set)):
            raise TaskFileError(f"line {key_node.start_mark.line + 1} uses a {type(key).__name__} as a key.")
        if key in seen:
            raise TaskFileError(f"line {key_node.start_mark.line + 1} repeats the key {key!r}.")
        seen.add(key)
    made: dict[Any, Any] = loader.construct_mapping(node, deep=deep)
    return made


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """A whole number that Python can also print."""
    found = loader.construct_yaml_int(node)
    if abs(found) >= 10**MAX_DIGITS:
        raise TaskFileError(f"line {node.start_mark.line + 1} holds a number of more than {MAX_DIGITS} digits.")
    return found


class _AnyTagLoader(_SafeLoader):  # type: ignore[misc]
    """A safe loader that reads a value with a tag of its own as None."""


_AnyTagLoader.add_multi_constructor("!", lambda *_: None)
_Loader.add_multi_constructor("!", _refuse_tag)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _refuse_tag)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)
_Loader.add_constructor("tag:yaml.org,2002:int", _number)


def read_file(path: Path) -> tuple[str, dict[str, Any]]:
    """The text and the mapping of a task file; what it includes is merged in, so that the text stands alone.

    Included files lie in the parent of the task file's folder or anywhere below it. Raises TaskFileError.
    """
    source = _text(path)
    mapping = parse(source, str(path))
    if "include" not in mapping:
        return source, mapping
    path = path.resolve()
    folder = path.parent
    # A folder directly under the root of the file system has no tree around it.
    tree = folder.parent if folder.parent != folder.parent.parent else folder
    mapping = _Includes(tree).merged(path, mapping)
    return write(mapping), mapping


def read_loosely(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file, whether or not it can be a task file; empty where it is none."""
    try:
        return read_file(path)[1]
    except TaskFileError:
        pass
    try:
        found = yaml.load(_text(path), Loader=_AnyTagLoader)  # noqa: S506 (a SafeLoader)
    except Exception:  # a wrong value of a YAML tag raises whatever its constructor raises
        return {}
    return found if isinstance(found, dict) else {}


def write(mapping: Mapping[str, Any]) -> str:
    """A mapping as the text of a task file."""
    return yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse(source: str, where: str) -> dict[str, Any]:
    """The mapping that a text holds. Raises TaskFileError."""
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(source, Loader=_SafeLoader)):
            raise TaskFileError("it uses YAML aliases (*name); write the value out.")
        mapping = yaml.load(source, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except TaskFileError as error:
        raise TaskFileError(f"{where}: {error}") from None
    except Exception as error:  # a wrong value of a YAML tag raises whatever its constructor raises
        raise TaskFileError(f"{where} is not YAML: {_reason(error)}") from None
    if not isinstance(mapping, dict):
        raise TaskFileError(f"{where} holds a {type(mapping).__name__}, but a task file is a mapping of keys.")
    return mapping


class _Includes:
    """The files that one task file includes."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree.resolve()
        self._files = 0

    def merged(self, path: Path, mapping: Mapping[str, Any], above: tuple[Path, ...] = ()) -> dict[str, Any]:
        """Included keys in the order of their files; a file's own keys win, as in the harness."""
        chain = (*above, path.resolve())
        includes = mapping.get("include")
        merged: dict[str, Any] = {}
        for name in includes if isinstance(includes, list) else [] if includes is None else [includes]:
            found = self._find(path, name, chain)
            merged |= self.merged(found, parse(_text(found), str(found)), chain)
        return merged | {key: value for key, value in mapping.items() if key != "include"}

    def _find(self, path: Path, name: Any, chain: tuple[Path, ...]) -> Path:
        if not isinstance(name, str) or not name or "\0" in name or Path(name).is_absolute():
            raise TaskFileError(f"{path} includes {str(name)[:200]!r}; an include is a path relative to its file.")
        self._files += 1
        if self._files > MAX_FILES:
            raise TaskFileError(f"{path} includes more than {MAX_FILES} files.")
        try:
            found = (path.parent / name).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise TaskFileError(f"{path} includes {name[:200]!r}, which cannot be read: {error}") from None
        if not found.is_relative_to(self._tree):
            raise TaskFileError(f"{path} includes {name[:200]!r}, which lies outside {self._tree}.")
        if found in chain:
            raise TaskFileError(f"{path} includes {name[:200]!r}, which includes it in turn.")
        return found


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise TaskFileError(f"{path} cannot be read: it is a folder; give the task file in it.")
        if path.stat().st_size > MAX_TASK_FILE_BYTES:
            raise TaskFileError(f"{path} is larger than {MAX_TASK_FILE_BYTES} bytes; data belongs in data files.")
        if not path.is_file():
            raise TaskFileError(f"{path} cannot be read: it is no file.")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, TaskFileError):
            raise
        why = getattr(error, "strerror", None) or error
        raise TaskFileError(f"{path} cannot be read: {why}") from None


def _reason(error: Exception) -> str:
    """The message and place of a YAML error, without the line of the file that it may quote."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:300] or type(error).__name__
    mark = error.problem_mark or error.context_mark
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return " ".join(f"{error.context or ''} {error.problem or ''}".split())[:300] + place
