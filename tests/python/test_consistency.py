"""Each figure that kernels are given is bent in turn; the assert names the two values that differ."""

from __future__ import annotations

import re

import pytest
from foundry import CompiledModel, ConsistencyError


@pytest.mark.parametrize(
    ("place", "by", "named"),
    [
        ("encoded.max_seq_len", 1, ["encoded.max_seq_len is 25", "session.capacity is 24"]),
        ("encoded.max_seq_len", -8, ["encoded.max_seq_len is 16", "session.capacity is 24"]),
        ("encoded.n_pages", 1, ["encoded.n_pages is 4", "table.pages is 3"]),
        ("encoded.rope_max_seq_len", -1, ["encoded.rope_max_seq_len is 23", "encoded.max_seq_len is 24"]),
        ("table.pages", 1, ["encoded.n_pages is 3", "table.pages is 4"]),
        ("ledger.kv_bytes", 64, ["ledger.kv_bytes is", "sum of pool.slab_lengths is"]),
        ("ledger.kv_bytes", -64, ["ledger.kv_bytes is", "sum of pool.slab_lengths is"]),
    ],
)
def test_a_bent_figure_is_seen(tiny: CompiledModel, place: str, by: int, named: list[str]) -> None:
    with tiny.session(20, 0) as s:
        s.check_consistency()
        s._core._bend(place, by)
        with pytest.raises(ConsistencyError) as caught:
            s.check_consistency()
        assert all(part in str(caught.value) for part in named), str(caught.value)
        assert len(re.findall(r" is \d+", str(caught.value))) == 2
        if place == "ledger.kv_bytes":
            s._core._bend(place, -by)  # else the ledger of the model would end below zero


def test_checked_after_a_change_of_capacity_and_at_every_step_when_asked(tiny: CompiledModel) -> None:
    with tiny.session(20, 0) as s:
        s._core._bend("ledger.kv_bytes", 64)
        with pytest.raises(ConsistencyError):
            s.forward([1])  # no growth, but the model was told to check every step
        tiny.check_every_step = False
        s.forward([1])
        with pytest.raises(ConsistencyError):
            s.forward([1] * 40)  # growth
        s._core._bend("ledger.kv_bytes", -64)


def test_bending_nowhere(tiny: CompiledModel) -> None:
    with tiny.session() as s, pytest.raises(ValueError, match="no place"):
        s._core._bend("nowhere", 1)
