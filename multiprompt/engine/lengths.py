"""The longest input of a model, in tokens."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

# Rotary embeddings that change with the length of the input, so that a longer neighbour or prefix would change a row.
_LENGTH_DEPENDENT = ("dynamic", "longrope")
# The names under which configs hold the longest input; a model that has none takes any length, and gets this one.
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "max_seq_length",
    "n_ctx", "context_length",
)  # fmt: skip
_UNBOUNDED = 2048
# The number of keys that attention chooses, in Doge and in DeepSeek's sparse attention. Among more keys, the order of
# equal scores depends on the number of keys, so that later tokens would change the choice.
_CHOSEN = ("keep_window_size", "index_topk")
_SENSES = {"vision_tower", "vision_model", "audio_tower", "visual"}
_POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings", "positions_embed")


def longest_input(model: PreTrainedModel) -> int:
    """The most tokens that a model takes and among which its attention reads all keys."""
    config = model.config.get_text_config()
    longest = int(next((n for name in _LENGTHS if (n := getattr(config, name, None))), _UNBOUNDED))
    rope = getattr(config, "rope_parameters", None) or {}
    for settings in (rope, *(nested for nested in rope.values() if isinstance(nested, dict))):
        if settings.get("rope_type") in _LENGTH_DEPENDENT:
            longest = min(longest, int(settings.get("original_max_position_embeddings") or longest))
    chosen = (int(getattr(config, name, None) or longest) for name in _CHOSEN)
    return min([longest, *chosen, *_position_tables(model)])


def _position_tables(model: PreTrainedModel) -> Iterator[int]:
    """The positions of each learned table of the language model, without the first ones that are set aside."""
    for path, module in model.base_model.named_modules():
        *parents, name = path.split(".")
        if name in _POSITION_TABLES and isinstance(module, nn.Embedding) and not _SENSES & set(parents):
            padding = -1 if module.padding_idx is None else module.padding_idx
            yield module.num_embeddings - int(getattr(module, "offset", padding + 1))
