"""Answers that have grown past what they were promised, when memory is short: they make room for one another.

An answer whose next step finds no memory is parked: it gives its pages back, and when others have given back enough,
its tokens are computed again and it goes on. Its bits are the same, for they depend on the tokens alone. Those that
began first go on first, and nobody new is let in before them. An answer for which there is no room when nobody else
runs would wait for ever: it ends, with what it has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

_LOOKS_S = 0.1  # so often whoever is parked looks whether its client has left


class Parkable(Protocol):
    """An answer. ``began`` orders them. ``tried``: how much had been given back when it last tried alone."""

    began: float
    ending: bool
    gone: bool
    tried: int


class Parking:
    """Of one model's answers. Thread-safe."""

    def __init__(self, cleared: Callable[[], None] = lambda: None) -> None:
        """``cleared`` is called, on any thread, when nobody is parked any more."""
        self._cleared = cleared
        self._changed = threading.Condition()
        self._running: set[object] = set()
        self._parked: set[Parkable] = set()
        self._given = 0  # how often memory was given back

    def begin(self, one: object) -> None:
        """It has memory, or is about to take it, and will give it back."""
        with self._changed:
            self._running.add(one)

    def leave(self, one: object) -> None:
        """Others stand for it, with what it had."""
        with self._changed:
            self._running.discard(one)
            self._changed.notify_all()

    def end(self, one: object) -> None:
        """It has given its memory back."""
        with self._changed:
            self._running.discard(one)
            self._give()

    def freed(self) -> None:
        """Others have given memory back."""
        with self._changed:
            self._give()

    def _give(self) -> None:
        self._given += 1
        self._changed.notify_all()

    @property
    def parked(self) -> int:
        return len(self._parked)

    def alone(self, one: Parkable) -> bool:
        """Nobody else runs, so that nobody will give anything back."""
        with self._changed:
            return self._running - self._parked <= {one}

    def may_try_alone(self, one: Parkable) -> bool:
        """Something was given back since it last tried with nobody else there."""
        with self._changed:
            return self._may_try_alone(one)

    def _may_try_alone(self, one: Parkable) -> bool:
        fresh, one.tried = one.tried != self._given, self._given
        return fresh

    def wait(self, one: Parkable, again: Callable[[bool], bool], seconds: float = 600.0) -> bool:
        """Of an answer that has given its pages back: until ``again`` has found room for it, or it is to end: then
        False. ``again(alone)`` is called on this thread when others have given something back, and when it is alone."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._parked.add(one)
            self._give()
            seen = self._given
        try:
            while not one.gone and not one.ending:
                with self._changed:
                    first = one is min(self._parked, key=lambda each: each.began)
                    alone = not self._running - self._parked
                    due = first and (alone or self._given != seen)
                    if alone and first:
                        self._may_try_alone(one)
                    if due:
                        seen = self._given
                    elif time.monotonic() > deadline:
                        one.ending = True
                    else:
                        self._changed.wait(_LOOKS_S)
                if due:
                    if again(alone):
                        return True
                    if alone:
                        one.ending = True
            return False
        finally:
            with self._changed:
                self._parked.discard(one)
                self._changed.notify_all()
                clear = not self._parked
            if clear:
                self._cleared()
