"""Text that comes in pieces, read as if it were all there: what is read never depends on where it was cut.

Methods that may have to wait are generators: ``yield from`` them. They yield while what has come decides nothing, and
go on when more has, or the text has ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")
Waiting = Generator[None, None, T]
SPACES = " \t\r\n"


class MalformedError(Exception):
    """What is read is not what it began as. It never leaves this package."""


class Marks:
    """Strings that part a text. Of two that begin at one place the longer one counts."""

    def __init__(self, marks: Sequence[str]) -> None:
        self.all = tuple(sorted(set(marks), key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self.all)) or r"(?!)")
        self._longest = max(map(len, self.all), default=0)

    def find(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.search(text, at)

    def may_go_on(self, rest: str) -> bool:
        """A mark longer than ``rest`` begins with it."""
        return len(rest) < self._longest and any(len(m) > len(rest) and m.startswith(rest) for m in self.all)

    def begun(self, text: str, at: int) -> int:
        """Characters at the end of ``text[at:]`` that a mark may begin with."""
        for n in range(min(self._longest - 1, len(text) - at), 0, -1):
            if self.may_go_on(text[-n:]):
                return n
        return 0


class Reader:
    """Holds what has come and is not read yet: less than a mark, where whoever reads passes text on."""

    def __init__(self) -> None:
        self.ended = False
        self.record: list[str] | None = None  # what is taken, while somebody wants it
        self._text = ""
        self._at = 0

    def add(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0

    def take(self, n: int) -> str:
        """The next ``n`` characters, which must have come."""
        taken = self._text[self._at : self._at + n]
        self._at += n
        if self.record is not None and taken:
            self.record.append(taken)
        return taken

    def peek(self) -> str:
        """The next character, which must have come."""
        return self._text[self._at]

    def give_back(self, taken: str) -> None:
        """What was taken last is to be read again."""
        self._at -= len(taken)
        if self.record is not None:
            self.record.pop()

    def more(self) -> Waiting[bool]:
        """Another character has come; False at the end."""
        while self._at >= len(self._text):
            if self.ended:
                return False
            yield
        return True

    def scan(self, feed: Callable[[str, int], int], most: int) -> str:
        """Takes what has come as far as ``feed(text, at)`` says, at most so many characters."""
        end = self._at + most
        text = self._text if end >= len(self._text) else self._text[:end]
        return self.take(feed(text, self._at) - self._at)

    def spaces(self) -> Waiting[None]:
        while (yield from self.more()) and self._text[self._at] in SPACES:
            self.take(1)

    def sees(self, literal: str) -> Waiting[bool]:
        """The text goes on with ``literal``."""
        while not self._text.startswith(literal, self._at):
            if self.ended or not literal.startswith(self._text[self._at : self._at + len(literal)]):
                return False
            yield
        return True

    def accepts(self, literal: str) -> Waiting[bool]:
        """The text goes on with ``literal``, which is then taken."""
        seen = yield from self.sees(literal)
        if seen:
            self.take(len(literal))
        return seen

    def expect(self, literal: str) -> Waiting[None]:
        if not (yield from self.accepts(literal)):
            raise MalformedError(literal)

    def until(self, marks: Marks, tell: Callable[[str], None]) -> Waiting[str | None]:
        """Tells the text up to the next mark, which is taken; None at the end."""
        while True:
            found = marks.find(self._text, self._at)
            if found is not None:
                self._tell(found.start(), tell)
                if self.ended or not marks.may_go_on(self._text[self._at :]):
                    return self.take(len(found.group()))
            else:
                self._tell(len(self._text) - (0 if self.ended else marks.begun(self._text, self._at)), tell)
                if self.ended:
                    return None
            yield

    def held_until(self, marks: Marks, most: int) -> Waiting[tuple[str, str]]:
        """The text up to the next mark, and the mark, which is not taken. MalformedError behind ``most`` characters
        without one, and at the end."""
        held: list[str] = []
        size = 0
        while True:
            found = marks.find(self._text, self._at)
            end = found.start() if found else len(self._text) - marks.begun(self._text, self._at)
            n = min(end - self._at, most - size)
            size += n
            held.append(self.take(n))
            if self._at < end:
                raise MalformedError("too long")
            if found and (self.ended or not marks.may_go_on(self._text[self._at :])):
                return "".join(held), found.group()
            if self.ended:
                raise MalformedError("ended")
            yield

    def _tell(self, end: int, tell: Callable[[str], None]) -> None:
        if end > self._at:
            tell(self.take(end - self._at))
