"""Generation: sampling parameters, streamed pieces, completions. The core steps and samples; text is made here."""

from __future__ import annotations

import codecs
import difflib
import secrets
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from foundry.checks import is_default, real, whole
from foundry.tokenizer import StreamDecoder, Tokenizer

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
        stop: strings that end the text; they are not part of it, nor of the history afterwards. One that spells a
            control token, such as "<|eom_id|>", ends it at that token.
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


SAMPLING = frozenset(one.name for one in fields(SamplingParams))


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
    progress: Progress | None = None,
    replaces: bool = False,
) -> Iterator[Piece]:
    """Feeds ``prompt_ids`` and yields text as it comes.

    With ``replaces`` they are the whole history: what the session holds of them is kept and not computed again, the
    rest of what it holds gives way, and comes back if the prompt fails. Where a stop string ends the answer, the
    session's history ends with the text that was given.
    """
    tokenizer = session.model.tokenizer
    params = params.seeded()
    began = time.perf_counter()
    stop_ids = set() if params.ignore_eos else set(tokenizer.stop_ids)
    stop_ids.update(i for i in map(tokenizer.control_id, params.stop) if i is not None)
    stops = [stop for stop in params.stop if tokenizer.control_id(stop) is None]
    keep = session.common_with(prompt_ids) if replaces else None
    tokens = session.begin(prompt_ids[keep or 0 :], max_new_tokens, params, sorted(stop_ids), progress, keep)
    cached_tokens = (keep or 0) + session.cached_tokens
    fed = len(prompt_ids) - cached_tokens
    first = now = time.perf_counter()
    history = session.token_ids.tolist()
    answer = _Answer(tokenizer, stops, continues=not all(map(tokenizer.is_control, history)))
    holds = bool(stops) and session.has_windows
    count = 0
    reason: FinishReason | None = None
    while reason is None:
        if holds:
            session.hold(len(history) + answer.first_held)
        token, reason = tokens.next()
        token_id = token if reason is None else None
        now = time.perf_counter()
        if token_id is not None:
            count += 1
            if count == 1:
                first = now
            text, cut = answer.push(token_id)
            if cut is not None:
                session.end_at(len(history) + cut[0], tokenizer.encode_bytes(cut[1]))
                reason = "stop"
        else:
            text = answer.flush()
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


class _Answer:
    """An answer's text as its tokens come, and where a stop string ends it.

    Two texts are kept: the one that is shown, and the one with control tokens as they are spelled, for a stop string
    may name them. Text is told once no stop string can begin in it any more.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], continues: bool) -> None:
        """``continues``: there is text before the answer."""
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer, continues)
        named = [stop for stop in stops if tokenizer.names_control(stop)]
        self._shown = _Text([stop for stop in stops if stop not in named])
        self._spelled = _Text(named)
        self._looks = bool(stops)
        self._told = 0  # characters of the text that is shown

    def push(self, token_id: int) -> tuple[str, tuple[int, bytes] | None]:
        """The text that can be told now; and if a stop string has ended the answer, what remains of it: so many tokens,
        and bytes of the next one."""
        if not self._looks:
            return self._decoder.push(token_id), None
        control = self._tokenizer.is_control(token_id)
        piece = self._tokenizer.piece(token_id) if control else self._decoder.piece(token_id)
        self._shown.add(b"" if control else piece)
        self._spelled.add(piece)
        ends = [self._place(text, at) for text in (self._shown, self._spelled) if (at := text.find_stop()) >= 0]
        if ends:
            token, byte = min(ends)
            cut = token, bytes(self._shown.data[self._shown.begin(token) : byte])
            return self._tell(bisect_left(self._shown.starts, byte)), cut
        free = min(self._place(text, text.free)[1] for text in (self._shown, self._spelled))
        return self._tell(bisect_left(self._shown.starts, free)), None

    def flush(self) -> str:
        """The rest, where no stop string has ended the answer."""
        if not self._looks:
            return self._decoder.flush()
        self._shown.finish()
        return self._tell(len(self._shown.chars))

    @property
    def first_held(self) -> int:
        """The first token that a stop string may yet take away."""
        held = (self._shown, self._told), (self._spelled, self._spelled.free)
        return min(text.token_at(text.byte(at)) for text, at in held)

    def _place(self, text: _Text, at: int) -> tuple[int, int]:
        """The token that character ``at`` of a text begins in, and its byte in the text that is shown."""
        byte = text.byte(at)
        token = text.token_at(byte)
        return token, min(self._shown.begin(token) + byte - text.begin(token), self._shown.begin(token + 1))

    def _tell(self, end: int) -> str:
        told, self._told = self._told, max(end, self._told)
        return "".join(self._shown.chars[told : self._told])


class _Text:
    """Tokens' bytes as characters, each with the byte that it begins at, and the stop strings looked for in them."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.data = bytearray()
        self.chars: list[str] = []
        self.starts: list[int] = []
        self.free = 0  # characters in which no stop string can begin
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._ends: list[int] = []  # of the tokens, in bytes
        self._searched = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._incomplete = 0  # bytes of a character that has begun

    def add(self, piece: bytes) -> None:
        """The next token."""
        for value in piece:
            made = self._utf8.decode(bytes([value]))
            # At most two: what had begun turns out to be no character, and this byte is one.
            if made:
                self.starts += [len(self.data) - self._incomplete, len(self.data)][: len(made)]
                self.chars += made
            self.data.append(value)
            self._incomplete = len(self._utf8.getstate()[0])
        self._ends.append(len(self.data))
        self.free = len(self.chars) - _may_begin_a_stop("".join(self.chars[-self._longest :]), self._stops)

    def finish(self) -> None:
        if made := self._utf8.decode(b"", final=True):
            self.starts.append(len(self.data) - self._incomplete)
            self.chars += made

    def byte(self, at: int) -> int:
        """Where a character begins, or the next one will."""
        return self.starts[at] if at < len(self.starts) else len(self.data) - self._incomplete

    def begin(self, token: int) -> int:
        """The first byte of a token, or of the one after the last."""
        return self._ends[min(token, len(self._ends)) - 1] if token else 0

    def token_at(self, byte: int) -> int:
        """The token that holds a byte; those without bytes are passed over."""
        return bisect_right(self._ends, byte)

    def find_stop(self) -> int:
        """The character at which the first stop string begins, or -1. What was searched is not searched again."""
        begin = max(0, self._searched - self._longest + 1)
        self._searched = len(self.chars)
        text = "".join(self.chars[begin:]) if self._stops else ""
        return min((begin + at for at in (text.find(stop) for stop in self._stops) if at >= 0), default=-1)


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
