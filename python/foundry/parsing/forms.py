"""The forms in which families write calls. Each reads one, behind the mark that began it, and tells it to ``Calls``.

A family is a choice of forms and of the strings in them: ``families`` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from xml.sax.saxutils import unescape

from foundry.parsing import json_text
from foundry.parsing.reader import SPACES, MalformedError, Marks, Reader, Waiting
from foundry.parsing.tools import properties_of, type_of, types_of

MOST_HEADER = 512  # characters between a call's mark and its arguments


class Calls(Protocol):
    """Who is told."""

    def begin(self, name: str, call_id: str | None = None) -> None: ...
    def arguments(self, text: str) -> None: ...
    def end(self) -> None: ...
    def knows(self, name: str) -> bool: ...
    def schema(self, name: str) -> Mapping[str, Any]: ...


class Form(Protocol):
    @property
    def opens(self) -> str: ...

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]: ...


@dataclass(frozen=True)
class JsonForm:
    """An object with a name and arguments, or a list of such.

    Without a mark (``opens`` is "") it is one only where it stands at the answer's beginning and names a tool that was
    offered: an answer may well be JSON of its own.
    """

    opens: str
    more: str = ""  # between objects that stand in no list
    follows: bool = False  # they stand one behind the other with nothing between
    name: str = "name"
    id: str = "id"
    tail: str = ""  # which may close it

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        yield from reader.spaces()
        if not self.opens or not (yield from reader.accepts("[")):
            while True:
                yield from self._object(reader, calls)
                yield from reader.spaces()
                if not (yield from self._goes_on(reader)):
                    break
                yield from reader.spaces()
            yield from self._close(reader)
            return
        yield from reader.spaces()
        while True:
            yield from self._object(reader, calls)
            yield from reader.spaces()
            if not (yield from reader.accepts(",")):
                break
            yield from reader.spaces()
        yield from reader.expect("]")
        yield from reader.spaces()
        yield from self._close(reader)

    def _goes_on(self, reader: Reader) -> Waiting[bool]:
        if self.follows:
            return (yield from reader.sees("{"))
        return bool(self.more) and (yield from reader.accepts(self.more))

    def _close(self, reader: Reader) -> Waiting[None]:
        if self.tail:
            yield from reader.accepts(self.tail)

    def _object(self, reader: Reader, calls: Calls) -> Waiting[None]:
        name = call_id = held = None
        begun = False
        yield from reader.expect("{")
        yield from reader.spaces()
        while True:
            key = yield from json_text.string(reader)
            yield from reader.spaces()
            yield from reader.expect(":")
            yield from reader.spaces()
            if key == self.name and name is None:
                name = yield from json_text.string(reader)
                if not (name if self.opens else calls.knows(name)):
                    raise MalformedError("no tool")
            elif key in ("arguments", "parameters") and not begun and held is None:
                if name is None:
                    pieces: list[str] = []
                    yield from json_text.arguments(reader, pieces.append, json_text.MOST_HELD)
                    held = "".join(pieces)
                else:
                    calls.begin(name, call_id)
                    begun = True
                    yield from json_text.arguments(reader, calls.arguments)
            elif self.opens or key in ("type", self.id, "function"):
                text = yield from json_text.held_value(reader)
                found = json_text.loaded(text)
                if key == self.id and isinstance(found, str):
                    call_id = found
            else:
                raise MalformedError(key)
            yield from reader.spaces()
            if not (yield from reader.accepts(",")):
                break
            yield from reader.spaces()
        yield from reader.expect("}")
        if name is None or not (begun or held or self.opens):
            raise MalformedError("no name")
        if not begun:
            calls.begin(name, call_id)
            calls.arguments(held or "{}")
        calls.end()


@dataclass(frozen=True)
class BareForm:
    """Calls without a mark: the first character tells in which of the forms."""

    by_first: tuple[tuple[str, Form], ...]
    opens: str = ""

    def begins(self, character: str) -> bool:
        return any(first == character for first, _ in self.by_first)

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        yield from dict(self.by_first)[reader.peek()].read(reader, calls)


@dataclass(frozen=True)
class NamedForm:
    """A header with the name in it, then the arguments as a JSON object, then perhaps ``tail``.

    ``header`` is a regular expression for all between the mark and the arguments' "{", with the group ``name``, and
    ``id`` where the model gives one. ``marks`` are those of the family: a header has none of them.
    """

    opens: str
    header: str
    tail: str = ""
    marks: tuple[str, ...] = ()

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        head, stopped = yield from reader.held_until(Marks(("{", self.opens, *self.marks)), MOST_HEADER)
        found = re.fullmatch(self.header, head)
        if stopped != "{" or found is None:
            raise MalformedError(head)
        calls.begin(found["name"], found.groupdict().get("id"))
        yield from json_text.value(reader, calls.arguments)
        calls.end()
        if self.tail:
            yield from reader.spaces()
            yield from reader.accepts(self.tail)


@dataclass(frozen=True)
class EitherForm:
    """JSON where a bracket follows the mark, else a name."""

    json: JsonForm
    named: NamedForm

    @property
    def opens(self) -> str:
        return self.json.opens

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        yield from reader.spaces()
        lists = (yield from reader.sees("[{")) or (yield from reader.sees("[ ")) or (yield from reader.sees("{"))
        yield from (self.json if lists else self.named).read(reader, calls)


@dataclass(frozen=True)
class TaggedForm:
    """A name, then parameters between tags, each a text of its own: its type is the schema's.

    ``name_ends`` are marks behind the name, of which ``name_end`` is taken; what stands then up to ``head_end`` says
    nothing. A parameter's opening tag ends with
    ``key_end``; ``key`` is a regular expression for what stands before that, with the group ``key``, and ``string``
    ("true") or ``type`` ("string") where the model says whether a value is text. With ``entities`` a name and a key
    are written as XML's attributes are. Where ``lines``, a value that begins on a new line ends with one, and
    neither newline is part of it.
    """

    opens: str
    lead: str
    name_end: str
    parameter: str
    key: str
    key_end: str
    value_end: str
    close: str
    name_ends: tuple[str, ...] = ()
    lines: bool = False
    head_end: str = ""
    entities: bool = False
    empty: str = ""  # closes a call without parameters in its own opening tag

    def read(self, reader: Reader, calls: Calls) -> Waiting[None]:
        yield from reader.spaces()
        yield from reader.expect(self.lead)
        name, _ = yield from reader.held_until(Marks((self.name_end or self.close, *self.name_ends)), MOST_HEADER)
        name = self._plain(name.strip())
        if not name or any(c in name for c in '{}[]<>\n"'):
            raise MalformedError(name)
        yield from reader.accepts(self.name_end)
        if self.empty:
            if (yield from reader.accepts(self.empty)):
                calls.begin(name)
                calls.arguments("{}")
                calls.end()
                return
            yield from reader.expect(">")
        if self.head_end:
            yield from reader.held_until(Marks((self.head_end,)), MOST_HEADER)
            yield from reader.expect(self.head_end)
        calls.begin(name)
        yield from self._parameters(reader, calls, properties_of(calls.schema(name)))
        calls.end()

    def _plain(self, text: str) -> str:
        return unescape(text, {"&quot;": '"'}) if self.entities else text

    def _parameters(self, reader: Reader, calls: Calls, properties: Mapping[str, Any]) -> Waiting[None]:
        told: set[str] = set()
        while True:
            yield from reader.spaces()
            if (yield from reader.accepts(self.close)):
                break
            yield from reader.expect(self.parameter)
            head, _ = yield from reader.held_until(Marks((self.key_end,)), MOST_HEADER)
            found = re.fullmatch(self.key, head)
            key = "" if found is None else self._plain(found["key"])
            if found is None or key in told:
                raise MalformedError(head)
            yield from reader.expect(self.key_end)
            calls.arguments(f'{", " if told else "{"}"{json_text.quoted(key)}": ')
            told.add(key)
            kinds = types_of(properties.get(key))
            groups = found.groupdict()
            string = groups.get("string") or groups.get("type")
            if string is not None:
                kinds = {"string"} if string in ("true", "string") else kinds - {"string"}
            yield from self._value(reader, calls, kinds)
        calls.arguments("}" if told else "{}")

    def _value(self, reader: Reader, calls: Calls, kinds: set[str]) -> Waiting[None]:
        ends: tuple[str, ...] = (self.value_end,)
        if self.lines and (yield from reader.accepts("\n")):
            if (yield from reader.accepts(self.value_end)):
                calls.arguments('""' if kinds == {"string"} or not kinds else "null" if "null" in kinds else '""')
                return
            # A closing tag that was forgotten is read as if it stood before the next one.
            ends = tuple("\n" + tag for tag in (self.value_end, self.parameter, self.close))
        marks = Marks(ends)
        if kinds == {"string"}:
            calls.arguments('"')
            mark = yield from reader.until(marks, lambda text: calls.arguments(json_text.quoted(text)))
            if mark is None:
                raise MalformedError("ended")
            calls.arguments('"')
            if mark != ends[0]:
                reader.give_back(mark)
            return
        text, mark = yield from reader.held_until(marks, json_text.MOST_HELD)
        calls.arguments(_typed(text, kinds))
        if mark == ends[0]:
            yield from reader.expect(mark)


def _typed(text: str, kinds: set[str]) -> str:
    """The JSON of a parameter's text: itself where it is JSON of a type that is allowed, else a string."""
    bare = text.strip(SPACES)
    if "boolean" in kinds and bare.lower() in ("true", "false"):
        return bare.lower()
    try:
        found = type_of(json_text.loaded(bare))
    except MalformedError:
        found = ""
    if found and (not kinds or found in kinds or (found == "integer" and "number" in kinds)):
        return bare
    if found == "number" and kinds & {"integer", "number"}:
        return bare
    return f'"{json_text.quoted(text)}"'
