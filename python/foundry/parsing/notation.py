"""Notations of a call's arguments that are no JSON, as grammars: Gemma's, see ``braces``, and Python's."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from foundry.parsing.rules import Rules
from foundry.parsing.tools import properties_of, resolved, types_of, values_of

_MOST_DEPTH = 8  # of schemas in schemas; behind that any value
_NUMBER = r"/-?(0|[1-9][0-9]{0,15})"
_WORDS = {
    "boolean": '("true" | "false")',
    "integer": _NUMBER + "/",
    "null": '"null"',
    "number": _NUMBER + r"(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,3})?/",
}


class Notation:
    """Gemma's notation of a value that a schema accepts; see ``braces``. Keys are in the order of its templates."""

    def __init__(self, rules: Rules, quote: str, schema: Mapping[str, Any]) -> None:
        self._rules = rules
        self._quote = quote
        self._root = schema
        self._depth = 0

    def root(self) -> str:
        return self._object(self._root)

    def value(self, schema: Any) -> str:
        schema = resolved(schema, self._root)
        if not isinstance(schema, Mapping) or self._depth > _MOST_DEPTH:
            return self._any()
        self._depth += 1
        try:
            if values := values_of(schema):
                return self._either([self._constant(value) for value in values])
            for key in ("anyOf", "oneOf"):
                if isinstance(schema.get(key), list) and schema[key]:
                    return self._either([self.value(one) for one in schema[key]])
            ways = [self._of(kind, schema) for kind in sorted(types_of(schema))]
            return self._either(ways) if ways else self._any()
        finally:
            self._depth -= 1

    def _of(self, kind: str, schema: Mapping[str, Any]) -> str:
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._list(self.value(schema.get("items")))
        if kind == "string":
            return f"{self._rules.text(self._quote)} {self._rules.anything_before(self._quote)}"
        return _WORDS.get(kind, _WORDS["null"])

    def _list(self, one: str) -> str:
        return f'"[" ({one} ("," {one})*)? "]"'

    def _object(self, schema: Mapping[str, Any]) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            return '"{" "}"' if schema.get("additionalProperties") is False else self._any_object()
        keys = sorted(properties, key=str.lower)
        members = {key: f"{self._rules.text(key + ':')} {self.value(properties[key])}" for key in keys}
        return f'"{{" {_in_order(self._rules, members, schema.get("required", []), ",")} "}}"'

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            return self._rules.text(f"{self._quote}{value}{self._quote}")
        return self._rules.text(json.dumps(value, separators=(",", ":")))

    def _either(self, ways: list[str]) -> str:
        return self._rules.rule(" | ".join(dict.fromkeys(ways)))

    def _any(self) -> str:
        """A value of any type; lists and objects of nothing but plain values."""
        return self._either([self._plain(), self._list(self._plain()), self._any_object()])

    def _any_object(self) -> str:
        member = self._rules.rule(f'/[A-Za-z0-9_-]+/ ":" {self._plain()}')
        return f'"{{" ({member} ("," {member})*)? "}}"'

    def _plain(self) -> str:
        return self._either([self._of("string", {}), *_WORDS.values()])


def keyword_arguments(rules: Rules, schema: Mapping[str, Any]) -> str:
    """Python's: ``key=value, ...`` in the schema's order. Its words stand where a value is a truth or nothing; what is
    within lists and dictionaries is written as JSON, which ``pythonic`` reads too."""
    words = {"boolean": '("True" | "False")', "null": '"None"'}
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    members = {}
    for key, one in properties_of(schema).items():
        kinds = types_of(one)
        value = " | ".join(words[kind] for kind in sorted(kinds & set(words)))
        if not value or kinds - set(words):
            value = " | ".join(filter(None, (value, rules.json({**one, **definitions}))))
        members[key] = f"{rules.text(key + '=')} ({value})"
    return _in_order(rules, members, schema.get("required", []), ", ")


def _in_order(rules: Rules, members: Mapping[str, str], required: Collection[str], comma: str) -> str:
    """All members with commas between; those that are not required may be left out."""
    first, next_one = '""', '""'  # the rest of the members, at the beginning and behind another
    for key, text in reversed(list(members.items())):
        member = f"{text} {next_one}"
        at_first, behind = rules.rule(member), rules.rule(f"{rules.text(comma)} {member}")
        if key not in required:
            at_first, behind = (rules.rule(f"{at} | {rest}") for at, rest in ((at_first, first), (behind, next_one)))
        first, next_one = at_first, behind
    return first
