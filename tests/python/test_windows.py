"""Sliding windows: layers that keep only what their window sees, while the others grow. Tiny gemma3, every third layer
full, the others a window of 32; and a llama where every layer has a window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import room_of
from foundry import CancelledError, CapacityPolicy, CompiledModel, MemoryLimitError, ModelFormatError, Session

IDS = [int(i) for i in np.random.default_rng(8).integers(0, 256, 2000)]
PAGE, CHUNK = 8, 16
GEMMA: dict[str, Any] = {"arch": "gemma3", "layers": 3, "window": 32, "max_seq_len": 2048}
LLAMA: dict[str, Any] = {"window": 20, "max_seq_len": 2048}
Load = Callable[..., CompiledModel]


@pytest.fixture
def load(tiny_path: Callable[..., Path]) -> Load:
    def make(shape: dict[str, Any] = GEMMA, **options: Any) -> CompiledModel:
        options = {"threads": 1, "page_tokens": PAGE, "chunk_tokens": CHUNK, "check_every_step": True, **options}
        return CompiledModel.load(tiny_path(**shape), **options)

    return make


def pages(s: Session) -> list[int]:
    """Held by each group."""
    return [group["n_pages"] - group["first_page"] for group in s.globals["groups"]]


def ideal(s: Session) -> list[int]:
    """What a history of this length needs: all of it, or a window."""
    tokens = [min(s.position, group["window"] or s.position) for group in s.globals["groups"]]
    return [-(-n // PAGE) for n in tokens]


@pytest.mark.parametrize("shape", [GEMMA, LLAMA], ids=["gemma3", "llama"])
def test_each_group_holds_what_it_needs_and_a_page_at_every_length(load: Load, shape: dict[str, Any]) -> None:
    model = load(shape)
    with model.session(0, 0) as s, model.session(0, 0) as whole:
        logits = np.zeros(0)
        for token in IDS[:300]:
            logits = s.forward([token])
            assert all(held <= need + 1 for held, need in zip(pages(s), ideal(s), strict=True))
        assert np.array_equal(logits, whole.forward(IDS[:300]))
        assert pages(whole) == pages(s)


def test_a_long_prompt_takes_no_more_than_a_window_and_a_step(load: Load) -> None:
    model = load()
    with model.session(0, 0) as s:
        most = 0

        def watch(done: int, total: int) -> None:
            nonlocal most
            group = s._core.observe().groups[1]
            most = max(most, group.used_pages)

        s.forward(IDS, progress=watch)
        rows = s.globals["groups"][1]["window"] + CHUNK
        assert rows // PAGE <= most <= rows // PAGE + 2 < len(IDS) // PAGE // 10
        assert pages(s)[0] == len(IDS) // PAGE and pages(s)[1] <= 5


@pytest.mark.parametrize("shape", [GEMMA, LLAMA, {**LLAMA, "window": 1}], ids=["gemma3", "llama", "window 1"])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_call_that_moves_the_table_tells_kernels_where_it_lies(load: Load, shape: dict[str, Any], chunk: int) -> None:
    """A long call with pages enough to begin with: nothing is acquired, and yet the table needs room."""
    model = load(shape, chunk_tokens=chunk)
    with model.session(30, 0) as s, model.session(0, 0) as fresh:
        for token in IDS[:500]:
            logits = fresh.forward([token])
        assert np.array_equal(s.forward(IDS[:500]), logits)


def test_the_plan_is_what_is_promised_and_holds(load: Load) -> None:
    model = load()
    plan = model.plan(1500, 100)
    page = [group.encoded_page_bytes for group in load().session()._core.observe().groups]
    assert plan.kv < 200 * page[0] + 200 * page[1]  # less than without windows
    with model.session(1500, 100) as s:
        assert model.memory()["promised"] == plan.kv
        s.forward(IDS[:1500], progress=lambda done, total: check_promise(model, plan.kv))
        for token in IDS[1500:1600]:
            s.forward([token])
            check_promise(model, plan.kv)


def check_promise(model: CompiledModel, kv: int) -> None:
    assert model.memory()["kv"] <= model.memory()["promised"] <= kv


def test_what_is_promised_can_be_had(load: Load) -> None:
    probe = load()
    with probe.session(800, 0):
        room = room_of(probe) - probe.memory()["kv"] + probe.memory()["promised"]
    model = load(memory_limit=room)
    with model.session(800, 0) as s:
        with pytest.raises(MemoryLimitError):
            model.session(800, 0)
        s.forward(IDS[:500])
        for token in IDS[500:800]:
            s.forward([token])
        assert s.position == 800


@pytest.mark.parametrize("shape", [GEMMA, LLAMA], ids=["gemma3", "llama"])
@pytest.mark.parametrize("length", [10, 31, 32, 33, 40, 64, 100, 333])
def test_rewinding_is_exact_as_far_as_it_says_and_refused_before(
    load: Load, shape: dict[str, Any], length: int
) -> None:
    model = load(shape)
    with model.session(0, 0) as s, model.session(0, 0) as fresh:
        s.forward(IDS[:length])
        least = s.rewindable_to
        first_pages = [group["first_page"] for group in s.globals["groups"]]
        assert least <= length and (least == 0) == (max(first_pages) == 0)
        if least > 1:
            with pytest.raises(ValueError, match=f"at least {least}"):
                s.rewind(least - 1)
            assert s.position == length
        s.rewind(least)
        assert np.array_equal(s.score(IDS[least : least + 40])[1:], fresh.score(IDS[: least + 40])[least + 1 :])
        s.rewind(0)
        assert s.rewindable_to == 0
        fresh.rewind(0)
        assert np.array_equal(s.forward(IDS[:77]), fresh.forward(IDS[:77]))


@pytest.mark.parametrize("call", ["forward", "score"])
@pytest.mark.parametrize("before", [0, 7, 40, 48, 49])
def test_a_call_cancelled_past_the_window_changes_nothing(load: Load, before: int, call: str) -> None:
    model = load()
    with model.session(before, 0) as s, model.session(0, 0) as fresh:
        if before:
            s.forward(IDS[:before])
        state = s.position, pages(s), s.globals, s.kv_bytes, s.rewindable_to

        def cancel(done: int, total: int) -> None:
            if done >= 20 * CHUNK:
                s.cancel()

        with pytest.raises(CancelledError):
            getattr(s, call)(IDS[before : before + 600], progress=cancel)
        assert (s.position, pages(s), s.globals, s.kv_bytes, s.rewindable_to) == state
        assert np.array_equal(s.forward(IDS[before : before + 9]), fresh.forward(IDS[: before + 9]))


def test_forks_share_windows_and_go_their_own_ways(load: Load) -> None:
    model = load()
    with model.session(0, 0) as s, model.session(0, 0) as fresh:
        s.forward(IDS[:203])
        held = model.memory()["kv"]
        with s.fork() as a, s.fork() as b:
            assert model.memory()["kv"] == held and pages(a) == pages(s)
            expected = fresh.forward(IDS[:333])
            assert np.array_equal(a.forward(IDS[203:333]), expected)
            b.forward(IDS[:100])
            assert np.array_equal(s.forward(IDS[203:333]), expected)


def test_saved_with_its_windows(load: Load, tmp_path: Path) -> None:
    model = load()
    with model.session(0, 0) as s:
        s.forward(IDS[:500])
        s.save(tmp_path / "s.kv")
        page_bytes = [group["page_bytes"] for group in s.globals["groups"]]
        size = sum(n * held for n, held in zip(pages(s), page_bytes, strict=True))
        assert (tmp_path / "s.kv").stat().st_size <= size + 2 * 16384
        with model.restore(tmp_path / "s.kv", 100) as restored:
            assert (restored.rewindable_to, pages(restored)) == (s.rewindable_to, pages(s))
            assert np.array_equal(restored.forward(IDS[500:550]), s.forward(IDS[500:550]))
    with pytest.raises(ModelFormatError):
        load({**GEMMA, "window": 40}).restore(tmp_path / "s.kv")


def test_a_prefix_is_found_where_a_history_ended(load: Load) -> None:
    model = load(prefix_cache_bytes=1 << 20)
    plain = load()
    with model.session() as s:
        s.generate(IDS[:203], 5)
    with model.session() as same, plain.session() as fresh:
        out, expected = same.generate(IDS[:400], 8), fresh.generate(IDS[:400], 8)
        assert out.token_ids == expected.token_ids
        assert out.usage.cached_tokens == 200  # whole pages
    with model.session() as inside:  # nobody kept the windows of this place
        assert inside.generate(IDS[:100], 3).usage.cached_tokens == 0
    with model.session() as again:
        assert again.generate(IDS[:110], 3).usage.cached_tokens == 96


def test_a_prompt_cancelled_behind_a_cached_prefix_leaves_nothing(load: Load) -> None:
    model, plain = load(prefix_cache_bytes=1 << 20), load()
    with model.session() as s:
        s.generate(IDS[:203], 5)
    with model.session(300, 50) as s, plain.session() as fresh:
        with pytest.raises(CancelledError):
            s.generate(IDS[:300], 3, progress=lambda done, total: s.cancel())
        assert (s.position, s.rewindable_to) == (0, 0)
        s.check_consistency()
        assert np.array_equal(s.forward(IDS[:300]), fresh.forward(IDS[:300]))
        s.rewind(0)
        assert s.generate(IDS[:300], 3, ignore_eos=True).usage.cached_tokens > 0


def test_batches_mix_lengths(load: Load) -> None:
    model = load()
    lengths = [3, 150, 40, 77]
    sessions = [model.session(0, 0) for _ in lengths]
    for s, n in zip(sessions, lengths, strict=True):
        s.forward(IDS[:n])
    batch = [(s, IDS[n : n + 2 * n]) for s, n in zip(sessions, lengths, strict=True)]
    for logits, n in zip(model.forward(batch), lengths, strict=True):
        with model.session(0, 0, CapacityPolicy(eager=True)) as fresh:
            assert np.array_equal(logits, fresh.forward(IDS[: 3 * n]))
    for s in sessions:
        s.close()


def test_a_chat_whose_beginning_a_window_has_passed_is_fed_again(load: Load) -> None:
    model = load()
    messages = [{"role": "user", "content": "a" * 300}]
    with model.session() as s, model.session() as fresh:
        s.chat(messages, 3)
        other = [{"role": "user", "content": "a" * 200 + "b"}]
        out, expected = s.chat(other, 3), fresh.chat(other, 3)
        assert out.token_ids == expected.token_ids
        assert (out.usage.cached_tokens, expected.usage.cached_tokens) == (0, 0)
