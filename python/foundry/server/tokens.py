"""Tokens as clients see them: their text, their bytes, their log-probabilities."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from foundry.generate import TokenLogprobs
from foundry.tokenizer import Tokenizer


def spelled(tokenizer: Tokenizer, token_id: int) -> str:
    """A token as text; where it is a part of a character, its bytes as OpenAI writes them: ``bytes:\\xf0\\x9f``."""
    piece = tokenizer.piece(token_id)
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def of_chat(tokenizer: Tokenizer, found: Iterable[TokenLogprobs]) -> dict[str, Any]:
    """``logprobs`` of a chat's choice."""

    def one(token_id: int, logprob: float) -> dict[str, Any]:
        piece = tokenizer.piece(token_id)
        text = piece.decode(errors="replace")
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(piece)}

    content = [one(t.token_id, t.logprob) | {"top_logprobs": [one(i, p) for i, p in t.top]} for t in found]
    return {"content": content, "refusal": None}


class OfCompletion:
    """``logprobs`` of a completion's choice, tokens one after the other: a stream tells each piece its own."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at = 0

    def add(self, found: Iterable[tuple[int, TokenLogprobs | None]]) -> dict[str, Any]:
        """``found``: tokens, and what the model made of each; None for the first of a text."""
        made: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token_id, told in found:
            made["tokens"].append(spelled(self._tokenizer, token_id))
            made["token_logprobs"].append(None if told is None else max(told.logprob, -9999.0))
            made["top_logprobs"].append(None if told is None else self._top(told))
            made["text_offset"].append(self._at)
            if not self._tokenizer.is_control(token_id):
                self._at += len(self._utf8.decode(self._tokenizer.piece(token_id)))
        return made

    def _top(self, told: TokenLogprobs) -> dict[str, float]:
        """The most likely ones; where two are spelled alike, the likelier."""
        made: dict[str, float] = {}
        for token_id, logprob in told.top:
            made.setdefault(spelled(self._tokenizer, token_id), max(logprob, -9999.0))
        return made
