"""Sequence breakers of DRY: texts as the sequences of tokens in which they may stand, however a text was tokenised.

As llama.cpp has it (src/llama-sampler.cpp, get_overlapping_token_sequences): a token that has the whole text is a
breaker on its own; one that ends with the text's beginning is one where the rest, tokenised as a text of its own,
stands behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foundry.tokenizer.codec import Tokenizer

MOST_BREAKERS = 64
MOST_BYTES = 40  # of a breaker, and
MOST_REST = 20  # tokens behind the first: llama.cpp's, for a search of them at each token stays linear


def sequences_of(tokenizer: Tokenizer, breakers: Sequence[str]) -> list[list[int]]:
    """Each sequence once, its first token first."""
    tokens = [tokenizer.strip_first(tokenizer.piece(i)) for i in range(tokenizer.vocab_size)]
    found = dict.fromkeys(sequence for text in breakers for sequence in _overlapping(tokenizer, tokens, text.encode()))
    return [list(sequence) for sequence in found]


def _overlapping(tokenizer: Tokenizer, tokens: Sequence[bytes], text: bytes) -> Iterator[tuple[int, ...]]:
    whole = {i for i, token in enumerate(tokens) if text in token}
    yield from ((i,) for i in whole)
    for n in range(1, len(text)):
        begins = [i for i, token in enumerate(tokens) if token.endswith(text[:n]) and i not in whole]
        if begins:
            rest = tuple(_ids_of(tokenizer, text[n:])[:MOST_REST])
            yield from ((i, *rest) for i in begins)


def _ids_of(tokenizer: Tokenizer, data: bytes) -> list[int]:
    try:
        return tokenizer.encode(data.decode(), add_special_tokens=False, parse_special=False)
    except UnicodeDecodeError:  # a token ended inside a character
        return tokenizer.encode_bytes(data)
