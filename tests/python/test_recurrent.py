"""Models with recurrent layers: what a file says of them is done or refused by name, and their states do what pages of
K and V do. Rows that run again are told beforehand, and in usage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
from families import FAMILIES, HIDDEN
from foundry import CompiledModel, ModelFormatError, SamplingParams
from foundry.generate import Piece, stream
from foundry.server.turn import Ended, Spent, total
from foundry.server.usage import openai_usage
from test_families import BOUND, logits_of, off_by

PAGE = 8
LONG = {"context_length": 4096}
IDS = [int(i) for i in np.random.default_rng(5).integers(0, 256, 400)]
HYBRIDS = ["lfm2", "lfm2, taps of 4 with biases", "lfm2moe", "qwen35", "qwen35, taps of 3, other heads", "qwen35moe"]
KINDS = ["lfm2", "lfm2moe", "qwen35", "qwen35moe"]


def load(folder: Path, name: str = "lfm2", **options: Any) -> CompiledModel:
    path = folder / f"{name}.gguf"
    if not path.exists():
        families.write(path, FAMILIES[name], LONG)
    return CompiledModel.load(path, threads=1, page_tokens=PAGE, chunk_tokens=32, check_every_step=True, **options)


KEYS: list[tuple[Mapping[str, Any], str]] = [
    ({"shortconv.l_cache": None}, "lfm2.shortconv.l_cache: expected a whole number from 2 below 9, found None"),
    ({"shortconv.l_cache": 1}, "lfm2.shortconv.l_cache: expected a whole number from 2 below 9, found 1"),
    ({"shortconv.l_cache": 9}, "lfm2.shortconv.l_cache: expected a whole number from 2 below 9, found 9"),
    ({"shortconv.l_cache": 4}, r'"blk.0.shortconv.conv.weight": expected \[64, 4\], found \[64, 3\]'),
    ({"shortconv.width": 3}, "lfm2.shortconv.width: expected 0, found 3, which is not supported"),
    ({"attention.head_count_kv": [0, 0, 2]}, "head_count_kv: expected a number for each of 4 layers, found 3"),
    ({"attention.head_count_kv": [0, 0, 0, 0]}, r"head_count_kv: expected one number .* at least one .*, found \[\]"),
    ({"attention.head_count_kv": [0, 1, 2, 0]}, r"head_count_kv: expected one number .*, found \[1, 2\]"),
    ({"attention.head_count_kv": [0, 2, 0, 0]}, "found 'blk.1.shortconv.conv.weight' and 8 more"),
    ({"attention.head_count_kv": 2}, "found 'blk.0.shortconv.conv.weight' and 8 more"),
    ({"attention.sliding_window": 24}, "lfm2.attention.sliding_window: expected 0, found 24, which is not supported"),
]


@pytest.mark.parametrize(("keys", "said"), KEYS, ids=str)
def test_a_key_that_makes_no_sense_is_refused_by_name(tmp_path: Path, keys: Mapping[str, Any], said: str) -> None:
    path = families.write(tmp_path / "m.gguf", FAMILIES["lfm2"], keys)
    with pytest.raises(ModelFormatError, match=said):
        CompiledModel.load(path)


def test_nothing_of_such_a_file_is_unknown(tmp_path: Path) -> None:
    for name in HYBRIDS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CompiledModel.plan_file(families.write(tmp_path / "m.gguf", FAMILIES[name]))


def test_the_last_norm_may_have_the_name_that_others_have(tmp_path: Path) -> None:
    path = families.write(tmp_path / "m.gguf", replace(FAMILIES["lfm2"], output_norm="output_norm"))
    assert off_by("lfm2", logits_of(path)) < BOUND


@pytest.mark.parametrize("what", ["thirds", "taps"])
def test_the_order_of_gates_and_of_taps_shows(tmp_path: Path, what: str) -> None:
    """b and x are factors of one product; c is another's."""
    tensors = families.tensors_of(FAMILIES["lfm2"])
    changed = {}
    for name, values in tensors.items():
        if what == "taps" and name.endswith("shortconv.conv.weight"):
            changed[name] = np.ascontiguousarray(values[:, ::-1])
        elif what == "thirds" and name.endswith("shortconv.in_proj.weight"):
            changed[name] = np.roll(values, HIDDEN, axis=0)
    assert len(changed) == 3
    path = families.write(tmp_path / "m.gguf", FAMILIES["lfm2"], tensors=changed)
    assert off_by("lfm2", logits_of(path)) > 10 * BOUND


