"""A base model in memory: the frozen transformer, its tokenizer, and the fingerprints that identify it."""

from __future__ import annotations

import hashlib
import inspect
import json
import mmap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache, PreTrainedModel, PreTrainedTokenizerBase

from multiprompt.engine.hub import Source
from multiprompt.errors import BaseModelError
from multiprompt.records import BaseModelRecord

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Names, what wrote the file, and what other parts of the record hold.
_CONFIG_WITHOUT_EFFECT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")
_TOKENIZER_CONFIG_WITHOUT_EFFECT = (
    "name_or_path", "tokenizer_file", "is_local", "local_files_only", "backend", "model_max_length", "chat_template",
    "processor_class",
)  # fmt: skip
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json")


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen causal language model. `record` identifies it; two with equal identity give equal scores."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: BaseModelRecord
    folder: Path

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.record.dtype]

    @property
    def hidden_size(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[1])  # type: ignore[index]

    @property
    def max_tokens(self) -> int:
        """The longest input the model takes, in tokens."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2048)

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Word embeddings, (len(tokens), hidden)."""
        embedding = self.model.get_input_embeddings()
        return cast("Tensor", embedding(torch.tensor(tokens, dtype=torch.long, device=self.device)))

    def hidden(self, cache: Cache, **inputs: Any) -> Tensor:
        """Last hidden states (rows, tokens, hidden) without the LM head; `cache` grows by the tokens."""
        output = self.model.base_model(**{self._cache_argument: cache}, use_cache=True, **inputs)
        return cast("Tensor", output.last_hidden_state)

    @cached_property
    def _cache_argument(self) -> str:
        """transformers 5.24 renamed it."""
        named = inspect.signature(self.model.base_model.forward).parameters
        return "cache" if "cache" in named else "past_key_values"

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) → (n, vocabulary), in float32."""
        head = cast("nn.Module", self.model.get_output_embeddings())
        return cast("Tensor", head(hidden)).float()

    def encode(self, text: str) -> list[int]:
        """Token ids as the harness gets them: with the special tokens that the tokenizer adds by itself."""
        return cast("list[int]", self.tokenizer.encode(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return cast("list[list[int]]", self.tokenizer(list(texts))["input_ids"]) if texts else []

    def count_tokens(self, text: str) -> int:
        return len(self.encode(text))


def load_base_model(source: Source, dtype: str = "auto") -> BaseModel:
    """Load a base model from its folder. `dtype` is auto, float32, bfloat16 or float16.

    Only safetensors are read and no code of the folder is run. Raises BaseModelError naming the folder.
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
            attn_implementation=_attention(device),
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise BaseModelError(f"{source.folder} cannot be loaded as a causal language model: {error}") from error
    model.requires_grad_(False).eval().to(device)
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
    return BaseModel(model, tokenizer, record, source.folder)


def _fastest_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    cpu: Any = torch.cpu
    native = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def _attention(device: str) -> str:
    """On a CPU at prompt lengths eager attention beats SDPA, whose backward with a mask is slow."""
    return "sdpa" if device == "cuda" else "eager"


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
