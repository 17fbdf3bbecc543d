"""Free generation: greedy decoding of a mixed batch, rows leaving as they finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from multiprompt.engine.base import BaseModel
from multiprompt.engine.forward import Forward, Row, additive, batches, forward
from multiprompt.engine.prefix import Prefix

Advance = Callable[[int], None]


@dataclass(frozen=True)
class GenerationRequest:
    """A context to continue, until a stop string, the end token or `max_new_tokens`."""

    prefix: Prefix
    context: str
    until: tuple[str, ...]
    max_new_tokens: int


@dataclass
class _Answer:
    request: GenerationRequest
    tokens: list[int] = field(default_factory=list)
    text: str = ""

    def add(self, base: BaseModel, token: int) -> bool:
        """Take one token; true when the answer is complete."""
        if token in _end_tokens(base):
            return True
        self.tokens.append(token)
        text = cast("str", base.tokenizer.decode(self.tokens, skip_special_tokens=True))
        self.text = min((text.split(stop, 1)[0] for stop in self.request.until), key=len, default=text)
        return len(self.text) < len(text) or len(self.tokens) >= self.request.max_new_tokens


def generate(base: BaseModel, requests: Sequence[GenerationRequest], advance: Advance = lambda _: None) -> list[str]:
    """The greedy continuation of each request, cut before its first stop string."""
    encoded = base.encode_batch([request.context for request in requests])
    rows = [Row.of(request.prefix, tokens) for request, tokens in zip(requests, encoded, strict=True)]
    texts = [""] * len(requests)
    for batch in batches([len(row) for row in rows]):
        answers = [_Answer(requests[i]) for i in batch]
        with torch.inference_mode():
            _decode(base, [rows[i] for i in batch], answers)
        for index, answer in zip(batch, answers, strict=True):
            texts[index] = answer.text
        advance(len(batch))
    return texts


def _decode(base: BaseModel, rows: Sequence[Row], answers: Sequence[_Answer]) -> None:
    state = forward(base, rows)
    last = torch.tensor([len(row) - 1 for row in rows], device=base.device)
    every = torch.arange(len(rows), device=base.device)
    hidden, visible = state.hidden[every, last], state.visible[every, last]
    positions = torch.tensor([row.shared + len(row) for row in rows], device=base.device)
    active = list(range(len(rows)))
    while True:
        chosen = base.logits(hidden).argmax(dim=-1)
        going = [i for i, token in enumerate(chosen.tolist()) if not answers[active[i]].add(base, token)]
        if not going:
            return
        if len(going) < len(active):
            active = [active[i] for i in going]
            keep = torch.tensor(going, device=base.device)
            state.cache.batch_select_indices(keep)
            chosen, visible, positions = chosen[keep], visible[keep], positions[keep]
        visible = torch.cat([visible, visible.new_ones(len(active), 1)], dim=1)
        hidden = _step(base, state, chosen, positions, visible)
        positions = positions + 1


def _step(base: BaseModel, state: Forward, tokens: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
    return base.hidden(
        state.cache,
        input_ids=tokens[:, None],
        position_ids=positions[:, None],
        attention_mask=additive(visible[:, None], base.dtype),
    )[:, 0]


def _end_tokens(base: BaseModel) -> set[int]:
    end = base.tokenizer.eos_token_id
    return set(end) if isinstance(end, list) else {end}
