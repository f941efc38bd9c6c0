"""Text that knows which of its characters the caller gave, and which are the template's own.

``Given`` is a str in everything that a template can see. What templates do with contents (adding, joining, slicing,
stripping, splitting, replacing) keeps track exactly; where an operation can't, all of its result counts as given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

Span = tuple[int, int]  # of characters, [begin, end)


class Given(str):
    """Text of which the characters in ``spans`` are given: in order, apart, none empty; by default all of them."""

    _spans: tuple[Span, ...]

    def __new__(cls, text: object = "", spans: Iterable[Span] | None = None) -> Given:
        self = super().__new__(cls, str(text))
        self._spans = tuple([(0, len(self))] if spans is None else spans)
        return self

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> str:
        return join((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return join((other, self)) if isinstance(other, str) else NotImplemented

    def __iter__(self) -> Iterator[str]:
        return (part(self, i, i + 1) for i in range(len(self)))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        found = super().__getitem__(key)
        if not isinstance(key, slice):
            begin = key.__index__() % len(self)
        elif key.step in (None, 1):
            begin = key.indices(len(self))[0]
        else:
            return Given(found)
        return part(self, begin, begin + len(found))

    def strip(self, chars: str | None = None, /) -> str:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> str:
        return part(self, len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> str:
        return part(self, 0, len(super().rstrip(chars)))

    def removeprefix(self, prefix: str, /) -> str:
        return part(self, len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str, /) -> str:
        return part(self, 0, len(self) - (len(suffix) if self.endswith(suffix) else 0))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._placed(super().split(sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._placed(super().rsplit(sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._placed(super().splitlines(keepends), 0)

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        first, middle, last = self._placed(super().partition(sep), 0)
        return first, middle, last

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        first, middle, last = self._placed(super().rpartition(sep), 0)
        return first, middle, last

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        return replaced(self, old, new, count)

    def join(self, pieces: Iterable[str], /) -> str:
        return join(pieces, self)

    def _placed(self, pieces: Iterable[str], between: int) -> list[str]:
        """Pieces of this text in order, ``between`` characters apart or, where that is 0, wherever they come next."""
        made, at = [], 0
        for piece in pieces:
            begin = self.find(piece, at)
            made.append(part(self, begin, begin + len(piece)))
            at = begin + len(piece) + between
        return made


def spans_of(text: str) -> tuple[Span, ...]:
    return text._spans if isinstance(text, Given) else ()


def part(text: Given, begin: int, end: int) -> str:
    """text[begin:end], a plain str where nothing in it is given."""
    spans = [(max(a, begin) - begin, min(b, end) - begin) for a, b in text._spans if max(a, begin) < min(b, end)]
    made = str.__getitem__(text, slice(begin, end))
    return Given(made, spans) if spans else made


def join(pieces: Iterable[str], separator: str = "") -> str:
    """separator.join(pieces)"""
    listed = list(pieces)
    text = str.join(separator, listed)
    if not any(isinstance(piece, Given) for piece in listed) and not isinstance(separator, Given):
        return text
    spans: list[Span] = []
    at = 0
    for i, piece in enumerate(listed):
        for one in (separator, piece) if i else (piece,):
            for begin, end in spans_of(one):
                if spans and spans[-1][1] == at + begin:
                    spans[-1] = spans[-1][0], at + end
                else:
                    spans.append((at + begin, at + end))
            at += len(one)
    return Given(text, spans) if spans else text


def replaced(text: str, old: str, new: str, count: SupportsIndex = -1) -> str:
    """text.replace(old, new, count)"""
    return join(text.split(old, count), new) if old else Given(str.replace(text, old, new, count))


def derived(made: Any, *values: Any) -> Any:
    """``made`` by an operation from values that can't tell what became of which: all of it is given if any of them
    holds text that is."""
    return Given(made) if type(made) is str and holds(values) else made


def marked(value: Any, is_marked: Any) -> Any:
    """The value with all text that ``is_marked`` says so as given; of mappings the values, but for roles."""
    if isinstance(value, str):
        return Given(value) if is_marked(value) else value
    if isinstance(value, Mapping):
        return {key: entry if key == "role" else marked(entry, is_marked) for key, entry in value.items()}
    return [marked(entry, is_marked) for entry in value] if isinstance(value, list) else value


def texts(value: Any) -> Iterator[str]:
    """All text of a value that ``marked`` would ask of."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            if key != "role":
                yield from texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry)


def holds(value: Any) -> bool:
    """Some text in the value is given."""
    if isinstance(value, str):
        return isinstance(value, Given)
    if isinstance(value, Mapping):
        return any(map(holds, value.values())) or any(map(holds, value))
    return isinstance(value, list | tuple) and any(map(holds, value))
