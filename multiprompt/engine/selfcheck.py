"""The self-check: it compares the packed forward with the plain one, and that with the model's own.

It runs whenever a base model is loaded, as a new release of transformers may change a model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from multiprompt.engine import plain
from multiprompt.engine.attention import ATTENTION
from multiprompt.engine.base import BaseModel
from multiprompt.engine.packed import PackedForward, layout_of
from multiprompt.engine.past import checked_past
from multiprompt.engine.plain import PlainForward
from multiprompt.engine.prefix import Layers, Prefix, VirtualTokens
from multiprompt.engine.rows import Hidden, Row, TokenTree
from multiprompt.errors import BaseModelError

logger = logging.getLogger(__name__)

# The largest difference, as a share of the largest hidden state. Rounding is far below it, a wrong mask far above.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}

# The longest row of the check, with its prompt and the tokens that it grows by.
_LONGEST_ROW = 27

_PACKED = PackedForward()

# The tokens that rows grow by.
_NEXT = (5, 9)


def checked(base: BaseModel) -> BaseModel:
    """The base model with the packed forward where that is right. Else the plain one, and a warning in the log.

    Raises BaseModelError for a model on which the plain forward is wrong. Embeddings give other states than
    their token ids, states depend on later tokens, or a row leaves something for the next one.
    """
    _require_embeddings_alone(base)
    if base.max_tokens < _LONGEST_ROW:
        raise _unusable(base, f"takes {base.max_tokens} tokens at most; the self-check needs {_LONGEST_ROW}")
    base, given = _own_forward(base)
    reason = _why_not_packed(base, given)
    if reason:
        logger.warning("%s: falling back to the plain forward, a row at a time: %s", base.record.architecture, reason)
    return replace(base, forward=PlainForward(reason) if reason else PackedForward())


def _require_embeddings_alone(base: BaseModel) -> None:
    """Raises BaseModelError for a model that needs token ids; a soft prompt has none."""
    if base.model.base_model is base.model:
        raise _unusable(base, "gives no hidden states")
    if getattr(base.model.config.get_text_config(), "hidden_size_per_layer_input", None):
        raise _unusable(
            base, "looks up embeddings for each layer by token id, and the vectors of a soft prompt have no token ids"
        )


@torch.inference_mode()
def _own_forward(base: BaseModel) -> tuple[BaseModel, Layers]:
    """Compare the plain forward with the model's own. Gives the base model with the past that it takes, and one."""
    tokens = _tokens(base)[:8]
    tolerance = _TOLERANCE[base.dtype]
    states = plain.states(base, VirtualTokens(), tokens)
    if not torch.isfinite(states).all():
        raise _unusable(base, "gives numbers that are not finite")
    is_causal = _apart(plain.states(base, VirtualTokens(), tokens[:5]), states[:5]) <= tolerance
    past, given = checked_past(base, tokens, states, tolerance)
    if not _apart(plain.states(base, VirtualTokens(), tokens), states) <= tolerance:
        raise _unusable(base, "keeps something of a row for the next one, so that answers would depend on their order")
    if not is_causal:
        raise _unusable(base, "is no causal language model, as its states depend on later tokens")
    theirs = base.model(input_ids=torch.tensor([tokens], device=base.device), use_cache=False).logits[0].float()
    apart = _apart(base.logits(states), theirs)
    if not apart <= tolerance:
        raise _unusable(
            base,
            "does something to its inputs or logits that this release does not know "
            f"(they differ by {apart:.1e}), so every score would be wrong",
        )
    return replace(base, past=past), given


def _unusable(base: BaseModel, reason: str) -> BaseModelError:
    return BaseModelError(f"{base.folder}: {base.record.architecture} {reason}; use another base model.")


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _why_not_packed(base: BaseModel, given: Layers) -> str:
    usual = base.model.config._attn_implementation
    with torch.inference_mode():
        rows = _rows(base, given)
        expected = list(_plain_states(base, rows))
        reason = _switch(base.model, ATTENTION)
        # Models fail in their own ways on what they do not know; each of them means the same here.
        try:
            reason = reason or _hidden_window(base, rows) or _difference(base, rows, expected)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason:
        _switch(base.model, usual)
    return reason


