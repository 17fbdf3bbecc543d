"""The self-check: does the packed forward say what the plain one says on this base model?

It runs whenever a base model is loaded, as a release of transformers may change what it did not find yesterday.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from multiprompt.engine import packed, plain
from multiprompt.engine.attention import ATTENTION
from multiprompt.engine.base import BaseModel
from multiprompt.engine.prefix import Prefix, VirtualTokens
from multiprompt.engine.rows import Row, TokenTree
from multiprompt.errors import BaseModelError

logger = logging.getLogger(__name__)

# The largest difference, as a share of the largest hidden state; rounding stays far below, a wrong mask far above.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def checked(base: BaseModel) -> BaseModel:
    """The base model set up for the packed forward, or, with a warning in the log, for the plain one.

    Raises BaseModelError for one whose logits are not what `BaseModel.logits` makes of its hidden states.
    """
    _require_logits(base)
    reason = _why_not_packed(base)
    if reason:
        logger.warning("%s: falling back to the plain forward, a row at a time: %s", base.record.architecture, reason)
    return replace(base, fallback=reason)


def _why_not_packed(base: BaseModel) -> str:
    usual = base.model.config._attn_implementation
    with torch.inference_mode():
        expected = list(_plain_states(base))
        reason = _switch(base.model, ATTENTION)
        # Models fail in their own ways on what they do not know; each of them means the same here.
        try:
            reason = reason or _hidden_window(base) or _difference(base, expected)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if reason:
        _switch(base.model, usual)
    return reason


def _require_logits(base: BaseModel) -> None:
    """Hidden states must be all that there is to a model's logits."""
    if base.model.base_model is base.model:
        raise BaseModelError(f"{base.folder}: {base.record.architecture} gives no hidden states; use another model.")
    tokens = [t for row in _rows(base) for t in row.tokens][:8]
    with torch.inference_mode():
        embeddings = base.embed(tokens)[None]
        theirs = base.model(inputs_embeds=embeddings, use_cache=False).logits[0].float()
        apart = float((base.logits(base.hidden(embeddings)[0]) - theirs).abs().max() / theirs.abs().max())
    if not apart <= _TOLERANCE[base.dtype]:
        raise BaseModelError(
            f"{base.folder}: {base.record.architecture} does something to its logits that this release does not know "
            f"(they differ by {apart:.1e}), so every score would be wrong; use another base model."
        )


def _switch(model: PreTrainedModel, attention: str) -> str:
    if not model._can_set_attn_implementation():
        return "its attention cannot be exchanged"
    model.set_attn_implementation(attention)
    return ""


def _hidden_window(base: BaseModel) -> str:
    """Rows as short as the check's do not show a window that the model keeps in its mask alone."""
    config = base.model.config.get_text_config()
    types = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    if "chunked_attention" in types:
        return "its attention is chunked"
    if getattr(config, "sliding_window", None) is None or "sliding_attention" not in types:
        return ""
    layout = packed.layout_of(base, _rows(base)[:1])
    return "" if layout.windows - {None} else "it hides its sliding window from its attention function"


def _difference(base: BaseModel, expected: list[Tensor]) -> str:
    scale = max(float(states.abs().max()) for states in expected)
    apart = [(ours - theirs).abs().max() for ours, theirs in zip(_packed_states(base), expected, strict=True)]
    worst = float(torch.stack(apart).max()) / scale
    tolerance = _TOLERANCE[base.dtype]
    # A comparison with a NaN is false.
    return "" if worst <= tolerance else f"hidden states differ by {worst:.1e} (tolerance {tolerance:.0e})"


def _rows(base: BaseModel) -> list[Row]:
    """Rows of different lengths behind prompts of different lengths, and a tree."""
    vocabulary = int(base.model.get_input_embeddings().weight.shape[0])  # type: ignore[index]
    tokens = [(37 * i + 11) % vocabulary for i in range(24)]
    prefixes = [
        Prefix(VirtualTokens(base.embed(tokens[:3])), tuple(tokens[4:6])),
        Prefix(VirtualTokens(base.embed(tokens[5:12])), ()),
    ]
    rows = [Row.of(prefix, [*prefix.tokens, *tokens[start:]]) for start in (6, 14, 19) for prefix in prefixes]
    tree = TokenTree((tokens[1], tokens[2], tokens[3]), (-1, 0, -1))
    return [*rows, Row.of(prefixes[0], [*prefixes[0].tokens, *tokens[10:15]], tree)]


def _plain_states(base: BaseModel) -> Iterator[Tensor]:
    """States of rows, of rows behind compiled prefixes, and of rows as they grow."""
    rows = _rows(base)
    yield plain.run(base, rows).states
    yield from _grown(plain.PlainDecoder(base, [row for row in rows if not row.tree.tokens]))


def _packed_states(base: BaseModel) -> Iterator[Tensor]:
    rows = _rows(base)
    hidden = packed.run(base, rows)
    order = [start + t for start, row in zip(hidden.starts, rows, strict=True) for t in range(len(row))]
    yield hidden.states[order]
    compiled = {prefix: packed.compile_prefix(base, prefix) for prefix in {row.prefix: None for row in rows}}
    rows = [replace(row, prefix=compiled[row.prefix]) for row in rows if not row.tree.tokens]
    yield from _grown(packed.PackedDecoder(base, rows))


def _grown(decoder: plain.PlainDecoder | packed.PackedDecoder) -> Iterator[Tensor]:
    for token in (5, 9):
        yield decoder.hidden
        decoder.step(torch.full((len(decoder.hidden),), token, device=decoder.hidden.device))
    yield decoder.hidden
