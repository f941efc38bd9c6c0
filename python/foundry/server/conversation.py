"""Messages of a chat, as the model's template is to read them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from foundry.errors import FoundryError
from foundry.server.refusals import Refusal
from foundry.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MOST_MESSAGES = 10_000
_OWN = ("self", "messages", "tools", "add_generation_prompt", "tokenize")


class Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(msgspec.Struct):
    function: Function
    id: str | None = None
    type: str | None = None


class Message(msgspec.Struct):
    """OpenAI's, of any role; with ``reasoning_content`` as it is echoed back."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


def plain(messages: list[Message]) -> list[dict[str, Any]]:
    """As templates take them. Refusal for what makes no sense, or is no text."""
    if not messages:
        raise Refusal(400, "messages: expected at least one, found none", "messages")
    if len(messages) > MOST_MESSAGES:
        raise Refusal(400, f"messages: expected at most {MOST_MESSAGES}, found {len(messages)}", "messages")
    return [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _message(at: str, message: Message) -> dict[str, Any]:
    if message.role not in ROLES:
        raise Refusal(400, f"{at}.role: expected one of {', '.join(ROLES)}, found {message.role!r}", f"{at}.role")
    made: dict[str, Any] = {"role": "tool" if message.role == "function" else message.role}
    if message.content is None and message.role != "assistant":
        raise Refusal(400, f"{at}.content: expected text or parts of type text, found none", f"{at}.content")
    made["content"] = text_of(message.content, f"{at}.content")
    if message.name is not None:
        made["name"] = message.name
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [_call(f"{at}.tool_calls[{i}]", call) for i, call in enumerate(message.tool_calls)]
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        made["reasoning_content"] = reasoning
    return made


def text_of(content: str | list[dict[str, Any]] | None, at: str) -> str:
    """Of parts: the text of all. Refusal of a part that is something else, by its type."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        else:
            raise Refusal(
                400, f"{at}[{i}]: expected a part of type text, which is what this model reads, found {kind!r}", at
            )
    return "".join(texts)


def _call(at: str, call: ToolCall) -> dict[str, Any]:
    if call.type not in (None, "function"):
        raise Refusal(400, f"{at}.type: expected function, found {call.type!r}", at)
    arguments = arguments_of(call.function.arguments, f"{at}.function")
    return {"id": call.id or "", "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def arguments_of(given: Any, at: str) -> dict[str, Any]:
    """A call's arguments, which come as JSON or as its text."""
    try:
        found = msgspec.json.decode(given or "{}") if isinstance(given, str) else given
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, f"{at}.arguments: expected a JSON object", f"{at}.arguments")
    return found


def check_variables(given: Mapping[str, Any]) -> None:
    """Refusal of a name that is no variable of a template's: the request has a field of its own for it."""
    for name in given:
        if name in _OWN:
            expected = "variables of the chat template"
            raise Refusal(400, f"chat_template_kwargs: expected {expected}, found {name!r}", "chat_template_kwargs")


async def prompt_ids(
    tokenizer: Tokenizer,
    messages: list[dict[str, Any]],
    continues: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """Token ids up to where the answer begins, made on a thread. With ``continues`` it has begun with the text of the
    last message, which is the assistant's. ``variables`` are the template's. Refusal where it refuses the messages."""
    begun = ""
    if continues:
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise Refusal(400, "messages: expected an assistant's message that is to be continued last", "messages")
        *messages, last = messages
        begun = last["content"]
    if "developer" not in (tokenizer.chat_template or ""):
        messages = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
    try:
        ids = await asyncio.to_thread(tokenizer.encode_chat, messages, **(variables or {}))
        return [*ids, *tokenizer.encode_bytes(begun.encode())]
    except (ValueError, FoundryError) as error:
        raise Refusal(400, str(error), "messages") from None
