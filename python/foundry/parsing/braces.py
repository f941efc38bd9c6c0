"""Gemma's notation of a call: ``call:name{key:value,...}``, with strings between marks of their own.

Values are objects and lists of the same kind, numbers, true, false and null. As the chat templates of google's
functiongemma and gemma-4 write it (ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from foundry.parsing import json_text
from foundry.parsing.forms import MOST_HEADER, Calls
from foundry.parsing.reader import MalformedError, Marks, Reader, Waiting


@dataclass(frozen=True)
class BracesForm:
    """``quote`` stands on both sides of a string."""

    opens: str
    quote: str

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        yield from reader.spaces()
        yield from reader.expect("call:")
        name, _ = yield from reader.held_until(Marks(("{", self.opens)), MOST_HEADER)
        if not re.fullmatch(r"[^\s{}<>|:]+", name) or not (yield from reader.sees("{")):
            raise MalformedError(name)
        calls.begin(name)
        yield from self._object(reader, calls, 0)
        calls.end()

    def _object(self, reader: Reader, calls: Calls, depth: int) -> Waiting[None]:
        yield from reader.expect("{")
        calls.arguments("{")
        yield from reader.spaces()
        if not (yield from reader.accepts("}")):
            while True:
                calls.arguments(f'"{json_text.quoted((yield from self._key(reader)))}": ')
                yield from self._value(reader, calls, depth)
                if (yield from self._ends(reader, calls, "}")):
                    break
        calls.arguments("}")

    def _list(self, reader: Reader, calls: Calls, depth: int) -> Waiting[None]:
        yield from reader.expect("[")
        calls.arguments("[")
        yield from reader.spaces()
        if not (yield from reader.accepts("]")):
            while True:
                yield from self._value(reader, calls, depth)
                if (yield from self._ends(reader, calls, "]")):
                    break
        calls.arguments("]")

    def _ends(self, reader: Reader, calls: Calls, bracket: str) -> Waiting[bool]:
        yield from reader.spaces()
        if (yield from reader.accepts(bracket)):
            return True
        yield from reader.expect(",")
        calls.arguments(", ")
        yield from reader.spaces()
        return False

    def _key(self, reader: Reader) -> Waiting[str]:
        if (yield from reader.accepts(self.quote)):
            key, _ = yield from reader.held_until(Marks((self.quote,)), MOST_HEADER)
            yield from reader.expect(self.quote)
            yield from reader.spaces()
            yield from reader.sees(":")
        else:
            key, _ = yield from reader.held_until(Marks((":", self.quote, "{", "}")), MOST_HEADER)
            key = key.strip()
        yield from reader.expect(":")
        if not key:
            raise MalformedError("no key")
        return key

    def _value(self, reader: Reader, calls: Calls, depth: int) -> Waiting[None]:
        if depth == json_text.MOST_DEPTH:
            raise MalformedError("too deep")
        yield from reader.spaces()
        if (yield from reader.accepts(self.quote)):
            calls.arguments('"')
            marks = Marks((self.quote,))
            if (yield from reader.until(marks, lambda text: calls.arguments(json_text.quoted(text)))) is None:
                raise MalformedError("ended")
            calls.arguments('"')
        elif (yield from reader.sees("{")):
            yield from self._object(reader, calls, depth + 1)
        elif (yield from reader.sees("[")):
            yield from self._list(reader, calls, depth + 1)
        else:
            word, _ = yield from reader.held_until(Marks((",", "}", "]", self.quote)), MOST_HEADER)
            word = word.strip()
            json_text.loaded(word)
            calls.arguments(word)
