"""What a template may take: time, memory and text.

A template is a program of anybody's, and Python can't end one from outside: so it counts as it goes, and no single
operation may be large.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from time import thread_time
from typing import Any

MOST_SECONDS = 2.0  # of processor time, and as much again for each million of characters that it is given
MOST_MADE = 128 << 20  # bytes of all values made, and 256 for each character that it is given
MOST_VALUE = 4 << 20  # characters and entries of a value, and of the text in all; and 4 for each that it is given
MOST_WIDTH = 100_000  # of padding, of an indent, of a row
MOST_BITS = 64  # of a whole number: longer ones can be made to collide in a dict
MOST_STEPS = 1 << 26  # of an operation that goes through one text for each character of another
MOST_HEAVY = 1 << 16  # characters and entries, for what takes long with each

_OVERHEAD = 56  # bytes of an entry, at least, beside its place in the list


class BudgetError(Exception):
    """A template has passed a bound, which the message names."""


class Budget:
    """Of one rendering.

    Attributes:
        marked: what is given is told from the template's own text (``chat.given``).
        lost: that could not be told of some text.
    """

    def __init__(self, given: Mapping[str, Any], marked: bool = False) -> None:
        self.marked, self.lost = marked, False
        self._extents: dict[int, tuple[Any, int]] = {}  # of containers, which nothing in the sandbox can change
        self.most_value = sys.maxsize
        size = self.extent(given)
        self.most_value = MOST_VALUE + 4 * size
        self._most_made, self._made = MOST_MADE + 256 * size, 0
        self._told = 0
        self._most_seconds = MOST_SECONDS * (1 + size / 1e6)
        self._ends = thread_time() + self._most_seconds

    def tick(self) -> None:
        """Once for each turn of a loop, call, operation, filter and test."""
        if thread_time() > self._ends:
            raise BudgetError(f"expected an end after {self._most_seconds:.1f} s of processor time, found none")

    def told(self, text: str) -> None:
        """A piece of the text in all."""
        self._told += len(text)
        self.fits(self._told, "characters of text")

    def fits(self, size: int, what: str = "characters or entries of a value") -> None:
        if size > self.most_value:
            found = size if size < 1 << 64 else "more"
            raise BudgetError(f"expected at most {self.most_value} {what}, found {found}")

    def made(self, value: Any) -> Any:
        """The value, which was made just now or may have been: its bytes are counted."""
        if isinstance(value, str | bytes | list | tuple | dict):
            self.extent(value)
            self._made += sys.getsizeof(value)
            if not isinstance(value, str | bytes):
                self._made += _OVERHEAD * len(value)
            if self._made > self._most_made:
                raise BudgetError(f"expected at most {self._most_made} bytes of values made, found more")
        elif isinstance(value, int):
            check_bits(value.bit_length())
        return value

    def extent(self, value: Any) -> int:
        """Characters and entries, however deep. They count as often as they are named, as printing has them."""
        if isinstance(value, str | bytes):
            size = len(value)
        elif isinstance(value, list | tuple | dict | set | frozenset):
            known = self._extents.get(id(value))
            if known is not None:
                return known[1]
            entries = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            size = 1 + sum(map(self.extent, entries))
            self._extents[id(value)] = value, size
        elif isinstance(value, int):
            size = 1 + value.bit_length() // 3
        else:
            return 1
        if size > self.most_value:
            self.fits(size)
        return size


def check_bits(bits: int) -> None:
    if bits > MOST_BITS:
        raise BudgetError(f"expected whole numbers of at most {MOST_BITS} bits, found a longer one")


_current: ContextVar[Budget] = ContextVar("foundry.chat.budget")


def budget() -> Budget:
    """Of the template that is rendered now, in this thread."""
    return _current.get()


@contextmanager
def spending(own: Budget) -> Iterator[Budget]:
    token = _current.set(own)
    try:
        yield own
    finally:
        _current.reset(token)
