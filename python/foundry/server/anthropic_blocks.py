"""Anthropic's content blocks: what comes in as messages, and parts of an answer as blocks."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from foundry.server.conversation import MOST_MESSAGES
from foundry.server.parts import Part
from foundry.server.refusals import Refusal


class Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


def plain(messages: list[Message], system: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """As templates take them: results of tools are messages of their own."""
    if not 0 < len(messages) <= MOST_MESSAGES:
        raise Refusal(400, f"messages: expected 1 to {MOST_MESSAGES}, found {len(messages)}", "messages")
    made: list[dict[str, Any]] = []
    about = _text(system or "", "system")
    if about:
        made.append({"role": "system", "content": about})
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        if message.role == "user":
            made += _user(message.content, at)
        elif message.role == "assistant":
            made.append(_assistant(message.content, at))
        elif message.role == "system":
            made.append({"role": "system", "content": _text(message.content, at)})
        else:
            raise Refusal(400, f"{at}.role: expected user or assistant, found {message.role!r}", at)
    return made


def _text(content: str | list[dict[str, Any]], at: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_text_of(block, at) for block in content)


def _text_of(block: dict[str, Any], at: str) -> str:
    if block.get("type") != "text" or not isinstance(block.get("text"), str):
        found = block.get("type")
        raise Refusal(400, f"{at}: expected a block of type text, which is what this model reads, found {found!r}", at)
    text: str = block["text"]
    return text


def _user(content: str | list[dict[str, Any]], at: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    made: list[dict[str, Any]] = []
    texts: list[str] = []
    for block in content:
        if block.get("type") == "tool_result":
            result = _text(block.get("content") or "", at)
            made.append({"role": "tool", "content": result, "tool_call_id": str(block.get("tool_use_id", ""))})
        else:
            texts.append(_text_of(block, at))
    if texts or not made:
        made.append({"role": "user", "content": "".join(texts)})
    return made


def _assistant(content: str | list[dict[str, Any]], at: str) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": ""}
    if isinstance(content, str):
        return made | {"content": content}
    for block in content:
        kind = block.get("type")
        if kind == "tool_use" and isinstance(block.get("name"), str) and isinstance(block.get("input"), dict):
            function = {"name": block["name"], "arguments": block["input"]}
            call = {"id": str(block.get("id", "")), "type": "function", "function": function}
            made.setdefault("tool_calls", []).append(call)
        elif kind == "thinking" and isinstance(block.get("thinking"), str):
            made["reasoning_content"] = made.get("reasoning_content", "") + block["thinking"]
        else:
            made["content"] += _text_of(block, at)
    return made


def opened(part: Part) -> dict[str, Any]:
    if part.kind == "call":
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
    if part.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def delta(part: Part, more: str) -> dict[str, Any]:
    if part.kind == "call":
        return {"type": "input_json_delta", "partial_json": more}
    if part.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": more}
    return {"type": "text_delta", "text": more}


def whole(part: Part) -> dict[str, Any]:
    if part.kind == "call":
        return opened(part) | {"input": _input(part.text)}
    if part.kind == "reasoning":
        return opened(part) | {"thinking": part.text}
    return opened(part) | {"text": part.text}


def _input(text: str) -> dict[str, Any]:
    """A call that was cut off has no input that could be told; stop_reason says that it was."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
