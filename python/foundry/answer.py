"""An answer's text, made of its tokens as they come, and the stop strings that end it."""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence

from foundry.tokenizer import StreamDecoder, Tokenizer


class Answer:
    """An answer's text as its tokens come, and where a stop string ends it.

    Two texts are kept: the one that is shown, and the one with control tokens as they are spelled, for a stop string
    may name them. Text is told once no stop string can begin in it any more.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str], continues: bool, spelled: Collection[int] = ()
    ) -> None:
        """``continues``: there is text before the answer. ``spelled``: control tokens that are part of its text."""
        self._tokenizer = tokenizer
        self._decoder = StreamDecoder(tokenizer, continues, spelled)
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
        self._shown.add(b"" if self._decoder.leaves_out(token_id) else piece)
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
