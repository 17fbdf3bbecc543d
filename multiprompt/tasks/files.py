"""The files that a task's rows are read from. Reading and digests both ask here, so they see the same files."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import yaml

from multiprompt.errors import DataError, NotFoundError
from multiprompt.tasks.tables import repeated
from multiprompt.tasks.task import Task
from multiprompt.tasks.urls import without_secrets

BUILDERS = ("json", "csv", "text", "parquet", "arrow")
HUB = "hf://datasets/"
_FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
# A zip archive is refused when it is read, so it must not be left out before.
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")
# The names that `datasets` looks for in a folder, by split.
_SPLIT_WORDS = (
    ("train", "training"),
    ("validation", "valid", "dev", "val"),
    ("test", "testing", "eval", "evaluation"),
)
_ABOUT_A_FOLDER = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_MAX_README_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class DataFile:
    """One file of a split: its path or URL, and the format that it is read in."""

    location: str
    format: str

    @property
    def is_remote(self) -> bool:
        return "://" in self.location


def split_files(task: Task, split: str) -> list[DataFile] | None:
    """The files of a split, in reading order; None for a dataset of the hub.

    Raises NotFoundError for a file that does not exist, DataError for one that cannot be a data file.
    """
    source = task.data
    folder = task.folder / source.path
    if source.data_files is not None and (source.path in BUILDERS or _is_folder(folder)):
        if split not in source.data_files:
            raise DataError(
                f"{task.name} has no data_files for split {split!r}; it has: {', '.join(source.data_files)}."
            )
        builder = source.path if source.path in BUILDERS else None
        places = [task.folder] if builder or "://" in "".join(source.data_files[split]) else [task.folder, folder]
        locations = [found for path in source.data_files[split] for found in _in_one_of(places, path, task.name)]
        _require_different(locations, task.name)
        return [DataFile(location, _format(builder, location, task.name)) for location in locations]
    if source.data_files is None and _is_folder(folder):
        files = _in_folder(task, folder, split)
        _require_different(list(map(str, files)), task.name)
        return [DataFile(str(file), str(format_of(file.name))) for file in files]
    if "://" in source.path.removeprefix(HUB):
        shown = without_secrets(source.path)
        raise DataError(f"{task.name}: dataset_path {shown} is a URL; name its files by dataset_kwargs.data_files.")
    if source.path.startswith(("/", ".", "~")) or source.path.removeprefix(HUB).count("/") > 1:
        raise NotFoundError(f"{task.name}: the folder {folder} does not exist.")
    return None


def task_files(task: Task) -> list[DataFile] | None:
    """The files of all splits of a task, each once, by path; None for a dataset of the hub."""
    used = (task.data.training, task.data.validation, task.data.test)
    splits: Iterable[str] = task.data.data_files or dict.fromkeys(split for split in used if split is not None)
    found: dict[str, DataFile] = {}
    for split in splits:
        files = split_files(task, split)
        if files is None:
            return None
        found |= {file.location: file for file in files}
    return [found[location] for location in sorted(found, key=Path)]


def open_file(file: DataFile) -> io.BufferedIOBase:
    """Open a data file for reading. Raises DataError where it is no regular file or may not be read."""
    if file.is_remote:
        return _open_remote(file.location)
    try:
        # Opening a named pipe would wait for its writer.
        number = os.open(file.location, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"the data file {file.location} does not exist.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file.location} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DataError(f"{file.location} is a folder, a pipe or a device; a data file must be a regular file.")
    return os.fdopen(number, "rb")


def _open_remote(location: str) -> io.BufferedIOBase:
    import fsspec

    try:
        opened: io.BufferedIOBase = fsspec.open(location, "rb").open()
    except Exception as error:  # each file system has errors of its own
        raise DataError(without_secrets(f"{location} cannot be opened: {' '.join(str(error).split())[:200]}")) from None
    return opened


def _in_one_of(folders: Sequence[Path], path: str, task: str) -> list[str]:
    """The files of a path, which is relative to the task file, or to the dataset folder as in `datasets`; not to both.

    Raises NotFoundError where no folder has one, DataError where two have another.
    """
    found: list[list[str]] = []
    missing: list[NotFoundError] = []
    for folder in folders:
        try:
            found.append(_locations(folder, path, task))
        except NotFoundError as error:
            missing.append(error)
    if not found:
        raise missing[0]
    if any(list(map(os.path.realpath, other)) != list(map(os.path.realpath, found[0])) for other in found[1:]):
        raise DataError(
            f"{task}: the data file {path} may be {found[0][0]} or {found[1][0]}; set dataset_path to json, csv, … "
            "and name it relative to the task file."
        )
    return found[0]


def _require_different(locations: Sequence[str], task: str) -> None:
    """Raises DataError where a file would be read twice, by two of its names or by links."""
    seen: dict[str, str] = {}
    for location in locations:
        real = location if "://" in location else os.path.realpath(location)
        if real in seen:
            also = "" if seen[real] == location else f", also as {seen[real]}"
            raise DataError(without_secrets(f"{task}: {location} would be read twice{also}; name each file once."))
        seen[real] = location


def _locations(folder: Path, path: str, task: str) -> list[str]:
    """The file that a path of `data_files` names; only where there is none, the files that it matches as a pattern."""
    if "://" in path:
        return _remote_locations(path)
    whole, pattern = folder / path, Path(path)
    parts = pattern.relative_to(pattern.anchor).parts
    try:
        if whole.exists():
            return [str(whole)]
        matches = sorted({str(match) for match in _matching(folder / pattern.anchor, parts)})
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{task}: the data file {str(whole)[:300]!r} cannot be found: {reason}.") from None
    if not matches:
        raise NotFoundError(f"{task}: the data file {whole} does not exist.")
    return matches


def _matching(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """The files that a pattern matches in a folder, but no folders and, unless it is named so, nothing hidden.

    `**` is any number of folders that are no links, so that a link to a folder above cannot repeat the files.
    """
    if not parts:
        if not folder.is_dir():
            yield folder
        return
    part, rest = parts[0], parts[1:]
    if parts[:2] == ("**", "**"):
        yield from _matching(folder, rest)
    elif part == "**":
        yield from _matching(folder, rest or ("*",))
        below = [entry.path for entry in _entries(folder, "*") if entry.is_dir(follow_symlinks=False)]
        for path in below:
            yield from _matching(Path(path), parts)
    elif re.search(r"[*?\[]", part):
        for entry in _entries(folder, part):
            yield from _matching(Path(entry.path), rest)
    elif os.path.lexists(folder / part):
        yield from _matching(folder / part, rest)


def _entries(folder: Path, pattern: str) -> list[os.DirEntry[str]]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            entry
            for entry in entries
            if fnmatchcase(entry.name, pattern) and (pattern.startswith(".") or not entry.name.startswith("."))
        ]


def _remote_locations(url: str) -> list[str]:
    protocol, mark, place = url.rpartition("::")[2].partition("://")
    if not mark or (protocol in ("", "file", "local") and not place.startswith("/")):
        shown = without_secrets(url)
        raise DataError(f"{shown} is relative to the working directory; give a path to a file, or an absolute URL.")
    if not any(mark in url for mark in "*["):
        return [url]
    from fsspec.core import url_to_fs

    try:
        system, pattern = url_to_fs(url)
        matches = sorted(system.unstrip_protocol(match) for match in system.glob(pattern))
    except Exception as error:  # as above
        raise DataError(without_secrets(f"{url} cannot be listed: {' '.join(str(error).split())[:200]}")) from None
    if not matches:
        raise NotFoundError(f"no file matches {without_secrets(url)}.")
    return matches


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def format_of(name: str) -> str | None:
    """The format that a file's name says, whether compressed or not."""
    path = PurePosixPath(name.lower())
    return _FORMATS.get(PurePosixPath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix)


