"""Random programs over sessions: whatever happened before, each history gives the bits of a fresh session fed at once.

After every step: the consistency asserts (the model checks every call), position <= capacity <= max_seq_len, shared
pages counted once; at the end all has been given back. The default run does a hundred programs, the slow one thousands,
and ``FOUNDRY_PROGRAMS=100000 python -m pytest -m slow tests/python/test_programs.py`` as many as one has hours for;
``FOUNDRY_DEVICE`` says on which device ("metal:strict" where there is one: the mode that holds the same bits).
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import families
import numpy as np
import pytest
from foundry import CancelledError, CapacityPolicy, CompiledModel, ContextOverflowError, Session
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

MOST, PAGE, VOCAB = 96, 8, 40
TOKENS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=45)
WHICH = st.integers(0, 5)


class Programs(RuleBasedStateMachine):
    model: CompiledModel
    folder: Path
    expected: dict[tuple[int, ...], np.ndarray]  # logits behind a history, from a fresh session fed at once

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[tuple[Session, list[int]]] = []
        self.saved: dict[int, list[int]] = {}
        self.baseline = self.model.memory()["kv"] - self.model.memory()["prefix_cache"]

    def truth(self, history: list[int]) -> np.ndarray:
        key = tuple(history)
        if key not in self.expected:
            with self.model.session(0, 0, CapacityPolicy(eager=True)) as fresh:
                self.expected[key] = fresh.forward(history)
        return self.expected[key]

    def pick(self, which: int) -> tuple[Session, list[int]]:
        return self.sessions[which % len(self.sessions)]

    @precondition(lambda self: len(self.sessions) < 6)
    @rule(prompt=st.integers(0, MOST), new=st.integers(0, 60), step=st.sampled_from([1, 20]), eager=st.booleans())
    def open(self, prompt: int, new: int, step: int, eager: bool) -> None:
        self.sessions.append((self.model.session(prompt, new, CapacityPolicy(step=step, eager=eager)), []))

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, tokens=TOKENS, cuts=st.lists(st.integers(1, 9), max_size=4))
    def forward(self, which: int, tokens: list[int], cuts: list[int]) -> None:
        session, history = self.pick(which)
        at, ends = 0, [*np.cumsum(cuts).tolist(), len(tokens)]
        for end in ends:
            part = tokens[at : min(end, len(tokens))]
            at += len(part)
            if not part:
                continue
            if len(history) + len(part) > MOST:
                with pytest.raises(ContextOverflowError):
                    session.forward(part)
                return
            replay = session.replay()
            logits = session.forward(part)
            assert session.replayed_tokens == replay
            history += part
            assert np.array_equal(logits, self.truth(history))

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, tokens=TOKENS)
    def score(self, which: int, tokens: list[int]) -> None:
        session, history = self.pick(which)
        if len(history) + len(tokens) > MOST:
            return
        before = list(history)
        scores = session.score(tokens)
        history += tokens
        for i in range(len(tokens)):
            known = before + tokens[:i]
            if known:
                logits = self.truth(known).astype(np.float64)
                expected = logits[tokens[i]] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
                assert abs(scores[i] - expected) < 1e-5

    @precondition(lambda self: len(self.sessions) > 1)
    @rule(tokens=st.lists(TOKENS, min_size=1, max_size=4), first=WHICH)
    def batch(self, tokens: list[list[int]], first: int) -> None:
        n = min(len(tokens), len(self.sessions))
        items = [self.pick(first + i) for i in range(n)]
        fits = all(len(history) + len(ids) <= MOST for (_, history), ids in zip(items, tokens, strict=False))
        batch = [(session, ids) for (session, _), ids in zip(items, tokens, strict=False)]
        if not fits:
            with pytest.raises(ContextOverflowError):
                self.model.forward(batch)
            return
        for logits, (_, history), ids in zip(self.model.forward(batch), items, tokens, strict=False):
            history += ids
            assert np.array_equal(logits, self.truth(history))

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, new=st.integers(0, 6), tokens=TOKENS)
    def generate(self, which: int, new: int, tokens: list[int]) -> None:
        session, history = self.pick(which)
        session.rewind(session.position)  # an answer's last token, if one is pending, is dropped
        if len(history) + len(tokens) > MOST:
            return
        out = session.generate(tokens, new)
        history += tokens
        for token in out.token_ids:
            assert token == int(self.truth(history).argmax())
            if len(history) < MOST:
                history.append(token)
        del history[session.position :]

    @precondition(lambda self: 0 < len(self.sessions) < 6)
    @rule(which=WHICH)
    def fork(self, which: int) -> None:
        session, history = self.pick(which)
        self.sessions.append((session.fork(), list(history)))

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, share=st.floats(0, 1))
    def rewind(self, which: int, share: float) -> None:
        session, history = self.pick(which)
        to = int(len(history) * share)
        assert session.rewindable_to <= len(history)
        if 0 < to < session.rewindable_to:
            with pytest.raises(ValueError, match=f"at least {session.rewindable_to}"):
                session.rewind(to)
            return
        replay = session.replay(to)
        assert replay <= to
        session.rewind(to)
        assert session.replay() == replay
        del history[to:]

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, n=st.integers(0, MOST))
    def reserve(self, which: int, n: int) -> None:
        session, _ = self.pick(which)
        session.reserve(n)
        assert session.reserved_tokens == n

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, name=st.integers(0, 2))
    def save(self, which: int, name: int) -> None:
        session, history = self.pick(which)
        session.save(self.folder / f"{name}.kv")
        self.saved[name] = list(history)

    @precondition(lambda self: self.saved and len(self.sessions) < 6)
    @rule(name=st.integers(0, 2))
    def restore(self, name: int) -> None:
        if name in self.saved:
            self.sessions.append((self.model.restore(self.folder / f"{name}.kv", 10), list(self.saved[name])))

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH, tokens=TOKENS)
    def cancel(self, which: int, tokens: list[int]) -> None:
        session, history = self.pick(which)
        if len(history) + len(tokens) > MOST:
            return

        def cancel(done: int, total: int) -> None:
            thread = threading.Thread(target=session.cancel)
            thread.start()
            thread.join()

        try:
            session.forward(tokens, progress=cancel)
            history += tokens  # it was done before anyone asked
        except CancelledError:
            pass

    @precondition(lambda self: self.sessions)
    @rule(which=WHICH)
    def close(self, which: int) -> None:
        session, _ = self.sessions.pop(which % len(self.sessions))
        session.close()

    @invariant()
    def all_is_well(self) -> None:
        held = 0
        for session, history in self.sessions:
            assert session.position == len(history)
            assert list(session.token_ids) == history
            assert session.position <= session.capacity <= MOST
            session.check_consistency()
            held += session.kv_bytes
        if self.sessions:
            groups = self.sessions[0][0]._core.observe().groups
            used = sum(group.used_pages * group.encoded_page_bytes for group in groups)
            assert used <= held + self.model.memory()["prefix_cache"]

    def teardown(self) -> None:
        for session, _ in self.sessions:
            session.close()
        memory = self.model.memory()
        if memory["prefix_cache"] == 0:
            assert memory["kv"] == memory["promised"] == 0


SMALL = {"layers": 1, "hidden": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 32, "max_seq_len": MOST}
WINDOWS = {**SMALL, "arch": "gemma3", "layers": 3, "full_every": 3}
GEMMA2 = families.Family(
    "gemma2",
    {
        "context_length": MOST,
        "attention.sliding_window": 12,
        "attn_logit_softcapping": 6.0,
        "final_logit_softcapping": 3.0,
    },
    head_dim=12,
    norms_behind=True,
)
EXPERTS = families.Family(
    "qwen3moe",
    {
        "context_length": MOST,
        "expert_count": 6,
        "expert_used_count": 2,
        "expert_feed_forward_length": 24,
    },
    head_norms=families.HEAD_DIM,
    experts=6,
    expert_ffn=24,
)
OSS = families.Family(
    "gpt-oss",
    {
        "context_length": MOST,
        "attention.sliding_window": 12,
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_feed_forward_length": 24,
    },
    biases=families.FAMILIES["gpt-oss"].biases,
    experts=4,
    expert_ffn=24,
    sinks=True,
    ffn_norm="post_attention_norm",
)
HYBRID = replace(
    families.FAMILIES["lfm2"], keys={**families.FAMILIES["lfm2"].keys, "context_length": MOST}, kv_heads=(0, 2, 0, 2)
)
HYBRID_EXPERTS = replace(
    families.FAMILIES["lfm2moe"], keys={**families.FAMILIES["lfm2moe"].keys, "context_length": MOST}
)
DELTAS = replace(
    families.FAMILIES["qwen35"],
    keys={
        **families.FAMILIES["qwen35"].keys,
        "context_length": MOST,
        "ssm.state_size": 4,
        "ssm.group_count": 1,
        "ssm.time_step_rank": 2,
        "ssm.inner_size": 8,
    },
    delta=(1, 2, 4, 4),
)
DELTA_EXPERTS = replace(
    families.FAMILIES["qwen35moe"], keys={**families.FAMILIES["qwen35moe"].keys, "context_length": MOST}
)
MODELS: list[tuple[dict[str, object] | families.Family, int]] = [
    # and rows of a step: few, so that a call of 45 tokens passes windows
    (SMALL, 16),
    ({**WINDOWS, "window": 12}, 8),
    ({**WINDOWS, "window": 32}, 16),
    ({**SMALL, "window": 1}, 1),
    (GEMMA2, 8),
    (EXPERTS, 16),
    (OSS, 8),
    (HYBRID, 8),
    (HYBRID_EXPERTS, 16),
    (DELTAS, 8),
    (DELTA_EXPERTS, 16),
]


def run(tiny_path: Callable[..., Path], programs: int, of: int, prefix_cache_bytes: int) -> None:
    shape, chunk_tokens = MODELS[of]

    with tempfile.TemporaryDirectory() as made:
        if isinstance(shape, families.Family):
            path = families.write(Path(made) / "m.gguf", shape)
        else:
            path = tiny_path(**shape)
        run_on(path, programs, chunk_tokens, prefix_cache_bytes)


def run_on(path: Path, programs: int, chunk_tokens: int, prefix_cache_bytes: int) -> None:
    class Machine(Programs):
        model = CompiledModel.load(
            path,
            device=os.environ.get("FOUNDRY_DEVICE", "cpu"),
            threads=1,
            page_tokens=PAGE,
            chunk_tokens=chunk_tokens,
            prefix_cache_bytes=prefix_cache_bytes,
            state_cache_bytes=12_000,  # six to twelve of these hybrids'
            check_every_step=True,
        )
        expected: dict[tuple[int, ...], np.ndarray] = {}  # noqa: RUF012  # shared by all programs

    with tempfile.TemporaryDirectory() as folder:
        Machine.folder = Path(folder)
        try:
            run_state_machine_as_test(
                Machine, settings=settings(max_examples=programs, stateful_step_count=30, deadline=None)
            )
        finally:
            del Machine.model  # hypothesis keeps the class


@pytest.mark.parametrize("prefix_cache_bytes", [0, 30_000])
@pytest.mark.parametrize("of", range(len(MODELS)))
def test_some_programs(tiny_path: Callable[..., Path], of: int, prefix_cache_bytes: int) -> None:
    run(tiny_path, 30, of, prefix_cache_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("prefix_cache_bytes", [0, 30_000])
@pytest.mark.parametrize("of", range(len(MODELS)))
def test_thousands_of_programs(tiny_path: Callable[..., Path], of: int, prefix_cache_bytes: int) -> None:
    run(tiny_path, int(os.environ.get("FOUNDRY_PROGRAMS", "200")), of, prefix_cache_bytes)