def _switch(model: PreTrainedModel, attention: str) -> str:
    if not model._can_set_attn_implementation():
        return "its attention cannot be exchanged"
    model.set_attn_implementation(attention)
    return ""


def _hidden_window(base: BaseModel, rows: list[Row]) -> str:
    """The reason where a model keeps a window in its mask alone; the short rows of the check would not show it."""
    config = base.model.config.get_text_config()
    types = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if "chunked_attention" in types:
        return "its attention is chunked"
    if getattr(config, "sliding_window", None) is None or "sliding_attention" not in types:
        return ""
    layout = layout_of(base, rows[:1])
    return "" if layout.windows - {None} else "it hides its sliding window from its attention function"


def _difference(base: BaseModel, rows: list[Row], expected: list[Tensor]) -> str:
    scale = max(float(states.abs().max()) for states in expected)
    apart = [(ours - theirs).abs().max() for ours, theirs in zip(_packed_states(base, rows), expected, strict=True)]
    worst = float(torch.stack(apart).max()) / scale
    tolerance = _TOLERANCE[base.dtype]
    # A comparison with a NaN is false.
    return "" if worst <= tolerance else f"hidden states differ by {worst:.1e} (tolerance {tolerance:.0e})"


def _tokens(base: BaseModel) -> list[int]:
    return [(37 * i + 11) % base.vocabulary for i in range(24)]


def _rows(base: BaseModel, given: Layers) -> list[Row]:
    """Rows of different lengths behind prompts of different lengths; the last has a tree.

    The prompts are embeddings that are no words, and keys and values where the model takes them.
    """
    tokens = _tokens(base)
    between = (base.embed(tokens[:12]) + base.embed(tokens[1:13])) / 2
    prefixes = [
        Prefix(VirtualTokens(between[:3]), tuple(tokens[4:6])),
        Prefix(VirtualTokens(between[5:12]), ()),
    ]
    rows = [Row.of(prefix, [*prefix.tokens, *tokens[start:]]) for start in (6, 14, 19) for prefix in prefixes]
    if given:
        rows += [Row.of(Prefix(VirtualTokens(layers=given), ()), tokens[start:]) for start in (12, 17)]
    # The last one has a tree.
    tree = TokenTree((tokens[1], tokens[2], tokens[3]), (-1, 0, -1))
    return [*rows, Row.of(prefixes[0], [*prefixes[0].tokens, *tokens[10:15]], tree)]


def _plain_states(base: BaseModel, rows: list[Row]) -> Iterator[Tensor]:
    """States of rows, the same states for another order, and those of rows that grow; from one pass."""
    growing, tree = rows[:-1], rows[-1]
    hidden = plain.run(base, [replace(row, tokens=(*row.tokens, *_NEXT)) for row in growing])
    spans = [(start, start + len(row)) for start, row in zip(hidden.starts, growing, strict=True)]
    states = torch.cat([*(hidden.states[start:end] for start, end in spans), plain.run(base, [tree]).states])
    yield from (states, states)
    for count in range(len(_NEXT) + 1):
        yield hidden.states[[end - 1 + count for _, end in spans]]


def _packed_states(base: BaseModel, rows: list[Row]) -> Iterator[Tensor]:
    """States of rows, of the same rows in the other order, and of rows that grow behind compiled prefixes."""
    yield _in_order(_PACKED.run(base, rows), rows)
    hidden = _PACKED.run(base, rows[::-1])
    yield _in_order(replace(hidden, starts=list(hidden.starts)[::-1]), rows)
    compiled = {
        prefix: _PACKED.compile_prefix(base, prefix.virtual, prefix.tokens)
        for prefix in {row.prefix: None for row in rows}
    }
    decoder = _PACKED.decoder(base, [replace(row, prefix=compiled[row.prefix]) for row in rows[:-1]])
    yield decoder.hidden
    for token in _NEXT:
        decoder.step(torch.full((len(decoder.hidden),), token, device=decoder.hidden.device))
        yield decoder.hidden


def _in_order(hidden: Hidden, rows: list[Row]) -> Tensor:
    order = [start + t for start, row in zip(hidden.starts, rows, strict=True) for t in range(len(row))]
    return hidden.states[order]
