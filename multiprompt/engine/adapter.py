"""Adapter files: a soft prompt as PEFT writes and reads it. Files are checked before they become a prompt."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch
from peft import PeftType
from peft.config import PromptLearningConfig
from safetensors import SafetensorError
from torch import Tensor, nn

from multiprompt.engine.base import BaseModel
from multiprompt.engine.kinds import KINDS, method_of
from multiprompt.engine.kinds.kind import EMBEDDINGS
from multiprompt.engine.prompt import SoftPrompt
from multiprompt.errors import AdapterError
from multiprompt.records import Adapter

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# Beside PEFT's files: the parameters of an encoder. PEFT keeps only the output of an encoder.
ENCODER_FILE = "prompt_encoder.safetensors"
MAX_ADAPTER_BYTES = 256_000_000
_MAX_VIRTUAL_TOKENS = 1000
_PEFT_TYPES = {str(PeftType(kind.peft_config().peft_type).value): kind for kind in KINDS.values()}


def to_adapter(prompt: SoftPrompt) -> Adapter:
    """The prompt as the files that `PeftModel.from_pretrained` loads, and its encoder's parameters if it has one."""
    config = {key: _plain(value) for key, value in prompt.config.to_dict().items()}
    config.update(inference_mode=True, peft_version=peft.__version__)
    return Adapter(
        config=json.dumps(config, indent=2, sort_keys=True).encode(),
        weights=_save(prompt.kind.weights(prompt.config, prompt.module)),
        encoder=_save(prompt.module.state_dict()) if prompt.is_encoded else None,
    )


def from_adapter(base: BaseModel, adapter: Adapter, label: str) -> SoftPrompt:
    """The prompt for inference.

    Raises AdapterError for a wrong method, shape or dtype, and for numbers that are not finite.
    """
    config = _read_config(base, adapter.config, label)
    tensors = _load(adapter.weights, f"{label}: {WEIGHTS_FILE}")
    return SoftPrompt(config, _filled(base, config, tensors, label, {"embedding.weight": EMBEDDINGS}))


def trainable(base: BaseModel, adapter: Adapter, label: str) -> SoftPrompt:
    """The prompt for more training, with its encoder if it has one. Raises AdapterError as `from_adapter` does."""
    prompt = from_adapter(base, adapter, label)
    if adapter.encoder is None:
        return prompt
    config = _read_config(base, adapter.config, label)
    config.inference_mode = False
    encoder = _load(adapter.encoder, f"{label}: {ENCODER_FILE}")
    encoded = SoftPrompt(config, _filled(base, config, encoder, label, {}))
    if not torch.allclose(encoded.output(), prompt.output(), rtol=1e-3, atol=1e-3):
        raise AdapterError(f"{label}: {ENCODER_FILE} does not come to what {WEIGHTS_FILE} holds; leave it out.")
    return encoded


