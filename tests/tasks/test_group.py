"""Groups: which task files a group, a nested group or a tag stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiprompt.errors import MultipromptError, NotFoundError, TaskFileError
from multiprompt.tasks.group import group_files
from multiprompt.tasks.task import Task
from tests.tasks.test_task_file import write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Tasks a to d in folders, of which b and c have a tag, one by the file that it includes."""
    write(tmp_path / "tagged_yaml", tag=["pair"])
    write(tmp_path / "a.yaml", task="a")
    write(tmp_path / "x" / "b.yaml", task="b", tag="pair")
    write(tmp_path / "x" / "c.yml", task="c", include="../tagged_yaml")
    (tmp_path / "x" / "d.yaml").write_text("task: d\ndoc_to_text: !function utils.text\ntag: [coded]\n")
    write(tmp_path / "x" / "_inner.yaml", group="inner", task=["c", "d"])
    return tmp_path


def names(group: Any, folder: Path) -> str:
    return " ".join(file.name[0] for file in group_files(group, folder))


def grouped(tree: Path, *entries: Any) -> Path:
    return write(tree / "_group.yaml", group="mine", task=list(entries))


def test_a_group_is_its_tasks_nested_groups_and_tags_each_once_in_order(tree: Path) -> None:
    assert names(grouped(tree, "b", "inner", "a", "pair"), tree) == "b c d a"
    assert names("mine", tree) == "b c d a"
    assert names("inner", tree) == "c d"


def test_a_tag_or_a_task_has_files_too(tree: Path) -> None:
    assert (names("pair", tree), names("coded", tree), names("a", tree)) == ("b c", "d", "a")


def test_a_group_may_hold_groups_that_are_written_out(tree: Path) -> None:
    inner = {"group": "written", "task": ["a", {"task": "b"}], "aggregate_metric_list": []}
    assert names(grouped(tree, inner, "c"), tree) == "a b c"


@pytest.mark.parametrize(
    ("entry", "error", "says"),
    [
        ("nothing", NotFoundError, "names 'nothing', but no file at or below"),
        ({"task": "a", "num_fewshot": 5}, TaskFileError, "changes num_fewshot of its tasks"),
        ("mine", TaskFileError, "names the group 'mine', which contains it"),
        (3, TaskFileError, "holds '3'; a group lists the names of its tasks"),
        ({"group": "written"}, TaskFileError, "holds 'None'"),
    ],
)
def test_an_entry_that_is_no_task_is_refused(tree: Path, entry: Any, error: type[Exception], says: str) -> None:
    group = grouped(tree, "a", entry)
    for asked in (group, "mine"):
        with pytest.raises(error, match=says):
            group_files(asked, tree)


def test_a_name_of_two_files_and_a_file_that_is_no_group_are_refused(tree: Path) -> None:
    write(tree / "y" / "a.yaml", task="a")
    with pytest.raises(TaskFileError, match="names 'a', which is a task in .*a.yaml and in .*a.yaml"):
        group_files(grouped(tree, "a"), tree)
    with pytest.raises(TaskFileError, match="is no group of tasks; add it without --group"):
        group_files("a.yaml", tree)


def test_a_group_is_refused_as_a_task_with_the_way_to_add_it(tree: Path) -> None:
    with pytest.raises(MultipromptError, match=r"is a group of tasks; add its tasks with `multiprompt add --group "):
        Task.from_file(grouped(tree, "a"))


def test_a_group_that_changes_its_tasks_is_refused_whichever_way_it_is_named(tree: Path) -> None:
    group = write(tree / "_group.yaml", group="mine", task=["a", "b"], target_delimiter="", tag="all")
    outer = write(tree / "_outer.yaml", group="outer", task=["mine"])
    for asked in (group, "mine", outer, "outer"):
        with pytest.raises(TaskFileError, match="_group.yaml changes target_delimiter of its tasks"):
            group_files(asked, tree)


def test_a_group_of_two_files_is_refused(tree: Path) -> None:
    write(tree / "y" / "_inner.yaml", group="inner", task=["a"])
    with pytest.raises(TaskFileError, match="names 'inner', a group in .*x/_inner.yaml and in .*y/_inner.yaml"):
        group_files("inner", tree)
