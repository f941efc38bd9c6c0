"""Generation: streamed pieces and completions. The core steps and samples; text is made here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from foundry.answer import Answer
from foundry.checks import is_default, whole
from foundry.errors import MemoryLimitError
from foundry.parsing import Message
from foundry.sampling import SamplingParams
from foundry.structured import Matcher, matcher_for

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from foundry import _core
    from foundry.session import Progress, Session, TokenStream

FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, found in the session or the prefix cache and not computed again
    replayed_tokens: int = 0  # of these, run again after all: recurrent layers go on from the nearest state they held


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


class Control(Protocol):
    """Whoever runs a stream for others: asked before each token."""

    @property
    def keeps_cancelled(self) -> bool:
        """Of a prompt that is cancelled, the prefix tree keeps what has been computed."""

    def ends(self) -> bool:
        """The answer is to end here; its finish_reason is "length"."""

    def short(self, error: MemoryLimitError, n_tokens: int) -> Session:
        """The next step finds no memory, and nothing has changed. Returns the session to try it with again: the same,
        or an empty one, in which the history of ``n_tokens`` is computed again."""


def stream(
    session: Session,
    prompt_ids: list[int],
    max_new_tokens: int | None,
    params: SamplingParams,
    progress: Progress | None = None,
    replaces: bool = False,
    fed: Callable[[], None] | None = None,
    matcher: Matcher | None = None,
    control: Control | None = None,
) -> Iterator[Piece]:
    """Feeds ``prompt_ids`` and yields text as it comes.

    With ``replaces`` they are the whole history: what the session holds of them is kept and not computed again, the
    rest of what it holds gives way, and comes back if the prompt fails. Where a stop string ends the answer, the
    session's history ends with the text that was given. ``fed`` is called once the prompt is history, before a token
    is drawn. ``matcher`` is the one of ``params``' grammar, where it is made already.
    """
    tokenizer = session.model.tokenizer
    params = params.seeded()
    began = time.perf_counter()
    stop_ids = set() if params.ignore_eos else set(tokenizer.stop_ids)
    stop_ids.update(i for i in map(tokenizer.control_id, params.stop) if i is not None)
    stops = [stop for stop in params.stop if tokenizer.control_id(stop) is None]
    matcher = matcher or matcher_for(session.model, params)
    keep = session.common_with(prompt_ids) if replaces else None
    tokens = _Drawing(session, max_new_tokens, params, sorted(stop_ids), control)
    tokens.begin(prompt_ids[keep or 0 :], progress, keep)
    cached_tokens = (keep or 0) + session.cached_tokens
    replayed_tokens = session.replayed_tokens
    computed = len(prompt_ids) - cached_tokens + replayed_tokens
    if fed is not None:
        fed()
    first = now = time.perf_counter()
    history = tokens.history
    spelled = {i for i in map(tokenizer.control_id, params.spelled) if i is not None}
    answer = Answer(tokenizer, stops, not all(map(tokenizer.is_control, history)), spelled)
    holds = bool(stops) and session.has_windows
    count = 0
    reason: FinishReason | None = None
    while reason is None:
        if holds:
            tokens.session.hold(len(history) + answer.first_held)
        drawn, reason = tokens.next(None if matcher is None else matcher.mask())
        token_id = drawn.token_id if drawn is not None and reason is None else None
        logprobs = None
        now = time.perf_counter()
        if drawn is not None and token_id is not None:
            count += 1
            if count == 1:
                first = now
            if params.logprobs is not None:
                logprobs = TokenLogprobs(token_id, drawn.logprob, drawn.top_logprobs)
            text, cut = answer.push(token_id)
            if cut is not None:
                tokens.session.end_at(len(history) + cut[0], tokenizer.encode_bytes(cut[1]))
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
                Usage(len(prompt_ids), count, cached_tokens, replayed_tokens),
                Timings(prompt_s, rest, computed / prompt_s, max(count - 1, 0) / rest if rest > 0 else 0.0),
                params.seed if params.temperature > 0 else None,
                logprobs,
            )


class _Drawing:
    """The tokens of an answer, drawn on the session that it has: another one than at first where memory was short."""

    def __init__(
        self,
        session: Session,
        max_new_tokens: int | None,
        params: SamplingParams,
        stop_ids: list[int],
        control: Control | None,
    ) -> None:
        self.session = session
        self.history: list[int] = []  # before the answer
        self._most, self._params, self._stop_ids, self._control = max_new_tokens, params, stop_ids, control
        self._answer: list[int] = []
        self._tokens: TokenStream | None = None

    def begin(self, prompt_ids: list[int], progress: Progress | None, keep: int | None) -> None:
        keeps = self._control is not None and self._control.keeps_cancelled
        self._tokens = self.session.begin(
            prompt_ids, self._most, self._params, self._stop_ids, progress, keep, keeps_cancelled=keeps
        )
        self.history = self.session.token_ids.tolist()

    def next(self, mask: npt.NDArray[np.uint32] | None) -> tuple[_core.NextToken | None, FinishReason | None]:
        """The next token; none where ``control`` ends the answer before it, which it may do while memory is short."""
        control = self._control
        while control is None or not control.ends():
            try:
                if self._tokens is None:
                    self._again()
                assert self._tokens is not None
                drawn, reason = self._tokens.next(mask)
            except MemoryLimitError as error:
                if control is None:
                    raise
                session = control.short(error, len(self.history) + len(self._answer))
                if session is not self.session:
                    self.session, self._tokens = session, None
            else:
                if reason is None:
                    self._answer.append(drawn.token_id)
                return drawn, reason
        return None, "length"

    def _again(self) -> None:
        """All of it is computed again: the same tokens have the same bits, so that the answer goes on as it would."""
        most = self._most
        self._tokens = self.session.begin(
            [*self.history, *self._answer],
            most if is_default(most) else whole("max_new_tokens", most) - len(self._answer),
            self._params,
            self._stop_ids,
            answered=len(self._answer),
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