def _format(builder: str | None, location: str, task: str) -> str:
    """The format of a file: its builder's, or by its name where a folder is the builder."""
    named = format_of(re.split("[?#]", location)[0] if "://" in location else location)
    if builder is None and named is None:
        shown = without_secrets(location)
        raise DataError(f"{task}: the name of {shown} does not say its format; set dataset_path to json, csv, …")
    return "tsv" if builder == "csv" and named == "tsv" else builder or str(named)


def _in_folder(task: Task, folder: Path, split: str) -> list[Path]:
    """The files of a split in a dataset folder, found by the rules of `datasets`: by folder name, then by file name."""
    if task.data.name not in (None, "default") or _has_configurations(folder):
        raise DataError(
            f"{task.name}: {folder} has configurations of its own; name the files by dataset_kwargs.data_files."
        )
    names = sorted(_data_names(folder, task.name))
    found = _of_split(names, split, task.name)
    if not found:
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise NotFoundError(
            f"{task.name}: {folder} has no file for split {split!r}; it has: {shown or 'no data file'}."
        )
    _require_all_shards(found, folder, task.name)
    for name in repeated(map(_uncompressed, found)):
        raise DataError(
            f"{task.name}: {folder} holds {name} more than once, plain or compressed, which may be the same rows; "
            "name the files by dataset_kwargs.data_files."
        )
    for name in found[1:]:
        if format_of(name) != format_of(found[0]):
            raise DataError(
                f"{task.name}: {folder} holds split {split!r} both as {found[0]} and as {name}; "
                "name the files by dataset_kwargs.data_files."
            )
    return [folder / name for name in found]


