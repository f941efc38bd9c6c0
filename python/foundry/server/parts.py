"""An answer as parts one after the other, for dialects that open and close each: reasoning, text, calls."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from foundry import parsing
from foundry.parsing import Event
from foundry.server.turn import Ended, Heard

Kind = Literal["text", "reasoning", "call"]


@dataclass
class Part:
    """``text`` is a call's arguments. ``whole``: it was not cut off."""

    kind: Kind
    place: int
    text: str = ""
    id: str = ""
    name: str = ""
    whole: bool = False


@dataclass(frozen=True)
class Told:
    """``step``: the part opens, has more text, or closes."""

    step: Literal["open", "more", "close"]
    part: Part
    more: str = ""


class Parts:
    """All of an answer so far; at most the last is open."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self._open: Part | None = None
        self._calls: set[int] = set()

    async def told(self, heard: AsyncIterable[Heard | Ended]) -> AsyncIterator[Told | Ended]:
        """An answer's parts as they come; behind the last, how it ended."""
        async for one in heard:
            for told in self.finish(one.reason != "length") if isinstance(one, Ended) else self.hear(one.events):
                yield told
            if isinstance(one, Ended):
                yield one

    def hear(self, events: Iterable[Event]) -> Iterator[Told]:
        for event in events:
            match event:
                case parsing.ContentDelta(text):
                    yield from self._more("text", text)
                case parsing.ReasoningDelta(text):
                    yield from self._more("reasoning", text)
                case parsing.ToolCallBegin(index, id, name):
                    self._calls.add(index)
                    yield from self._begin("call", id, name)
                case parsing.ToolCallArguments(_, text):
                    yield from self._more("call", text)
                case parsing.ToolCallEnd():
                    yield from self._close(whole=True)
                case parsing.ToolCallBroken(index, text):
                    if index in self._calls:  # what was told of it stays
                        yield from self._close(whole=False)
                    else:
                        yield from self._more("text", text)

    def finish(self, whole: bool) -> Iterator[Told]:
        """The answer is over, ``whole`` or cut. One that has no part has an empty text."""
        if not self.all:
            yield from self._begin("text")
        yield from self._close(whole)

    def _begin(self, kind: Kind, id: str = "", name: str = "") -> Iterator[Told]:
        yield from self._close(whole=True)
        self._open = Part(kind, len(self.all), id=id, name=name)
        self.all.append(self._open)
        yield Told("open", self._open)

    def _more(self, kind: Kind, text: str) -> Iterator[Told]:
        if self._open is None or self._open.kind != kind:
            yield from self._begin(kind)
        assert self._open is not None
        self._open.text += text
        yield Told("more", self._open, text)

    def _close(self, whole: bool) -> Iterator[Told]:
        if self._open is not None:
            self._open.whole = whole
            yield Told("close", self._open)
            self._open = None
