"""Who may begin: in the order of arrival, as memory and threads go. Belongs to the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from foundry.errors import MemoryLimitError
from foundry.server.refusals import Refusal
from foundry.server.settings import Settings
from foundry.server.shortage import Parking

T = TypeVar("T")


class Admission:
    """A line before the memory: its first waits until memory was given back, and nobody overtakes.

    Attributes:
        running: answers that have begun and not ended; choices count each.
        waiting: requests in the line.
    """

    def __init__(self, settings: Settings, parking: Parking) -> None:
        self._settings = settings
        self._parking = parking  # those who are parked there go first
        self._turn = asyncio.Lock()  # fair: whoever came first has it first
        self._freed = asyncio.Event()
        self._stopping = False
        self.running = 0
        self.waiting = 0

    async def enter(self, n: int, open_: Callable[[], T]) -> T:
        """``open_`` makes what a request of ``n`` answers needs, on a thread; MemoryLimitError says "not now".

        Raises:
            Refusal: 429 where the line is full, 503 after ``queue_seconds``, or when the server stops meanwhile.
        """
        if self._stopping:
            raise _stopping()
        most, began = self._settings.max_queue, time.monotonic()
        if self.waiting >= most:
            raise Refusal(
                429,
                f"queue: expected at most {most} requests that wait, found it full",
                code="queue_full",
                figures={"waiting": self.waiting, "running": self.running},
                retry_after=self._settings.queue_seconds / 4,
            )
        self.waiting += 1
        try:
            async with self._turn:
                return await self._first(n, open_, began + self._settings.queue_seconds)
        finally:
            self.waiting -= 1

    async def _first(self, n: int, open_: Callable[[], T], deadline: float) -> T:
        """Of whoever is the first in the line."""
        short: MemoryLimitError | None = None
        while True:
            self._freed.clear()
            if self._stopping:
                raise _stopping()
            if self.running + n <= max(n, self._settings.max_running) and not self._parking.parked:
                try:
                    made = await _whole(open_)
                    self.running += n
                    return made
                except MemoryLimitError as error:
                    short = error
            left = deadline - time.monotonic()
            try:
                await asyncio.wait_for(self._freed.wait(), max(left, 0.0))
            except asyncio.TimeoutError:
                raise self._too_late(short) from None

    def _too_late(self, short: MemoryLimitError | None) -> Refusal:
        waited = f"after {self._settings.queue_seconds:.0f} s in the queue"
        retry = self._settings.queue_seconds / 2
        figures = {"running": self.running, "waiting": self.waiting}
        if parked := self._parking.parked:
            return Refusal(
                503,
                f"memory: expected no answers that wait for it to go on, found {parked} {waited}",
                None,
                "memory_limit",
                figures | {"parked": parked},
                retry,
            )
        if short is None:
            most = self._settings.max_running
            return Refusal(
                503, f"running: expected less than {most}, found no place {waited}", None, "busy", figures, retry
            )
        figures |= {"needed_bytes": short.needed_bytes, "available_bytes": short.available_bytes}
        return Refusal(503, f"{short} ({waited})", None, "memory_limit", figures, retry)

    def leave(self, n: int) -> None:
        """So many answers have ended, and what they held is given back."""
        self.running -= n
        self.freed()

    def freed(self) -> None:
        """Memory was given back: whoever is first may try again."""
        self._freed.set()

    def stop(self) -> None:
        """Nobody begins any more."""
        self._stopping = True
        self.freed()


def _stopping() -> Refusal:
    return Refusal(503, "the server is stopping", code="stopping", retry_after=5)


async def _whole(make: Callable[[], T]) -> T:
    """What ``make`` makes on a thread. A task that is cancelled meanwhile waits for it and closes it: none is lost."""
    making = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await asyncio.wait([making])
        if making.exception() is None:
            close = getattr(making.result(), "close", None)
            if close is not None:
                await asyncio.to_thread(close)
        raise
