"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from foundry.generate import Usage
from foundry.server import anthropic_blocks, fields
from foundry.server.answering import answered
from foundry.server.asking import Asked, ask, prompt_of
from foundry.server.identity import fresh_id
from foundry.server.parts import Part, Parts, Told
from foundry.server.refusals import JsonResponse, Refusal, refusal_of
from foundry.server.state import State, state_of
from foundry.server.streams import event
from foundry.server.tools import NamedFunction, NamedTool, Offer, Tool, ToolFunction
from foundry.server.turn import Ended
from foundry.server.usage import shortage


class InputTool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    type: str


class MessagesRequest(msgspec.Struct, kw_only=True):
    messages: list[anthropic_blocks.Message]
    model: str | None = None
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[InputTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    seed: int | None = None
    session_id: str | None = None
    append: bool | None = None


async def messages(request: Request) -> Response:
    return await answered(request, MessagesRequest, _begin, _Told)


async def count_tokens(request: Request) -> Response:
    state = state_of(request)
    body = await state.read(request, MessagesRequest)
    engine = await state.library.engine(body.model)
    found = anthropic_blocks.plain(body.messages, body.system)
    continues = body.messages[-1].role == "assistant"
    prompt = await prompt_of(engine, found, _offer(body, state), _variables(body), continues)
    return JsonResponse({"input_tokens": len(prompt.ids)})


async def _begin(state: State, asked: MessagesRequest, began: float) -> Asked:
    if asked.max_tokens is None:
        raise Refusal(400, "max_tokens: expected a whole number from 1 on, found none", "max_tokens")
    if asked.temperature is not None and not 0 <= asked.temperature <= 1:
        raise fields.out_of_range("temperature", asked.temperature, 0, 1)
    sampling = fields.Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=asked.stop_sequences,
        seed=asked.seed,
    )
    return await ask(
        state,
        asked.model,
        anthropic_blocks.plain(asked.messages, asked.system),
        sampling,
        began,
        max_new=fields.answer_tokens("max_tokens", asked.max_tokens),
        offer=_offer(asked, state),
        variables=_variables(asked),
        session_id=asked.session_id,
        append=bool(asked.append),
        continues=asked.messages[-1].role == "assistant",
    )


def _variables(asked: MessagesRequest) -> dict[str, Any]:
    return {} if asked.thinking is None else {"enable_thinking": asked.thinking.type != "disabled"}


def _offer(asked: MessagesRequest, state: State) -> Offer:
    tools = []
    for tool in asked.tools or ():
        if tool.type not in (None, "custom"):
            raise Refusal(400, f"tools: expected tools of the caller's, found type {tool.type!r}", "tools")
        tools.append(Tool(ToolFunction(tool.name, tool.description, tool.input_schema)))
    choice = asked.tool_choice
    if choice is None:
        return Offer.read(tools, None, None, state.settings)
    named = {"auto": "auto", "any": "required", "none": "none"}.get(choice.type)
    if named is None and (choice.type != "tool" or not choice.name):
        expected = "auto, any, none, or tool with a name"
        raise Refusal(400, f"tool_choice: expected {expected}, found {choice.type!r}", "tool_choice")
    wanted: str | NamedTool = named if named is not None else NamedTool(NamedFunction(choice.name or ""))
    return Offer.read(tools, wanted, not choice.disable_parallel_tool_use, state.settings)


class _Told:
    """The message as it grows, and the events that tell of it."""

    def __init__(self, asked: Asked, body: MessagesRequest) -> None:
        self._asked = asked
        self._stops = body.stop_sequences or []
        self._parts = Parts()
        self._message: dict[str, Any] = {
            "id": fresh_id("msg"),
            "type": "message",
            "role": "assistant",
            "model": asked.engine.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(Usage(asked.prompt_tokens, 0)),
        }

    async def whole(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        async for one in self._parts.told(self._asked.heard):
            if isinstance(one, Ended):
                made = self._end(one)
        content = [anthropic_blocks.whole(part) for part in self._parts.all]
        message: dict[str, Any] = self._message | made["delta"] | {"content": content, "usage": made["usage"]}
        return message | self._asked.notes()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        try:
            yield event({"type": "message_start", "message": self._message}, "message_start")
            async for one in self._parts.told(self._asked.heard):
                if isinstance(one, Ended):
                    yield event(self._end(one) | self._asked.notes(), "message_delta")
                else:
                    for made in self._tell(one):
                        yield event(made, made["type"])
            yield event({"type": "message_stop"}, "message_stop")
        except Exception as error:
            yield event(refusal_of(error).body(anthropic=True), "error")

    def _end(self, ended: Ended) -> dict[str, Any]:
        reason = {"length": "max_tokens", "tool_calls": "tool_use"}.get(ended.reason, "end_turn")
        sequence = None
        if ended.by_string:
            reason, sequence = "stop_sequence", self._stops[0] if len(self._stops) == 1 else None
        delta = {"stop_reason": reason, "stop_sequence": sequence} | shortage(ended)
        return {"type": "message_delta", "delta": delta, "usage": _usage(ended.usage)}

    def _tell(self, told: Told) -> Iterator[dict[str, Any]]:
        part: Part = told.part
        if told.step == "open":
            block = anthropic_blocks.opened(part)
            yield {"type": "content_block_start", "index": part.place, "content_block": block}
        elif told.step == "more":
            delta = anthropic_blocks.delta(part, told.more)
            yield {"type": "content_block_delta", "index": part.place, "delta": delta}
        else:
            if part.kind == "reasoning":
                signature = {"type": "signature_delta", "signature": ""}
                yield {"type": "content_block_delta", "index": part.place, "delta": signature}
            yield {"type": "content_block_stop", "index": part.place}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }
