"""Items of the Responses API: what comes in as messages, and parts of an answer as items."""

from __future__ import annotations

from typing import Any

from foundry.server.conversation import MOST_MESSAGES, arguments_of, text_of
from foundry.server.identity import fresh_id
from foundry.server.parts import Part
from foundry.server.refusals import Refusal

EVENTS = {
    "text": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}
_ROLES = ("system", "developer", "user", "assistant")


def messages(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As templates take them. Calls and reasoning go to the assistant's message that they belong to."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not 0 < len(given) <= MOST_MESSAGES:
        raise Refusal(400, f"input: expected 1 to {MOST_MESSAGES} items, found {len(given)}", "input")
    made: list[dict[str, Any]] = []
    for i, item in enumerate(given):
        _add(made, f"input[{i}]", item)
    return made


def _add(made: list[dict[str, Any]], at: str, item: dict[str, Any]) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        role, content = item.get("role"), item.get("content")
        if role not in _ROLES or not isinstance(content, str | list):
            raise Refusal(400, f"{at}: expected a role of {', '.join(_ROLES)} and content, found {role!r}", at)
        text = text_of(content, f"{at}.content")
        if role == "assistant" and made and made[-1].get("content") == "" and "tool_calls" not in made[-1]:
            made[-1]["content"] = text  # behind its reasoning
        else:
            made.append({"role": role, "content": text})
    elif kind == "function_call":
        name, call_id = _text(item, "name", at), _text(item, "call_id", at)
        arguments = arguments_of(item.get("arguments", "{}"), at)
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        _assistant(made).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        output = item.get("output")
        if not isinstance(output, str | list):
            raise Refusal(400, f"{at}.output: expected text", at)
        result = text_of(output, f"{at}.output")
        made.append({"role": "tool", "content": result, "tool_call_id": _text(item, "call_id", at)})
    elif kind == "reasoning":
        parts = item.get("content") or []
        texts = [part.get("text", "") for part in parts if isinstance(part, dict)]
        made.append({"role": "assistant", "content": "", "reasoning_content": "".join(texts)})
    else:
        expected = "message, function_call, function_call_output or reasoning"
        raise Refusal(400, f"{at}.type: expected {expected}, found {kind!r}", at)


def _assistant(made: list[dict[str, Any]]) -> dict[str, Any]:
    """The last message, if it is the assistant's, or a new one."""
    if not made or made[-1]["role"] != "assistant":
        made.append({"role": "assistant", "content": ""})
    return made[-1]


def _text(item: dict[str, Any], name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise Refusal(400, f"{at}.{name}: expected text, found {value!r}", at)
    return value


def opened(part: Part) -> dict[str, Any]:
    if part.kind == "text":
        return _item("msg", "message", role="assistant", content=[])
    if part.kind == "reasoning":
        return _item("rs", "reasoning", summary=[], content=[])
    return _item("fc", "function_call", call_id=part.id, name=part.name, arguments="")


def _item(prefix: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"id": fresh_id(prefix), "type": kind, "status": "in_progress", **more}


def content(part: Part, text: str) -> dict[str, Any]:
    if part.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def done(part: Part) -> dict[str, Any]:
    return {"arguments": part.text, "name": part.name} if part.kind == "call" else {"text": part.text}


def close(item: dict[str, Any], part: Part) -> None:
    item["status"] = "completed" if part.whole else "incomplete"
    if part.kind == "call":
        item["arguments"] = part.text
    else:
        item["content"] = [content(part, part.text)]
