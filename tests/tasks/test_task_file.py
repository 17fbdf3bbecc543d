"""Task files that include others: what is merged, what is refused, and what of it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from multiprompt.errors import TaskFileError
from multiprompt.tasks.file_change import file_difference
from multiprompt.tasks.task import Task
from multiprompt.tasks.task_file import MAX_FILES, parse, read_file
from tests.conftest import task_mapping


def write(path: Path, **keys: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(keys, sort_keys=False))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(TaskFileError) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_included_keys_are_merged_and_a_file_s_own_keys_win(tmp_path: Path) -> None:
    write(tmp_path / "_root_yaml", description="root", doc_to_text="root", tag="root")
    write(tmp_path / "set" / "_base.yaml", include="../_root_yaml", doc_to_text="base", output_type="base")
    write(tmp_path / "set" / "_other.yaml", output_type="other")
    leaf = write(tmp_path / "set" / "leaf.yaml", include=["_base.yaml", "_other.yaml"], task="leaf", tag=None)
    text, mapping = read_file(leaf)
    assert mapping == {
        "description": "root",
        "doc_to_text": "base",
        "tag": None,
        "output_type": "other",
        "task": "leaf",
    }
    assert parse(text, "stored") == mapping


def test_a_file_may_be_included_twice_but_not_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "shared.yaml", tag="x")
    write(tmp_path / "one.yaml", include="shared.yaml", description="one")
    assert read_file(write(tmp_path / "leaf.yaml", include=["one.yaml", "shared.yaml"]))[1]["description"] == "one"
    write(tmp_path / "b.yaml", include="a.yaml")
    assert "which includes it in turn" in refusal(write(tmp_path / "a.yaml", include="b.yaml"))
    assert "which includes it in turn" in refusal(write(tmp_path / "self.yaml", include="./self.yaml"))


@pytest.mark.parametrize(
    ("include", "says"),
    [
        ("/etc/passwd", "an include is a path relative to its file"),
        ("../../../secret.yaml", "lies outside"),
        ("link.yaml", "lies outside"),
        ("linked/secret.yaml", "lies outside"),
        ("gone.yaml", "gone.yaml cannot be read"),
        (".", "cannot be read"),
        ("a\0b", "an include is a path relative to its file"),
        ("a" * 5000, "cannot be read"),
        ({"a": 1}, "an include is a path relative to its file"),
        (["fine.yaml", 3], "includes '3'"),
        ("", "an include is a path relative to its file"),
        ("rows.txt", "holds a str, but a task file is a mapping of keys"),
    ],
)
def test_an_include_that_is_no_task_file_of_the_tree_is_refused(tmp_path: Path, include: Any, says: str) -> None:
    write(tmp_path / "secret.yaml", description="secret")
    folder = tmp_path / "work" / "set"
    leaf = write(folder / "leaf.yaml", include=include, task="leaf")
    write(folder / "fine.yaml", tag="fine")
    (folder / "rows.txt").write_text("private rows")
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (folder / "linked").symlink_to(tmp_path)
    message = refusal(leaf)
    assert says in message
    assert "private" not in message


def test_a_linked_task_file_includes_from_the_folder_of_the_file_itself(tmp_path: Path) -> None:
    write(tmp_path / "real" / "base.yaml", tag="x")
    write(tmp_path / "real" / "leaf.yaml", include="base.yaml")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "real" / "leaf.yaml")
    assert read_file(tmp_path / "link.yaml")[1] == {"tag": "x"}


def test_a_loop_of_links_and_too_many_includes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "cannot be read" in refusal(write(tmp_path / "leaf.yaml", include="loop.yaml"))
    for number in range(MAX_FILES + 1):
        write(tmp_path / f"{number}.yaml", include=f"{number + 1}.yaml")
    assert f"includes more than {MAX_FILES} files" in refusal(tmp_path / "0.yaml")


def test_a_stored_task_stands_alone_and_an_edit_of_an_included_file_is_seen(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", **task_mapping())
    leaf = Task.from_file(write(tmp_path / "leaf.yaml", include="base.yaml", task="leaf"))
    assert Task.from_source(leaf.source, tmp_path, "stored").mapping == task_mapping() | {"task": "leaf"}
    assert file_difference(leaf.source, tmp_path / "leaf.yaml") == ()
    write(base, **task_mapping() | {"description": "New\n"})
    found = file_difference(leaf.source, tmp_path / "leaf.yaml")
    assert found == ('-description: "Which colour?\\n"', '+description: "New\\n"')
    base.unlink()
    assert "base.yaml cannot be read" in " ".join(file_difference(leaf.source, tmp_path / "leaf.yaml") or ())


def test_a_mapping_cannot_include() -> None:
    with pytest.raises(TaskFileError, match="uses include, which only a file can do"):
        Task.from_mapping(task_mapping() | {"include": "base.yaml"})
