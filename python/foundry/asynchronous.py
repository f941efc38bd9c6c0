"""Streams for event loops: each step of one runs on a thread beside the loop, which is never blocked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from foundry.generate import Completion, Piece, collect

if TYPE_CHECKING:
    from foundry.session import Session


async def beside_the_loop(session: Session, make: Callable[[], Iterator[Piece]]) -> AsyncIterator[Piece]:
    """The pieces of the stream that ``make`` makes. Where the task is cancelled, its call is too, and waited for."""
    pieces: Iterator[Piece] | None = None
    given_up = False

    def step() -> Piece | None:
        nonlocal pieces
        if given_up:  # before a thread was free for it
            return None
        if pieces is None:
            pieces = make()
        return next(pieces, None)

    while True:
        running = asyncio.ensure_future(asyncio.to_thread(step))
        try:
            piece = await asyncio.shield(running)
        except asyncio.CancelledError:
            given_up = True
            await _ended(session, running)
            raise
        if piece is None:
            return
        yield piece


async def _ended(session: Session, running: asyncio.Future[Any]) -> None:
    """Cancels until it is over: the call may only be about to begin."""
    while not running.done():
        session.cancel()
        try:
            await asyncio.wait([running], timeout=0.05)
        except asyncio.CancelledError:
            continue
    running.exception()  # looked at: the task that is cancelled has no use for it


async def acollect(pieces: AsyncIterator[Piece]) -> Completion:
    """All pieces of a stream as one completion."""
    return collect(iter([piece async for piece in pieces]))