def named_base_model(adapter: Adapter) -> str | None:
    """The base model, by name or folder, that an adapter's config names; None where it names none."""
    try:
        named = json.loads(adapter.config)["base_model_name_or_path"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return str(named)[:200] if named else None


def is_free(folder: Path) -> bool:
    """True where a folder is empty or missing. Raises AdapterError where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return next(found, None) is None
    except FileNotFoundError:
        return not folder.is_symlink()
    except NotADirectoryError:
        return False
    except (OSError, ValueError) as error:
        raise _unwritable(folder, error) from None


def claim_folder(folder: Path) -> bool:
    """Reserve a new or empty folder for an adapter. False where it holds files, or another process took it.

    Raises AdapterError where it cannot be written.
    """
    if not is_free(folder):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).open("xb").close()
    except FileExistsError:
        return False
    except (OSError, ValueError) as error:
        raise _unwritable(folder, error) from None
    return True


def write_adapter(adapter: Adapter, folder: Path, card: str = "") -> None:
    """Write the files into a folder, with a README where there is a `card`. No file is ever half written.

    Raises AdapterError where they cannot be written.
    """
    files = {CONFIG_FILE: adapter.config, WEIGHTS_FILE: adapter.weights, ENCODER_FILE: adapter.encoder}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(folder / name, content)
        if card:
            _write(folder / "README.md", card.encode())
    except (OSError, ValueError) as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError | ValueError) -> AdapterError:
    reason = error.strerror if isinstance(error, OSError) else "no path holds such a character"
    return AdapterError(f"{str(folder)!r} cannot be written: {reason}. Choose another folder.")


def _write(path: Path, content: bytes | None) -> None:
    """Write a file; without content, delete it."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_adapter(folder: Path) -> Adapter:
    """Read the files of a folder. Raises AdapterError that names a missing or too large file."""
    config, weights = (_read(folder, name) for name in (CONFIG_FILE, WEIGHTS_FILE))
    return Adapter(config, weights, _read(folder, ENCODER_FILE) if (folder / ENCODER_FILE).exists() else None)


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if path.stat().st_size > MAX_ADAPTER_BYTES:
            raise AdapterError(f"{path} has {path.stat().st_size} bytes; the limit is {MAX_ADAPTER_BYTES}.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AdapterError(f"{str(folder)!r} is no PEFT adapter: {name} cannot be read ({reason}).") from None


def _save(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _load(content: bytes, where: str) -> dict[str, Tensor]:
    if len(content) > MAX_ADAPTER_BYTES:
        raise AdapterError(f"{where} has {len(content)} bytes; the limit is {MAX_ADAPTER_BYTES}.")
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError) as error:
        raise AdapterError(f"{where} is no safetensors file of plain numbers: {error}") from None


def _filled(
    base: BaseModel, config: PromptLearningConfig, tensors: dict[str, Tensor], label: str, stored_as: dict[str, str]
) -> nn.Module:
    """PEFT's module for a config, filled with these tensors after a check of their names, shapes and numbers.

    `stored_as` maps a parameter to its name in the file where the two differ.
    """
    try:
        with torch.device("meta"):
            module = KINDS[method_of(config)].build(config)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"{label}: {CONFIG_FILE} describes no prompt that PEFT can build: {error}") from None
    names = {stored_as.get(name, name): name for name in module.state_dict()}
    expected = {name: tuple(module.state_dict()[parameter].shape) for name, parameter in names.items()}
    if set(tensors) != set(expected):
        raise AdapterError(f"{label}: the weights hold {sorted(tensors)}, expected {sorted(expected)}.")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise AdapterError(
                f"{label}: {name} has shape {tuple(tensor.shape)}, but {base.record.name} takes {expected[name]}."
            )
        if not tensor.is_floating_point():
            raise AdapterError(f"{label}: {name} has dtype {tensor.dtype}, but it must be a floating-point one.")
        if not torch.isfinite(tensor.float()).all():
            raise AdapterError(f"{label}: {name} holds numbers that are not finite.")
    parameters = {names[name]: tensor.float().to(base.device) for name, tensor in tensors.items()}
    module.load_state_dict(parameters, assign=True)
    return module


def _read_config(base: BaseModel, raw: bytes, label: str) -> PromptLearningConfig:
    """PEFT's config for inference. The base model sets its shape; its sizes are bounded."""
    try:
        settings = json.loads(raw)
        peft_type = settings["peft_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AdapterError(f"{label}: {CONFIG_FILE} is no PEFT config.") from None
    if not isinstance(peft_type, str) or peft_type not in _PEFT_TYPES:
        raise AdapterError(
            f"{label}: the adapter's method is {peft_type!r}; it must be one of: {', '.join(_PEFT_TYPES)}."
        )
    kind = _PEFT_TYPES[peft_type]
    known = {key: value for key, value in settings.items() if key in kind.peft_config.__dataclass_fields__}
    known.pop("auto_mapping", None)
    try:
        config = kind.peft_config(**known)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"{label}: {CONFIG_FILE} is no valid {peft_type} config: {error}") from None
    for name, most in {"num_virtual_tokens": _MAX_VIRTUAL_TOKENS, **kind.bounds}.items():
        value = getattr(config, name, None)
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise AdapterError(f"{label}: {CONFIG_FILE} has {name} {value!r}; it must lie between 1 and {most}.")
    if not isinstance(config.num_virtual_tokens, int):
        raise AdapterError(f"{label}: {CONFIG_FILE} gives no num_virtual_tokens.")
    fault = kind.fault(config)
    if fault:
        raise AdapterError(f"{label}: {fault}")
    for name, value in kind.sizes(base).items():
        setattr(config, name, value)
    config.inference_mode = True
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", value)
