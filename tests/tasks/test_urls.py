"""Secrets in URLs: refused in a new task file, hidden in every message."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiprompt.errors import DataError, TaskFileError
from multiprompt.gate.data_faults import data_faults
from multiprompt.tasks.data import Split
from multiprompt.tasks.split import TaskData, load_test_split
from multiprompt.tasks.task import Task
from multiprompt.tasks.task_file import write
from multiprompt.tasks.urls import has_secret, without_secrets
from tests.conftest import task_mapping

SECRET = [
    "https://me:hunter2@host.org/a.jsonl",
    "https://hunter2@host.org/a.jsonl",
    "ftp://me:hunter2@host.org/a*.jsonl",
    "zip://a.jsonl::https://me:hunter2@host.org/a.zip",
    "https://host.org/a.jsonl?token=hunter2",
    "https://host.org/a.jsonl?v=1&X-Amz-Signature=hunter2&x=1",
    "https://host.org/a.jsonl?sv=1&sig=hunter2",
    "https://host.org/a.jsonl?api_key=hunter2",
]


@pytest.mark.parametrize("url", SECRET)
def test_a_task_file_with_a_secret_in_a_url_is_refused_without_showing_it(url: str) -> None:
    for keys in ({"dataset_path": url, "dataset_kwargs": {}}, {"dataset_kwargs": {"data_files": {"test": ["a", url]}}}):
        with pytest.raises(TaskFileError, match="holds a password or token") as caught:
            Task.from_mapping(task_mapping() | keys)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", [*SECRET, "file://a?token=hunter2", "nothing://hunter2:hunter2@host/a?b=hunter2"])
def test_no_message_about_the_data_of_an_older_catalog_shows_a_secret(url: str) -> None:
    url = url.replace("host.org", "localhost:9")
    for builder, files in (("json", [url]), ("json", [url, url]), (".", [url.replace(".jsonl", "")]), (url, None)):
        keys = {"dataset_path": builder, "dataset_kwargs": {} if files is None else {"data_files": {"test": files}}}
        task = Task.from_source(write(task_mapping() | keys), Path("/"), "colour")
        with pytest.raises(DataError) as caught:
            load_test_split(task)
        assert "hunter2" not in str(caught.value)
    files_of = {"dataset_kwargs": {"data_files": dict.fromkeys(("train", "validation", "test"), url)}}
    task = Task.from_source(write(task_mapping() | files_of), Path("/"), "colour")
    rows = Split("test", ({"text": "a", "label": "red"},))
    assert "hunter2" not in "".join(data_faults(task, TaskData(rows, rows, rows)))


@pytest.mark.parametrize(
    "url",
    [
        "https://host.org/a@b:c/d.jsonl?download=true&v=2",
        "abfs://container@account.dfs.core.windows.net/a.jsonl",
        "github://owner:repository@main/a.jsonl",
        "s3://bucket/a.jsonl",
        "data/keys?token=1.jsonl",
    ],
)
def test_a_url_without_a_secret_is_accepted(url: str) -> None:
    assert not has_secret(url) or "://" not in url
    Task.from_mapping(task_mapping() | {"dataset_kwargs": {"data_files": {"test": url}}})
    assert without_secrets(f"it is {url}").startswith(f"it is {url.split('?')[0]}")
