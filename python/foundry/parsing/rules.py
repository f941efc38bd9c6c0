"""Rules of a grammar as they are made: texts in which control tokens are tokens, schemas, and what ends somewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# One space or none where JSON allows any: a model that is bound can't go on with white space for ever. What llguidance
# does not know of a schema is left out of it, as other servers do for tools.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?", "lenient": True}
_IN_REGEX = re.compile(r"[\\.+*?()|\[\]{}^$/]")


class Rules:
    def __init__(self, marks: Sequence[str], control_id: Callable[[str], int | None]) -> None:
        """``control_id``: the control token that is spelled so. No text matches those: they are named by their ids."""
        found = {mark: control_id(mark) for mark in marks}
        self._ids = {mark: token_id for mark, token_id in found.items() if token_id is not None}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._marks = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        self._names: dict[tuple[str, str], str] = {}  # of rules, by body and options

    def rule(self, body: str, options: str = "") -> str:
        """The name of a rule with this body; the same for the same."""
        return self._names.setdefault((body, options), f"r{len(self._names)}")

    def text(self, text: str) -> str:
        """``text`` as it stands; "" for none."""
        parts = self._marks.split(text)
        return " ".join(f"<[{self._ids[part]}]>" if part in self._ids else _string(part) for part in parts if part)

    def anything_before(self, tail: str) -> str:
        """Any text up to the first ``tail``, and that; it must not be empty."""
        first, *rest = filter(None, self._marks.split(tail))
        if first in self._ids:
            return f"/(?s:.*)/ {self.text(tail)}"
        lazy = self.rule(f"/(?s:.*){_IN_REGEX.sub(_escaped, first)}/".replace("\n", "\\n"), "[lazy]")
        return f"{lazy} {self.text(''.join(rest))}".strip()

    def json(self, schema: Mapping[str, Any]) -> str:
        return self.rule("%json " + json.dumps({**schema, "x-guidance": _JSON_STYLE}))

    def lark(self, start: str) -> str:
        rules = [f"{name}{options}: {body}" for (body, options), name in self._names.items()]
        return "\n".join([f"start: {start}", *rules]) + "\n"


def _escaped(found: re.Match[str]) -> str:
    return "\\" + found.group()


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
