"""Tokens to text as they come."""

from __future__ import annotations

import codecs
from collections.abc import Collection

from foundry.tokenizer.codec import Tokenizer


class StreamDecoder:
    """Turns tokens into text as they come, and never splits a character.

    The pieces joined are ``decode`` of all tokens. Bytes that can't become a character any more are told at once, as
    U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer, continues: bool = False, spelled: Collection[int] = ()) -> None:
        """``continues``: there is text before, so that a first space is a space. ``spelled``: control tokens that are
        part of the text, as they are spelled."""
        self._tokenizer = tokenizer
        self._spelled = spelled
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begins = not continues

    def push(self, token_id: int) -> str:
        """New text, "" while a character is incomplete."""
        if self.leaves_out(token_id):
            return ""
        return self._utf8.decode(self.piece(token_id))

    def leaves_out(self, token_id: int) -> bool:
        """The token adds nothing to the text."""
        return self._tokenizer.is_control(token_id) and token_id not in self._spelled

    def piece(self, token_id: int) -> bytes:
        """What the token adds here, as ``Tokenizer.piece`` but for the first space of a beginning."""
        data = self._tokenizer.piece(token_id)
        if self._begins and data:
            self._begins = False
            data = self._tokenizer.strip_first(data)
        return data

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character."""
        return self._utf8.decode(b"", final=True)
