"""A request that runs: an answer a thread, and what they say as one stream for the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from foundry import generate as generation
from foundry.errors import MemoryLimitError
from foundry.generate import Piece
from foundry.sampling import SamplingParams
from foundry.server.shortage import Parking
from foundry.session import Session
from foundry.structured import Matcher


@dataclass(frozen=True)
class Work:
    """What is to be answered.

    Attributes:
        ids: the whole prompt, or with a session and ``append`` what is new of it.
        max_new: tokens at most; None goes to the context's end.
        n: answers, which share the prompt.
        append: ``ids`` go behind the history instead of being all of it.
        keeps_cancelled: of a prompt that nobody waits for any more, the prefix tree keeps what was computed.
    """

    ids: list[int]
    max_new: int | None
    params: SamplingParams
    n: int = 1
    matcher: Matcher | None = None
    append: bool = False
    keeps_cancelled: bool = True


@dataclass(eq=False)
class Room:
    """The sessions of a request: the first, and empty ones that hold the promise of the other choices.

    ``again(n_tokens, more)`` makes another, with room for so many tokens in all and perhaps more, for an answer that
    had to give its own back. ``keeps``: the first is somebody's, and stays open, with its pages.
    """

    again: Callable[[int, int], Session]
    parking: Parking  # where it counts as one that runs, from before it is opened until its answers do
    first: Session = field(init=False)
    others: list[Session] = field(default_factory=list)
    keeps: bool = False

    def close(self) -> None:
        for one in self.others if self.keeps else [self.first, *self.others]:
            one.close()
        self.parking.end(self)


_MORE_TOKENS = 256  # an answer that goes on is not parked again before so many, unless its own bound is nearer
Told = tuple[int, "Piece | BaseException | None"]


def _begin(answer: Callable[..., None], *given: Any) -> None:
    """On a thread of the answer's own, which ends with it. A pool's threads would live on after a crowd has left, each
    with the freed memory that its C library keeps for it alone: tens of MiB that nobody can give back."""
    threading.Thread(target=answer, args=given, name="foundry-answer").start()


class Run:
    """``async for index, piece in run``. Whoever leaves the loop before its end calls ``stop``.

    Attributes:
        short: by choice, the shortage that ended its answer.
        history: of the first choice, its tokens; None before it has ended.
    """

    def __init__(
        self,
        work: Work,
        room: Room,
        parking: Parking,
        fed: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        self._work, self._room, self._parking = work, room, parking
        self._fed, self._done = fed, done
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        self._open = work.n  # answers that have not ended
        self.short: dict[int, MemoryLimitError] = {}
        self.history: npt.NDArray[np.int32] | None = None
        self.constrained = work.params.constrained
        self.choices = [_Choice(self, i) for i in range(work.n)]
        self._finished = asyncio.Event()
        for choice in self.choices:
            parking.begin(choice)
        parking.leave(room)
        params = work.params.seeded()
        _begin(self._first, replace(params))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        while self._open or not self._told.empty():
            index, told = await self._told.get()
            if isinstance(told, BaseException):
                raise told
            if told is not None:
                yield index, told

    def end(self) -> None:
        """Answers end after the token that is under way, with what they have; a prompt's computation is given up."""
        for choice in self.choices:
            choice.ending = True
            if not choice.fed and choice.session is not None:
                choice.session.cancel()

    async def over(self) -> None:
        """Waits until all has ended by itself and is given back."""
        await self._finished.wait()

    async def stop(self) -> None:
        """Ends all at once, within a chunk, and waits until all is given back. Fine where it has ended."""
        for choice in self.choices:
            choice.gone = True
        while not self._finished.is_set():
            for choice in self.choices:
                if choice.session is not None and not choice.over:
                    choice.session.cancel()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._finished.wait(), 0.05)

    # On threads.

    def _first(self, params: SamplingParams) -> None:
        session, work = self._room.first, self._work
        self._answer(self.choices[0], session, work.ids, params, not work.append, lambda: self._fork(session, params))

    def _fork(self, session: Session, params: SamplingParams) -> None:
        """The prompt is history: the other choices begin, each in the room that an empty session kept for it."""
        self._loop.call_soon_threadsafe(self._fed)
        self.choices[0].fed = True
        last = int(session.token_ids[-1])
        for choice, kept in zip(self.choices[1:], self._room.others, strict=True):
            kept.close()
            fork = session.fork()
            choice.session, choice.fed = fork, True
            _begin(self._other, choice, fork, last, params.of_choice(choice.index))
        self._room.others = []

    def _other(self, choice: _Choice, fork: Session, last: int, params: SamplingParams) -> None:
        with suppress(BaseException):  # a session that is closed meanwhile
            fork.rewind(fork.position - 1)
        self._answer(choice, fork, [last], params, False, lambda: None)

    def _answer(
        self,
        choice: _Choice,
        session: Session,
        ids: list[int],
        params: SamplingParams,
        replaces: bool,
        fed: Callable[[], None],
    ) -> None:
        choice.session = session
        matcher = self._work.matcher
        try:
            if not choice.gone:
                pieces = generation.stream(
                    session,
                    ids,
                    self._work.max_new,
                    params,
                    None,
                    replaces,
                    fed,
                    None if matcher is None else matcher.copy(),
                    choice,
                )
                for piece in pieces:
                    if piece.finish_reason is not None and choice.index == 0 and not choice.session.closed:
                        self.history = choice.session.token_ids
                    self._tell(choice.index, piece)
                    if choice.gone:
                        break
        except BaseException as error:
            self._fail(choice, error)
        finally:
            self._close(choice, choice.session)

    def _fail(self, choice: _Choice, error: BaseException) -> None:
        """Others end with it: choices that never began too."""
        self._tell(choice.index, error)
        for other in self.choices:
            other.gone = True
            if other is not choice and other.session is not None:
                other.session.cancel()

    def _close(self, choice: _Choice, session: Session) -> None:
        if choice.index == 0:
            for kept in self._room.others:
                kept.close()
        if choice.index or not self._room.keeps:
            session.close()
        ended = [choice]
        if choice.index == 0:  # those that have not begun now never will
            ended += [other for other in self.choices[1:] if other.session is None]
        for one in ended:
            one.over = True
            self._parking.end(one)
            self._tell(one.index, None)

    def _tell(self, index: int, told: Piece | BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is over
            self._loop.call_soon_threadsafe(self._hear, index, told)

    def _hear(self, index: int, told: Piece | BaseException | None) -> None:
        self._told.put_nowait((index, told))
        if told is None:
            self._open -= 1
            if self._open == 0:
                self._finished.set()
                self._done()


class _Choice:
    """One answer, as generation and parking see it."""

    def __init__(self, run: Run, index: int) -> None:
        self._run = run
        self.index = index
        self.began = time.monotonic() + index * 1e-6
        self.session: Session | None = None
        self.fed = False
        self.ending = False  # with what it has
        self.gone = False  # nobody reads it
        self.over = False
        self.tried = -1
        self._found: MemoryLimitError | None = None  # what kept it from going on

    @property
    def keeps_cancelled(self) -> bool:
        return self._run._work.keeps_cancelled

    def ends(self) -> bool:
        return self.ending or self.gone

    def short(self, error: MemoryLimitError, n_tokens: int) -> Session:
        """Its pages go where others may need them, but for a session that a client holds."""
        parking, room = self._run._parking, self._run._room
        assert self.session is not None
        kept = room.keeps and self.index == 0
        if parking.alone(self):
            self.ending = not parking.may_try_alone(self)
        else:
            if not kept:
                self.session.close()
            parking.wait(self, (lambda alone: True) if kept else (lambda alone: self._again(n_tokens, alone)))
        if self.ending and not self.gone:
            self._run.short[self.index] = self._found or error
        return self.session

    def _again(self, n_tokens: int, alone: bool) -> bool:
        """Room for its tokens and the next one; and for more, unless it has to do with what there is."""
        try:
            self.session = self._run._room.again(n_tokens + 1, 0 if alone else _MORE_TOKENS)
        except MemoryLimitError as error:
            self._found = error
            return False
        return True