def _require_all_shards(names: Sequence[str], folder: Path, task: str) -> None:
    """Raises NotFoundError where files `…-00000-of-00003.…` lack one of their number."""
    found: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if match := re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})(?:\..*)?", name):
            found.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (start, count), numbers in found.items():
        missing = next((number for number in range(count) if number not in numbers), None)
        if missing is not None:
            raise NotFoundError(f"{task}: {folder} lacks the file {start}-{missing:05d}-of-{count:05d}.")


def _uncompressed(name: str) -> str:
    """The name without the ending of a compression."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in _COMPRESSED else name


def _data_names(folder: Path, task: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder, onerror=_refuse_unread):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for name in folders:
            inner = Path(place) / name
            if inner.is_symlink() and not inner.resolve().is_relative_to(folder.resolve()):
                raise DataError(
                    f"{task}: {inner} is a link to a folder elsewhere; name the files by dataset_kwargs.data_files."
                )
        saved = _saved_names(Path(place)) if "state.json" in files else None
        for name in files:
            is_saved = saved is None or name in saved or not name.endswith(".arrow")
            if is_saved and format_of(name) and not name.startswith(".") and name not in _ABOUT_A_FOLDER:
                yield (Path(place) / name).relative_to(folder).as_posix()


def _refuse_unread(error: OSError) -> None:
    raise DataError(f"the folder {error.filename} cannot be read: {error.strerror or error}.")


def _saved_names(folder: Path) -> set[str] | None:
    """The files that `save_to_disk` lists in state.json, beside which `datasets` keeps caches; None without a list."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
        return {str(file["filename"]) for file in state["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _of_split(names: Sequence[str], split: str, task: str) -> list[str]:
    groups = {*_SPLIT_WORDS, (split,)} if not any(split in group for group in _SPLIT_WORDS) else {*_SPLIT_WORDS}
    own = next(group for group in groups if split in group)
    for rule in (_is_shard, _is_in_folder_of, _is_named):
        matched = {name: [group for group in groups if rule(name, group)] for name in names}
        for name, several in matched.items():
            if any(rule(name.lower(), group) and group not in several for group in groups):
                raise DataError(
                    f"{task}: {name} names a split in capital letters, which `datasets` does not read as one; "
                    "name the files by dataset_kwargs.data_files."
                )
        if any(matched.values()):
            for name, several in matched.items():
                if own in several and len(several) > 1:
                    raise DataError(
                        f"{task}: {name} may be of the splits {several[0][0]} and {several[1][0]}; "
                        "name the files by dataset_kwargs.data_files."
                    )
            return [name for name in names if own in matched[name]]
    return list(names) if "train" in own else []


def _is_shard(name: str, words: Sequence[str]) -> bool:
    return re.fullmatch(rf"data/(?:{_any(words)})-\d{{5}}-of-\d{{5}}.*\..*", name) is not None


def _is_in_folder_of(name: str, words: Sequence[str]) -> bool:
    parents = PurePosixPath(name).parent.parts
    return any(re.fullmatch(rf"(?:.*[-._ 0-9])?(?:{_any(words)})(?:[-._ 0-9].*)?", part) for part in parents)


def _is_named(name: str, words: Sequence[str]) -> bool:
    base = PurePosixPath(name).name
    return re.fullmatch(rf"(?:.*[-._ 0-9])?(?:{_any(words)})[-._ 0-9].*", base) is not None


def _any(words: Sequence[str]) -> str:
    return "|".join(map(re.escape, words))


def _has_configurations(folder: Path) -> bool:
    """Whether the folder's README.md lists configurations with files of their own, as datasets of the hub do."""
    try:
        with (folder / "README.md").open(encoding="utf-8-sig") as file:
            text = file.read(_MAX_README_CHARACTERS)
        head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        listed = yaml.safe_load(head.group(1)) if head else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    return isinstance(listed, dict) and bool(listed.get("configs"))
