"""Calls of earlier answers, as a chat template wants them: their arguments as objects, or as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from foundry.chat import render
from foundry.errors import FoundryError

_NEEDLE, _HAY = "needle", "hay"


def messages_with_calls(messages: Sequence[Mapping[str, Any]], template: str | None) -> list[dict[str, Any]]:
    """The messages, with each call's arguments in the form that ``template`` renders as JSON.

    OpenAI's clients send text, and many templates make JSON of what they are given, so that text would be quoted twice;
    others put it between other texts, which an object can't be. Arguments that are no JSON object stay as they are.
    """
    wants_text = template is not None and _wants_text(template)
    return [_message(message, wants_text) for message in messages]


def _message(message: Mapping[str, Any], wants_text: bool) -> dict[str, Any]:
    made = dict(message)
    calls = made.get("tool_calls")
    if isinstance(calls, Sequence) and not isinstance(calls, str):
        made["tool_calls"] = [_call(call, wants_text) for call in calls]
    return made


def _call(call: Any, wants_text: bool) -> Any:
    if not isinstance(call, Mapping):
        return call
    if isinstance(function := call.get("function"), Mapping):
        return {**call, "function": _function(function, wants_text)}
    return _function(call, wants_text)


def _function(function: Mapping[str, Any], wants_text: bool) -> dict[str, Any]:
    made = dict(function)
    arguments = made.get("arguments")
    if wants_text and isinstance(arguments, Mapping):
        made["arguments"] = json.dumps(arguments, ensure_ascii=False)
    elif not wants_text and isinstance(arguments, str):
        try:
            found = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return made
        if isinstance(found, dict):
            made["arguments"] = found
    return made


@lru_cache(maxsize=32)
def _wants_text(template: str) -> bool:
    """Told by what it makes of either. Most want an object, so text is given where only that comes out whole."""
    return not _renders(template, {_NEEDLE: _HAY}) and _renders(template, json.dumps({_NEEDLE: _HAY}))


def _renders(template: str, arguments: Any) -> bool:
    """The arguments come out as JSON, or each on its own as families with tags write them."""
    call = {"id": "call12345", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call12345", "name": "f", "content": "r"},
        {"role": "user", "content": "u"},
    ]
    try:
        text = render(template, messages, False, variables={"bos_token": "", "eos_token": ""})
    except (ValueError, FoundryError):
        return False
    return _NEEDLE in text and f"'{_NEEDLE}'" not in text and f'\\"{_NEEDLE}' not in text
