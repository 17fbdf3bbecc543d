"""Loading a base model: its files, the fingerprints that identify it, and the way its rows will go."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from multiprompt.engine.base import DTYPES, BaseModel
from multiprompt.engine.hub import Source
from multiprompt.engine.selfcheck import checked
from multiprompt.errors import BaseModelError
from multiprompt.records import BaseModelRecord

# Names, what wrote the file, and what other parts of the record hold.
_CONFIG_WITHOUT_EFFECT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
_TOKENIZER_CONFIG_WITHOUT_EFFECT = (
    "name_or_path", "tokenizer_file", "is_local", "local_files_only", "backend", "model_max_length", "chat_template",
    "processor_class",
)  # fmt: skip
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json")


def load_base_model(source: Source, dtype: str = "auto") -> BaseModel:
    """Load a base model from its folder. `dtype` is auto, float32, bfloat16 or float16.

    Only safetensors are read and no code of the folder is run. A self-check decides how its rows go.
    Raises BaseModelError naming the folder.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise BaseModelError(f"dtype is {dtype!r}; it must be one of: auto, {', '.join(DTYPES)}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    resolved = _fastest_dtype(device) if dtype == "auto" else dtype
    weights = sorted(source.folder.glob("*.safetensors"))
    if not weights:
        raise BaseModelError(
            f"{source.folder} holds no *.safetensors weights; convert the model, pickles are not read."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source.folder,
            dtype=DTYPES[resolved],
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BaseModelError(f"{source.folder} cannot be loaded as a causal language model: {error}") from error
    _detach_from_files(model.requires_grad_(False).eval().to(device))
    record = BaseModelRecord(
        name=source.name,
        source=source.reference,
        revision=source.revision,
        architecture=type(model).__name__,
        dtype=resolved,
        weights=_weights_fingerprint(weights),
        tokenizer=_tokenizer_fingerprint(source.folder),
        config=_fingerprint(_settings(source.folder / "config.json", _CONFIG_WITHOUT_EFFECT)),
    )
    return checked(BaseModel(model, tokenizer, record, source.folder))


def _detach_from_files(model: nn.Module) -> None:
    """Copy every tensor out of the mapped files, so that a file that is written over changes no loaded model."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _fastest_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    cpu: Any = torch.cpu
    native = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def _weights_fingerprint(files: Sequence[Path]) -> str:
    """A digest of every tensor's name, dtype, shape and bytes, however they are spread over files."""
    tensors: dict[str, bytes] = {}
    for file in files:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = 8 + int.from_bytes(data[:8], "little")
            for name, entry in json.loads(data[8:start]).items():
                if name != "__metadata__":
                    begin, end = (start + offset for offset in entry["data_offsets"])
                    with memoryview(data)[begin:end] as content:
                        tensor = hashlib.sha256(f"{name} {entry['dtype']} {entry['shape']}\n".encode())
                        tensor.update(content)
                    tensors[name] = tensor.digest()
    return "sha256:" + hashlib.sha256(b"".join(tensors[name] for name in sorted(tensors))).hexdigest()


def _tokenizer_fingerprint(folder: Path) -> str:
    files = {name: (folder / name).read_bytes() for name in _TOKENIZER_FILES if (folder / name).is_file()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return _fingerprint(digests | _settings(folder / "tokenizer_config.json", _TOKENIZER_CONFIG_WITHOUT_EFFECT))


def _settings(path: Path, without: Collection[str]) -> dict[str, Any]:
    """A JSON file's settings less those that change no output."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {key: value for key, value in settings.items() if key not in without}


def _fingerprint(value: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
