"""Forks: pages are shared until one side writes, promises are kept, and every history keeps its own bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import room_of
from foundry import CapacityPolicy, CompiledModel, MemoryLimitError

IDS = [int(i) for i in np.random.default_rng(7).integers(0, 256, 400)]


def used_pages(model: CompiledModel) -> int:
    with model.session(0, 0) as s:
        return int(s._core.observe().groups[0].used_pages)


def test_each_side_goes_its_own_way(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:100])
        with s.fork() as t:
            assert (t.position, t.reserved_tokens, list(t.token_ids)) == (100, s.reserved_tokens, IDS[:100])
            ours, theirs = s.forward(IDS[100:150]), t.forward(IDS[200:260])
            assert np.array_equal(ours, fresh.forward(IDS[:150]))
            fresh.rewind(0)
            assert np.array_equal(theirs, fresh.forward(IDS[:100] + IDS[200:260]))
            s.check_consistency()
            t.check_consistency()
    assert tiny.memory()["kv"] == 0 and tiny.memory()["promised"] == 0


def test_pages_are_copied_when_written_and_no_sooner(tiny: CompiledModel) -> None:
    with tiny.session(0, 0) as s:
        s.forward(IDS[:100])  # 12 whole pages of 8, and one in part
        assert used_pages(tiny) == 13
        forks = [s.fork() for _ in range(20)]
        assert used_pages(tiny) == 13
        for i, t in enumerate(forks):
            t.forward([i])
            assert used_pages(tiny) == 14 + i  # the page in part, once each
        s.forward([1])
        assert used_pages(tiny) == 33  # nobody else has it any more: written in place
        for t in forks:
            t.close()
        assert used_pages(tiny) == 13


def test_a_parent_may_close_first(tiny: CompiledModel) -> None:
    with tiny.session() as fresh:
        expected = fresh.forward(IDS[:130])
    s = tiny.session()
    s.forward(IDS[:100])
    t = s.fork()
    u = t.fork()
    s.close()
    assert np.array_equal(t.forward(IDS[100:130]), expected)
    t.close()
    assert np.array_equal(u.forward(IDS[100:130]), expected)
    u.close()
    assert tiny.memory()["kv"] == 0


def test_rewinding_into_shared_pages(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:100])
        with s.fork() as t:
            t.rewind(37)
            found = t.forward(IDS[300:320])
            assert np.array_equal(found, fresh.forward(IDS[:37] + IDS[300:320]))
            fresh.rewind(0)
            assert np.array_equal(s.forward(IDS[100:101]), fresh.forward(IDS[:101]))
            scores = t.score(IDS[:9])  # runs the last row again, for its logits
            fresh.rewind(0)
            fresh.forward(IDS[:37] + IDS[300:320])
            assert np.array_equal(scores, fresh.score(IDS[:9]))


def test_forks_in_a_batch(tiny: CompiledModel) -> None:
    with tiny.session() as s, tiny.session() as fresh:
        s.forward(IDS[:60])
        forks = [s.fork() for _ in range(4)]
        found = tiny.forward([(t, IDS[100 + i : 110 + 2 * i]) for i, t in enumerate(forks)])
        for i, logits in enumerate(found):
            fresh.rewind(0)
            assert np.array_equal(logits, fresh.forward(IDS[:60] + IDS[100 + i : 110 + 2 * i]))
        for t in forks:
            t.close()


def test_the_next_answer_of_a_fork_follows_the_last(tiny: CompiledModel) -> None:
    with tiny.session() as s:
        s.generate("Hello", 5)
        with s.fork() as t:
            assert t.generate("And", 5).token_ids == s.generate("And", 5).token_ids


def test_what_a_fork_may_grow_by_is_promised(tiny_path: Callable[..., Path]) -> None:
    path = tiny_path(max_seq_len=2048)
    probe = CompiledModel.load(path, threads=1, page_tokens=8)
    slab = probe.plan(8, 0).kv
    per_slab = slab // probe.session(8, 0).globals["page_bytes"]
    tables = 4 * probe.plan(per_slab * 16, 0).page_tables
    model = CompiledModel.load(path, threads=1, page_tokens=8, memory_limit=room_of(probe) + 4 * slab + tables)
    with model.session(per_slab * 8, 0, CapacityPolicy(headroom=per_slab * 8)) as s:  # one slab, and one promised
        s.forward([3] * (per_slab * 8))
        forks = [s.fork(), s.fork()]  # each shares the first slab, and is promised one of its own
        before = model.memory()
        with pytest.raises(MemoryLimitError):
            s.fork()
        assert model.memory() == before
        for t in [s, *forks]:
            t.forward([4] * (per_slab * 8))
        assert model.memory()["kv"] == 4 * slab
        with pytest.raises(MemoryLimitError):
            s.forward([5])
        for t in forks:
            t.close()
        s.forward([5])


@pytest.mark.model
def test_a_hundred_forks_of_a_long_session(smollm2: CompiledModel, real_text: str) -> None:
    ids = smollm2.tokenizer.encode(real_text[:20_000])[:1990]
    with smollm2.session(1990, 10) as s:
        s.forward(ids)
        held = smollm2.memory()["kv"]
        forks = [s.fork() for _ in range(100)]
        assert smollm2.memory()["kv"] == held
        pages = [t._core.observe().groups[0].used_pages for t in forks]
        assert set(pages) == {32}
        forks[0].forward([5])
        assert forks[0]._core.observe().groups[0].used_pages == 33
        for t in forks:
            t.close()


def test_a_closed_session_has_no_forks(tiny: CompiledModel) -> None:
    s = tiny.session()
    s.close()
    with pytest.raises(ValueError, match="closed"):
        s.fork()
