"""Generation: sampling parameters, streamed pieces, completions. The core steps and samples; text is made here."""

from __future__ import annotations

import difflib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from foundry.checks import is_default, real, whole
from foundry.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from foundry.session import Progress, Session

FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class SamplingParams:
    """How a token is picked: filters top_k, top_p, min_p, then temperature. Draws are keyed by (seed, position).

    None means the default everywhere, and so does -1 for top_k and seed.

    Attributes:
        temperature: 0 takes the most likely token.
        top_k: the k most likely; 0 for all.
        top_p: the fewest most likely whose probability reaches this.
        min_p: those at least this share of the most likely one's probability.
        seed: the same seed and history give the same tokens. By default each call draws one, and its result tells it.
        stop: strings that end the text; they are not part of it.
        ignore_eos: the model's own end tokens don't end the generation.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None or (one.name in ("top_k", "seed") and is_default(value)):
                object.__setattr__(self, one.name, one.default)
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if not isinstance(self.stop, Sequence) or any(not isinstance(s, str) or not s for s in self.stop):
            raise ValueError(f"stop: expected strings that are not empty, found {self.stop!r}")
        for name in ("temperature", "top_p", "min_p"):
            real(name, getattr(self, name))
        whole("top_k", self.top_k)
        if self.seed is not None:
            whole("seed", self.seed, most=(1 << 64) - 1)

    def seeded(self) -> SamplingParams:
        """With a seed, freshly drawn where there is none."""
        return replace(self, seed=secrets.randbits(32)) if self.seed is None else self  # 32 bits are easily typed again


def sampling_params(function: str, params: SamplingParams | None, named: Mapping[str, Any]) -> SamplingParams:
    """The parameters that a caller of ``function`` gave, whole or by their names.

    Raises:
        ValueError: both ways at once.
        TypeError: a name that is none of theirs; the message has those that are.
    """
    if params is not None and named:
        raise ValueError(f"{function}: expected params or its fields, found both: {', '.join(named)}")
    valid = [one.name for one in fields(SamplingParams)]
    for name in named:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"{function}: expected one of {', '.join(valid)}, found the keyword {name!r}{meant}")
    if params is not None and not isinstance(params, SamplingParams):
        raise ValueError(f"{function}: expected params to be a SamplingParams, found {params!r}")
    return params or SamplingParams(**named)


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
    """A piece of a stream. The last one has a finish_reason, usage and timings; a token where a stop string ends it.

    ``seed`` is the last one's too, as in ``Completion``.
    """

    text: str
    token_id: int | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer. ``seed`` keyed its draws, given or fresh; it is None at temperature 0, where nothing is drawn."""

    text: str
    token_ids: list[int] = field(repr=False)
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int | None = None


def stream(
    session: Session,
    prompt_ids: list[int],
    max_new_tokens: int | None,
    params: SamplingParams,
    cached_tokens: int = 0,
    progress: Progress | None = None,
) -> Iterator[Piece]:
    """Feeds ``prompt_ids`` (what the session does not hold yet) and yields text as it comes."""
    tokenizer = session.model.tokenizer
    params = params.seeded()
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
                params.seed if params.temperature > 0 else None,
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
            return Completion("".join(text), ids, piece.finish_reason, piece.usage, piece.timings, piece.seed)
    raise AssertionError("a stream ends with a finish_reason")
