"""A base model in memory: the frozen transformer and its tokenizer."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from multiprompt.engine.fingerprint import Identity, former_identity
from multiprompt.engine.folder import FileStates, file_states
from multiprompt.engine.lengths import longest_input
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.rows import Hidden, Row
from multiprompt.errors import BaseModelError, DataError
from multiprompt.records import BaseModelRecord

Texts = TypeVar("Texts", str, list[str])
Ids = TypeVar("Ids")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SPACE_WITHIN = re.compile(r"\S ")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE = re.compile("<0x[0-9A-F]{2}>")
# Texts of which at least one has a token in any tokenizer.
_PROBES = ("a", "0", ".", " ")


@dataclass(frozen=True)
class Past:
    """The shape of the keys and values that a model takes as a past, the same in each of its layers."""

    layers: int
    heads: int
    head_dim: int


class Decoder(Protocol):
    """Rows that grow by a token a step; `hidden` (rows, hidden) holds the states at their last tokens."""

    hidden: Tensor

    def step(self, tokens: Tensor) -> None:
        """Append a token to each row, (rows,)."""

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, given by index."""


class Forward(Protocol):
    """A way to run rows through a base model.

    `name` is packed or plain. `reason` says why the packed forward is not used; it is empty where it is.
    """

    @property
    def name(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def compile_prefix(self, base: BaseModel, /, virtual: VirtualTokens, constant: Sequence[int]) -> Prefix:
        """Run virtual tokens and constant token ids once, for all rows to come."""

    def run(self, base: BaseModel, rows: Sequence[Row]) -> Hidden:
        """Hidden states of every token of every row, with the gradient of prefixes that are not compiled."""

    def decoder(self, base: BaseModel, rows: Sequence[Row]) -> Decoder:
        """Run rows behind compiled prefixes, to continue them token by token."""


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A frozen causal language model. Two with records of equal identity give equal scores.

    `files` are the states of its folder's files when it was loaded. `forward` runs its rows. `past` is the shape of
    the keys and values that it takes as a past, or the reason why it takes none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: BaseModelRecord
    folder: Path
    files: FileStates
    forward: Forward
    past: Past | str = "it was not looked at"

    def is_of(self, record: BaseModelRecord) -> bool:
        """True for a record with the fingerprints of this base model, or with those of releases up to schema 0006."""
        return record.identity == self.record.identity or record.identity == self._former_identity

    @property
    def files_changed(self) -> bool:
        """True where a file of the folder was written, replaced or deleted since it was loaded."""
        try:
            return file_states(self.folder) != self.files
        except OSError:
            return True

    @cached_property
    def _former_identity(self) -> Identity:
        """Its identity up to schema 0006; today's where its files changed or cannot be read."""
        try:
            former = former_identity(self.folder, self.record.dtype)
        except (OSError, ValueError):
            return self.record.identity
        return self.record.identity if self.files_changed else former

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.record.dtype]

    @property
    def hidden_size(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[1])  # type: ignore[index]

    @cached_property
    def max_tokens(self) -> int:
        """The longest input that the model takes, in tokens."""
        return longest_input(self.model)

    @property
    def num_layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    @cached_property
    def vocabulary(self) -> int:
        """The number of tokens with both an embedding and a logit."""
        head = self.model.get_output_embeddings()
        tables: list[Any] = [self.model.get_input_embeddings(), *([] if head is None else [head])]
        return min(int(table.weight.shape[0]) for table in tables)

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """Word embeddings, (len(tokens), hidden)."""
        embedding = self.model.get_input_embeddings()
        return cast("Tensor", embedding(torch.tensor(tokens, dtype=torch.long, device=self.device)))

    def hidden(self, embeddings: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """Last hidden states of embeddings, both (rows, tokens, hidden); without the LM head."""
        inputs: dict[str, Any] = {} if positions is None else {"position_ids": positions}
        if cache is not None:
            inputs[self._cache_argument] = cache
        output = self.model.base_model(inputs_embeds=embeddings, use_cache=cache is not None, **inputs)
        return cast("Tensor", output.last_hidden_state)

    @cached_property
    def _cache_argument(self) -> str:
        """The name of the argument for a cache, which transformers 5.24 changed."""
        named = inspect.signature(self.model.base_model.forward).parameters
        return "cache" if "cache" in named else "past_key_values"

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of (n, hidden) states, (n, vocabulary) in float32, scaled and capped as the model does."""
        head = cast("nn.Module", self.model.get_output_embeddings())
        logits = cast("Tensor", head(hidden)).float() * self._logit_scale
        return logits if self._logit_cap is None else torch.tanh(logits / self._logit_cap) * self._logit_cap

    def not_finite(self) -> BaseModelError:
        """The error of a row for which the model gave NaN or infinity."""
        return BaseModelError(
            f"{self.record.name} gives numbers that are not finite for this row ({self.record.dtype}): "
            "use dtype float32, or another base model."
        )

    @cached_property
    def _logit_scale(self) -> float:
        """The factor of the logits; Cohere multiplies, Granite divides."""
        config = self.model.config.get_text_config()
        return (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    @cached_property
    def _logit_cap(self) -> float | None:
        """The soft cap of the logits, as in Gemma."""
        config = self.model.config.get_text_config()
        return getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)

    @property
    def first_token(self) -> int:
        """The token in place of a text without tokens, as in the harness: that of the beginning, or else of the end."""
        first = self.tokenizer.bos_token_id
        found = self.tokenizer.eos_token_id if first is None else first
        return int(found[0] if isinstance(found, list) else found or 0)

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a text: the tokenizer's own, then those of the model's generation settings."""
        settings = getattr(self.model, "generation_config", None)
        found = (self.tokenizer.eos_token_id, getattr(settings, "eos_token_id", None))
        listed = [one for tokens in found for one in (tokens if isinstance(tokens, list) else [tokens])]
        return tuple(dict.fromkeys(int(token) for token in listed if token is not None))

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """The tokens that decoding leaves out, each with its text."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {int(token): content.content for token, content in added if content.special}

    @cached_property
    def byte_tokens(self) -> frozenset[int]:
        """The tokens that stand for one byte; a run of them is decoded as a whole."""
        return frozenset(token for text, token in self.tokenizer.get_vocab().items() if _BYTE.fullmatch(text))

    def encode(self, text: str) -> list[int]:
        """Token ids as the harness gets them, without the special tokens that the tokenizer adds behind a text.

        Those in front stay. A text that begins with them does not get them twice. Raises DataError for a text that the
        tokenizer cannot read, or that holds a token without an embedding.
        """
        return self._known(self._within(self._read(self.tokenizer.encode, text)))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._read(lambda texts: self.tokenizer(texts)["input_ids"], list(texts)) if texts else []
        return [self._known(self._within(ids)) for ids in batch]

    def encode_bare(self, text: str) -> list[int]:
        """Token ids without special tokens around them, for a text that stands behind another."""
        return self._known(self._read(lambda text: self.tokenizer.encode(text, add_special_tokens=False), text))

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

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text of tokens. Special tokens are left out, as in the harness, unless `special` is given."""
        return cast("str", self.tokenizer.decode(list(tokens), skip_special_tokens=not special))

    @cached_property
    def splits_at_spaces(self) -> bool:
        """True where a space always starts a new token: no token holds a space behind another character."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or self.encode_bare("a b") == self.encode_bare("ab"):
            return False
        texts = backend.decode_batch([[token] for token in range(len(self.tokenizer))], skip_special_tokens=True)
        return not any(_SPACE_WITHIN.search(text) for text in texts)

    def _read(self, encode: Callable[[Texts], Ids], texts: Texts) -> Ids:
        try:
            return encode(texts)
        except Exception as error:  # tokenizers raise bare exceptions
            half = _SURROGATE.search("".join(texts))
            reason = f"U+{ord(half[0]):04X} is half of a character" if half else f"{type(error).__name__}: {error}"
            raise DataError(f"the tokenizer of {self.record.name} cannot read the text: {reason}.") from None

    def _within(self, ids: list[int]) -> list[int]:
        front, back = self._added
        if front and ids[len(front) : 2 * len(front)] == front:
            ids = ids[len(front) :]
        return ids[: len(ids) - back] if back else ids

    @property
    def tokens_in_front(self) -> list[int]:
        """The tokens that the tokenizer adds in front of a text by itself."""
        return self._added[0]

    @cached_property
    def _added(self) -> tuple[list[int], int]:
        """The tokens that the tokenizer adds in front of a text by itself, and the number that it adds behind."""
        for probe in _PROBES:
            whole, bare = self.tokenizer.encode(probe), self.encode_bare(probe)
            for start in range(len(whole) - len(bare) + 1 if bare else 0):
                if whole[start : start + len(bare)] == bare:
                    return whole[:start], len(whole) - start - len(bare)
        return [], 0
