"""Pasts: keys and values that a base model makes of a text and takes in its place. Prefix tuning needs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multiprompt.engine import plain
from multiprompt.engine.base import BaseModel, Past
from multiprompt.engine.prefix import Layers, VirtualTokens
from multiprompt.errors import AdapterError


def of_embeddings(base: BaseModel, embeddings: Tensor) -> Layers:
    """The keys and values, (kv_heads, n, head_dim) a layer, that the model makes of (n, hidden) embeddings.

    Raises AdapterError saying which layers make none.
    """
    output = base.model.base_model(inputs_embeds=embeddings[None], use_cache=True)
    # transformers 5.24 renamed it, and warns at the old name.
    cache: Any = getattr(output, "cache" if hasattr(output, "cache") else "past_key_values", None)
    layers = list(getattr(cache, "layers", ()))
    pairs: list[Any] = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
    bare = sum(not _is_pair(pair, len(embeddings)) for pair in pairs)
    if not layers or bare or len(pairs) != base.num_layers:
        kept = len(pairs) - bare
        raise AdapterError(f"{kept} of its {base.num_layers} layers keep keys and values of their own")
    return tuple((keys[0], values[0]) for keys, values in pairs)


def shape(layers: Layers) -> Past:
    """The common shape of all layers. Raises AdapterError where they differ; PEFT's files cannot express that."""
    keys = {(int(key.shape[0]), int(key.shape[2])) for key, _ in layers}
    values = {(int(value.shape[0]), int(value.shape[2])) for _, value in layers}
    if len(keys) > 1 or len(values) > 1:
        raise AdapterError("its layers have keys and values of different sizes")
    if keys != values:
        ((_, key_dim), (_, value_dim)) = (*keys, *values)
        raise AdapterError(f"its keys and values differ in size ({key_dim} and {value_dim} a head)")
    ((heads, head_dim),) = keys
    return Past(len(layers), heads, head_dim)


def checked_past(base: BaseModel, tokens: list[int], expected: Tensor, tolerance: float) -> tuple[Past | str, Layers]:
    """The past that a model takes, or the reason why it takes none; and the keys and values of the first three tokens.

    `expected` are the states of all tokens. The states behind a past of the first three must equal them, twice.
    """
    # Models fail in their own ways on a past that they do not know; each of them means the same here.
    try:
        layers = of_embeddings(base, base.embed(tokens[:3]))
        found = shape(layers)
        for _ in range(2):
            states = plain.states(base, VirtualTokens(layers=layers), tokens[3:])
            apart = float((states - expected[3:]).abs().max() / expected.abs().max())
            if not apart <= tolerance:
                return f"behind a past it differs from its own forward by {apart:.1e}", ()
    except AdapterError as error:
        return str(error), ()
    except Exception as error:
        return f"it takes no past ({type(error).__name__}: {' '.join(str(error).split())[:150]})", ()
    return found, layers


def _is_pair(pair: Any, length: int) -> bool:
    return all(isinstance(one, torch.Tensor) and one.dim() == 4 and one.shape[2] == length for one in pair)
