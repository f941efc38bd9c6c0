"""Why less of a prompt was found in memory than a client would think.

A client that sends the whole conversation again, with a turn more, thinks that all of the earlier turns is known. So
what was answered is remembered for a while: the messages, and the tokens that they and the answer were.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from foundry.tokenizer import Tokenizer

_MOST_TOKENS = 1 << 20  # 4 MiB
_SHOWN = 32  # characters around the first difference


class Reuse:
    """Of one model."""

    def __init__(self, page_tokens: int) -> None:
        self._page_tokens = page_tokens
        self._known: OrderedDict[bytes, npt.NDArray[np.int32]] = OrderedDict()
        self._tokens = 0

    def remember(self, messages: list[dict[str, Any]], ids: npt.NDArray[np.int32]) -> None:
        """``ids`` is the history that ``messages`` with the answer came to be."""
        key = _keys(messages)[-1]
        self._forget(key)
        self._known[key] = ids
        self._tokens += len(ids)
        while self._tokens > _MOST_TOKENS:
            self._forget(next(iter(self._known)))

    def _forget(self, key: bytes) -> None:
        self._tokens -= len(self._known.pop(key, ()))

    def miss(
        self, tokenizer: Tokenizer, messages: list[dict[str, Any]], ids: list[int], found: int
    ) -> dict[str, Any] | None:
        """Why only ``found`` tokens of the prompt ``ids`` were there; None where that is what a client would think.

        ``cause`` is "evicted" (the pages had gone), "tokens" (the same text is other tokens when it comes as text) or
        "template" (the template writes the earlier turns in another way now).
        """
        held = next((self._known[key] for key in reversed(_keys(messages)[:-1]) if key in self._known), None)
        if held is None:
            return None
        n = min(len(held), len(ids))
        differ = np.nonzero(held[:n] != np.asarray(ids[:n], dtype=np.int32))[0]
        common = int(differ[0]) if differ.size else n
        if found >= (len(held) - 1) // self._page_tokens * self._page_tokens:
            return None
        told: dict[str, Any] = {"position": common, "expected_tokens": len(held), "cached_tokens": found}
        if found < common // self._page_tokens * self._page_tokens or common == n:
            return told | {"cause": "evicted"}
        before, now = _text(tokenizer, held[common:]), _text(tokenizer, ids[common:])
        same = now.startswith(before[:-1]) if before else True
        told |= {"held": tokenizer.token(int(held[common])), "sent": tokenizer.token(ids[common])}
        if not same:
            told |= {"held_text": before[:_SHOWN], "sent_text": now[:_SHOWN]}
        return told | {"cause": "tokens" if same else "template"}


def _text(tokenizer: Tokenizer, ids: Any) -> str:
    return tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


def _keys(messages: list[dict[str, Any]]) -> list[bytes]:
    """Of each beginning of the conversation, the shortest first. Only what a client sends back counts."""
    made, digest = [], hashlib.sha256()
    for message in messages:
        kept: dict[str, Any] = {name: message.get(name) or "" for name in ("role", "content", "tool_call_id")}
        kept["calls"] = [call["function"] for call in message.get("tool_calls") or ()]
        digest.update(msgspec.json.encode(kept, order="deterministic"))
        made.append(digest.digest())
    return made
