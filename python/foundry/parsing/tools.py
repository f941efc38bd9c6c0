"""What a caller offers: tools as OpenAI's clients send them, and which of them are to be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MOST_REFERENCES = 16
_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True)
class Tools:
    """``schemas``: of the arguments, by the tool's name, those that may be called. ``required``: one must be."""

    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    required: bool = False

    @property
    def offered(self) -> bool:
        return bool(self.schemas)

    @staticmethod
    def read(tools: Sequence[Mapping[str, Any]] | None, choice: str | Mapping[str, Any] | None = None) -> Tools:
        """Raises ValueError for tools or a choice that make no sense, and a choice of a tool that is not offered."""
        schemas = dict(_tool(f"tools[{i}]", tool) for i, tool in enumerate(tools or ()))
        if choice is None or choice == "auto":
            return Tools(schemas)
        if choice == "none":
            return Tools()
        if choice == "required":
            if not schemas:
                raise ValueError("tool_choice: expected tools beside 'required', found none")
            return Tools(schemas, True)
        name = _function(choice).get("name") if isinstance(choice, Mapping) else None
        if not isinstance(name, str):
            raise ValueError(f"tool_choice: expected one of {', '.join(_CHOICES)}, or a function, found {choice!r}")
        if name not in schemas:
            raise ValueError(f"tool_choice: expected one of {', '.join(schemas) or 'no tools'}, found {name!r}")
        return Tools({name: schemas[name]}, True)


def _tool(name: str, tool: Any) -> tuple[str, Mapping[str, Any]]:
    function = _function(tool) if isinstance(tool, Mapping) else {}
    called, schema = function.get("name"), function.get("parameters")
    if not isinstance(called, str) or not called or not (schema is None or isinstance(schema, Mapping)):
        raise ValueError(f"{name}: expected a function with a name, and parameters that are a schema, found {tool!r}")
    return called, {"type": "object"} if schema is None else schema


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tools may be written with the kind around the function, or without."""
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def properties_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """An object's, each resolved."""
    found = schema.get("properties")
    return {key: resolved(one, schema) for key, one in found.items()} if isinstance(found, Mapping) else {}


def resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """What a ``$ref`` into ``root`` stands for."""
    for _ in range(_MOST_REFERENCES):
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        schema = root
        for step in reference[2:].split("/"):
            schema = schema.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
    return schema


def values_of(schema: Any) -> list[Any]:
    """All values that there may be, where the schema lists them; else none."""
    if not isinstance(schema, Mapping):
        return []
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return values if isinstance(values, list) else []


def types_of(schema: Any) -> set[str]:
    """JSON's types that a value may have; none where the schema does not say."""
    if not isinstance(schema, Mapping):
        return set()
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, list):
        return {one for one in kind if isinstance(one, str)}
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            each = [types_of(one) for one in schema[key]]
            return set().union(*each) if all(each) else set()
    return set(map(type_of, values_of(schema)))


def type_of(value: Any) -> str:
    """JSON's name of a value's type."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]
