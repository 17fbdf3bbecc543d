"""Generation: greedy or sampled decoding of a mixed batch, whole or as a stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from multiprompt.engine.base import BaseModel
from multiprompt.engine.encoding import encode_contexts
from multiprompt.engine.prefix import Prefix
from multiprompt.engine.refusing import Refuse, end_call, read_each
from multiprompt.engine.rows import Row, batches

Advance = Callable[[int], None]
# A batch is made smaller once at most this share of its rows is unfinished; each time costs a copy.
_WORTH_SHRINKING = 0.75
# A tokenizer decodes the first bytes of an unfinished character to this.
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# A tokenizer that cleans up spaces may still change this many last characters, as " n't" to "n't".
_CLEANED = 3


@dataclass(frozen=True)
class Sampling:
    """The choice of the next token. At `temperature` 0 it is the likeliest.

    Otherwise it is drawn from those of the `top_k` likeliest that make up `top_p` of their probability (Holtzman et al.
    2020). The seed and the context fix the draw; the batch does not matter.
    `repetition_penalty` above 1 makes tokens of the text so far less likely (Keskar et al. 2019).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0


GREEDY = Sampling()


@dataclass(frozen=True)
class GenerationRequest:
    """A context to continue up to a stop string, an end token or `max_new_tokens`."""

    prefix: Prefix
    context: str
    until: tuple[str, ...]
    max_new_tokens: int
    sampling: Sampling = GREEDY


@dataclass(frozen=True)
class Stops:
    """The ends of an answer: it stops before any of `texts` and before any of `tokens`.

    `marked` are the stop texts with a special token inside, which decoding would leave out. Each is the text, the part
    before the token, and the token.
    """

    texts: tuple[str, ...]
    tokens: frozenset[int]
    marked: tuple[tuple[str, str, int], ...]

    @classmethod
    def of(cls, base: BaseModel, until: Sequence[str]) -> Stops:
        """Stop strings, the tokenizer's end token as the harness adds it, and the model's end tokens."""
        end = base.tokenizer.eos_token
        tokens, marked = set(base.end_tokens), []
        for stop in until:
            places = [(stop.index(text), token) for token, text in base.special_tokens.items() if text in stop]
            if places:
                start, token = min(places)
                if stop == base.special_tokens[token]:
                    tokens.add(token)
                else:
                    marked.append((stop, stop[:start], token))
        return cls((*until, *([end] if end else [])), frozenset(tokens), tuple(marked))

    def cut(self, base: BaseModel, tokens: Sequence[int]) -> tuple[str, bool]:
        """The text of tokens before the first stop, and whether there is one. Only the last token may bring a stop."""
        for stop, part, token in self.marked:
            if token in tokens and stop in base.decode(tokens, special=True):
                return before(_before_last(base, tokens, token, part), self.texts), True
        if tokens[-1] in self.tokens:
            return before(base.decode(tokens[:-1]), self.texts), True
        text = base.decode(tokens)
        kept = before(text, self.texts)
        return kept, len(kept) < len(text)

    def settled(self, base: BaseModel, tokens: Sequence[int], text: str) -> int:
        """The number of leading characters that no later token can make a part of a stop string."""
        starts = (n for stop in self.texts for n in range(1, len(stop)) if text.endswith(stop[:n]))
        kept = len(text) - max(starts, default=0)
        for stop, part, token in self.marked:
            if token in tokens:
                whole = base.decode(tokens, special=True)
                if any(whole.endswith(stop[:n]) for n in range(len(part) + 1, len(stop))):
                    kept = min(kept, len(_before_last(base, tokens, token, part)))
        return kept


def _before_last(base: BaseModel, tokens: Sequence[int], token: int, part: str) -> str:
    """The text before the last occurrence of a token, without `part` at its end."""
    place = len(tokens) - 1 - tokens[::-1].index(token)
    return base.decode(tokens[:place]).removesuffix(part)


def before(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string. The strings cut one after another, as in the harness: two may overlap."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    return text


@dataclass
class _Answer:
    """An answer that is being written; `text` ends before the first stop."""

    request: GenerationRequest
    stops: Stops
    row: Row
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    done: bool = False
    failed: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.request.sampling.seed}\0{self.request.context}")

    def add(self, base: BaseModel, token: int) -> None:
        self.tokens.append(token)
        self.text, self.done = self.stops.cut(base, self.tokens)
        self.done = self.done or len(self.tokens) >= self.request.max_new_tokens

    def fail(self) -> None:
        """The model gave no finite numbers for the next token."""
        self.failed = self.done = True

    def settled(self, base: BaseModel) -> int:
        """The number of leading characters that no later token can change."""
        if self.done:
            return len(self.text)
        text = self.text.rstrip(_UNFINISHED)
        settled = min(self.stops.settled(base, self.tokens, text), len(base.decode(self._whole(base))))
        space = text.rfind(" ", len(text) - _CLEANED) if base.tokenizer.clean_up_tokenization_spaces else -1
        return settled if space < 0 else min(settled, space)

    def _whole(self, base: BaseModel) -> list[int]:
        """The tokens without the bytes at their end; a later byte may change their decoding."""
        end = len(self.tokens)
        while end and self.tokens[end - 1] in base.byte_tokens:
            end -= 1
        return self.tokens[:end]


