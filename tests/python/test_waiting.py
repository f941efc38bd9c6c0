"""Calls that wait for another's step: figures don't, and every other call hears Ctrl-C and cancel() meanwhile."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from conftest import Tiny
from foundry import CancelledError, CompiledModel, Session

IDS = list(range(40))
SOON_S = 2.0  # the step that is waited for would last far longer
STEP = 150


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
            assert s.token_ids.tolist() == [1, 2, 3]
            assert s.globals["n_pages"] == -(-s.capacity // 8)
            s.check_consistency()
            s.fork().close()
        if figure not in ("capacity", "kv_bytes", "pages_added"):  # of memory, which the step has by now
            assert during == before


WAITING: dict[str, Callable[[Session], object]] = {
    "forward": lambda s: s.forward([1]),
    "score": lambda s: s.score([1, 2]),
    "generate": lambda s: s.generate([1], 2),
    "batch": lambda s: s.model.forward([(s, [1])]),
    "save": lambda s: s.save("never"),
    "rewind": lambda s: s.rewind(0),
    "reserve": lambda s: s.reserve(50),
    "close": lambda s: s.close(),
}
STEPS = ("forward", "score", "generate", "batch")  # these wait for steps of other sessions too


def ctrl_c_soon() -> threading.Timer:
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    return timer


@pytest.mark.parametrize("call", WAITING)
def test_a_call_that_waits_for_another_of_its_session_hears_ctrl_c(tiny: CompiledModel, call: str) -> None:
    with tiny.session() as s:
        with stepping(s):
            began = time.perf_counter()
            with pytest.raises(KeyboardInterrupt):
                timer = ctrl_c_soon()
                WAITING[call](s)
            assert time.perf_counter() - began < SOON_S
            timer.join()
        assert s.position == len(IDS)
        s.forward([1])


@pytest.mark.parametrize("call", STEPS)
def test_a_call_that_waits_for_another_of_its_session_hears_cancel(tiny: CompiledModel, call: str) -> None:
    with tiny.session() as other:
        other.forward(IDS)
        inside, go_on = threading.Event(), threading.Event()
        ended: list[BaseException] = []

        def progress(done: int, total: int) -> None:
            inside.set()
            assert go_on.wait(60)

        def first() -> None:
            try:
                other.forward(IDS, progress=progress)
            except CancelledError as error:
                ended.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        assert inside.wait(10)
        threading.Timer(0.2, other.cancel).start()
        began = time.perf_counter()
        with pytest.raises(CancelledError):
            WAITING[call](other)
        assert time.perf_counter() - began < SOON_S
        go_on.set()
        thread.join()
        assert len(ended) == 1 and other.position == len(IDS)
        WAITING[call](other)


@pytest.fixture(scope="module")
def slow(tiny_path: Tiny) -> CompiledModel:
    """A step of STEP tokens of this model takes a second or more."""
    path = tiny_path(type="f32", hidden=256, ffn=1024, heads=8, head_dim=32, layers=4, max_seq_len=1024)
    return CompiledModel.load(path, "reference")


@pytest.mark.parametrize("call", STEPS)
@pytest.mark.parametrize("end", ["ctrl-c", "cancel"])
def test_a_call_that_waits_for_the_step_of_another_session_hears(slow: CompiledModel, call: str, end: str) -> None:
    with slow.session() as s, slow.session() as other:
        began_step = threading.Event()
        ended: list[float] = []

        def long() -> None:
            s.forward([1] * STEP, progress=lambda done, total: began_step.set())
            ended.append(time.perf_counter())

        thread = threading.Thread(target=long)
        thread.start()
        assert began_step.wait(10)
        time.sleep(0.05)  # the step runs
        with pytest.raises(KeyboardInterrupt if end == "ctrl-c" else CancelledError):
            timer = ctrl_c_soon() if end == "ctrl-c" else threading.Timer(0.2, other.cancel)
            if end == "cancel":
                timer.start()
            WAITING[call](other)
        heard = time.perf_counter()
        thread.join()
        assert heard < ended[0]
        assert s.position == STEP and other.position == 0


def test_a_fork_of_a_busy_session_gets_what_is_committed_at_once(slow: CompiledModel) -> None:
    with slow.session() as s, slow.session() as alone:
        s.forward([3] * 20)
        alone.forward([3] * 20)
        began_step = threading.Event()
        thread = threading.Thread(
            target=s.forward, args=([1] * STEP,), kwargs={"progress": lambda done, total: began_step.set()}
        )
        thread.start()
        assert began_step.wait(10)
        time.sleep(0.05)
        forked = time.perf_counter()
        with s.fork() as child:
            assert time.perf_counter() - forked < 0.2 and thread.is_alive()
            assert child.token_ids.tolist() == [3] * 20
            assert (child.forward([5, 6]) == alone.forward([5, 6])).all()
        thread.join()
        assert s.position == 20 + STEP
        with slow.session() as again:
            again.forward([3] * 20 + [1] * STEP)
            assert (again.forward([7]) == s.forward([7])).all()
