"""Prompts that begin alike are computed once: the same bits, and never more memory than was allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import room_of
from foundry import CompiledModel, MemoryLimitError, SamplingParams, Session

IDS = [int(i) for i in np.random.default_rng(7).integers(0, 256, 400)]
PAGE = 8


@pytest.fixture
def load(tiny_path: Callable[..., Path]) -> Callable[..., CompiledModel]:
    def make(pages: int, memory_limit: int | None = None) -> CompiledModel:
        probe = CompiledModel.load(tiny_path(max_seq_len=2048), threads=1, page_tokens=PAGE)
        with probe.session(8, 0) as s:
            size = s.globals["page_bytes"]
        return CompiledModel.load(
            tiny_path(max_seq_len=2048),
            threads=1,
            page_tokens=PAGE,
            memory_limit=memory_limit,
            prefix_cache_bytes=pages * size,
            check_every_step=True,
        )

    return make


def prompt(s: Session, ids: list[int]) -> tuple[int, int]:
    """Feeds a prompt; the token that follows it, and how many tokens were cached."""
    answer = s.begin(ids, 1, SamplingParams(), [])
    return answer.next()[0].token_id, s.cached_tokens


def test_the_same_bits_and_fewer_tokens(load: Callable[..., CompiledModel]) -> None:
    model, plain = load(100), load(0)
    with model.session() as s:
        first = s.generate(IDS[:100], 10, temperature=1.0, seed=3)
        assert first.usage.cached_tokens == 0
        with model.session() as t:  # while the first still lives
            second = t.generate(IDS[:100], 10, temperature=1.0, seed=3)
            assert second.usage.cached_tokens == 96
            assert second.usage.prompt_tokens == 100
            assert second.token_ids == first.token_ids
    with model.session(100, 10) as s, plain.session(100, 10) as u:
        assert prompt(s, IDS[:60] + IDS[200:240])[1] == 56
        assert prompt(u, IDS[:60] + IDS[200:240])[1] == 0
        assert np.array_equal(s.forward([1]), u.forward([1]))
        assert s.kv_bytes == u.kv_bytes


def test_a_prompt_that_is_cached_whole_feeds_its_last_token(load: Callable[..., CompiledModel]) -> None:
    model = load(100)
    with model.session() as s:
        expected = prompt(s, IDS[:64])[0]
    for _ in range(2):
        with model.session() as s:
            assert prompt(s, IDS[:64]) == (expected, 56)
    with model.session() as s:
        assert prompt(s, IDS[:65])[1] == 64
    with model.session() as s:
        assert prompt(s, IDS[:1])[1] == 0


def test_answers_are_kept_when_a_session_closes(load: Callable[..., CompiledModel]) -> None:
    model = load(100)
    with model.session() as s:
        s.forward(IDS[:33])
        s.forward(IDS[33:80])
    with model.session() as s:
        assert prompt(s, IDS[:81])[1] == 80


def test_the_limit_and_who_goes_first(load: Callable[..., CompiledModel]) -> None:
    model = load(6)
    a, b, c = IDS[:25], IDS[100:125], IDS[200:217]
    for ids in (a, b):  # three pages each
        with model.session() as s:
            prompt(s, ids)
    assert model.memory()["prefix_cache"] == 6 * (model.memory()["prefix_cache"] // 6)
    with model.session() as s:
        assert prompt(s, a)[1] == 24  # a was used last
    with model.session() as s:
        prompt(s, c)  # two pages more: b's last two go
    with model.session() as s:
        assert prompt(s, a)[1] == 24
    with model.session() as s:
        assert prompt(s, b)[1] == 8


def test_live_sessions_are_never_robbed(load: Callable[..., CompiledModel]) -> None:
    model = load(4)
    with model.session() as s:
        prompt(s, IDS[:33])
        with model.session() as t:
            prompt(t, IDS[100:133])  # the cache is full of what s holds: nothing of t is kept
        with model.session() as t:
            assert prompt(t, IDS[:33])[1] == 32
            assert np.array_equal(t.forward([1]), s.forward([1]))


def test_under_pressure_cached_prefixes_go_first(load: Callable[..., CompiledModel]) -> None:
    probe = load(0)
    slab = probe.plan(8, 0).kv
    with probe.session(8, 0) as one:
        per_slab = slab // one.globals["page_bytes"]
    tables = 2 * probe.plan(3 * per_slab * PAGE, 0).page_tables
    model = load(10_000, memory_limit=room_of(probe) + 3 * slab + tables)
    with model.session(0, 0) as s:
        s.forward([3] * (2 * per_slab * PAGE))
    assert model.memory()["prefix_cache"] == 2 * slab
    assert model.memory()["kv"] == 2 * slab
    with model.session(3 * per_slab * PAGE, 0) as s:  # all three slabs are promised: the cache must go
        s.forward([4] * (3 * per_slab * PAGE))
        assert model.memory()["kv"] == 3 * slab
        assert model.memory()["prefix_cache"] == 0
        with pytest.raises(MemoryLimitError):
            model.session(8, 0)


def test_a_failed_prompt_leaves_an_empty_session(load: Callable[..., CompiledModel]) -> None:
    model = load(100)
    with model.session() as s:
        expected = prompt(s, IDS[:100])[0]
    with model.session() as s:

        def fail(done: int, total: int) -> None:
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError):
            s.begin(IDS[:100], 1, SamplingParams(), [], fail)
        assert (s.position, s.cached_tokens) == (0, 0)
        assert np.array_equal(s.forward(IDS[300:320]), fresh(model, IDS[300:320]))
        s.rewind(0)
        assert prompt(s, IDS[:100])[0] == expected


def test_a_restored_session_that_begins_again(load: Callable[..., CompiledModel], tmp_path: Path) -> None:
    """Rewound to nothing before its pages were read: they must not be read into those of the cache."""
    model = load(100)
    with model.session() as s:
        expected = prompt(s, IDS[:100])[0]
        logits = s.forward([1])
    with model.session() as s:
        s.forward(IDS[200:240])
        s.save(tmp_path / "other.kv")
    for _ in range(2):
        with model.restore(tmp_path / "other.kv") as s:
            s.rewind(0)
            assert prompt(s, IDS[:100]) == (expected, 96)
            assert np.array_equal(s.forward([1]), logits)


def fresh(model: CompiledModel, ids: list[int]) -> np.ndarray:
    with model.session() as s:
        return s.forward(ids)


def test_conversations_share_their_system_prompt(load: Callable[..., CompiledModel]) -> None:
    model = load(100)
    system = {"role": "system", "content": "You are a helpful assistant who answers in rhymes."}
    used = []
    for question in ("What is red?", "Who is there?"):
        with model.session() as s:
            used.append(s.chat([system, {"role": "user", "content": question}], 4).usage.cached_tokens)
    assert used[0] == 0 and used[1] >= 64


def test_arguments(tiny_path: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="prefix_cache_bytes"):
        CompiledModel.load(tiny_path(), prefix_cache_bytes=-1)


def test_what_the_cache_holds_is_told_and_can_be_dropped(tiny_path: Callable[..., Path]) -> None:
    model = CompiledModel.load(tiny_path(), threads=1, page_tokens=8, prefix_cache_bytes=1 << 20)
    with model.session() as s:
        s.generate([1] * 20, 1, ignore_eos=True)
        (run,) = model.prefixes()
        assert (run["parent"], run["pages"], run["tokens"], run["shared"]) == (-1, 2, 16, 2)
        assert run["bytes"] == model.memory()["prefix_cache"] == s.shared_bytes
        assert s.kv_bytes == s.shared_bytes // 2 * 3
        assert model.drop_prefixes() == 0  # the session holds them
    assert model.prefixes()[0]["shared"] == 0
    assert model.drop_prefixes() == run["bytes"]
    assert model.prefixes() == []
    assert model.memory()["promised"] == 0
