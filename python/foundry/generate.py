"""Generation: sampling parameters, streamed pieces, completions. The core steps and samples; text is made here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from foundry.checks import real, whole
from foundry.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from foundry.session import Progress, Session

FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class SamplingParams:
    """How a token is picked: filters top_k, top_p, min_p, then temperature. Draws are keyed by (seed, position).

    Attributes:
        temperature: 0 takes the most likely token.
        top_k: the k most likely; 0 for all.
        top_p: the fewest most likely whose probability reaches this.
        min_p: those at least this share of the most likely one's probability.
        seed: the same seed and history give the same tokens.
        stop: strings that end the text; they are not part of it.
        ignore_eos: the model's own end tokens don't end the generation.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    stop: Sequence[str] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if not isinstance(self.stop, Sequence) or any(not isinstance(s, str) or not s for s in self.stop):
            raise ValueError(f"stop: expected strings that are not empty, found {self.stop!r}")
        for name in ("temperature", "top_p", "min_p"):
            real(name, getattr(self, name))
        whole("top_k", self.top_k)
        whole("seed", self.seed, most=(1 << 64) - 1)


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, found in the session or the prefix cache and not computed again


@dataclass(frozen=True)
class Timings:
    """Seconds from the call on. ``prompt_s`` is the time to the first token."""

    prompt_s: float
    generation_s: float
    prompt_tokens_per_s: float
    generation_tokens_per_s: float


@dataclass(frozen=True)
class Piece:
    """A piece of a stream. The last one has a finish_reason, usage and timings; a token where a stop string ends it."""

    text: str
    token_id: int | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None


@dataclass(frozen=True)
class Completion:
    text: str
    token_ids: list[int] = field(repr=False)
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


def stream(
    session: Session,
    prompt_ids: list[int],
    max_new_tokens: int,
    params: SamplingParams,
    cached_tokens: int = 0,
    progress: Progress | None = None,
) -> Iterator[Piece]:
    """Feeds ``prompt_ids`` (what the session does not hold yet) and yields text as it comes."""
    tokenizer = session.model.tokenizer
    began = time.perf_counter()
    stop_ids = [] if params.ignore_eos else sorted(tokenizer.stop_ids)
    tokens = session.begin(prompt_ids, max_new_tokens, params, stop_ids, progress)
    fed = len(prompt_ids) - session.cached_tokens
    cached_tokens += session.cached_tokens
    first = now = time.perf_counter()
    decoder = StreamDecoder(tokenizer)
    held = ""  # text that may be the beginning of a stop string
    count = 0
    reason: FinishReason | None = None
    while reason is None:
        token, reason = tokens.next()
        token_id = token if reason is None else None
        now = time.perf_counter()
        if token_id is not None:
            count += 1
            if count == 1:
                first = now
            held += decoder.push(token_id)
        else:
            held += decoder.flush()
        cut = min((at for at in (held.find(s) for s in params.stop) if at >= 0), default=-1)
        if cut >= 0:
            held, reason = held[:cut], "stop"
        keep = 0 if reason is not None else _may_begin_a_stop(held, params.stop)
        text, held = held[: len(held) - keep], held[len(held) - keep :]
        if reason is None:
            yield Piece(text, token_id)
        else:
            prompt_s, rest = first - began, now - first
            yield Piece(
                text,
                token_id,
                reason,
                Usage(fed + cached_tokens, count, cached_tokens),
                Timings(prompt_s, rest, fed / prompt_s, max(count - 1, 0) / rest if rest > 0 else 0.0),
            )


def _may_begin_a_stop(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of ``text`` that a stop string may begin with."""
    longest = max((len(s) for s in stops), default=0)
    for n in range(min(longest - 1, len(text)), 0, -1):
        if any(s.startswith(text[-n:]) for s in stops):
            return n
    return 0


def collect(pieces: Iterator[Piece]) -> Completion:
    """All pieces of a stream as one completion."""
    text, ids = [], []
    for piece in pieces:
        text.append(piece.text)
        if piece.token_id is not None:
            ids.append(piece.token_id)
        if piece.finish_reason is not None and piece.usage is not None and piece.timings is not None:
            return Completion("".join(text), ids, piece.finish_reason, piece.usage, piece.timings)
    raise AssertionError("a stream ends with a finish_reason")
