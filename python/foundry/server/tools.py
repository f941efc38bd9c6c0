"""Tools that a request offers, and which of them the answer is to call."""

from __future__ import annotations

from typing import Any

import msgspec


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
