"""Each figure that kernels are given is bent in turn; the assert names the two values that differ."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from foundry import CompiledModel, ConsistencyError, consistency


@pytest.fixture
def windowed(tiny_path: Callable[..., Path]) -> CompiledModel:
    """Two layer groups, one with a window of 32 tokens."""
    path = tiny_path(arch="gemma3", layers=3, window=32, full_every=3)
    return CompiledModel.load(path, threads=1, page_tokens=8, check_every_step=True)


@pytest.mark.parametrize(
    ("place", "by", "named"),
    [
        ("encoded.max_seq_len", 1, ["encoded.max_seq_len is 25", "at most arch is 24"]),
        ("encoded.max_seq_len", -8, ["encoded.max_seq_len is 16", "at most arch is 24"]),
        ("encoded.pages", 8, ["encoded.pages is", "table.pages_at is"]),
        ("encoded.n_pages", 1, ["encoded.n_pages is 4", "table.pages is 3"]),
        ("encoded.first_page", 1, ["encoded.first_page is 1", "table.first is 0"]),
        ("encoded.rope_max_seq_len", -1, ["encoded.rope_max_seq_len is 23", "session.capacity is 24"]),
        ("table.pages", 1, ["encoded.n_pages is 3", "table.pages is 4"]),
        ("table.first", 1, ["encoded.first_page is 0", "table.first is 1"]),
        ("ledger.kv_bytes", 64, ["ledger.kv_bytes is", "sum of pool.slab_lengths is"]),
        ("ledger.kv_bytes", -64, ["ledger.kv_bytes is", "sum of pool.slab_lengths is"]),
    ],
)
@pytest.mark.parametrize("group", [0, 1])
def test_a_bent_figure_is_seen(windowed: CompiledModel, group: int, place: str, by: int, named: list[str]) -> None:
    with windowed.session(20, 0) as s:
        s.check_consistency()
        s._core._bend(place, group, by)
        with pytest.raises(ConsistencyError) as caught:
            s.check_consistency()
        assert all(part in str(caught.value) for part in named), str(caught.value)
        assert len(re.findall(r" is \d+", str(caught.value))) == 2
        if place == "ledger.kv_bytes":
            s._core._bend(place, group, -by)  # else the ledger of the model would end below zero


def bent(observed: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every figure, one at a time, far off on the side where something must be wrong."""
    for key in observed:
        if key != "groups":
            by = -1000 if key in ("arch.max_seq_len", "session.capacity") else 1000
            yield key, {**observed, key: observed[key] + by}
    for g, group in enumerate(observed["groups"]):
        for key in group:
            if key == "window":
                continue  # says which groups count, and is compared with nothing
            other = copy.deepcopy(observed)
            if key == "pool.slab_lengths":
                other["groups"][g][key][0] += 1000
            else:
                other["groups"][g][key] += -1000 if key == "pool.slab_bytes" else 1000
            yield f"group {g} {key}", other


def test_every_figure_is_compared_with_another(windowed: CompiledModel) -> None:
    with windowed.session() as s:
        s.forward([1] * 70)
        observed = s._core.observe()
        consistency.check(observed)
        names = []
        for name, wrong in bent(observed):
            with pytest.raises(ConsistencyError, match=" is "):
                consistency.check(wrong)
            names.append(name)
        assert len(names) == 5 + 2 * 15


def test_checked_after_a_change_of_capacity_and_at_every_step_when_asked(tiny: CompiledModel) -> None:
    with tiny.session(20, 0) as s:
        s._core._bend("ledger.kv_bytes", 0, 64)
        with pytest.raises(ConsistencyError):
            s.forward([1])  # no growth, but the model was told to check every step
        tiny.check_every_step = False
        s.forward([1])
        with pytest.raises(ConsistencyError):
            s.forward([1] * 40)  # growth
        s._core._bend("ledger.kv_bytes", 0, -64)


def test_bending_nowhere(tiny: CompiledModel) -> None:
    with tiny.session() as s, pytest.raises(ValueError, match="no place"):
        s._core._bend("nowhere", 0, 1)
