"""Calls out of turn: from a callback of the step that runs, or on with a generation that another call has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from foundry import CompiledModel, ContextOverflowError, SamplingParams, Session

IDS = [int(i) for i in np.random.default_rng(3).integers(0, 256, 60)]
OUT_OF_TURN: dict[str, Callable[[Session, Session], object]] = {
    "close": lambda s, other: s.close(),
    "rewind": lambda s, other: s.rewind(0),
    "reserve": lambda s, other: s.reserve(10),
    "fork": lambda s, other: s.fork(),
    "save": lambda s, other: s.save("never"),
    "forward": lambda s, other: s.forward([1]),
    "score": lambda s, other: s.score([1]),
    "generate": lambda s, other: s.generate([1], 1),
    "forward of another": lambda s, other: other.forward([1]),
    "generate of another": lambda s, other: other.generate([1], 1),
    "batch": lambda s, other: s.model.forward([(other, [1])]),
}


@pytest.mark.parametrize("name", OUT_OF_TURN)
def test_a_callback_can_look_and_change_nothing(tiny: CompiledModel, name: str) -> None:
    with tiny.session() as s, tiny.session() as other, tiny.session() as fresh:
        seen: list[str] = []

        def progress(done: int, total: int) -> None:
            with pytest.raises(ValueError, match="callback") as caught:
                OUT_OF_TURN[name](s, other)
            seen.append(str(caught.value))
            assert s.position == other.position == 0
            other.rewind(0)  # a session outside the step is free
            tiny.session().close()

        logits = s.forward(IDS, progress=progress)
        assert seen and not s.closed
        assert np.array_equal(logits, fresh.forward(IDS))
        s.check_consistency()


def test_a_callback_that_lasts_holds_up_nobody_else(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as other:
        alone = other.forward(IDS)
        other.rewind(0)
        threads: list[threading.Thread] = []
        found: list[object] = []

        def progress(done: int, total: int) -> None:
            if not threads:
                threads.append(threading.Thread(target=lambda: found.append(other.forward(IDS))))
                threads[0].start()
                threads[0].join(20)
            assert other.position == len(IDS) and s.position == 0

        s.forward(IDS, progress=progress)
        assert np.array_equal(found[0], alone)
        assert s.position == len(IDS)


@pytest.mark.parametrize(
    "end",
    [
        lambda s: s.forward([1]),
        lambda s: s.score([1]),
        lambda s: s.rewind(2),
        lambda s: next(s.stream([1], 5)),
        lambda s: s.model.forward([(s, [1])]),
    ],
)
def test_a_stream_that_another_call_has_ended_says_so(tiny: CompiledModel, end: Callable[[Session], object]) -> None:
    with tiny.session() as s:
        stream = s.stream(IDS[:9], 50, params=SamplingParams(temperature=1, seed=1))
        next(stream)
        end(s)
        with pytest.raises(ValueError, match="has ended"):
            next(stream)


def test_a_prompt_past_the_model_is_refused_when_the_session_is_asked_for(tiny: CompiledModel) -> None:
    most = tiny.arch.max_seq_len
    for ask in (tiny.session, tiny.plan):
        with pytest.raises(ContextOverflowError, match=str(most)) as caught:
            ask(most + 1, 0)
        assert (caught.value.needed, caught.value.available) == (most + 1, most)
    assert tiny.plan(most, 100).reserved_tokens == most