@pytest.mark.parametrize("name", HYBRIDS)
def test_states_are_in_the_plan_to_the_byte(tmp_path: Path, name: str) -> None:
    model = load(tmp_path, name)
    loaded = model.memory()["total"]
    plan = model.plan(100, 60)
    with model.session(100, 60) as s:
        s.forward(IDS[:160])
        memory = model.memory()
        assert memory["kv"] == plan.kv and memory["promised"] == plan.kv
        assert memory["total"] - loaded == plan.kv + plan.page_tables
        state = families.state_bytes(FAMILIES[name])
        assert s.state_bytes % state == 0 and 0 < s.state_bytes <= plan.states
        assert s.state_bytes // state == 160 // PAGE + 1  # one at each page's end, and the next one's
        assert "K/V and states for" in str(plan)
    with load(tmp_path, name, state_cache_bytes=1).session(0, 160) as s:
        s.forward(IDS[:160])
        assert s._core.observe().states.kept == [152, 160]


def test_what_is_not_recurrent_has_no_states(tmp_path: Path) -> None:
    model = load(tmp_path, "qwen3")
    with model.session() as s:
        s.forward(IDS[:40])
        assert (s.state_bytes, s.replay(), s.replay(13), s.replayed_tokens, model.plan().states) == (0, 0, 0, 0, 0)


def whole_history(model: CompiledModel, ids: list[int], n: int, session: Any) -> list[Piece]:
    return list(stream(session, ids, n, SamplingParams(temperature=0, ignore_eos=True), replaces=True))


