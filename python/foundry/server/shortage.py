"""Answers that have grown past what they were promised, when memory is short: they wait for one another.

An answer whose next step finds no memory has changed nothing: it is parked, with its pages, and goes on when another
has given some back; its bits are the same, for nothing of it is lost. Where all that run are parked, nobody would give
back: the one that began last ends, with what it has.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

_LOOKS_S = 0.1  # so often whoever is parked looks whether its client has left


class Parkable(Protocol):
    """An answer. ``began`` orders them."""

    began: float
    ending: bool
    gone: bool


class Parking:
    """Of one model's answers. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: set[Parkable] = set()
        self._parked: set[Parkable] = set()
        self._given = 0  # how often memory was given back

    def begin(self, one: Parkable) -> None:
        with self._changed:
            self._running.add(one)

    def end(self, one: Parkable) -> None:
        """It has given its memory back."""
        with self._changed:
            self._running.discard(one)
            self._given += 1
            self._changed.notify_all()

    def freed(self) -> None:
        """Others have given memory back."""
        with self._changed:
            self._given += 1
            self._changed.notify_all()

    @property
    def parked(self) -> int:
        return len(self._parked)

    def wait(self, one: Parkable, seconds: float = 600.0) -> bool:
        """Until memory was given back, or ``one`` is to end: then False."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._parked.add(one)
            seen = self._given
            try:
                while self._given == seen and not one.gone and not one.ending:
                    if self._parked >= self._running:
                        victim = max(self._parked, key=lambda each: each.began)
                        victim.ending = True
                        self._changed.notify_all()
                    elif time.monotonic() > deadline:
                        one.ending = True
                    self._changed.wait(0 if one.ending else _LOOKS_S)
                return not one.ending
            finally:
                self._parked.discard(one)
