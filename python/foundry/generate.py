"""Generation: streamed pieces and completions. The core steps and samples; text is made here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from foundry.answer import Answer
from foundry.parsing import Message
from foundry.sampling import SamplingParams
from foundry.structured import matcher_for

if TYPE_CHECKING:
    from foundry.session import Progress, Session

FinishReason = Literal["stop", "length", "context"]


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
class TokenLogprobs:
    """What the model made of a token, in nats: its log-probability, and the most likely ones, the first first."""

    token_id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """A piece of a stream. The last one has a finish_reason, usage and timings; a token where a stop string ends it.

    ``seed`` is the last one's too, as in ``Completion``. ``logprobs`` are its token's, where they were asked for.
    """

    text: str
    token_id: int | None = None
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    seed: int | None = None
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True)
class Completion:
    """A whole answer. ``seed`` keyed its draws, given or fresh; it is None at temperature 0, where nothing is drawn.

    ``message`` is a chat's answer parted into content, reasoning and calls: see ``Session.chat``.
    """

    text: str
    token_ids: list[int] = field(repr=False)
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int | None = None
    logprobs: list[TokenLogprobs] | None = field(default=None, repr=False)
    message: Message | None = None


def stream(
    session: Session,
    prompt_ids: list[int],
    max_new_tokens: int | None,
    params: SamplingParams,
    progress: Progress | None = None,
    replaces: bool = False,
    fed: Callable[[], None] | None = None,
) -> Iterator[Piece]:
    """Feeds ``prompt_ids`` and yields text as it comes.

    With ``replaces`` they are the whole history: what the session holds of them is kept and not computed again, the
    rest of what it holds gives way, and comes back if the prompt fails. Where a stop string ends the answer, the
    session's history ends with the text that was given. ``fed`` is called once the prompt is history, before a token
    is drawn.
    """
    tokenizer = session.model.tokenizer
    params = params.seeded()
    began = time.perf_counter()
    stop_ids = set() if params.ignore_eos else set(tokenizer.stop_ids)
    stop_ids.update(i for i in map(tokenizer.control_id, params.stop) if i is not None)
    stops = [stop for stop in params.stop if tokenizer.control_id(stop) is None]
    matcher = matcher_for(session.model, params)
    keep = session.common_with(prompt_ids) if replaces else None
    tokens = session.begin(prompt_ids[keep or 0 :], max_new_tokens, params, sorted(stop_ids), progress, keep)
    cached_tokens = (keep or 0) + session.cached_tokens
    computed = len(prompt_ids) - cached_tokens
    if fed is not None:
        fed()
    first = now = time.perf_counter()
    history = session.token_ids.tolist()
    spelled = {i for i in map(tokenizer.control_id, params.spelled) if i is not None}
    answer = Answer(tokenizer, stops, not all(map(tokenizer.is_control, history)), spelled)
    holds = bool(stops) and session.has_windows
    count = 0
    reason: FinishReason | None = None
    while reason is None:
        if holds:
            session.hold(len(history) + answer.first_held)
        drawn, reason = tokens.next(None if matcher is None else matcher.mask())
        token_id = drawn.token_id if reason is None else None
        logprobs = None
        now = time.perf_counter()
        if token_id is not None:
            count += 1
            if count == 1:
                first = now
            if params.logprobs is not None:
                logprobs = TokenLogprobs(token_id, drawn.logprob, drawn.top_logprobs)
            text, cut = answer.push(token_id)
            if cut is not None:
                session.end_at(len(history) + cut[0], tokenizer.encode_bytes(cut[1]))
                reason = "stop"
            elif matcher is not None and matcher.ends_with(token_id):
                reason, text = "stop", text + answer.flush()
        else:
            text = answer.flush()
        if reason is None:
            yield Piece(text, token_id, logprobs=logprobs)
        else:
            prompt_s, rest = first - began, now - first
            yield Piece(
                text,
                token_id,
                reason,
                Usage(len(prompt_ids), count, cached_tokens),
                Timings(prompt_s, rest, computed / prompt_s, max(count - 1, 0) / rest if rest > 0 else 0.0),
                params.seed if params.temperature > 0 else None,
                logprobs,
            )


def collect(pieces: Iterator[Piece]) -> Completion:
    """All pieces of a stream as one completion."""
    text, ids, logprobs = [], [], []
    for piece in pieces:
        text.append(piece.text)
        if piece.token_id is not None:
            ids.append(piece.token_id)
        if piece.logprobs is not None:
            logprobs.append(piece.logprobs)
        if piece.finish_reason is not None and piece.usage is not None and piece.timings is not None:
            of_all = logprobs if len(logprobs) == len(ids) != 0 else None
            return Completion("".join(text), ids, piece.finish_reason, piece.usage, piece.timings, piece.seed, of_all)
    raise AssertionError("a stream ends with a finish_reason")
