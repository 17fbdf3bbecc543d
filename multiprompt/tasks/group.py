"""Groups of tasks: the task files that a group or a tag of the harness stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiprompt.errors import NotFoundError, TaskFileError
from multiprompt.tasks.keys import is_group
from multiprompt.tasks.task_file import read_file, read_loosely

MAX_GROUP_FILES = 50_000
# The keys of a group and of an entry of its list; other keys would change the tasks that it names.
_ENTRY = ("task", "group", "group_alias", "task_alias", "aggregate_metric_list", "metadata", "tag")


def group_files(group: str | Path, folder: str | Path = ".") -> tuple[Path, ...]:
    """The task files of a group, in its order: of a group file, or of a group or tag by its name.

    Tasks are looked for by name: at and below the group file's folder, or `folder` where a name is given. Raises
    NotFoundError for a name that no file has, TaskFileError for a group that changes its tasks or is none.
    """
    file = Path(folder, group)
    if not file.is_file():
        return tuple(dict.fromkeys(_Tree(Path(folder)).files(str(group), f"--group {group}")))
    mapping = read_file(file)[1]
    if not is_group(mapping):
        raise TaskFileError(f"{file} is no group of tasks; add it without --group.")
    return tuple(dict.fromkeys(_Tree(file.parent).listed(mapping, str(file), ())))


class _Tree:
    """The task and group files at and below a folder, by name; the tasks of a tag are under the tag's name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tasks: dict[str, list[Path]] = {}
        self._groups: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
        self._tags: dict[str, list[Path]] = {}
        for number, file in enumerate(sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")])):
            if number == MAX_GROUP_FILES:
                raise TaskFileError(f"{folder} holds more than {MAX_GROUP_FILES} YAML files; give a smaller folder.")
            self._add(file, read_loosely(file))

    def files(self, name: str, where: str, above: tuple[str, ...] = ()) -> list[Path]:
        """The files that a name stands for: a task's, or those of a group or a tag."""
        if name in above:
            raise TaskFileError(f"{where} names the group {name!r}, which contains it.")
        if name in self._groups:
            file, mapping = self._groups[name][0]
            if len(self._groups[name]) > 1:
                raise TaskFileError(f"{where} names {name!r}, a group in {file} and in {self._groups[name][1][0]}.")
            return self.listed(mapping, str(file), (*above, name))
        if name in self._tags:
            return self._tags[name]
        found = self._tasks.get(name, [])
        if len(found) > 1:
            raise TaskFileError(f"{where} names {name!r}, which is a task in {found[0]} and in {found[1]}.")
        if not found:
            raise NotFoundError(
                f"{where} names {name!r}, but no file at or below {self._folder.resolve()} has that name; "
                "give the group by its name, from the folder that holds all its files."
            )
        return found

    def listed(self, mapping: Mapping[str, Any], where: str, above: tuple[str, ...]) -> list[Path]:
        """The files of a group's list of tasks."""
        changes = [str(key) for key in mapping if key not in _ENTRY]
        if changes:
            raise TaskFileError(f"{where} changes {', '.join(changes)} of its tasks; write that in their files.")
        entries = mapping.get("task")
        files: list[Path] = []
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, dict):
                files += self.listed(entry, where, above)
            elif isinstance(entry, str) and entry:
                files += self.files(entry, where, above)
            else:
                raise TaskFileError(f"{where} holds {str(entry)[:100]!r}; a group lists the names of its tasks.")
        return files

    def _add(self, file: Path, mapping: Mapping[str, Any]) -> None:
        name = mapping.get("group" if is_group(mapping) else "task")
        if not isinstance(name, str):
            return
        if is_group(mapping):
            self._groups.setdefault(name, []).append((file, mapping))
            return
        self._tasks.setdefault(name, []).append(file)
        tags = mapping.get("tag")
        for tag in tags if isinstance(tags, list) else [tags]:
            if isinstance(tag, str):
                self._tags.setdefault(tag, []).append(file)