def generate(
    base: BaseModel,
    requests: Sequence[GenerationRequest],
    advance: Advance = lambda _: None,
    refuse: Refuse = end_call,
) -> list[str]:
    """The continuation of each request, cut before its first stop.

    `refuse` gets the error of a row that fails, and the row's text is then empty. It is a DataError for a context that
    cannot be read, and BaseModelError for numbers that are not finite.
    """
    found = read_each(lambda some: _rows(base, some), requests, refuse)
    read = [(number, row) for number, row in enumerate(found) if row is not None]
    stops = {until: Stops.of(base, until) for until in {request.until for request in requests}}
    texts = [""] * len(requests)
    for batch in batches([len(row) for _, row in read]):
        numbers, rows = zip(*(read[i] for i in batch), strict=True)
        answers = [_Answer(requests[n], stops[requests[n].until], row) for n, row in zip(numbers, rows, strict=True)]
        for _ in _decode(base, rows, answers):
            pass
        for number, answer in zip(numbers, answers, strict=True):
            if answer.failed:
                refuse(number, base.not_finite())
            else:
                texts[number] = answer.text
        advance(len(batch))
    return texts


def stream(base: BaseModel, request: GenerationRequest) -> Iterator[str]:
    """The text of `generate` in pieces. A piece comes when no later token can change it."""
    (row,) = _rows(base, [request])
    answer, sent = _Answer(request, Stops.of(base, request.until), row), 0
    for _ in _decode(base, [row], [answer]):
        if answer.failed:
            raise base.not_finite()
        settled = answer.settled(base)
        if settled > sent:
            yield answer.text[sent:settled]
            sent = settled


def _rows(base: BaseModel, requests: Sequence[GenerationRequest]) -> list[Row]:
    encoded = encode_contexts(base, [request.context for request in requests])
    return [Row.of(request.prefix, tokens) for request, tokens in zip(requests, encoded, strict=True)]


def _decode(base: BaseModel, rows: Sequence[Row], answers: Sequence[_Answer]) -> Iterator[None]:
    """Write the answers; yields after every token of the batch."""
    active = list(answers)
    with torch.inference_mode():
        state = base.forward.decoder(base, rows)
    while True:
        with torch.inference_mode():
            chosen = _choose(base, state.hidden, active)
        for answer, token in zip(active, chosen.tolist(), strict=True):
            if not answer.done:
                answer.add(base, token)
        yield
        going = [i for i, answer in enumerate(active) if not answer.done]
        if not going:
            return
        with torch.inference_mode():
            if len(going) <= _WORTH_SHRINKING * len(active):
                keep = torch.tensor(going, device=base.device)
                state.keep(keep)
                active, chosen = [active[i] for i in going], chosen[keep]
            state.step(chosen)


def _choose(base: BaseModel, hidden: Tensor, answers: Sequence[_Answer]) -> Tensor:
    """The next token of each row, (rows,) from (rows, hidden); an answer fails where no numbers are finite."""
    logits = base.logits(hidden)
    for row, answer in enumerate(answers):
        if answer.request.sampling.repetition_penalty != 1:
            _penalise(logits[row], answer)
    highest, chosen = logits.max(dim=-1)
    for row, (answer, finite) in enumerate(zip(answers, highest.isfinite().tolist(), strict=True)):
        if not finite and not answer.done:
            answer.fail()
        elif answer.request.sampling.temperature > 0 and not answer.done:
            chosen[row] = _draw(logits[row], answer.request.sampling, answer.random.random())
    return chosen


def _penalise(logits: Tensor, answer: _Answer) -> None:
    """Make the tokens of the row and its answer less likely, in place, as transformers does."""
    seen = torch.tensor(sorted({*answer.row.text_tokens, *answer.tokens}), device=logits.device)
    found, penalty = logits[seen], answer.request.sampling.repetition_penalty
    logits[seen] = torch.where(found < 0, found * penalty, found / penalty)


def _draw(logits: Tensor, sampling: Sampling, uniform: float) -> Tensor:
    """The token at which the cumulative probability passes a number drawn from [0, 1)."""
    probabilities, tokens = torch.softmax(logits.double() / sampling.temperature, dim=-1).sort(
        descending=True, stable=True
    )
    if sampling.top_k:
        probabilities = probabilities[: sampling.top_k]
    cumulative = probabilities.cumsum(0)
    kept = int((cumulative - probabilities < sampling.top_p * cumulative[-1]).sum())
    place = int(torch.searchsorted(cumulative[:kept], uniform * cumulative[kept - 1], right=True))
    return tokens[min(place, kept - 1)]
