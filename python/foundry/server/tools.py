"""Tools that a request offers: what the template is told of them, and what binds and reads the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from foundry import parsing
from foundry.server.refusals import Refusal
from foundry.server.settings import Settings
from foundry.tokenizer import Tokenizer

_PROMPT_END_TOKENS = 32  # in which a template may have begun the reasoning


class ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct):
    """OpenAI's."""

    function: ToolFunction
    type: str = "function"


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    """The choice of one function by its name."""

    function: NamedFunction
    type: str = "function"


@dataclass(frozen=True)
class Offer:
    """``tools`` are empty where none may be called. ``choice`` is what the parsers take."""

    tools: list[dict[str, Any]] = field(default_factory=list)
    choice: str | dict[str, Any] = "auto"
    parallel: bool = True

    @staticmethod
    def read(
        tools: Sequence[Tool] | None, choice: str | NamedTool | None, parallel: bool | None, settings: Settings
    ) -> Offer:
        """Raises Refusal for tools or a choice that make no sense."""
        plain = [_plain(tool) for tool in tools or ()]
        if len(plain) > settings.max_tools:
            raise Refusal(400, f"tools: expected at most {settings.max_tools}, found {len(plain)}", "tools")
        if (size := len(msgspec.json.encode(plain))) > settings.max_schema_bytes:
            raise Refusal(400, f"tools: expected at most {settings.max_schema_bytes} bytes, found {size}", "tools")
        wanted = choice or "auto"
        chosen = wanted if isinstance(wanted, str) else {"type": "function", "function": {"name": wanted.function.name}}
        try:
            parsing.parser_for(None, plain, chosen)
        except ValueError as error:
            raise Refusal(400, str(error), str(error).partition(":")[0].partition("[")[0]) from None
        return Offer([] if chosen == "none" else plain, chosen, parallel is not False)

    @property
    def bound(self) -> bool:
        """The answer must be a call."""
        return bool(self.tools) and self.choice != "auto"

    def told(self, tokenizer: Tokenizer, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The messages, and what the template is given beside them. One that knows nothing of tools is told in text."""
        template = tokenizer.chat_template
        if "tools" not in (template or ""):
            return _in_text(messages, self.tools), {}
        return parsing.messages_with_calls(messages, template), {"tools": self.tools} if self.tools else {}

    def reader(self, tokenizer: Tokenizer, ids: list[int]) -> Callable[[], parsing.Parser]:
        """Makes a parser for each answer to the prompt."""
        end = _end(tokenizer, ids)
        return lambda: parsing.parser_for(tokenizer, self.tools, self.choice, end)

    def grammar(self, tokenizer: Tokenizer, ids: list[int], schema: Any = None) -> str | None:
        """What binds the answer: to calls where one is required; with ``schema``, to calls or to JSON of it."""
        choice = "required" if self.tools and schema is not None and not self.bound else self.choice
        calls = parsing.grammar_for(tokenizer, self.tools, choice, self.parallel, _end(tokenizer, ids))
        if calls is None or schema is None:
            return calls
        either = f"start: answer_calls | answer_json\nanswer_json: %json {json.dumps(schema)}\n"
        return calls.replace("start:", "answer_calls:", 1) + either


def _plain(tool: Tool) -> dict[str, Any]:
    if tool.type != "function":
        raise Refusal(400, f"tools: expected type function, found {tool.type!r}", "tools")
    made = {"name": tool.function.name, "parameters": tool.function.parameters or {"type": "object", "properties": {}}}
    if tool.function.description is not None:
        made["description"] = tool.function.description
    return {"type": "function", "function": made}


def _end(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids[-_PROMPT_END_TOKENS:], skip_special_tokens=False)


def _in_text(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls and results as text, as a parser of a plain answer reads it, and tools in a system message."""
    made: list[dict[str, Any]] = []
    if tools:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        about = (
            "You can call these functions, each with arguments of its JSON schema:\n"
            f'{listed}\nTo call one, answer with nothing but JSON: {{"name": "...", "arguments": {{...}}}}'
        )
        made.append({"role": "system", "content": about})
    for message in messages:
        _add(made, _as_text(message))
    return made


def _as_text(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"Result: {message['content']}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [json.dumps(call["function"], ensure_ascii=False) for call in calls]
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**kept, "content": "\n".join(filter(None, [message["content"], *texts]))}


def _add(made: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Results one after the other, and a system message behind the tools, are one message: templates ask for turns."""
    last = made[-1] if made else None
    joins = last is not None and last["role"] == message["role"] and message["role"] in ("system", "user")
    if last is not None and joins:
        made[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
    else:
        made.append(message)
