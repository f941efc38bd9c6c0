"""Calls as Python writes them: ``[weather(city="Oslo", days=2), now()]``, or each on a line of its own.

As Llama 3.2 and 4 write them (llama.com/docs/model-cards-and-prompt-formats, "Zero-shot function calling"), OLMo 3 and
LFM2 between marks of theirs. Values are Python's literals; JSON's words and escapes are read too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from foundry.parsing import json_text
from foundry.parsing.forms import MOST_HEADER, Calls
from foundry.parsing.reader import MalformedError, Marks, Reader, Waiting

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_KEY = re.compile(r"[^\W\d]\w*")
_AFTER_NAME = Marks(("(", ")", "[", "]", "{", "}", ",", "=", "'", '"', "\n"))
_AFTER_KEY = Marks(("=", "(", ")", "[", "]", ",", "'", '"'))
_AFTER_WORD = Marks((",", ")", "]", "}", ":", "(", "[", "'", '"'))
_WORDS = {"True": "true", "False": "false", "None": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_HEX = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True)
class PythonicForm:
    """``listed``: the calls stand in brackets. Without a mark (``opens`` is "") one names a tool that was offered."""

    opens: str
    listed: bool = True

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        yield from reader.spaces()
        if self.listed:
            yield from reader.expect("[")
        while True:
            yield from reader.spaces()
            yield from self._call(reader, calls)
            yield from reader.spaces()
            if self.listed:
                if not (yield from reader.accepts(",")):
                    break
            elif not (yield from reader.more()) or not _KEY.match(reader.peek()):
                return
        yield from reader.expect("]")

    def _call(self, reader: Reader, calls: Calls) -> Waiting[None]:
        name, _ = yield from reader.held_until(_AFTER_NAME, MOST_HEADER)
        name = name.strip()
        if not _NAME.fullmatch(name) or not (self.opens or calls.knows(name)):
            raise MalformedError(name)
        yield from reader.expect("(")
        calls.begin(name)
        told: set[str] = set()
        yield from reader.spaces()
        while not (yield from reader.accepts(")")):
            key, _ = yield from reader.held_until(_AFTER_KEY, MOST_HEADER)
            key = key.strip()
            if not _KEY.fullmatch(key) or key in told:
                raise MalformedError(key)
            yield from reader.expect("=")
            calls.arguments(f'{", " if told else "{"}"{json_text.quoted(key)}": ')
            told.add(key)
            yield from _value(reader, calls, 0)
            yield from _next(reader, ")")
        calls.arguments("}" if told else "{}")
        calls.end()


def _next(reader: Reader, bracket: str) -> Waiting[None]:
    """A comma, which may be left out before the bracket that ends it all."""
    yield from reader.spaces()
    if not (yield from reader.sees(bracket)):
        yield from reader.expect(",")
        yield from reader.spaces()


def _value(reader: Reader, calls: Calls, depth: int) -> Waiting[None]:
    if depth == json_text.MOST_DEPTH:
        raise MalformedError("too deep")
    yield from reader.spaces()
    if not (yield from reader.more()):
        raise MalformedError("ended")
    first = reader.peek()
    if first in "'\"":
        yield from _string(reader, calls)
    elif first == "[":
        yield from _several(reader, calls, depth, "[", "]")
    elif first == "(":
        yield from _several(reader, calls, depth, "(", ")")
    elif first == "{":
        yield from _several(reader, calls, depth, "{", "}")
    else:
        word, _ = yield from reader.held_until(_AFTER_WORD, MOST_HEADER)
        word = _WORDS.get(word.strip(), word.strip())
        json_text.loaded(word)
        calls.arguments(word)


def _several(reader: Reader, calls: Calls, depth: int, opens: str, closes: str) -> Waiting[None]:
    """A list, a tuple, which is a list to JSON, or a dictionary."""
    yield from reader.expect(opens)
    calls.arguments("{" if opens == "{" else "[")
    yield from reader.spaces()
    several = False
    while not (yield from reader.accepts(closes)):
        if several:
            calls.arguments(", ")
        several = True
        if opens == "{":
            yield from _string(reader, calls)
            yield from reader.spaces()
            yield from reader.expect(":")
            calls.arguments(": ")
        yield from _value(reader, calls, depth + 1)
        yield from _next(reader, closes)
    calls.arguments("}" if opens == "{" else "]")


def _string(reader: Reader, calls: Calls) -> Waiting[None]:
    quote = next((q for q in "'\"" if reader.peek() == q), None) if (yield from reader.more()) else None
    if quote is None:
        raise MalformedError("no string")
    yield from reader.expect(quote)
    calls.arguments('"')
    marks = Marks((quote, "\\"))
    while (mark := (yield from reader.until(marks, lambda text: calls.arguments(json_text.quoted(text))))) == "\\":
        yield from _escape(reader, calls)
    if mark is None:
        raise MalformedError("ended")
    calls.arguments('"')


def _escape(reader: Reader, calls: Calls) -> Waiting[None]:
    """What stands behind a backslash. Halves of a pair of surrogates are told as they are: JSON has such pairs too."""
    kind = yield from _one(reader)
    if kind not in _HEX:
        plain = kind if kind in "'\"\\/" else "\\" + kind
        calls.arguments(json_text.quoted(_ESCAPES.get(kind, plain)))
        return
    digits = ""
    for _ in range(_HEX[kind]):
        digits += yield from _one(reader)
    try:
        code = int(digits, 16)
        calls.arguments(f"\\u{code:04x}" if code < 0x10000 else json_text.quoted(chr(code)))
    except (ValueError, OverflowError):
        raise MalformedError(digits) from None


def _one(reader: Reader) -> Waiting[str]:
    if not (yield from reader.more()):
        raise MalformedError("ended")
    return reader.take(1)
