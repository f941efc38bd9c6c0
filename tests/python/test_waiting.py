"""Calls that wait for another's step: figures don't, and every other call hears Ctrl-C and cancel() meanwhile."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from foundry import CancelledError, CompiledModel, Session

IDS = list(range(40))
SOON_S = 2.0  # the step that is waited for would last far longer


@contextmanager
def stepping(session: Session) -> Iterator[None]:
    """While it lives, another thread is in the middle of a step of this session."""
    inside, go_on = threading.Event(), threading.Event()

    def progress(done: int, total: int) -> None:
        inside.set()
        assert go_on.wait(60)

    thread = threading.Thread(target=session.forward, args=(IDS,), kwargs={"progress": progress})
    thread.start()
    try:
        assert inside.wait(10)
        yield
    finally:
        go_on.set()
        thread.join()


FIGURES = (
    "position",
    "capacity",
    "kv_bytes",
    "pages_added",
    "rewindable_to",
    "reserved_tokens",
    "cached_tokens",
    "closed",
)


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_read_without_waiting(tiny: CompiledModel, figure: str) -> None:
    with tiny.session() as s:
        s.forward([1, 2, 3])
        before = getattr(s, figure)
        with stepping(s):
            began = time.perf_counter()
            during = getattr(s, figure)
            assert time.perf_counter() - began < SOON_S
            repr(s)
        if figure not in ("capacity", "kv_bytes", "pages_added"):  # of memory, which the step has by now
            assert during == before


WAITING: dict[str, Callable[[Session], object]] = {
    "forward": lambda s: s.forward([1]),
    "score": lambda s: s.score([1, 2]),
    "generate": lambda s: s.generate([1], 2),
    "batch": lambda s: s.model.forward([(s, [1])]),
    "save": lambda s: s.save("never"),
    "fork": lambda s: s.fork(),
    "rewind": lambda s: s.rewind(0),
    "reserve": lambda s: s.reserve(50),
    "close": lambda s: s.close(),
    "token_ids": lambda s: s.token_ids,
    "globals": lambda s: s.globals,
    "check_consistency": lambda s: s.check_consistency(),
}
STEPS = ("forward", "score", "generate", "batch")  # these wait for steps of other sessions too


@pytest.mark.parametrize(("call", "own"), [*((call, True) for call in WAITING), *((call, False) for call in STEPS)])
def test_a_call_that_waits_hears_ctrl_c(tiny: CompiledModel, call: str, own: bool) -> None:
    with tiny.session() as s, tiny.session() as other:
        with stepping(s):
            timer = threading.Timer(0.2, _thread.interrupt_main)
            timer.start()
            began = time.perf_counter()
            with pytest.raises(KeyboardInterrupt):
                WAITING[call](s if own else other)
            assert time.perf_counter() - began < SOON_S
            timer.join()
        assert s.position == len(IDS) and other.position == 0
        assert s.forward([1]).shape == other.forward([1]).shape


@pytest.mark.parametrize("call", STEPS)
def test_a_call_that_waits_hears_cancel(tiny: CompiledModel, call: str) -> None:
    with tiny.session() as s, tiny.session() as other:
        with stepping(s):
            timer = threading.Timer(0.2, other.cancel)
            timer.start()
            began = time.perf_counter()
            with pytest.raises(CancelledError):
                WAITING[call](other)
            assert time.perf_counter() - began < SOON_S
        assert other.position == 0
        WAITING[call](other)


def test_a_stream_that_waits_for_its_next_token_hears_cancel(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as other:
        stream = other.stream([1, 2], 20)
        next(stream)
        with stepping(s):
            threading.Timer(0.2, other.cancel).start()
            began = time.perf_counter()
            with pytest.raises(CancelledError):
                next(stream)
            assert time.perf_counter() - began < SOON_S


def test_who_waits_is_served_in_the_order_of_asking(tiny: CompiledModel) -> None:
    sessions = [tiny.session() for _ in range(5)]
    served: list[int] = []
    with stepping(sessions[0]):
        threads = []
        for i in range(1, 5):
            threads.append(threading.Thread(target=lambda i=i: (sessions[i].forward([1]), served.append(i))))
            threads[-1].start()
            time.sleep(0.1)  # it is at the door now
    for thread in threads:
        thread.join()
    assert len(served) == 4 and served[0] == 1
