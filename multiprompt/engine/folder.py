"""The folder of a base model: its files are checked before a model is built from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from multiprompt.errors import BaseModelError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_JSON_BYTES = 20_000_000
# Counts of modules or of labels; Python makes an object for each.
_COUNT = re.compile(r"(layers?|heads?|groups?|blocks?|experts|labels|depths?)$")
_SIZE = re.compile(r"(layers?|heads?|experts|size|dim|embeddings|positions|length)$")
_MAX_COUNT = 1000
# Weights of another dtype are quantised, and mean nothing without their scales.
FLOATS = ("F16", "BF16", "F32", "F64")
# The implementations of transformers that a config may choose; any other may fetch code from the hub.
_IMPLEMENTATIONS = {
    "attn_implementation": ("eager", "sdpa"),
    "_attn_implementation": ("eager", "sdpa"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
    "_experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
# Settings that name other files than those that are fingerprinted.
_OTHER_FILES = {"transformers_weights": f"name them {WEIGHTS}", "configuration_files": "write one config.json"}
_TOKEN_SETTINGS = ("bos_token_id", "eos_token_id", "pad_token_id")

FileStates = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tensors:
    """The tensors of the weight files: their dtypes by name, and the count of all their numbers."""

    dtypes: Mapping[str, str]
    numbers: int

    @property
    def names(self) -> Set[str]:
        return self.dtypes.keys()


@dataclass(frozen=True)
class ModelFolder:
    """A base model's files. `weights` are the files to load; `settings` and `generation` are its config files."""

    path: Path
    settings: Mapping[str, Any]
    generation: Mapping[str, Any]
    weights: Sequence[Path]
    tensors: Tensors
    states: FileStates

    @classmethod
    def read(cls, path: Path) -> ModelFolder:
        """Read and check a folder. Raises BaseModelError that names the folder and the fault."""
        if (path / "adapter_config.json").exists():
            raise BaseModelError(
                f"{path} holds a PEFT adapter (adapter_config.json), and no base model of its own: merge it into its "
                "base model (merge_and_unload, save_pretrained), or give the folder of the model underneath."
            )
        states = file_states(path)
        weights = _weight_files(path)
        settings = read_settings(path / "config.json")
        _require_plain(path, settings)
        tensors = _tensors(weights)
        _require_counts(path, settings, max(_MAX_COUNT, len(tensors.names)))
        return cls(path, settings, _generation(path / "generation_config.json"), weights, tensors, states)

    def require_unchanged(self) -> None:
        """Raises BaseModelError when a file was written since the folder was read."""
        now = file_states(self.path)
        changed = sorted(name for name in {*now, *self.states} if now.get(name) != self.states.get(name))
        if changed:
            raise BaseModelError(f"{self.path} changed while it was loaded ({', '.join(changed[:3])}); try again.")


def read_settings(path: Path) -> dict[str, Any]:
    """The object of a JSON file. Raises BaseModelError for another content, and for a file that is too large."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise BaseModelError(f"{path} has {path.stat().st_size} bytes; the limit is {_MAX_JSON_BYTES}.")
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BaseModelError(
            f"{path.parent} is no base model: {path.name} cannot be read ({error.strerror})."
        ) from None
    except (ValueError, RecursionError) as error:
        raise BaseModelError(f"{path} is no JSON that can be read: {str(error)[:200]}.") from None
    if not isinstance(settings, dict):
        raise BaseModelError(f"{path} holds {type(settings).__name__}; it must be a JSON object.")
    return settings


def _generation(path: Path) -> dict[str, Any]:
    """The settings of generation_config.json, if there is one. Raises BaseModelError for a wrong token id."""
    settings = read_settings(path) if path.exists() else {}
    for key in _TOKEN_SETTINGS:
        found = settings.get(key)
        for token in found if isinstance(found, list) else [found]:
            if token is not None and type(token) is not int:
                raise BaseModelError(f"{path} has the {key} {str(token)[:50]!r}; a token id is a whole number.")
    return settings


def file_states(path: Path) -> FileStates:
    """Inode, size and times of each file, by name. They change when a file is written or replaced."""
    found = ((file.name, file.stat()) for file in path.iterdir() if file.is_file())
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in found}


def _weight_files(path: Path) -> list[Path]:
    """The files that transformers loads: a single one, or the files that an index names."""
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if not (path / INDEX).is_file():
        raise BaseModelError(
            f"{path} holds no *.safetensors weights named {WEIGHTS} or by {INDEX}; convert the model, "
            "pickles are not read."
        )
    named = read_settings(path / INDEX).get("weight_map")
    names = list(named.values()) if isinstance(named, dict) else []
    strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if strange or not names:
        raise BaseModelError(
            f"{path / INDEX} must name files of its own folder, but it names {(strange or ['none'])[0]!r}."
        )
    return [path / name for name in sorted(set(names))]


def _require_plain(path: Path, settings: Mapping[str, Any]) -> None:
    """Refuse settings that would load other weights than the folder's, or run other code than transformers."""
    for part in _objects(settings, 0):
        for key in ("quantization_config", "compression_config"):
            if part.get(key):
                method = part[key].get("quant_method") if isinstance(part[key], dict) else None
                raise BaseModelError(
                    f"{path} is quantised with {str(method or 'an unnamed method')[:50]}, which multiprompt does not "
                    "run: give the model's unquantised weights."
                )
        for key, known in _IMPLEMENTATIONS.items():
            if part.get(key) is not None and part[key] not in known:
                raise BaseModelError(
                    f"{path / 'config.json'} asks for the {key} {str(part[key])[:50]!r}, but multiprompt runs "
                    f"{' or '.join(known)} alone: remove the key."
                )
        for key, instead in _OTHER_FILES.items():
            if part.get(key):
                raise BaseModelError(f"{path / 'config.json'} names files of its own ({key}): {instead} instead.")
    if settings.get("is_encoder_decoder"):
        raise BaseModelError(f"{path} is an encoder-decoder; multiprompt runs decoder-only causal language models.")


def _objects(value: Any, depth: int) -> Iterator[dict[str, Any]]:
    """A config and the configs in it."""
    if depth > 20:
        raise BaseModelError("config.json is nested more than 20 levels deep; a model's settings are not.")
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _objects(part, depth + 1)


def _require_counts(path: Path, settings: Mapping[str, Any], most: int) -> None:
    for part in _objects(settings, 0):
        for key, value in part.items():
            if not isinstance(value, (int, float)):
                continue
            if _COUNT.search(key.lower()) and value > most:
                raise BaseModelError(f"{path / 'config.json'} has {key} {value:.6g}; the most is {most}.")
            if _SIZE.search(key.lower()) and value < -1:
                raise BaseModelError(f"{path / 'config.json'} has {key} {value:.6g}; a size is not negative.")


def _tensors(files: Sequence[Path]) -> Tensors:
    """Read the headers of the weight files. Raises BaseModelError for a damaged file or a repeated name."""
    numbers, dtypes = 0, dict[str, str]()
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
                numbers += sum(_size(one.get_shape()) for one in slices.values())
                found = {name: one.get_dtype() for name, one in slices.items()}
        except (SafetensorError, OSError) as error:
            raise BaseModelError(f"{file} cannot be read as safetensors: {' '.join(str(error).split())}.") from None
        twice = sorted(set(found) & set(dtypes))
        if twice:
            raise BaseModelError(f"{file.parent} holds {twice[0]} in two of its weight files; keep one.")
        dtypes |= found
    return Tensors(dtypes, numbers)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
