"""POST /v1/responses. Nothing is stored: the whole conversation comes with each request."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foundry.server import fields, response_items
from foundry.server.answering import answered
from foundry.server.asking import Asked, ask
from foundry.server.identity import fresh_id
from foundry.server.parts import Parts, Told
from foundry.server.refusals import Refusal, refusal_of
from foundry.server.state import State
from foundry.server.streams import event
from foundry.server.tools import NamedFunction, NamedTool, Offer, Tool, ToolFunction
from foundry.server.turn import Ended
from foundry.server.usage import shortage


class FlatTool(msgspec.Struct):
    """A function, without the field ``function`` around it."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class FlatChoice(msgspec.Struct):
    type: str
    name: str | None = None


class TextFormat(msgspec.Struct):
    type: str
    name: str | None = None
    schema: dict[str, Any] | bool | None = None


class Text(msgspec.Struct):
    format: TextFormat | None = None


class Reasoning(msgspec.Struct):
    effort: str | None = None


class ResponsesRequest(fields.Sampling, kw_only=True):
    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    tools: list[FlatTool] | None = None
    tool_choice: str | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    truncation: str | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    metadata: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    session_id: str | None = None
    append: bool | None = None


async def responses(request: Request) -> Response:
    return await answered(request, ResponsesRequest, _begin, _Response)


async def _begin(state: State, asked: ResponsesRequest, began: float) -> Asked:
    for name in ("previous_response_id", "conversation", "background"):
        if getattr(asked, name):
            raise Refusal(400, f"{name}: expected none, for no response is stored here; send all items as input", name)
    if asked.truncation not in (None, "disabled"):
        raise Refusal(400, f"truncation: expected disabled, for nothing is cut here; found {asked.truncation!r}")
    messages = response_items.messages(asked.input)
    if asked.instructions:
        messages.insert(0, {"role": "system", "content": asked.instructions})
    variables = dict(asked.chat_template_kwargs or {})
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        variables.setdefault("reasoning_effort", asked.reasoning.effort)
    return await ask(
        state,
        asked.model,
        messages,
        asked,
        began,
        max_new=fields.answer_tokens("max_output_tokens", asked.max_output_tokens),
        form=_form(asked.text),
        offer=Offer.read(_tools(asked.tools), _choice(asked.tool_choice), asked.parallel_tool_calls, state.settings),
        variables=variables,
        session_id=asked.session_id,
        append=bool(asked.append),
    )


def _form(text: Text | None) -> fields.ResponseFormat | None:
    if text is None or text.format is None:
        return None
    return fields.ResponseFormat(text.format.type, fields.SchemaFormat(text.format.schema))


def _tools(tools: list[FlatTool] | None) -> list[Tool]:
    made = []
    for tool in tools or ():
        if tool.type != "function" or not tool.name:
            raise Refusal(400, f"tools: expected functions with a name, found type {tool.type!r}", "tools")
        made.append(Tool(ToolFunction(tool.name, tool.description, tool.parameters)))
    return made


def _choice(choice: str | FlatChoice | None) -> str | NamedTool | None:
    if choice is None or isinstance(choice, str):
        return choice
    if choice.type != "function" or not choice.name:
        raise Refusal(400, f"tool_choice: expected a function with a name, found type {choice.type!r}", "tool_choice")
    return NamedTool(NamedFunction(choice.name))


class _Response:
    """The response as it grows, and the events that tell of it, numbered."""

    def __init__(self, asked: Asked, body: ResponsesRequest) -> None:
        self._asked = asked
        self._number = 0
        self._parts = Parts()
        self._items: list[dict[str, Any]] = []
        self._response: dict[str, Any] = {
            "id": fresh_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": asked.engine.name,
            "output": self._items,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": {"format": {"type": body.text.format.type if body.text and body.text.format else "text"}},
            "tool_choice": "auto" if body.tool_choice is None else msgspec.to_builtins(body.tool_choice),
            "tools": msgspec.to_builtins(body.tools or []),
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    async def whole(self) -> dict[str, Any]:
        async for _ in self._events():
            pass
        return self._response

    async def stream(self) -> AsyncGenerator[bytes, None]:
        try:
            async for one in self._events():
                yield event(one, one["type"])
        except Exception as error:
            refusal = refusal_of(error)
            self._response |= {"status": "failed", "error": {"code": "server_error", "message": refusal.message}}
            yield event(self._of("response.failed", response=self._response), "response.failed")

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        yield self._of("response.created", response=self._response)
        yield self._of("response.in_progress", response=self._response)
        async for one in self._parts.told(self._asked.heard):
            if isinstance(one, Ended):
                yield self._end(one)
            else:
                for made in self._tell(one):
                    yield made

    def _end(self, ended: Ended) -> dict[str, Any]:
        usage = ended.usage
        self._response["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }
        status = "incomplete" if ended.reason == "length" else "completed"
        self._response["status"] = status
        if status == "incomplete":
            self._response["incomplete_details"] = {"reason": "max_output_tokens"} | shortage(ended)
        self._response |= self._asked.notes()
        return self._of(f"response.{status}", response=self._response)

    def _tell(self, told: Told) -> Iterator[dict[str, Any]]:
        part, place = told.part, told.part.place
        if told.step == "open":
            self._items.append(response_items.opened(part))
            yield self._of("response.output_item.added", output_index=place, item=dict(self._items[place]))
            if part.kind != "call":
                empty = response_items.content(part, "")
                yield self._of("response.content_part.added", **self._at(place), content_index=0, part=empty)
            return
        name = response_items.EVENTS[part.kind]
        index: dict[str, Any] = {} if part.kind == "call" else {"content_index": 0}
        more: dict[str, Any] = {"logprobs": []} if part.kind == "text" else {}
        if told.step == "more":
            yield self._of(f"{name}.delta", **self._at(place), **index, delta=told.more, **more)
            return
        yield self._of(f"{name}.done", **self._at(place), **index, **response_items.done(part), **more)
        if part.kind != "call":
            whole = response_items.content(part, part.text)
            yield self._of("response.content_part.done", **self._at(place), content_index=0, part=whole)
        response_items.close(self._items[place], part)
        yield self._of("response.output_item.done", output_index=place, item=self._items[place])

    def _at(self, place: int) -> dict[str, Any]:
        return {"item_id": self._items[place]["id"], "output_index": place}

    def _of(self, kind: str, **more: Any) -> dict[str, Any]:
        made = {"type": kind, "sequence_number": self._number, **more}
        self._number += 1
        if "response" in more:  # as it is now
            made["response"] = more["response"] | {"output": list(self._items)}
        return made