@pytest.mark.parametrize("name", ["lfm2", "qwen35"])
def test_an_agents_turns_compute_what_is_new_and_the_replay_that_was_told(tmp_path: Path, name: str) -> None:
    """Thirty turns of an agent that now and then takes back a part of what there was: its last answer, a result of a
    tool some turns ago, half of everything."""
    model = load(tmp_path, name)
    random = np.random.default_rng(11)

    def new(n: int) -> list[int]:
        return [int(i) for i in random.integers(0, 256, n)]

    history, replays, ends = new(60), [], []
    with model.session(0, 0) as s:
        for turn in range(30):
            if turn % 5 == 2:  # the last answer, without its first tokens (its reasoning)
                history = history[: ends[-1]] + history[ends[-1] + 3 :]
            elif turn % 7 == 5:
                history = history[: ends[-4]] + new(20)
            elif turn == 20:
                history = history[: len(history) // 2]
            history += new(int(random.integers(5, 40)))
            keep = s.common_with(history)
            told = s.replay(keep)
            before = model._core.counts.rows
            pieces = whole_history(model, history, 8, s)
            usage = pieces[-1].usage
            assert usage is not None
            # Seven of the answer's tokens have been fed, and the last is only drawn.
            assert model._core.counts.rows - before == len(history) - keep + told + 7
            assert (usage.cached_tokens, usage.replayed_tokens, usage.prompt_tokens) == (keep, told, len(history))
            if turn % 5 == 2 or turn % 7 == 5:
                assert told < PAGE  # at a turn's end
            with model.session() as fresh:
                again = whole_history(model, history, 8, fresh)
            assert [p.token_id for p in again] == [p.token_id for p in pieces]
            replays.append(told)
            ends.append(len(history))
            history = history + [p.token_id for p in pieces if p.token_id is not None]
    print(f"\n{len(history)} tokens, replayed {replays}")
    assert any(replays) and sum(replays) < 30 * PAGE


def test_a_servers_usage_tells_what_ran_again() -> None:
    ended = [Ended(index, "stop", Spent(20, new, 18, 5, reasoning_tokens=1)) for index, new in ((0, 3), (1, 4))]
    assert openai_usage(total(ended)) == {
        "prompt_tokens": 20,
        "completion_tokens": 7,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 18, "replayed_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert openai_usage(Spent(20, 3, 18))["prompt_tokens_details"] == {"cached_tokens": 18}


@pytest.mark.parametrize("name", KINDS)
def test_forks_go_on_from_the_same_states(tmp_path: Path, name: str) -> None:
    model = load(tmp_path, name)
    with model.session() as s, model.session() as fresh:
        s.forward(IDS[:45])
        used = model._core.memory().kv
        with s.fork() as a, s.fork() as b:
            assert model._core.memory().kv == used and a.state_bytes > 0 and a.shared_bytes >= a.state_bytes
            a.forward(IDS[100:120])
            b.rewind(20)
            assert b.replay() == 4
            fresh.forward(IDS[:20])
            assert np.array_equal(b.forward([1, 2]), fresh.forward([1, 2]))
            assert b.replayed_tokens == 4
            fresh.rewind(0)
            assert np.array_equal(s.forward([3]), fresh.forward([*IDS[:45], 3]))


def test_a_prefix_is_found_where_a_state_is_kept(tmp_path: Path) -> None:
    model = load(tmp_path, prefix_cache_bytes=1 << 20, state_cache_bytes=1)
    expected = load(tmp_path)
    params = SamplingParams(temperature=0, ignore_eos=True)
    for ids, found in ((IDS[:61], 0), (IDS[:61], 56), ([*IDS[:61], *IDS[:9]], 56), ([*IDS[:40], 1, 2], 0)):
        with model.session() as s, expected.session() as fresh:
            answer = s.generate(ids, 5, params=params)
            assert answer.usage.cached_tokens == found and answer.usage.replayed_tokens == 0
            assert answer.token_ids == fresh.generate(ids, 5, params=params).token_ids


@pytest.mark.parametrize("n", [0, 1, 8, 45, 200])
@pytest.mark.parametrize("name", KINDS)
def test_saves_hold_states(tmp_path: Path, name: str, n: int) -> None:
    model = load(tmp_path, name)
    with model.session() as s:
        if n:
            s.forward(IDS[:n])
        s.save(tmp_path / "s.kv")
        with model.restore(tmp_path / "s.kv") as t, model.restore(tmp_path / "s.kv") as u:
            assert t.position == n
            assert [t.replay(to) for to in range(n + 1)] == [s.replay(to) for to in range(n + 1)]
            t.save(tmp_path / "again.kv")
            assert (tmp_path / "again.kv").read_bytes() == (tmp_path / "s.kv").read_bytes()
            u.rewind(n // 2)  # before anything was read
            expected = s.forward([5, 6])
            assert np.array_equal(t.forward([5, 6]), expected)
            s.rewind(n // 2)
            assert np.array_equal(u.forward([7]), s.forward([7]))


@pytest.mark.parametrize("name", ["lfm2", "qwen35"])
def test_saves_hold_where_turns_ended(tmp_path: Path, name: str) -> None:
    """A restored session goes on to let go of the states that the other one lets go of: from each turn's end that
    either keeps both run as many tokens again, and answer alike."""
    model = load(tmp_path, name, state_cache_bytes=10 * families.state_bytes(FAMILIES[name]))  # six at rest
    random, history, ends = np.random.default_rng(2), list[int](), list[int]()

    def turns(n: int, *sessions: Any) -> None:
        for _ in range(n):
            history.extend(int(i) for i in random.integers(0, 256, int(random.integers(20, 60))))
            answers = [[p.token_id for p in whole_history(model, history, 6, s)] for s in sessions]
            assert all(answer == answers[0] for answer in answers)
            ends.append(len(history))
            history.extend(i for i in answers[0] if i is not None)

    with model.session() as s:
        turns(5, s)
        s.save(tmp_path / "s.kv")
        with model.restore(tmp_path / "s.kv") as t:
            for n in (0, 1, 1, 2, 6):
                turns(n, s, t)
                assert s._core.observe().states.kept == t._core.observe().states.kept
                assert [s.replay(to) for to in range(s.position)] == [t.replay(to) for to in range(s.position)]
                kept = [end for end in ends if s.replay(end) < PAGE]
                assert n > 2 or any(end <= ends[4] for end in kept)  # and one from before the save
                for end in reversed(kept):
                    with s.fork() as a, t.fork() as b:
                        one, other = (whole_history(model, [*history[:end], 7, 8], 4, x)[-1].usage for x in (a, b))
                        assert one == other and one is not None and one.replayed_tokens == s.replay(end)


@pytest.mark.parametrize("name", KINDS)
def test_no_flipped_bit_of_a_save_is_accepted(tmp_path: Path, name: str) -> None:
    """200 of them, a quarter in the states; what is refused late has changed nothing."""
    model = load(tmp_path, name)
    file, random = tmp_path / "s.kv", np.random.default_rng(3)
    with model.session() as s:
        s.forward(IDS[:61])
        s.save(file)
        states = len(s._core.observe().states.kept) + 1
        state = s.state_bytes // s._core.observe().states.held
    whole = file.read_bytes()
    accepted = 0
    for i in range(200):
        begin = len(whole) - states * state if i % 4 == 0 else 0
        at = int(random.integers(begin, len(whole)))
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(random.integers(0, 8))
        file.write_bytes(damaged)
        try:
            with model.restore(file) as t:
                t.forward([1])
                accepted += 1
        except ModelFormatError:
            pass
    assert accepted == 0


@pytest.mark.parametrize("name", ["lfm2", "qwen35"])
def test_a_damaged_state_is_named_and_what_is_before_it_goes_on(tmp_path: Path, name: str) -> None:
    model = load(tmp_path, name)
    file = tmp_path / "s.kv"
    with model.session() as s, model.session() as fresh:
        s.forward(IDS[:61])
        s.save(file)
        data = bytearray(file.read_bytes())
        data[-1] ^= 1  # of the last one, where the history is
        file.write_bytes(data)
        with model.restore(file) as t:
            with pytest.raises(ModelFormatError, match=r"the state at 61 is damaged.*rewind\(\) to before it goes on"):
                t.forward([1])
            assert t.position == 61
            t.rewind(60)
            assert np.array_equal(t.forward([1]), fresh.forward([*IDS[:60], 1]))


def test_a_save_of_other_recurrent_layers_is_refused(tmp_path: Path) -> None:
    model = load(tmp_path)
    with model.session() as s:
        s.forward(IDS[:20])
        s.save(tmp_path / "s.kv")
    other = load(tmp_path, "lfm2, taps of 4 with biases")
    with pytest.raises(ModelFormatError, match="saved with another model"):
        other.restore(tmp_path / "s.kv")


def test_of_a_saves_states_a_session_takes_those_that_it_keeps(tmp_path: Path) -> None:
    model, few = load(tmp_path), load(tmp_path, state_cache_bytes=1)
    with model.session() as s, few.session() as fresh:
        s.forward(IDS[:125])
        s.save(tmp_path / "s.kv")
        with few.restore(tmp_path / "s.kv") as t:
            assert (s.replay(93), t.replay(93), t.replay(119), t.replay()) == (5, 93, 7, 0)
            t.rewind(93)
            assert np.array_equal(t.forward([1]), fresh.forward([*IDS[:93], 1]))
