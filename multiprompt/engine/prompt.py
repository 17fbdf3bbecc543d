"""Soft prompts: PEFT holds the parameters, the config and the file format."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch
from peft import PromptEmbedding, PromptTuningConfig, TaskType
from safetensors import SafetensorError
from torch import Tensor

from multiprompt.config import PromptConfig
from multiprompt.engine.base import BaseModel
from multiprompt.errors import AdapterError
from multiprompt.records import Adapter

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
MAX_ADAPTER_BYTES = 64_000_000
_EMBEDDINGS = "prompt_embeddings"
_INITS = {"text": "TEXT", "sample-vocab": "SAMPLE_VOCAB", "random": "RANDOM"}


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Virtual tokens: float32 embeddings (num_virtual_tokens, hidden), and the PEFT config that describes them."""

    config: PromptTuningConfig
    embeddings: Tensor

    @property
    def num_virtual_tokens(self) -> int:
        return int(self.embeddings.shape[0])


def new_prompt(base: BaseModel, config: PromptConfig, description: str, seed: int) -> SoftPrompt:
    """A prompt before training; `text` starts from `init_text` or else the task's description, repeated to length.

    Raises AdapterError when there is no text to start from.
    """
    init = config.init
    text = config.init_text or description.strip()
    if init == "text" and not text:
        raise AdapterError(
            "the prompt starts from the task's description, but the task has none: write a description, "
            "or set multiprompt.init_text, or set multiprompt.init to sample-vocab."
        )
    peft_config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=config.num_virtual_tokens,
        num_transformer_submodules=1,
        token_dim=base.hidden_size,
        prompt_tuning_init=_INITS[init],
        prompt_tuning_init_text=text if init == "text" else None,
        tokenizer_name_or_path=str(base.folder) if init == "text" else None,
        base_model_name_or_path=base.record.source,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = PromptEmbedding(peft_config, base.model.get_input_embeddings())
    # A path of this machine means nothing elsewhere.
    peft_config.tokenizer_name_or_path = base.record.source if init == "text" else None
    return SoftPrompt(peft_config, module.embedding.weight.detach().clone().float().to(base.device))


def to_adapter(prompt: SoftPrompt) -> Adapter:
    """The prompt as the files that `PeftModel.from_pretrained` loads."""
    config = {key: _plain(value) for key, value in prompt.config.to_dict().items()}
    config.update(inference_mode=True, peft_version=peft.__version__)
    return Adapter(
        config=json.dumps(config, indent=2, sort_keys=True).encode(),
        weights=safetensors.torch.save({_EMBEDDINGS: prompt.embeddings.detach().cpu().contiguous()}),
    )


def from_adapter(base: BaseModel, adapter: Adapter, label: str) -> SoftPrompt:
    """Read adapter files. Raises AdapterError on a wrong method, shape or dtype, or a number that is not finite."""
    if len(adapter.weights) > MAX_ADAPTER_BYTES or len(adapter.config) > MAX_ADAPTER_BYTES:
        raise AdapterError(f"{label}: the adapter has {len(adapter.weights)} bytes; the limit is {MAX_ADAPTER_BYTES}.")
    config = _read_config(adapter.config, label)
    try:
        tensors = safetensors.torch.load(adapter.weights)
    except SafetensorError as error:
        raise AdapterError(f"{label}: {WEIGHTS_FILE} is no safetensors file: {error}") from None
    if set(tensors) != {_EMBEDDINGS}:
        raise AdapterError(f"{label}: {WEIGHTS_FILE} holds {sorted(tensors)}, expected one tensor {_EMBEDDINGS!r}.")
    embeddings = tensors[_EMBEDDINGS]
    expected = (config.num_virtual_tokens, base.hidden_size)
    if tuple(embeddings.shape) != expected:
        raise AdapterError(
            f"{label}: the prompt has shape {tuple(embeddings.shape)}, but {base.record.name} takes {expected}."
        )
    if not embeddings.is_floating_point():
        raise AdapterError(f"{label}: the prompt has dtype {embeddings.dtype}, but it must be a floating-point one.")
    if not torch.isfinite(embeddings).all():
        raise AdapterError(f"{label}: the prompt holds numbers that are not finite.")
    return SoftPrompt(config, embeddings.float().to(base.device))


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the two files into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((CONFIG_FILE, adapter.config), (WEIGHTS_FILE, adapter.weights)):
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(folder / name)


def read_adapter(folder: Path) -> Adapter:
    """Read the two files from a folder. Raises AdapterError naming the one that is missing or too large."""
    contents = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        path = folder / name
        try:
            if path.stat().st_size > MAX_ADAPTER_BYTES:
                raise AdapterError(f"{path} has {path.stat().st_size} bytes; the limit is {MAX_ADAPTER_BYTES}.")
            contents.append(path.read_bytes())
        except OSError as error:
            raise AdapterError(f"{folder} is no PEFT adapter: {name} cannot be read ({error.strerror}).") from None
    return Adapter(*contents)


def _read_config(raw: bytes, label: str) -> PromptTuningConfig:
    try:
        config = json.loads(raw)
        method = config["peft_type"]
    except (ValueError, KeyError, TypeError):
        raise AdapterError(f"{label}: {CONFIG_FILE} is no PEFT config.") from None
    if method != "PROMPT_TUNING":
        raise AdapterError(f"{label}: the adapter's method is {method!r}; only PROMPT_TUNING is supported.")
    known = {key: value for key, value in config.items() if key in PromptTuningConfig.__dataclass_fields__}
    known.pop("auto_mapping", None)
    try:
        return PromptTuningConfig(**known)
    except (TypeError, ValueError) as error:
        raise AdapterError(f"{label}: {CONFIG_FILE} is no valid prompt-tuning config: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", value)
