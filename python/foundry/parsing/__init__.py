"""Tool calls and reasoning, as families of models write them: parted from an answer as it comes, bound by a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from foundry.parsing.conversations import messages_with_calls
from foundry.parsing.events import (
    ContentDelta,
    Event,
    Message,
    ReasoningDelta,
    ToolCall,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallBroken,
    ToolCallEnd,
    message_of,
)
from foundry.parsing.families import FAMILIES, family_named, family_of
from foundry.parsing.family import Family
from foundry.parsing.grammars import bound
from foundry.parsing.parser import Parser
from foundry.parsing.tools import Tools

__all__ = [
    "FAMILIES",
    "ContentDelta",
    "Event",
    "Family",
    "Message",
    "Parser",
    "ReasoningDelta",
    "ToolCall",
    "ToolCallArguments",
    "ToolCallBegin",
    "ToolCallBroken",
    "ToolCallEnd",
    "family_named",
    "family_of",
    "grammar_for",
    "message_of",
    "messages_with_calls",
    "parser_for",
]


class HasTemplate(Protocol):
    """A Tokenizer."""

    @property
    def chat_template(self) -> str | None: ...

    def control_id(self, text: str) -> int | None: ...


def parser_for(
    model: HasTemplate | Family | str | None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    prompt_end: str = "",
) -> Parser:
    """A parser of one answer.

    Args:
        model: whose answer: its tokenizer, its chat template's text, or a family. One that is not known, or None,
            writes content alone.
        tools: as OpenAI's clients send them. Without them, or with the choice "none", calls are content.
        tool_choice: "auto", "none", "required" or {"type": "function", "function": {"name": ...}}.
        prompt_end: the prompt, or its end: a template may open the reasoning there.

    Raises:
        ValueError: tools or a choice that make no sense.
    """
    family = as_family(model)
    opened = family.reasoning is not None and prompt_end.rstrip().endswith(family.reasoning[0])
    return Parser(family, Tools.read(tools, tool_choice), opened)


def grammar_for(
    model: HasTemplate | Family | str | None,
    tools: Sequence[Mapping[str, Any]] | None,
    tool_choice: str | Mapping[str, Any] | None = None,
    parallel: bool = True,
    prompt_end: str = "",
    tokenizer: HasTemplate | None = None,
) -> str | None:
    """A Lark grammar for ``SamplingParams.grammar``, under which an answer is calls that ``parser_for`` reads, with
    arguments that the tools' schemas accept; None where ``tool_choice`` asks for none: text is free then.

    Reasoning may come before the calls, and what the prompt has begun of it must end. Arguments come in the order of
    the schema. What llguidance does not know of a schema binds nothing.

    Args:
        model, tools, tool_choice, prompt_end: as for ``parser_for``.
        parallel: there may be several calls, where the family's models write several.
        tokenizer: whose vocabulary the answer is of, where ``model`` is none: no text matches its control tokens.

    Raises:
        ValueError: tools or a choice that make no sense.
    """
    offered = Tools.read(tools, tool_choice)
    if not offered.required:
        return None
    family = as_family(model)
    if tokenizer is None and model is not None and not isinstance(model, Family | str):
        tokenizer = model
    return bound(family, offered, parallel, prompt_end, tokenizer.control_id if tokenizer else lambda text: None)


def as_family(model: HasTemplate | Family | str | None) -> Family:
    if isinstance(model, Family):
        return model
    return family_of(model if model is None or isinstance(model, str) else model.chat_template)
