"""Sessions on tiny models: same tokens, same bits; limits that raise and change nothing; threads; closing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import exact_devices, room_of
from foundry import (
    CancelledError,
    CapacityPolicy,
    CompiledModel,
    ContextOverflowError,
    MemoryLimitError,
    SamplingParams,
    Session,
)
from foundry._core import device_names
from hypothesis import given, settings
from hypothesis import strategies as st

RANDOM = np.random.default_rng(7)
IDS = [int(i) for i in RANDOM.integers(0, 256, 400)]


def snapshot(s: Session) -> tuple[Any, ...]:
    return s.position, s.capacity, s.reserved_tokens, s.kv_bytes, s.pages_added, s.globals, list(s.token_ids)


@pytest.mark.parametrize("device", exact_devices())
def test_bits_depend_on_tokens_alone(tiny_path: Callable[..., Any], device: str) -> None:
    path = tiny_path()
    expected = None
    for threads, page_tokens, chunk, policy, cuts in [
        (1, 64, 512, CapacityPolicy(eager=True), [400]),
        (2, 8, 512, CapacityPolicy(), [1] * 20 + [130, 250]),
        (2, 16, 32, CapacityPolicy(step=40), [7, 93, 300]),
    ]:
        model = CompiledModel.load(path, device, threads=threads, page_tokens=page_tokens, chunk_tokens=chunk)
        with model.session(16, 0, policy) as s:
            at, rows = 0, []
            for n in cuts:
                rows.append(s.forward(IDS[at : at + n], all_logits=True))
                at += n
        found = np.concatenate(rows)
        assert found.shape == (400, model.arch.vocab_size)
        if expected is None:
            expected = found
        else:
            assert np.array_equal(found, expected), (
                f"{device}: other bits with {threads} threads, pages of {page_tokens}"
            )


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 90), min_size=1, max_size=12), back=st.integers(0, 60))
def test_any_cuts_and_rewinds_give_the_same_bits(tiny_path: Callable[..., Any], cuts: list[int], back: int) -> None:
    model = CompiledModel.load(tiny_path(), threads=1, page_tokens=8, check_every_step=True)
    total = min(sum(cuts), 400)
    with model.session(0, 0) as whole, model.session(0, 0) as pieces:
        expected = whole.forward(IDS[:total])
        at = 0
        for n in cuts:
            n = min(n, total - at)
            if n == 0:
                break
            pieces.forward(IDS[at : at + n])
            at += n
        back = min(back, total - 1)
        pieces.rewind(total - 1 - back)
        found = pieces.forward(IDS[total - 1 - back : total])
        assert np.array_equal(found, expected)
        assert pieces.kv_bytes == whole.kv_bytes


def test_score_is_log_softmax_of_logits(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as t:
        logits = s.forward(IDS[:50], all_logits=True).astype(np.float64)
        log_p = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        log_p -= logits.max(1, keepdims=True)
        first, second = t.score(IDS[:20]), t.score(IDS[20:50])
        assert np.isnan(first[0])
        expected = [log_p[i - 1, IDS[i]] for i in range(1, 50)]
        assert np.allclose(np.concatenate([first[1:], second]), expected, atol=1e-5)
        assert np.array_equal(t.forward(IDS[50:60]), s.forward(IDS[50:60]))


def test_batches_give_each_session_its_own_bits(tiny: CompiledModel) -> None:
    with tiny.session() as a, tiny.session() as b, tiny.session() as alone:
        a.forward(IDS[:30])
        found_a, found_b = tiny.forward([(a, IDS[30:31]), (b, IDS[100:170])])
        assert np.array_equal(found_a, alone.forward(IDS[:31]))
        alone.rewind(0)
        assert np.array_equal(found_b, alone.forward(IDS[100:170]))
        before = snapshot(a)
        with pytest.raises(ValueError, match="twice"):
            tiny.forward([(a, IDS[:1]), (a, IDS[:1])])
        with pytest.raises(ContextOverflowError):
            tiny.forward([(a, IDS[:1]), (b, [1] * 512)])
        assert snapshot(a) == before


def test_the_last_position_and_one_past_it(tiny: CompiledModel) -> None:
    most = tiny.arch.max_seq_len
    with tiny.session() as s, tiny.session() as t:
        s.forward([*IDS, *IDS][:most])
        assert s.position == s.capacity == most
        before = snapshot(s)
        with pytest.raises(ContextOverflowError) as caught:
            s.forward([1])
        assert (caught.value.needed, caught.value.available) == (most + 1, most)
        assert snapshot(s) == before
        s.rewind(most - 1)
        t.forward([*IDS, *IDS][: most - 1])
        assert np.array_equal(s.forward([5]), t.forward([5]))
        t.rewind(0)
        with pytest.raises(ContextOverflowError):
            t.forward([1] * (most + 1))
        assert t.position == 0
        t.rewind(0)
        assert t.generate([1] * (most - 3), 50, ignore_eos=True).finish_reason == "context"


def test_generation_that_meets_the_end_finishes_with_context(tiny: CompiledModel) -> None:
    most = tiny.arch.max_seq_len
    with tiny.session() as s:
        answer = s.begin(([*IDS, *IDS])[: most - 3], 50, SamplingParams(), stop_ids=[])
        given_tokens = 0
        while (step := answer.next())[1] is None:
            given_tokens += 1
        # Three that fit, and one that needs no room: it is given, and never fed.
        assert (given_tokens, step[1], s.position) == (4, "context", most)


@pytest.mark.parametrize("bad", [[], [-1], [259], [[1, 2]], [1.5], np.zeros((0, 2), np.int32), [1 << 40]])
def test_bad_tokens_are_the_callers_fault(tiny: CompiledModel, bad: Any) -> None:
    with tiny.session() as s:
        s.forward(IDS[:10])
        before = snapshot(s)
        for call in (s.forward, s.score, lambda ids: s.generate(ids, 4)):
            with pytest.raises(ValueError):
                call(bad)
        assert snapshot(s) == before


def test_empty_prompt_says_so(tiny: CompiledModel) -> None:
    with tiny.session() as s, pytest.raises(ValueError, match="at least one token"):
        s.generate("", 4)


def test_a_prompt_of_exactly_the_capacity(tiny: CompiledModel) -> None:
    with tiny.session(16, 0) as s:
        assert (s.capacity, s.reserved_tokens) == (16, 16)
        s.forward(IDS[:16])
        assert (s.position, s.capacity, s.pages_added) == (16, 16, 0)
        s.forward(IDS[16:17])
        assert (s.capacity, s.pages_added) == (24, 1)


def test_a_memory_limit_too_small_allocates_nothing(tiny_path: Callable[..., Any]) -> None:
    path = tiny_path()
    free = CompiledModel.load(path, threads=1, page_tokens=8)
    needed = free.memory()["total"]
    beside = free.memory()["estimated"]
    with pytest.raises(MemoryLimitError) as caught:
        CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=beside + needed - 1)
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (needed, needed - 1)
    model = CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=beside + needed + 1)
    plan = model.plan(100, 100)
    assert not plan.fits and plan.available == 1
    with pytest.raises(MemoryLimitError) as caught:
        model.session(100, 100)
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (plan.needed, 1)
    assert plan.needed == plan.kv + plan.page_tables
    assert model.memory()["total"] == needed and model.memory()["kv"] == 0


def test_growth_past_the_limit_changes_nothing(tiny_path: Callable[..., Any]) -> None:
    path = tiny_path(max_seq_len=2048)  # more pages than one slab has
    probe = CompiledModel.load(path, threads=1, page_tokens=8)
    room = room_of(probe) + probe.plan(64, 0).needed
    model = CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=room)
    with model.session(16, 0) as s:
        s.forward(IDS[:16])
        before = snapshot(s)
        with pytest.raises(MemoryLimitError):
            s.forward([1] * 1500)
        assert snapshot(s) == before
        s.forward(IDS[16:20])


def test_plan_is_what_is_allocated(tiny_path: Callable[..., Any]) -> None:
    for device in device_names():
        model = CompiledModel.load(tiny_path(type="q4_0"), device, threads=1, page_tokens=8)
        plan = model.plan(100, 60)
        held = model.memory()
        assert (plan.weights_mapped, plan.weights_private) == (held["weights_mapped"], held["weights_private"])
        assert plan.workspace == held["workspace"]
        with model.session(100, 60, CapacityPolicy(eager=True)) as s:
            assert model.memory()["kv"] == plan.kv
            s.forward(IDS[:160])
            assert model.memory()["total"] == plan.total
        assert model.memory()["total"] == held["total"] and model.memory()["promised"] == 0


def test_closing_gives_everything_back(tiny: CompiledModel) -> None:
    before = tiny.memory()
    s = tiny.session(300, 100)
    s.forward(IDS[:300])
    assert tiny.memory()["kv"] > 0
    s.close()
    s.close()
    assert tiny.memory() == before
    for call in (lambda: s.forward([1]), lambda: s.rewind(0), lambda: s.reserve(1), lambda: s.generate([1], 1)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_reserve(tiny: CompiledModel) -> None:
    with tiny.session(16, 0) as s:
        s.reserve(300)
        assert s.reserved_tokens == 300 and s.capacity == 16
        with pytest.raises(ContextOverflowError):
            s.reserve(513)
        assert s.reserved_tokens == 300


def test_cancel_from_another_thread(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:10])
        before = snapshot(s)

        def cancel_soon(done: int, total: int) -> None:
            thread = threading.Thread(target=s.cancel)
            thread.start()
            thread.join()

        with pytest.raises(CancelledError):
            s.forward(IDS[10:300], progress=cancel_soon)
        assert snapshot(s) == before
        assert np.array_equal(s.forward(IDS[10:300]), fresh.forward(IDS[:300]))
        s.cancel()  # nothing runs: the next call is not touched
        s.forward(IDS[300:310])


def test_ctrl_c_in_prefill_leaves_a_usable_session(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:10])
        before = snapshot(s)

        def interrupt(done: int, total: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            s.forward(IDS[10:300], progress=interrupt)
        assert snapshot(s) == before
        assert np.array_equal(s.forward(IDS[10:300]), fresh.forward(IDS[:300]))


def test_a_callback_that_raises_is_heard(tiny: CompiledModel) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("from the callback")

    with tiny.session() as s:
        with pytest.raises(RuntimeError, match="from the callback"):
            s.forward(IDS[:300], progress=fail)
        assert s.position == 0


def test_two_threads_two_sessions(tiny: CompiledModel) -> None:
    with tiny.session() as alone:
        expected = [alone.forward(IDS[:200])]
        expected += [alone.forward([i]) for i in range(20)]
    failures: list[str] = []

    def run() -> None:
        for _ in range(3):
            with tiny.session() as s:
                found = [s.forward(IDS[:200])] + [s.forward([i]) for i in range(20)]
                if not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
                    failures.append("other bits")

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tiny.memory()["kv"] == 0


def test_two_threads_one_session(tiny: CompiledModel) -> None:
    with tiny.session() as s:
        threads = [threading.Thread(target=lambda: [s.forward([3]) for _ in range(50)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert s.position == 100
        s.check_consistency()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"device": "tpu"}, "expected"),
        ({"kv_dtype": "q9"}, "q9"),
        ({"page_tokens": 48}, "page_tokens"),
        ({"threads": 0}, "threads"),
        ({"memory_limit": -5}, "memory_limit"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"chunk_tokens": 0}, "chunk_tokens"),
    ],
)
def test_load_arguments(tiny_path: Callable[..., Any], arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        CompiledModel.load(tiny_path(), **arguments)


def test_no_such_file(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.gguf"):
        CompiledModel.load(tmp_path / "nothing.gguf")
