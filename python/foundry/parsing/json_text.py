"""JSON as it comes: where a value ends, and that it is one (RFC 8259), without waiting for the whole."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from foundry.parsing.reader import MalformedError, Reader, Waiting

MOST_DEPTH = 128
MOST_HELD = 1 << 16  # characters of a value that is held before it is passed on
_SPACES = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_MOST_WORD = 512


class Scanner:
    """One value. ``feed`` takes text as long as it belongs to the value, and says where that ends.

    A state takes characters, or turns to another state, or raises MalformedError and has taken nothing: how much is
    taken before a fault never depends on how much has come.
    """

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._open: list[str] = []  # brackets to come
        self._state: Callable[[str, int], int] = self._value
        self._word = ""
        self._hex = 0
        self._key = False  # the string that is read names a member

    def feed(self, text: str, at: int) -> int:
        try:
            while not self.done and at < len(text):
                inside = self._state in (self._string, self._escape, self._digit, self._in_word)
                end = at if inside else _end(_SPACES, text, at)
                at = end if end > at else self._state(text, at)
        except MalformedError:
            self.failed = True
        return at

    def _value(self, text: str, at: int) -> int:
        c = text[at]
        if c == '"':
            self._key, self._state = False, self._string
        elif c in "{[":
            if len(self._open) == MOST_DEPTH:
                raise MalformedError("too deep")
            self._open.append("}" if c == "{" else "]")
            self._state = self._first_member if c == "{" else self._first_entry
        elif c in "-0123456789tfn":
            self._word, self._state = "", self._in_word
            return at
        else:
            raise MalformedError(c)
        return at + 1

    def _first_entry(self, text: str, at: int) -> int:
        self._state = self._after if text[at] == "]" else self._value
        return at

    def _first_member(self, text: str, at: int) -> int:
        self._state = self._after if text[at] == "}" else self._member
        return at

    def _member(self, text: str, at: int) -> int:
        _expect(text[at], '"')
        self._key, self._state = True, self._string
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        _expect(text[at], ":")
        self._state = self._value
        return at + 1

    def _string(self, text: str, at: int) -> int:
        if (end := _end(_PLAIN, text, at)) > at:
            return end
        if text[at] != '"':
            _expect(text[at], "\\")  # or it is a control character, which must be escaped
            self._state = self._escape
        elif self._key:
            self._state = self._colon
        else:
            self._end_value()
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        if text[at] == "u":
            self._hex, self._state = 4, self._digit
        elif text[at] in '"\\/bfnrt':
            self._state = self._string
        else:
            raise MalformedError(text[at])
        return at + 1

    def _digit(self, text: str, at: int) -> int:
        if text[at] not in "0123456789abcdefABCDEF":
            raise MalformedError(text[at])
        self._hex -= 1
        if not self._hex:
            self._state = self._string
        return at + 1

    def _in_word(self, text: str, at: int) -> int:
        if (end := _end(_WORD, text, at)) > at:
            end = min(end, at + _MOST_WORD - len(self._word))
            if end == at:
                raise MalformedError("too long")
            self._word += text[at:end]
            return end
        if self._word not in ("true", "false", "null") and not _NUMBER.fullmatch(self._word):
            raise MalformedError(self._word)
        self._end_value()
        return at

    def _after(self, text: str, at: int) -> int:
        """Behind a value inside another."""
        if text[at] == ",":
            self._state = self._member if self._open[-1] == "}" else self._value
        else:
            _expect(text[at], self._open[-1])
            self._open.pop()
            self._end_value()
        return at + 1

    def _end_value(self) -> None:
        self.done = not self._open
        self._state = self._after


def value(reader: Reader, tell: Callable[[str], None], most: int = sys.maxsize) -> Waiting[None]:
    """Tells a value's text as it comes; MalformedError where it is longer than ``most`` characters."""
    scanner = Scanner()
    while not scanner.done:
        if not most or not (yield from reader.more()):
            raise MalformedError("too long" if most == 0 else "ended")
        text = reader.scan(scanner.feed, most)
        most -= len(text)
        if text:
            tell(text)
        if scanner.failed:
            raise MalformedError("no JSON")


def held_value(reader: Reader) -> Waiting[str]:
    """A value's text at once, of at most ``MOST_HELD`` characters."""
    held: list[str] = []
    yield from value(reader, held.append, MOST_HELD)
    return "".join(held)


def string(reader: Reader) -> Waiting[str]:
    """A string, decoded."""
    if not (yield from reader.sees('"')):
        raise MalformedError("no string")
    text = yield from held_value(reader)
    return str(json.loads(text))


def arguments(reader: Reader, tell: Callable[[str], None], most: int = sys.maxsize) -> Waiting[None]:
    """Tells a call's arguments: an object, or one that was written as a string, or null, which stands for none."""
    if (yield from reader.sees("{")):
        yield from value(reader, tell, most)
        return
    text = yield from held_value(reader)
    found = loaded(text)
    if isinstance(found, str):
        text, found = found, loaded(found)
    if found is not None and not isinstance(found, dict):
        raise MalformedError("no object")
    tell("{}" if found is None else text)


def loaded(text: str) -> Any:
    """The value of a JSON text; MalformedError for anything else, Python's own NaN included."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise MalformedError("no JSON") from None


def quoted(text: str) -> str:
    """What stands for ``text`` inside the quotes of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _expect(found: str, expected: str) -> None:
    if found != expected:
        raise MalformedError(found)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
