"""The capacity policy decides; it is shown beside what sessions then hold."""

from __future__ import annotations

import pytest
from foundry import CapacityDecision, CapacityPolicy, CompiledModel, ContextOverflowError
from hypothesis import given
from hypothesis import strategies as st

COUNT = st.integers(0, 1 << 20)


@given(prompt=COUNT, new=COUNT, headroom=COUNT, most=st.integers(1, 1 << 20), eager=st.booleans())
def test_the_promise(prompt: int, new: int, headroom: int, most: int, eager: bool) -> None:
    policy = CapacityPolicy(headroom=headroom, eager=eager)
    if prompt > most:
        with pytest.raises(ContextOverflowError):
            policy.decide(prompt, new, most)
        return
    d = policy.decide(prompt, new, most)
    assert d.reserved == min(prompt + new + headroom, most)
    assert d.initial == (d.reserved if eager else min(prompt, most))


def test_faults() -> None:
    for fields in ({"headroom": -1}, {"step": 0}, {"step": 1.5}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            CapacityPolicy(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompt_tokens"):
        CapacityPolicy().decide(-1, 0, 100)
    with pytest.raises(ValueError, match="max_new_tokens"):
        CapacityPolicy().decide(0, -1, 100)


def test_sessions_follow_the_policy(tiny: CompiledModel) -> None:
    assert CapacityPolicy().decide(20, 10, 512) == CapacityDecision(initial=20, step=1, reserved=30)
    with tiny.session(20, 10) as s:
        assert (s.capacity, s.reserved_tokens) == (24, 30)  # pages of 8
    with tiny.session(20, 10, CapacityPolicy(eager=True, headroom=10)) as s:
        assert (s.capacity, s.reserved_tokens) == (40, 40)
    with tiny.session(8, 0, CapacityPolicy(step=30)) as s:
        s.forward([1] * 9)
        assert s.capacity == 40  # 8 + 30, in pages
    with tiny.session(500, 5000) as s:
        assert (s.capacity, s.reserved_tokens) == (504, 512)  # never past the model's own
