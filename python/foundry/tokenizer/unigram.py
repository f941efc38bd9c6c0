"""SentencePiece's unigram model, as T5's kin have it: of all ways to cut a text into tokens, the likeliest.

As llama.cpp does it (src/llama-vocab.cpp, llm_tokenizer_ugm_session), normalisation included. Kudo, 2018,
arXiv:1804.10959.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from foundry.errors import ModelFormatError
from foundry.tokenizer.charsmap import CharactersMap
from foundry.tokenizer.vocabulary import NORMAL, SPACE, UNUSED, USER_DEFINED, Vocabulary, entries

_UNKNOWN_COST = np.float32(10.0)  # beyond the least likely token's


class Unigram:
    """Text that holds no special token to ids."""

    def __init__(self, metadata: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        scores = entries(float, "scores", metadata.get("tokenizer.ggml.scores"), len(vocabulary.tokens))
        if vocabulary.unknown_id is None:
            raise ModelFormatError("tokenizer.ggml.unknown_token_id: expected an id, found none")
        self._unknown_id = vocabulary.unknown_id
        self._space = SPACE if vocabulary.escapes_spaces else " "
        self._adds_space, self._merges_spaces = vocabulary.adds_space, vocabulary.merges_spaces
        self._map = CharactersMap(metadata.get("tokenizer.ggml.precompiled_charsmap"))
        kinds = vocabulary.types
        self._tokens = {
            token: (i, 0.0 if kinds[i] == USER_DEFINED else scores[i])
            for i, token in enumerate(vocabulary.tokens)
            if kinds[i] in (NORMAL, USER_DEFINED, UNUSED)
        }
        least = min((scores[i] for i, kind in enumerate(kinds) if kind == NORMAL), default=0.0)
        self._unknown_score = float(np.float32(least) - _UNKNOWN_COST)
        self._longest: dict[str, int] = {}  # of the tokens that begin with two characters
        for token in self._tokens:
            self._longest[token[:2]] = max(len(token), self._longest.get(token[:2], 0))

    def encode(self, text: str) -> list[int]:
        """As a text of its own."""
        return self._cut(self._normalised(text, self._adds_space))

    def encode_further(self, text: str) -> list[int]:
        """As a part of a text."""
        return self._cut(self._normalised(text, False))

    def _normalised(self, text: str, adds_space: bool) -> str:
        made: list[str] = []
        in_word = False
        for c in self._map.apply(text):
            if c != " ":
                if not in_word and (adds_space or self._merges_spaces):
                    made.append(self._space)
                    adds_space = False
                in_word = True
                made.append(c)
            else:
                in_word = False
                if not self._merges_spaces:
                    made.append(self._space)
        return "".join(made)

    def _cut(self, text: str) -> list[int]:
        """Viterbi's algorithm, over characters."""
        n, tokens = len(text), self._tokens
        scores = [0.0] + [-np.finfo(np.float64).max.item()] * n  # of the best way to get to a character
        best = [(self._unknown_id, 0)] * (n + 1)  # that way's last token, and where it begins
        for begin in range(n):
            score, alone = scores[begin], False
            for length in range(1, min(self._longest.get(text[begin : begin + 2], 1), n - begin) + 1):
                found = tokens.get(text[begin : begin + length])
                if found is None:
                    continue
                alone = alone or length == 1
                if score + found[1] > scores[begin + length]:
                    scores[begin + length] = score + found[1]
                    best[begin + length] = found[0], begin
            if not alone and score + self._unknown_score > scores[begin + 1]:
                scores[begin + 1] = score + self._unknown_score
                best[begin + 1] = self._unknown_id, begin
        ids: list[int] = []
        while n:
            token_id, n = best[n]
            if token_id != self._unknown_id or ids[-1:] != [token_id]:
                ids.append(token_id)  # unknown characters side by side are one token
        return ids[::-1]
