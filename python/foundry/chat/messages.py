"""What callers hand over, as plain data: a template of anybody's sees nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_REASONING = ("reasoning_content", "thinking", "reasoning")  # names that one thing goes by


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each with a role; content is text or text parts, and may be missing from an
    assistant's. Keys whose value is None are left out,
    and reasoning is given by the names that templates know, as ``transformers`` does."""
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes) or not messages:
        raise ValueError(f"messages: expected a list of at least one, found {messages!r}")
    return [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]


def _message(name: str, message: Mapping[str, Any]) -> dict[str, Any]:
    if (
        not isinstance(message, Mapping)
        or not isinstance(message.get("role"), str)
        or not ("content" in message or message["role"] == "assistant")
    ):
        raise ValueError(f"{name}: expected a mapping with role and content, found {message!r}")
    made = {key: plain_value(f"{name}.{key}", value) for key, value in message.items() if value is not None}
    content = made.get("content", "" if made["role"] == "assistant" else None)
    if not isinstance(content, str) and not (isinstance(content, list) and all(map(_is_text_part, content))):
        raise ValueError(f"{name}: expected content that is text, or parts of type text, found {message!r}")
    reasoning = next((made[key] for key in _REASONING if key in made), None)
    if reasoning is not None:
        made = {"thinking": reasoning, **made, "reasoning_content": reasoning}
    return made


def has_parts(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Some content is a list."""
    return any(isinstance(message.get("content"), list) for message in messages)


def texts_of_parts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of all parts, in order."""
    return [part["text"] for message in messages if has_parts([message]) for part in message["content"]]


def joined_parts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with one text for each content."""
    return [
        {**message, "content": "".join(part["text"] for part in message["content"])}
        if has_parts([message])
        else {**message}
        for message in messages
    ]


def plain_value(name: str, value: Any) -> Any:
    """JSON's types alone, copied."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, bool, int, float):  # a kind of them, as enumerations are
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {_key(name, key): plain_value(f"{name}.{key}", entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    raise ValueError(f"{name}: expected text, a number, a list or a mapping, found {value!r}")


def _key(name: str, key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"{name}: expected keys that are text, found {key!r}")
    return str(key)


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
