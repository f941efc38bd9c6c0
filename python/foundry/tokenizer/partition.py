"""Tokens that are found in a text whole, before anything else is: control tokens, user-defined ones, the unknown one.

As llama.cpp finds them (src/llama-vocab.cpp, tokenizer_st_partition): longer ones first, wherever they are.
"""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

Span = tuple[int, int]  # of characters, [begin, end)
_SPACES = " \t\n\v\f\r"


@dataclass(frozen=True)
class Strips:
    """Tokens that take the spaces on their left, or right, along."""

    left: frozenset[str] = frozenset()
    right: frozenset[str] = frozenset()


class Partition:
    """Splits texts at such tokens."""

    def __init__(self, special: Mapping[str, int], user_defined: Mapping[str, int], strips: Strips) -> None:
        """Ids of tokens. ``special`` ones are those that a text may be told not to have."""
        self._ids = {**user_defined, **special}
        self._special = frozenset(special)
        self._strips = strips
        lengths: dict[str, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[0], set()).add(len(token))
        self._lengths = {first: sorted(found) for first, found in lengths.items()}
        self._first = re.compile(f"[{''.join(map(re.escape, lengths))}]") if lengths else None

    def split(self, text: str, plain: Sequence[Span] = ()) -> Iterator[str | int]:
        """Parts of the text, and ids of the tokens between them.

        ``plain``: spans, in order and apart, that are nothing but text: no special token is found that lies in one or
        reaches into one.
        """
        at = 0
        for begin, end, token_id in self._chosen(text, plain):
            if begin > at:
                yield text[at:begin]
            if token_id >= 0:
                yield token_id
            at = end
        if at < len(text):
            yield text[at:]

    def specials(self, text: str) -> set[str]:
        """The special tokens that are spelled in the text."""
        return {token for _, token in self._spelled(text) if token in self._special}

    def spans_of(self, tokens: Iterable[str], text: str) -> list[Span]:
        """Where any of ``tokens`` is spelled, joined where they touch."""
        spans: list[Span] = []
        for begin, token in self._spelled(text):
            if token in tokens:
                end = begin + len(token)
                if spans and begin <= spans[-1][1]:
                    begin, end = spans[-1][0], max(end, spans.pop()[1])
                spans.append((begin, end))
        return spans

    def may_be_special(self, text: str) -> bool:
        """A special token is spelled in the text, or could be with something before or behind it."""
        return bool(self.specials(text)) or any(
            text[:n] in self._endings or text[-n:] in self._beginnings for n in range(1, self._longest)
        )

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._special), default=1)

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(token[:n] for token in self._special for n in range(1, len(token)))

    @cached_property
    def _endings(self) -> frozenset[str]:
        return frozenset(token[n:] for token in self._special for n in range(1, len(token)))

    def _spelled(self, text: str) -> Iterator[tuple[int, str]]:
        """(begin, token), by their beginnings; they may overlap."""
        if self._first is None:
            return
        for found in self._first.finditer(text):
            begin = found.start()
            for n in self._lengths[text[begin]]:
                if (token := text[begin : begin + n]) in self._ids:
                    yield begin, token

    def _chosen(self, text: str, plain: Sequence[Span]) -> list[tuple[int, int, int]]:
        """(begin, end, id), in order and apart; an id of -1 is of spaces that a token takes along."""
        found = list(self._spelled(text))
        if plain:
            found = [(at, token) for at, token in found if token not in self._special or _apart(plain, at, len(token))]
        found.sort(key=lambda one: (-len(one[1].encode()), self._ids[one[1]], one[0]))
        taken: list[tuple[int, int, int]] = []
        for begin, token in found:
            end = begin + len(token)
            if not _apart(taken, begin, len(token)):
                continue
            if token in self._strips.left:
                i = bisect_right(taken, (begin, end))
                before = text[taken[i - 1][1] if i else 0 : begin]
                if spaces := len(before) - len(before.rstrip(_SPACES)):
                    insort(taken, (begin - spaces, begin, -1))
            if token in self._strips.right:
                i = bisect_right(taken, (begin, end))
                behind = text[end : taken[i][0] if i < len(taken) else len(text)]
                if spaces := len(behind) - len(behind.lstrip(_SPACES)):
                    insort(taken, (end, end + spaces, -1))
            insort(taken, (begin, end, self._ids[token]))
        return taken


def _apart(spans: Sequence[tuple[int, ...]], begin: int, length: int) -> bool:
    """None of the spans, which are in order, has a character of this one."""
    i = bisect_right(spans, (begin, begin + length))
    return (i == 0 or spans[i - 1][1] <= begin) and (i == len(spans) or spans[i][0] >= begin + length)
