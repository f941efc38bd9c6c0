"""What a parser tells of an answer, piece by piece, and the whole message that the pieces make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ContentDelta:
    """More of what the user is to read."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of what the model thought before it answered."""

    text: str


@dataclass(frozen=True)
class ToolCallBegin:
    """A call of the tool ``name``. ``index`` counts an answer's calls from 0, broken ones included."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """More of the call's arguments: JSON text."""

    index: int
    text: str


@dataclass(frozen=True)
class ToolCallEnd:
    """The call is whole: its arguments joined are a JSON object."""

    index: int


@dataclass(frozen=True)
class ToolCallBroken:
    """What had begun is no call: the answer ended in it, or it is malformed. ``text`` is all of it as it was written,
    marks included, for those who have not passed its pieces on: it is content."""

    index: int
    text: str


Event = ContentDelta | ReasoningDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd | ToolCallBroken


@dataclass(frozen=True)
class ToolCall:
    """A whole call. ``arguments`` is the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """A whole answer, parted. What is not there is empty; a call that is not whole is part of the content."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As OpenAI's clients write an assistant's message, to be appended to a conversation."""
        made: dict[str, Any] = {"role": "assistant", "content": self.content or (None if self.tool_calls else "")}
        if self.reasoning:
            made["reasoning_content"] = self.reasoning
        if self.tool_calls:
            made["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        return made


def message_of(events: Iterable[Event]) -> Message:
    """All events of an answer as one message."""
    content: list[str] = []
    reasoning: list[str] = []
    begun: dict[int, ToolCallBegin] = {}
    arguments: dict[int, list[str]] = {}
    calls: list[ToolCall] = []
    for event in events:
        match event:
            case ContentDelta(text):
                content.append(text)
            case ReasoningDelta(text):
                reasoning.append(text)
            case ToolCallBegin(index):
                begun[index], arguments[index] = event, []
            case ToolCallArguments(index, text):
                arguments[index].append(text)
            case ToolCallEnd(index):
                calls.append(ToolCall(begun[index].id, begun[index].name, "".join(arguments.pop(index))))
            case ToolCallBroken(_, text):
                content.append(text)
    return Message("".join(content), "".join(reasoning), calls)
