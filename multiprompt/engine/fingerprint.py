"""Fingerprints of a base model: of the tensors in its files, of its tokenizer as loaded, and of its settings."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Identity = tuple[str, str, str, str]

# Names, the writer of the file, and settings that other parts of the record hold.
_CONFIG_WITHOUT_EFFECT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
_GENERATION_SETTINGS = ("bos_token_id", "eos_token_id", "pad_token_id", "top_k", "top_p", "repetition_penalty")
_ENCODING_SETTINGS = ("add_bos_token", "add_eos_token", "clean_up_tokenization_spaces", "split_special_tokens")
_PROBE = "The 2 cats' naïve 3.14 , don't  stop\n\tNOW 漢字"
# Arguments of a slow tokenizer that change no token.
_TOKENIZER_WITHOUT_EFFECT = (
    "name_or_path", "tokenizer_file", "vocab_file", "is_local", "local_files_only", "backend", "model_max_length",
    "chat_template", "processor_class", "added_tokens_decoder",
)  # fmt: skip
_FORMER_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json")
_FORMER_WITHOUT_EFFECT = (
    "name_or_path", "tokenizer_file", "is_local", "local_files_only", "backend", "model_max_length", "chat_template",
    "processor_class",
)  # fmt: skip


def weights_fingerprint(files: Iterable[Path]) -> str:
    """A digest of every tensor's name, dtype, shape and bytes. It does not depend on the files that hold them."""
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


def config_fingerprint(settings: Mapping[str, Any], generation: Mapping[str, Any]) -> str:
    """A digest of the settings that can move an output, with those of generation_config.json that are applied."""
    ends = {key: generation[key] for key in _GENERATION_SETTINGS if generation.get(key) is not None}
    return _digest(_without(settings, _CONFIG_WITHOUT_EFFECT) | ({"generation_config.json": ends} if ends else {}))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of the loaded tokenizer's encoding and decoding. It does not depend on its files."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    settings = {name: getattr(tokenizer, name, None) for name in _ENCODING_SETTINGS}
    parts = _backend(tokenizer) if tokenizer.is_fast else _vocabulary(tokenizer)
    return _digest({"special": special, "settings": settings, "probe": _probed(tokenizer), **parts})


def former_identity(folder: Path, dtype: str) -> Identity:
    """The identity that releases up to schema 0006 gave a folder. They read tokenizer files of fixed names."""
    names = [name for name in _FORMER_TOKENIZER_FILES if (folder / name).is_file()]
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    tokenizer = files | _without(_json(folder / "tokenizer_config.json"), _FORMER_WITHOUT_EFFECT)
    config = _without(_json(folder / "config.json"), _CONFIG_WITHOUT_EFFECT)
    return weights_fingerprint(sorted(folder.glob("*.safetensors"))), _digest(tokenizer), _digest(config), dtype


def _backend(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The fast tokenizer's own description, without the lengths for cutting and padding, which each call sets."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = _lasting(described.pop("model"))
    model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()]
    return {"model": model, **_lasting(_without(described, ("truncation", "padding", "version")))}


def _lasting(described: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without nulls and falses; a newer release of tokenizers writes these for its new settings."""
    return {key: value for key, value in described.items() if value is not None and value is not False}


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The parts of a slow tokenizer: its class, arguments, vocabulary and files."""
    folder = Path(str(tokenizer.name_or_path))
    names = sorted(set(tokenizer.vocab_files_names.values()))
    made_with = _without(tokenizer.init_kwargs, _TOKENIZER_WITHOUT_EFFECT)
    return {
        "class": type(tokenizer).__name__,
        "made with": {key: str(value) for key, value in made_with.items()},
        "vocabulary": tokenizer.get_vocab(),
        "added": {str(number): repr(token) for number, token in tokenizer.added_tokens_decoder.items()},
        "files": {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names if (folder / n).is_file()},
    }


def _probed(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """The tokens of a text and their decoding; some classes change either in Python."""
    try:
        tokens = tokenizer.encode(_PROBE)
        return [tokens, tokenizer.decode(tokens), tokenizer.decode(tokens, skip_special_tokens=True)]
    except Exception as error:  # a vocabulary without an unknown token
        return [type(error).__name__]


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _without(settings: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in names}


def _digest(value: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
