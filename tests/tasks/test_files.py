"""Which files a task's rows are read from, for paths, patterns and dataset folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest

from multiprompt.errors import DataError, TaskFileError
from multiprompt.tasks import reading
from multiprompt.tasks.data import Split
from multiprompt.tasks.source import source_digest
from multiprompt.tasks.split import load_test_split
from multiprompt.tasks.task import Task
from tests.conftest import task_mapping


def write(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "label": "red"}) + "\n" for text in texts))


def read(folder: Path, paths: Any = None, *, path: str = "json", split: str = "test", **keys: Any) -> Split:
    """The rows of a split; what is read has the digest that is taken of it."""
    kwargs = {} if paths is None else {"data_files": {split: paths}}
    task = Task.from_mapping(
        task_mapping()
        | {"dataset_path": path, "dataset_kwargs": kwargs, "training_split": None, "validation_split": None}
        | {"test_split": split}
        | keys,
        folder,
    )
    found = load_test_split(task)
    assert found.source == source_digest(task, split)
    return found


def texts(split: Split) -> list[str]:
    return [row["text"] for row in split.rows]


@pytest.mark.parametrize("folder", ["run[1]", "a*b", "what?", "sp ace", "{x,y}"])
def test_a_folder_whose_name_looks_like_a_pattern_is_read(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "run1" / "test.jsonl", "other")
    write(tmp_path / folder / "test.jsonl", "mine")
    assert texts(read(tmp_path / folder, "test.jsonl")) == ["mine"]
    assert texts(read(tmp_path, f"{folder}/test.jsonl")) == ["mine"]


def test_a_pattern_in_a_folder_whose_name_looks_like_one_finds_that_folder_s_files(tmp_path: Path) -> None:
    write(tmp_path / "run1" / "test.jsonl", "other")
    write(tmp_path / "run[1]" / "b.jsonl", "second")
    write(tmp_path / "run[1]" / "a.jsonl", "first")
    assert texts(read(tmp_path / "run[1]", "*.jsonl")) == ["first", "second"]


def test_a_file_that_exists_is_not_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "[ab].jsonl", "itself")
    write(tmp_path / "a.jsonl", "matched")
    assert texts(read(tmp_path, "[ab].jsonl")) == ["itself"]


@pytest.mark.parametrize("path", ["json", "data"])
def test_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    for place in ("task", "elsewhere"):
        write(tmp_path / place / "data" / "test.jsonl", place)
    found = []
    for place in ("task", "elsewhere", "."):
        monkeypatch.chdir(tmp_path / place)
        found.append(read(tmp_path / "task", "data/test.jsonl" if path == "json" else None, path=path))
    assert [texts(split) for split in found] == [["task"]] * 3


def test_a_builder_without_files_reads_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "elsewhere" / "test.jsonl", "stray")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path, message in (("json", "needs dataset_kwargs.data_files"), ("imagefolder", "is not supported")):
        with pytest.raises(DataError, match=message):
            read(tmp_path, path=path)


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["train.jsonl", "test.jsonl"], "test", ["test.jsonl"]),
        (["dev.jsonl", "test.jsonl"], "validation", ["dev.jsonl"]),
        (["my-val.jsonl", "test.jsonl"], "dev", ["my-val.jsonl"]),
        (["data/test-00001-of-00002.jsonl", "data/test-00000-of-00002.jsonl", "test.jsonl"], "test",
         ["data/test-00000-of-00002.jsonl", "data/test-00001-of-00002.jsonl"]),
        (["test/b.jsonl", "test/a.jsonl", "train/a.jsonl"], "test", ["test/a.jsonl", "test/b.jsonl"]),
        (["data/contest.jsonl", "data/test.jsonl"], "test", ["data/test.jsonl"]),
        (["b.jsonl", "a.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
        (["test.jsonl", ".test.jsonl", "__pycache__/test.jsonl"], "test", ["test.jsonl"]),
        (["hard.jsonl", "test.jsonl"], "hard", ["hard.jsonl"]),
    ],
)  # fmt: skip
def test_a_dataset_folder_s_files_are_found_by_split(
    tmp_path: Path, files: list[str], split: str, expected: list[str]
) -> None:
    for name in files:
        write(tmp_path / "data" / name, name)
    (tmp_path / "data" / "README.md").write_text("about train and test")
    (tmp_path / "data" / "dataset_info.json").write_text("{}")
    assert texts(read(tmp_path, path="data", split=split)) == expected


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train.jsonl"], "has no file for split 'test'; it has: train.jsonl"),
        ([], "has no file for split 'test'; it has: no data file"),
        (["test.jsonl", "test.csv"], "holds split 'test' both as test.csv and as test.jsonl"),
        (["train_test.jsonl"], "train_test.jsonl may be of the splits"),
    ],
)
def test_a_dataset_folder_that_leaves_a_doubt_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    (tmp_path / "data").mkdir()
    for name in files:
        write(tmp_path / "data" / name, name)
    with pytest.raises(DataError, match=message):
        read(tmp_path, path="data")


def test_a_dataset_folder_with_configurations_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "data" / "test.jsonl", "one")
    (tmp_path / "data" / "README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: b.jsonl\n---\n")
    with pytest.raises(DataError, match="has configurations of its own"):
        read(tmp_path, path="data")


def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    for path in ("./data", str(tmp_path / "data"), "../a/b"):
        with pytest.raises(DataError, match="the folder .* does not exist"):
            read(tmp_path, path=path)


def test_a_name_that_is_no_text_is_read_and_digested(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / os.fsdecode(b"test-\xff.jsonl"), "one")
    assert texts(read(tmp_path, path="data")) == ["one"]


def test_a_dataset_of_the_hub_is_no_folder_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "elsewhere" / "owner" / "name" / "test.jsonl", "stray")
    monkeypatch.chdir(tmp_path / "elsewhere")
    asked = []

    def load_dataset(path: str, *_: Any, **__: Any) -> Any:
        asked.append(path)
        return datasets.Dataset.from_list(
            [{"text": b"caf\xc3\xa9", "number": [0.1]}],
            datasets.Features(text=datasets.Value("binary"), number=datasets.List(datasets.Value("float32"))),
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("multiprompt.tasks.source.hub_revision", lambda *_: None)
    for path in ("owner/name", "hf://datasets/owner/name"):
        split = read(tmp_path, path=path)
        assert split.rows[0]["number"] == [0.1]
        assert (texts(split), split.notes) == (["café"], ("column 'text': binary is read as text",))
    assert asked == ["hf://datasets/owner/name"] * 2


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_pipe, "a pipe or a device"),
        (Path.mkdir, "is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
        (lambda path: path.symlink_to(path.name), "cannot be opened: Too many levels"),
    ],
)
def test_only_regular_files_are_opened(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "test.jsonl")
    with pytest.raises(DataError, match=message):
        read(tmp_path, "test.jsonl")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "*\0"])
def test_a_path_that_no_file_can_have_is_a_data_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError, match="does not exist|cannot be found"):
        read(tmp_path, path)


def test_a_file_at_an_url_is_read_as_one_on_disk_is_and_each_time_anew(tmp_path: Path) -> None:
    file = tmp_path / "test.jsonl"
    task = Task.from_mapping(task_mapping() | {"dataset_kwargs": {"data_files": {"test": file.as_uri()}}}, tmp_path)
    for text in ("007", "008"):
        write(file, text)
        os.utime(file, (1e9, 1e9))
        assert texts(load_test_split(task)) == [text]
    file.unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        load_test_split(task)


def test_a_pattern_reads_each_file_once_though_links_lead_back_to_it(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", "first")
    write(tmp_path / "data" / "inner" / "b.jsonl", "second")
    for name in ("loop", "loop2", "inner/loop", "inner/self"):
        (tmp_path / "data" / name).symlink_to("self" if name.endswith("self") else tmp_path / "data")
    for pattern in ("data/**/*.jsonl", "**/**/*.jsonl", "data/**/[ab].jsonl", f"{tmp_path}/data/**/?.jsonl"):
        assert texts(read(tmp_path, pattern)) == ["first", "second"]
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path, "data/**/nothing.jsonl")


@pytest.mark.parametrize("make", [_pipe, lambda path: path.symlink_to("gone"), lambda path: path.symlink_to(path.name)])
def test_a_match_of_a_pattern_that_cannot_be_read_is_not_left_out(tmp_path: Path, make: Any) -> None:
    write(tmp_path / "a.jsonl", "first")
    make(tmp_path / "b.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl"):
        read(tmp_path, "*.jsonl")


def test_patterns_match_as_a_shell_s_do(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("x/a.jsonl", "x/y/b.jsonl", "x/.hidden.jsonl", ".x/c.jsonl", "z.jsonl", "x/folder.jsonl/d.jsonl"):
        write(folder / name, name)
    found = ["x/a.jsonl", "x/folder.jsonl/d.jsonl", "x/y/b.jsonl"]
    assert texts(read(folder, "x/**")) == texts(read(folder, "x/**/*.jsonl")) == found
    assert texts(read(folder, "*/*.jsonl")) == texts(read(folder, "../*/x/*.jsonl")) == ["x/a.jsonl"]
    assert texts(read(folder, "x/.*.jsonl")) == ["x/.hidden.jsonl"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="has no file that opens but cannot be read")
def test_a_file_that_opens_but_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="/proc/self/mem.* cannot be read"):
        read(tmp_path, "/proc/self/mem")
    task = Task.from_mapping(task_mapping() | {"dataset_kwargs": {"data_files": {"test": "/proc/self/mem"}}}, tmp_path)
    with pytest.raises(DataError, match="/proc/self/mem cannot be read"):
        source_digest(task, "test")


@pytest.mark.parametrize("url", ["file://test.jsonl", "local://test.jsonl", "://test.jsonl", "zip://a.jsonl::test.zip"])
def test_an_url_that_is_relative_to_the_working_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    write(tmp_path / "elsewhere" / "test.jsonl", "stray")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="relative to the working directory"):
        read(tmp_path, url)


def test_a_folder_that_lacks_a_shard_or_holds_a_file_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "shards" / "data" / "test-00001-of-00002.jsonl", "second")
    with pytest.raises(DataError, match="lacks the file data/test-00000-of-00002"):
        read(tmp_path, path="shards")
    for names in (("test.jsonl", "test.jsonl.gz"), ("test.jsonl.gz", "test.jsonl.zst")):
        folder = tmp_path / names[1]
        folder.mkdir()
        for name in names:
            (folder / name).write_text('{"text": "same"}')
        with pytest.raises(DataError, match="holds test.jsonl more than once, plain or compressed"):
            read(tmp_path, path=folder.name)


def test_configurations_are_seen_behind_a_byte_order_mark(tmp_path: Path) -> None:
    write(tmp_path / "data" / "test.jsonl", "other")
    (tmp_path / "data" / "README.md").write_text("\ufeff---\nconfigs:\n- config_name: x\n---\n", encoding="utf-8")
    with pytest.raises(DataError, match="has configurations of its own"):
        read(tmp_path, path="data")


@pytest.mark.parametrize("key", ["training_split", "validation_split", "test_split"])
def test_a_split_without_a_name_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(TaskFileError, match=f"{key} is empty"):
        Task.from_mapping(task_mapping() | {key: ""}, tmp_path)


def test_files_of_a_dataset_folder_are_named_relative_to_it_or_to_the_task_file_but_not_to_both(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", "inner")
    assert texts(read(tmp_path, "a.jsonl", path="data")) == ["inner"]
    assert (
        texts(read(tmp_path, "data/a.jsonl", path="data")) == texts(read(tmp_path, "*.jsonl", path="data")) == ["inner"]
    )
    assert texts(read(tmp_path / "data", "a.jsonl", path=".")) == ["inner"]
    write(tmp_path / "a.jsonl", "outer")
    for paths in ("a.jsonl", "*.jsonl"):
        with pytest.raises(DataError, match=r"may be .*/a.jsonl or .*/data/a.jsonl"):
            read(tmp_path, paths, path="data")
    with pytest.raises(DataError, match="b.jsonl does not exist"):
        read(tmp_path, "b.jsonl", path="data")


def test_a_file_that_would_be_read_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "first")
    (tmp_path / "latest.jsonl").symlink_to("a.jsonl")
    for paths in (["a.jsonl", "a.jsonl"], ["a.jsonl", "./a.jsonl"], ["a.jsonl", "*.jsonl"], "*.jsonl", "[al]*.jsonl"):
        with pytest.raises(DataError, match="would be read twice"):
            read(tmp_path, paths)
    with pytest.raises(DataError, match="latest.jsonl would be read twice, also as .*a.jsonl"):
        read(tmp_path, path=".", split="train")
    assert texts(read(tmp_path, "latest.jsonl")) == ["first"]


def test_nothing_of_a_dataset_folder_is_left_out_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("linked", "zipped", "closed"):
        write(tmp_path / name / "train" / "a.jsonl", "first")
    write(tmp_path / "more" / "b.jsonl", "second")
    (tmp_path / "linked" / "train" / "more").symlink_to(tmp_path / "more")
    with pytest.raises(DataError, match="train/more is a link to a folder"):
        read(tmp_path, path="linked", split="train")
    (tmp_path / "linked" / "train" / "more").unlink()
    (tmp_path / "linked" / "train" / "again").symlink_to(tmp_path / "linked")
    assert texts(read(tmp_path, path="linked", split="train")) == ["first"]
    (tmp_path / "zipped" / "train" / "b.jsonl.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="b.jsonl.zip: it is a zip archive"):
        read(tmp_path, path="zipped", split="train")
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("closed/train"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match="closed/train cannot be read: Permission denied"):
        read(tmp_path, path="closed", split="train")


def test_a_saved_dataset_is_read_without_the_caches_beside_it(tmp_path: Path) -> None:
    for split in ("train", "test"):
        made = datasets.Dataset.from_list([{"text": f"{split} {n}", "label": "red"} for n in range(3)])
        made.save_to_disk(tmp_path / "saved" / split)
    kept = datasets.load_from_disk(str(tmp_path / "saved" / "test"))
    kept.map(lambda row: {"text": row["text"] + " mapped"}, cache_file_name=str(tmp_path / "saved/test/cache-1.arrow"))
    assert texts(read(tmp_path, path="saved")) == ["test 0", "test 1", "test 2"]


def test_a_format_is_read_off_an_url_s_path(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\none, two\tred\n")
    (tmp_path / "a.tsv?v=1").write_text("text\tlabel\nthree\tred\n")
    keys = task_mapping() | {"dataset_path": "csv"}
    for name, expected in (("a.tsv", "one, two"), ("a.tsv?v=1", "three")):
        files = {"data_files": {"test": f"file://{tmp_path}/{name}"}}
        assert texts(load_test_split(Task.from_mapping(keys | {"dataset_kwargs": files}))) == [expected]


def test_a_pointer_of_git_lfs_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 12\n")
    with pytest.raises(DataError, match="a pointer of Git LFS"):
        read(tmp_path, "a.txt", path="text")


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.jsonl"
    write(file, *map(str, range(9)))
    read_rows = reading.read_rows

    def appended_meanwhile(*arguments: Any) -> Any:
        yield from read_rows(*arguments)
        with file.open("a") as more:
            more.write("\n")

    monkeypatch.setattr(reading, "read_rows", appended_meanwhile)
    with pytest.raises(DataError, match="a.jsonl: it changed while it was read"):
        read(tmp_path, "a.jsonl")


@pytest.mark.parametrize("other", ["label,Text\n", "label\n", "label,text,more\n"])
def test_tables_of_one_split_have_the_same_columns(tmp_path: Path, other: str) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,red\n")
    (tmp_path / "b.csv").write_text("label,text\nred,two\n")
    (tmp_path / "c.csv").write_text("other\n")
    split = read(tmp_path, "*.csv", path="csv")
    assert (texts(split), split.notes) == (["one", "two"], (f"{tmp_path}/c.csv holds no rows",))
    (tmp_path / "c.csv").write_text(other + ",".join("x" for _ in other.split(",")) + "\n")
    with pytest.raises(DataError, match="c.csv has the columns (Text|none|more), where .*a.csv has (text|none)"):
        read(tmp_path, "*.csv", path="csv")


def test_a_split_in_capital_letters_is_refused(tmp_path: Path) -> None:
    for names in (
        ("Train.jsonl", "Test.jsonl"),
        ("train.jsonl", "TEST.jsonl", "Train-2.jsonl"),
        ("Train/a.jsonl", "b.jsonl"),
    ):
        folder = tmp_path / names[-1]
        for name in names:
            write(folder / name, name)
        with pytest.raises(DataError, match="names a split in capital letters"):
            read(folder, path=".", split="train")
