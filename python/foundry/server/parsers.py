"""Which parser reads an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ContentDelta:
    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True)
class ToolCallBegin:
    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    index: int
    text: str


@dataclass(frozen=True)
class ToolCallEnd:
    index: int


@dataclass(frozen=True)
class ToolCallBroken:
    index: int
    text: str


Event = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd | ToolCallBroken


class Parser(Protocol):
    """Reads an answer's text as it comes."""

    def push(self, text: str) -> list[Event]: ...

    def finish(self) -> list[Event]: ...


class Plain:
    """All of it is content."""

    def push(self, text: str) -> list[Event]:
        return [ContentDelta(text)]

    def finish(self) -> list[Event]:
        return []
