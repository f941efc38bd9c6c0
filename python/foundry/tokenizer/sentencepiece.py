"""SentencePiece's byte-pair encoding: of two tokens side by side, those that join to the best score are joined first.

As llama.cpp does it (src/llama-vocab.cpp, llm_tokenizer_spm_session): of equal scores the leftmost, which a list of
merges in order can't say. Gemma's runs of spaces all score alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

from foundry.errors import ModelFormatError
from foundry.tokenizer.vocabulary import SPACE, Vocabulary, entries

_MOST_KEPT = 1 << 16  # parts whose ids are kept
_LONGEST_KEPT = 64  # characters


class SentencePiece:
    """Text that holds no special token to ids."""

    def __init__(self, metadata: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        scores = entries(float, "scores", metadata.get("tokenizer.ggml.scores"), len(vocabulary.tokens))
        if vocabulary.unknown_id is None:
            raise ModelFormatError("tokenizer.ggml.unknown_token_id: expected an id, found none")
        self._unknown_id = vocabulary.unknown_id
        self._prefix = " " if vocabulary.adds_space else ""
        self._escapes = vocabulary.escapes_spaces
        self._ids = vocabulary.text_ids
        self._costs = {token: -scores[i] for token, i in self._ids.items()}
        self._inside = {token[i : i + 2] for token in self._ids for i in range(len(token) - 1)}
        self._bytes = [vocabulary.ids.get(f"<0x{b:02X}>") for b in range(256)]
        self._kept: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """As a text of its own, which may be read as if it began with a space."""
        return self.encode_further(self._prefix + text)

    def encode_further(self, text: str) -> list[int]:
        """As a part of a text."""
        if self._escapes:
            text = text.replace(" ", SPACE)
        ids: list[int] = []
        for part in self._parts(text):
            found = self._kept.get(part)
            if found is None:
                found = [token_id for token in self._joined(part) for token_id in self._ids_of(token)]
                if len(part) <= _LONGEST_KEPT:
                    if len(self._kept) >= _MOST_KEPT:
                        self._kept.clear()
                    self._kept[part] = found
            if ids[-1:] == found[:1] == [self._unknown_id]:
                found = found[1:]  # unknown characters side by side are one token
            ids += found
        return ids

    def _parts(self, text: str) -> Iterator[str]:
        """Cut where no token has the two characters side by side: nothing is ever joined there."""
        begin, inside = 0, self._inside
        for i in range(1, len(text)):
            if text[i - 1 : i + 1] not in inside:
                yield text[begin:i]
                begin = i
        if text:
            yield text[begin:]

    def _joined(self, text: str) -> list[str]:
        """The tokens of a part; single characters may be none."""
        if text in self._ids and len(text) < 2:
            return [text]
        n, costs = len(text), self._costs
        ends = list(range(1, n + 1))  # of the token that begins at a character; 0 where none begins any more
        before = list(range(-1, n - 1))  # where the token before that one begins
        queue = [(costs[pair], i, i + 1, i + 2) for i in range(n - 1) if (pair := text[i : i + 2]) in costs]
        heapify(queue)
        while queue:
            _, left, right, end = heappop(queue)
            if ends[left] != right or ends[right] != end:
                continue  # one of the two was joined to another meanwhile
            ends[left], ends[right] = end, 0
            if end < n:
                before[end] = left
                if (longer := text[left : ends[end]]) in costs:
                    heappush(queue, (costs[longer], left, end, ends[end]))
            first = before[left]
            if first >= 0 and (longer := text[first:end]) in costs:
                heappush(queue, (costs[longer], first, left, end))
        tokens, begin = [], 0
        while begin < n:
            tokens.append(text[begin : ends[begin]])
            begin = ends[begin]
        return tokens

    def _ids_of(self, token: str) -> list[int]:
        token_id = self._ids.get(token)
        if token_id is not None:
            return [token_id]
        found = [self._bytes[b] for b in token.encode()]
        ids = [i for i in found if i is not None]
        return ids if len(ids) == len(found) else [self._unknown_id]
