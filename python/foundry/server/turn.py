"""Answers as every dialect tells them: text, reasoning, calls of tools, and how each ended."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from foundry.errors import MemoryLimitError
from foundry.generate import TokenLogprobs, Usage
from foundry.parsing import (
    ContentDelta,
    Event,
    Parser,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallBroken,
    ToolCallEnd,
)
from foundry.server.engine import Engine
from foundry.server.run import Run


@dataclass(frozen=True)
class Heard:
    """Of answer ``index``: what a token added, which may be nothing yet."""

    index: int
    events: list[Event]
    logprobs: TokenLogprobs | None = None


@dataclass(frozen=True)
class Spent(Usage):
    """``reasoning_tokens``: of those of the answer, the ones of its reasoning, with the marks around it."""

    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Ended:
    """An answer is whole, or cut: ``reason`` is "stop", "length" or "tool_calls".

    ``short`` is the shortage of memory that cut it; ``by_string`` says that a stop string of the caller's ended it.
    """

    index: int
    reason: str
    usage: Spent
    short: MemoryLimitError | None = None
    seed: int | None = None
    by_string: bool = False


@dataclass
class Call:
    id: str
    name: str
    arguments: str = ""

    def message(self) -> dict[str, Any]:
        try:
            arguments = json.loads(self.arguments or "{}")
        except ValueError:  # it was cut off
            arguments = {}
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


@dataclass
class Turn:
    """A whole answer."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, Call] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    ended: Ended | None = None

    def add(self, event: Event) -> None:
        match event:
            case ContentDelta(text):
                self.content += text
            case ReasoningDelta(text):
                self.reasoning += text
            case ToolCallBegin(index, id, name):
                self.calls[index] = Call(id, name)
            case ToolCallArguments(index, text):
                self.calls[index].arguments += text
            case ToolCallBroken(index, text):
                self.broken[index] = text

    def end(self, ended: Ended) -> None:
        """A call that is malformed is content. One that was cut off stays as it is: the reason says so."""
        self.ended = ended
        for index, text in self.broken.items():
            if ended.reason != "length" or index not in self.calls:
                self.calls.pop(index, None)
                self.content += text

    def message(self) -> dict[str, Any]:
        """As it goes into the conversation, with calls' arguments as objects."""
        made: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.reasoning:
            made["reasoning_content"] = self.reasoning
        if self.calls:
            made["tool_calls"] = [call.message() for _, call in sorted(self.calls.items())]
        return made


async def listen(
    engine: Engine, run: Run, parser_for: Callable[[], Parser], began: float
) -> AsyncGenerator[Heard | Ended, None]:
    """What ``run`` says. It is stopped when the listener leaves. ``began``: when the request came, for the metrics.

    The end of the last answer is told when all has been given back, for who hears of it may ask again at once.
    """
    parsers = [parser_for() for _ in run.choices]
    calls = [False for _ in run.choices]
    last = [0.0 for _ in run.choices]
    thought = [0 for _ in run.choices]
    left = len(run.choices)
    try:
        async for index, piece in run:
            now = time.monotonic()
            if not last[index]:
                engine.metrics.first_token(engine, now - began)
            else:
                engine.metrics.next_token(engine, now - last[index])
            last[index] = now
            thinks = parsers[index].thinking
            events = parsers[index].push(piece.text) if piece.text else []
            thinks = thinks or parsers[index].thinking or any(isinstance(event, ReasoningDelta) for event in events)
            thought[index] += thinks and piece.token_id is not None
            if piece.finish_reason is not None:
                events = [*events, *parsers[index].finish()]
            calls[index] = calls[index] or any(isinstance(event, ToolCallEnd) for event in events)
            if events or piece.logprobs is not None:
                yield Heard(index, events, piece.logprobs)
            if piece.finish_reason is not None and piece.usage is not None:
                reason = "stop" if piece.finish_reason == "stop" else "length"
                if reason == "stop" and calls[index]:
                    reason = "tool_calls"
                engine.metrics.ended(engine, reason, piece.usage, now - began, counts_prompt=index == 0)
                by_string = reason == "stop" and piece.token_id is not None and not run.constrained
                spent = Spent(**vars(piece.usage), reasoning_tokens=thought[index])
                left -= 1
                if left == 0:
                    await run.over()
                yield Ended(index, reason, spent, run.short.get(index), piece.seed, by_string)
    finally:
        await run.stop()


async def collect(heard: AsyncGenerator[Heard | Ended, None], n: int) -> list[Turn]:
    """All answers, whole."""
    turns = [Turn() for _ in range(n)]
    try:
        async for one in heard:
            turn = turns[one.index]
            if isinstance(one, Ended):
                turn.end(one)
                continue
            for event in one.events:
                turn.add(event)
            if one.logprobs is not None:
                turn.logprobs.append(one.logprobs)
    finally:
        await heard.aclose()
    return turns


def total(ended: list[Ended]) -> Spent:
    """Of several answers to one prompt, which counts once."""
    first = min(ended, key=lambda each: each.index).usage
    new = sum(each.usage.completion_tokens for each in ended)
    reasoning = sum(each.usage.reasoning_tokens for each in ended)
    return replace(first, completion_tokens=new, reasoning_tokens=reasoning)


def summed(spent: list[Spent]) -> Spent:
    """Of several prompts."""
    return Spent(*(sum(getattr(each, name) for each in spent) for name in Spent.__dataclass_fields__))
