"""A base model in memory: the frozen transformer and its tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from multiprompt.engine.fingerprint import Identity, former_identity
from multiprompt.engine.folder import FileStates, file_states
from multiprompt.errors import AdapterError, DataError
from multiprompt.records import BaseModelRecord

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Rotary embeddings that change with the length of the input, so that a longer neighbour or prefix would change a row.
_LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True)
class Past:
    """The shape of the keys and values that a model takes as a past, the same in each of its layers."""

    layers: int
    heads: int
    head_dim: int


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen causal language model. `record` identifies it; two with equal identity give equal scores.

    `files` are the states of its folder's files when it was loaded. `fallback` says why the packed forward cannot be
    used on it; it is empty where it can. `past` are the keys and values that it takes as a past, or why it takes none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: BaseModelRecord
    folder: Path
    files: FileStates
    fallback: str = ""
    past: Past | str = "it was not looked at"

    def is_of(self, record: BaseModelRecord) -> bool:
        """Whether a record is of this base model, by its fingerprints or by those of releases up to schema 0006."""
        return record.identity == self.record.identity or record.identity == self._former_identity

    @property
    def files_changed(self) -> bool:
        """Whether a file of its folder was written, replaced or deleted since it was loaded."""
        try:
            return file_states(self.folder) != self.files
        except OSError:
            return True

    @cached_property
    def _former_identity(self) -> Identity:
        return former_identity(self.folder, self.record.dtype)

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
        config = self.model.config.get_text_config()
        longest = int(getattr(config, "max_position_embeddings", None) or 2048)
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") in _LENGTH_DEPENDENT:
            return min(longest, int(rope.get("original_max_position_embeddings") or longest))
        return longest

    @property
    def num_layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens the model has both embeddings and logits for."""
        head = self.model.get_output_embeddings()
        tables: list[Any] = [self.model.get_input_embeddings(), *([] if head is None else [head])]
        return min(int(table.weight.shape[0]) for table in tables)

    def require_past(self) -> Past:
        """The shape of the keys and values that it takes. Raises AdapterError where it takes none."""
        if isinstance(self.past, str):
            raise AdapterError(
                f"prefix-tuning cannot be used on {self.record.name} ({self.record.architecture}), as {self.past}: "
                "use prompt-tuning or p-tuning."
            )
        return self.past

    @property
    def key_value_shape(self) -> tuple[int, int]:
        """KV heads and head dimension, the same in every layer. Raises AdapterError where the model has none."""
        past = self.require_past()
        return past.heads, past.head_dim

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Word embeddings, (len(tokens), hidden)."""
        embedding = self.model.get_input_embeddings()
        return cast("Tensor", embedding(torch.tensor(tokens, dtype=torch.long, device=self.device)))

    def hidden(self, embeddings: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """(rows, tokens, hidden) embeddings → last hidden states of the same shape, without the LM head."""
        inputs: dict[str, Any] = {} if positions is None else {"position_ids": positions}
        if cache is not None:
            inputs[self._cache_argument] = cache
        output = self.model.base_model(inputs_embeds=embeddings, use_cache=cache is not None, **inputs)
        return cast("Tensor", output.last_hidden_state)

    @cached_property
    def _cache_argument(self) -> str:
        """transformers 5.24 renamed it."""
        named = inspect.signature(self.model.base_model.forward).parameters
        return "cache" if "cache" in named else "past_key_values"

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) → (n, vocabulary), in float32; scaled and capped as the model's own are."""
        head = cast("nn.Module", self.model.get_output_embeddings())
        logits = cast("Tensor", head(hidden)).float() * self._logit_scale
        return logits if self._logit_cap is None else torch.tanh(logits / self._logit_cap) * self._logit_cap

    @cached_property
    def _logit_scale(self) -> float:
        """Cohere multiplies, Granite divides."""
        config = self.model.config.get_text_config()
        return (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    @cached_property
    def _logit_cap(self) -> float | None:
        """Gemma's soft cap."""
        config = self.model.config.get_text_config()
        return getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)

    @property
    def first_token(self) -> int:
        """What stands for a text without a token, as in the harness: the token that texts begin or else end with."""
        first = self.tokenizer.bos_token_id
        found = self.tokenizer.eos_token_id if first is None else first
        return int(found[0] if isinstance(found, list) else found or 0)

    def encode(self, text: str) -> list[int]:
        """Token ids as the harness gets them: with the special tokens that the tokenizer adds by itself.

        Raises DataError for a token that the model has no embedding for.
        """
        return self._known(cast("list[int]", self.tokenizer.encode(text)))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for several texts."""
        encoded = cast("list[list[int]]", self.tokenizer(list(texts))["input_ids"]) if texts else []
        return [self._known(tokens) for tokens in encoded]

    def _known(self, tokens: list[int]) -> list[int]:
        highest = max(tokens, default=0)
        if highest >= self.vocabulary:
            raise DataError(
                f"a text holds the token {self.tokenizer.convert_ids_to_tokens(highest)!r} with the id {highest}, but "
                f"{self.record.name} has embeddings for {self.vocabulary} tokens: take it out of the text."
            )
        return tokens

    def count_tokens(self, text: str) -> int:
        return len(self.encode(text))
