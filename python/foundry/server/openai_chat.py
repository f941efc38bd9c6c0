"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foundry import parsing
from foundry.parsing import Event
from foundry.server import conversation, fields, tokens
from foundry.server.answering import answered
from foundry.server.asking import Asked, ask
from foundry.server.identity import fresh_id
from foundry.server.refusals import Refusal, refusal_of
from foundry.server.state import State
from foundry.server.streams import DONE, event
from foundry.server.tools import NamedTool, Offer, Tool
from foundry.server.turn import Call, Ended, Heard, Turn, collect, total
from foundry.server.usage import openai_usage, shortage


class ChatRequest(fields.Sampling, kw_only=True):
    messages: list[conversation.Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: fields.StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: fields.ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    session_id: str | None = None
    append: bool | None = None
    continue_final_message: bool | None = None


async def chat_completions(request: Request) -> Response:
    return await answered(request, ChatRequest, _begin, _Chat)


async def _begin(state: State, asked: ChatRequest, began: float) -> Asked:
    if set(asked.modalities or ()) - {"text"}:
        raise Refusal(400, f"modalities: expected text alone, found {asked.modalities}", "modalities")
    if asked.audio is not None:
        raise Refusal(400, "audio: expected none, for answers here are text", "audio")
    most = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    variables = dict(asked.chat_template_kwargs or {})
    if asked.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", asked.reasoning_effort)
    if asked.documents is not None:
        variables["documents"] = asked.documents
    return await ask(
        state,
        asked.model,
        conversation.plain(asked.messages),
        asked,
        began,
        max_new=fields.answer_tokens("max_completion_tokens", most),
        n=fields.choices(asked.n, state.settings),
        logprobs=fields.top_logprobs(asked.logprobs, asked.top_logprobs),
        form=asked.response_format,
        offer=Offer.read(asked.tools, asked.tool_choice, asked.parallel_tool_calls, state.settings),
        variables=variables,
        session_id=asked.session_id,
        append=bool(asked.append),
        continues=bool(asked.continue_final_message),
    )


def _message(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.content}
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.calls:
        message["content"] = turn.content or None
        message["tool_calls"] = [_call(call) for _, call in sorted(turn.calls.items())]
    return message


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class _Chat:
    """A completion, whole or as a stream of chunks with one id."""

    def __init__(self, asked: Asked, body: ChatRequest) -> None:
        self._asked = asked
        self._tells_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._begun: set[tuple[int, int]] = set()  # calls, by choice
        self._base = {
            "id": fresh_id("chatcmpl"),
            "object": "chat.completion.chunk" if body.stream else "chat.completion",
            "created": int(time.time()),
            "model": asked.engine.name,
            "system_fingerprint": asked.engine.fingerprint,
        }

    async def whole(self) -> dict[str, Any]:
        asked = self._asked
        turns = await collect(asked.heard, asked.n)
        ended = [turn.ended for turn in turns if turn.ended is not None]
        tokenizer = asked.engine.model.tokenizer
        choices = []
        for index, (turn, end) in enumerate(zip(turns, ended, strict=True)):
            logprobs = tokens.of_chat(tokenizer, turn.logprobs) if asked.wants_logprobs else None
            message = _message(turn)
            choice = {"index": index, "message": message, "logprobs": logprobs, "finish_reason": end.reason}
            choices.append(choice | shortage(end))
        return self._base | {"choices": choices, "usage": openai_usage(total(ended))} | asked.notes()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        ended: list[Ended] = []
        try:
            for index in range(self._asked.n):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            async for one in self._asked.heard:
                if isinstance(one, Ended):
                    ended.append(one)
                    yield self._chunk(one.index, {}, finish_reason=one.reason, more=shortage(one))
                else:
                    for chunk in self._told(one):
                        yield chunk
            if self._tells_usage:
                last = self._base | {"choices": [], "usage": openai_usage(total(ended))}
                yield event(last | self._asked.notes())
        except Exception as error:
            yield event(refusal_of(error).body())
        yield DONE

    def _told(self, heard: Heard) -> list[bytes]:
        logprobs = None
        if heard.logprobs is not None:
            logprobs = tokens.of_chat(self._asked.engine.model.tokenizer, [heard.logprobs])
        deltas = [delta for delta in (self._delta(heard.index, told) for told in heard.events) if delta]
        if not deltas and logprobs is not None:
            deltas = [{"content": ""}]
        chunks = []
        for delta in deltas:
            chunks.append(self._chunk(heard.index, delta, logprobs))
            logprobs = None
        return chunks

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        more: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._tells_usage else {}
        return event(self._base | {"choices": [choice | (more or {})]} | usage)

    def _delta(self, choice: int, told: Event) -> dict[str, Any] | None:
        match told:
            case parsing.ContentDelta(text):
                return {"content": text}
            case parsing.ReasoningDelta(text):
                return {"reasoning_content": text}
            case parsing.ToolCallBegin(index, id, name):
                self._begun.add((choice, index))
                function = {"name": name, "arguments": ""}
                return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}
            case parsing.ToolCallArguments(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
            case parsing.ToolCallBroken(index, text) if (choice, index) not in self._begun:
                return {"content": text}
        return None
