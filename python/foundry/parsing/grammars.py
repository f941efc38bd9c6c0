"""Grammars that bind an answer to calls of the tools that are offered, in the family's way of writing them.

In llguidance's variant of Lark (guidance-ai/llguidance, docs/syntax.md): ``%json`` is a schema, ``<[id]>`` a token,
``[lazy]`` matches as little as may be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from foundry.parsing import harmony
from foundry.parsing.braces import BracesForm
from foundry.parsing.family import Family, Writing
from foundry.parsing.json_text import quoted
from foundry.parsing.notation import Notation, keyword_arguments
from foundry.parsing.rules import Rules
from foundry.parsing.tools import Tools, properties_of, types_of, values_of

_GAP = '("\\n" | "\\n\\n")?'


def bound(
    family: Family, tools: Tools, parallel: bool, prompt_end: str, control_id: Callable[[str], int | None]
) -> str:
    """The grammar of an answer that is at least one call."""
    rules = Rules(family.marks, control_id)
    writing = family.writings[-1]
    one = rules.rule(" | ".join(_call(rules, family, writing, *tool) for tool in tools.schemas.items()))
    more = f"({rules.text(writing.between)} {one})*" if parallel and writing.several else ""
    before = rules.text(_before(family, writing, prompt_end))
    return rules.lark(
        f"{_reasoning(rules, family, prompt_end)} {_GAP} {before} {one} {more} {rules.text(writing.after)}"
    )


def _before(family: Family, writing: Writing, prompt_end: str) -> str:
    """The prompt may have opened the answer's text."""
    opens = family.frames[0] if family.frames else ""
    return writing.before.removeprefix(opens) if opens and prompt_end.endswith(opens) else writing.before


def _reasoning(rules: Rules, family: Family, prompt_end: str) -> str:
    """The model may think first, and must end what the prompt has begun."""
    if family.harmony:
        return f"({rules.text(harmony.ANALYSIS)} {rules.anything_before(harmony.NEXT)})?"
    if family.reasoning is None or prompt_end.rstrip().endswith(family.reasoning[1]):
        return ""
    opens, closes = family.reasoning
    if prompt_end.rstrip().endswith(opens):
        return rules.anything_before(closes)
    return f"({rules.text(opens)} {rules.anything_before(closes)})?"


def _call(rules: Rules, family: Family, writing: Writing, name: str, schema: Mapping[str, Any]) -> str:
    def place(what: str) -> str:
        if what == "$INDEX":
            return "/[0-9]{1,2}/"
        if writing.parameter:
            return _parameters(rules, writing, schema)
        if "($ARGS)" in writing.call:
            return keyword_arguments(rules, schema)
        form = next((form for form in family.forms if isinstance(form, BracesForm)), None)
        return rules.json({"type": "object", **schema}) if form is None else Notation(rules, form.quote, schema).root()

    return rules.rule(_filled(rules, writing.call.replace("$NAME", quoted(name)), ("$ARGS", "$INDEX"), place))


def _filled(rules: Rules, text: str, places: tuple[str, ...], fill: Callable[[str], str]) -> str:
    parts = re.split(f"({'|'.join(map(re.escape, places))})", text)
    return " ".join(filter(None, (fill(part) if part in places else rules.text(part) for part in parts)))


def _parameters(rules: Rules, writing: Writing, schema: Mapping[str, Any]) -> str:
    """In the schema's order; those that are not required may be left out."""
    head, tail = writing.parameter.split("$VALUE")
    required = schema.get("required", [])
    parts = []
    for key, one in properties_of(schema).items():
        kinds = types_of(one)
        text = not kinds or "string" in kinds
        kind = "string" if text else min(kinds - {"null"}, default="null").replace("integer", "number")
        said = head.replace("$TYPE", kind).replace("$IS_STRING", "true" if text else "false")
        spelled = key.replace("&", "&amp;").replace('"', "&quot;") if writing.entities else key
        begin = rules.text(said.replace("$KEY", spelled))
        if values := values_of(one):
            written = [value if isinstance(value, str) else json.dumps(value) for value in values]
            value = f"({' | '.join(map(rules.text, written))}) {rules.text(tail)}"
        elif text:
            value = rules.anything_before(tail)
        else:
            definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
            value = f"{rules.json({**one, **definitions})} {rules.text(tail)}"
        parts.append(rules.rule(f"{begin} {value}") + ("" if key in required else "?"))
    return " ".join(parts)
