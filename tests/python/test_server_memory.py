"""Requests are let in by the memory plan: what can't fit waits or is refused with figures, and nothing is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import Tiny, room_of
from foundry import CompiledModel, MemoryLimitError
from foundry.server.settings import Settings
from served import CHAT, COMPLETIONS, Served, chat, leave, serve, until

# 16 KiB of K/V for a token: a slab of 8 MiB holds 512 tokens.
FAT = {"layers": 4, "heads": 8, "kv_heads": 8, "head_dim": 64, "max_seq_len": 4096}
SLAB_TOKENS = 512
TABLES = 256 << 10  # room for page tables and histories, less than a slab


@contextmanager
def served_with(tiny_path: Tiny, slabs: int, settings: Settings) -> Iterator[Served]:
    """A server whose memory holds so many slabs of K/V."""
    path = tiny_path(**FAT)
    probe = CompiledModel.load(path, threads=1, page_tokens=8, kv_dtype="f32")
    slab = probe.plan(8, 0).kv
    assert slab // (16 << 10) == SLAB_TOKENS
    limit = room_of(probe) + slabs * slab + TABLES
    with serve(path, settings, kv_dtype="f32", memory_limit=limit) as served:
        yield served


def test_what_can_never_fit_is_refused_at_once_with_figures(tiny_path: Tiny) -> None:
    with served_with(tiny_path, 1, Settings(queue_seconds=30)) as served:
        began = time.monotonic()
        for body in (chat(max_tokens=2000), chat("a" * 2000), chat(max_tokens=300, n=3)):
            answer = served.post(CHAT, body)
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error["code"] == "memory_limit"
            assert 0 <= error["available_bytes"] - (SLAB_TOKENS * 16 << 10) < 2 * TABLES
            assert error["needed_bytes"] > error["available_bytes"]
            assert str(error["needed_bytes"]) in error["message"]
        assert time.monotonic() - began < 10
        assert served.post(CHAT, chat(max_tokens=300)).status_code == 200


def test_what_does_not_fit_now_waits_for_its_turn(tiny_path: Tiny) -> None:
    with served_with(tiny_path, 1, Settings(queue_seconds=30)) as served, ThreadPoolExecutor(1) as pool:
        other = served.model.session(SLAB_TOKENS, 0)
        waiting = pool.submit(served.post, CHAT, chat())
        until(lambda: served.engine.admission.waiting == 1)
        assert served.metric("num_requests_waiting") == 1
        other.close()
        served.engine.freed()
        assert waiting.result().status_code == 200


def test_whoever_waits_too_long_is_told_what_was_missing(tiny_path: Tiny) -> None:
    with served_with(tiny_path, 1, Settings(queue_seconds=0.2)) as served:
        with served.model.session(SLAB_TOKENS, 0):
            for body in (chat(), chat(stream=True)):
                answer = served.post(CHAT, body)
                assert answer.status_code == 503
                error = answer.json()["error"]
                assert error["code"] == "memory_limit"
                assert error["available_bytes"] < 2 * TABLES
                assert error["needed_bytes"] > 0
                assert int(answer.headers["retry-after"]) >= 1
        assert served.post(CHAT, chat()).status_code == 200


def test_a_full_queue_is_told_as_such(tiny_path: Tiny) -> None:
    settings = Settings(queue_seconds=30, max_queue=1)
    with served_with(tiny_path, 1, settings) as served, ThreadPoolExecutor(1) as pool:
        other = served.model.session(SLAB_TOKENS, 0)
        first = pool.submit(served.post, CHAT, chat())
        until(lambda: served.engine.admission.waiting == 1)
        answer = served.post(CHAT, chat())
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        other.close()
        served.engine.freed()
        assert first.result().status_code == 200


def test_a_client_that_leaves_the_queue_leaves_it(tiny_path: Tiny) -> None:
    with served_with(tiny_path, 1, Settings(queue_seconds=30)) as served, served.model.session(SLAB_TOKENS, 0):
        leave(served, CHAT, chat())
        until(lambda: served.engine.admission.waiting == 0)


def test_who_is_being_let_in_counts_as_one_that_runs(tiny_path: Tiny) -> None:
    """An answer that is short meanwhile is not alone: it waits for the newcomer, and does not end."""
    with served_with(tiny_path, 1, Settings()) as served:
        parking, engine = served.engine.parking, served.engine
        parking.begin(served)
        assert parking.alone(served)  # type: ignore[arg-type]
        room = engine._open(4, 4, 1, None)
        assert not parking.alone(served)  # type: ignore[arg-type]
        room.close()
        assert parking.alone(served)  # type: ignore[arg-type]
        with served.model.session(SLAB_TOKENS, 0), pytest.raises(MemoryLimitError):
            engine._open(4, 4, 1, None)
        assert parking.alone(served)  # type: ignore[arg-type]
        parking.end(served)


HELD = 7


def holding(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Answers with the seed HELD hold what they were promised until the event lets them go on."""
    from foundry.server import run

    release, real = threading.Event(), run.generation.stream

    def held(session: Any, ids: Any, most: Any, params: Any, *rest: Any) -> Iterator[Any]:
        for piece in real(session, ids, most, params, *rest):
            if params.seed == HELD:
                release.wait(60)
            yield piece

    monkeypatch.setattr(run.generation, "stream", held)
    return release


def test_an_answer_that_outgrew_its_promise_waits_for_memory_and_has_the_same_bits(
    tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = holding(monkeypatch)
    settings = Settings(default_max_tokens=16, max_context=450)
    growing = chat(max_tokens=None, ignore_eos=True, temperature=1.0, seed=1)
    bounded = chat(max_tokens=300, ignore_eos=True, temperature=1.0, seed=HELD)
    with served_with(tiny_path, 1, settings) as served, ThreadPoolExecutor(2) as pool:
        alone = served.ok(CHAT, growing)
        served.idle()
        first = pool.submit(served.ok, CHAT, bounded)
        until(lambda: served.engine.admission.running == 1)
        waiting = pool.submit(served.ok, CHAT, growing)  # 450 tokens and 320 promised, and there is room for 512
        until(lambda: served.engine.parking.parked == 1, 60)
        assert served.metric("num_requests_parked") == 1
        release.set()
        found = waiting.result()
        assert found["choices"] == alone["choices"]
        assert found["usage"]["total_tokens"] == alone["usage"]["total_tokens"] == 450
        assert first.result()["usage"]["completion_tokens"] == 300
        served.idle()


def test_answers_that_outgrow_memory_together_all_end_with_the_bits_that_each_has_alone(tiny_path: Tiny) -> None:
    """Penalties, log-probabilities and a grammar's state go on where they were when pages come back."""
    settings = Settings(default_max_tokens=16, max_context=450)
    sampled = chat(max_tokens=None, ignore_eos=True, temperature=1.0, frequency_penalty=0.5, presence_penalty=0.5)
    bodies = [
        sampled | {"seed": 1, "repetition_penalty": 1.1},
        sampled | {"seed": 2, "logprobs": True},
        sampled | {"seed": 3, "response_format": {"type": "regex", "regex": "([a-z]{2}[0-9]){200}"}},
    ]
    with served_with(tiny_path, 1, settings) as served, ThreadPoolExecutor(3) as pool:
        alone = [served.ok(CHAT, body)["choices"] for body in bodies]
        served.idle()
        rows = served.model._core.counts.rows
        found = [one.result() for one in [pool.submit(served.ok, CHAT, body) for body in bodies]]
        assert [one["choices"] for one in found] == alone
        assert [one["usage"]["total_tokens"] for one in found] == [450] * 3
        assert served.model._core.counts.rows - rows > 3 * 450  # some were computed again
        assert served.metric("num_requests_parked") == 0
        served.idle()


def test_who_is_parked_gives_its_pages_back_and_goes_before_those_who_come_later(
    tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = holding(monkeypatch)
    settings = Settings(default_max_tokens=16, max_context=450, queue_seconds=0.3)
    with served_with(tiny_path, 1, settings) as served, ThreadPoolExecutor(2) as pool:
        first = pool.submit(served.ok, CHAT, chat(max_tokens=300, ignore_eos=True, temperature=1.0, seed=HELD))
        until(lambda: served.engine.admission.running == 1)
        waiting = pool.submit(served.ok, CHAT, chat(max_tokens=None, ignore_eos=True))
        until(lambda: served.engine.parking.parked == 1, 60)
        memory = served.client.get("/v1/memory").json()["models"][0]
        assert (memory["parked"], len(memory["answers"])) == (1, 1)  # who is parked holds nothing
        answer = served.post(CHAT, chat())
        assert answer.status_code == 503
        assert answer.json()["error"]["parked"] == 1
        release.set()
        assert waiting.result()["usage"]["total_tokens"] == 450
        first.result()
        assert served.post(CHAT, chat()).status_code == 200
        served.idle()


def test_a_client_that_leaves_while_it_is_parked_leaves_nothing(
    tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = holding(monkeypatch)
    settings = Settings(default_max_tokens=16, max_context=450)
    with served_with(tiny_path, 1, settings) as served, ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.ok, CHAT, chat(max_tokens=300, ignore_eos=True, temperature=1.0, seed=HELD))
        until(lambda: served.engine.admission.running == 1)
        with served.client.stream("POST", CHAT, json={"stream": True, **chat(max_tokens=None, ignore_eos=True)}):
            until(lambda: served.engine.parking.parked == 1, 60)
        until(lambda: served.engine.parking.parked == 0)
        until(lambda: served.engine.admission.running == 1)  # it is parked no more before it has ended
        assert not first.done()
        release.set()
        assert first.result()["usage"]["completion_tokens"] == 300
        served.idle()


def test_what_a_client_left_of_its_prompt_is_kept_as_a_prefix_or_not(tiny_path: Tiny) -> None:
    ids = [i * 7919 % 256 for i in range(8000)]
    body = {"prompt": ids, "max_tokens": 1}
    for keep in ("prefix", "nothing"):
        settings = Settings(keep=keep)  # type: ignore[arg-type]
        path = tiny_path(layers=4, hidden=256, max_seq_len=8192)
        with serve(path, settings, chunk_tokens=32, prefix_cache_bytes=64 << 20) as served:
            leave(served, COMPLETIONS, body)
            until(lambda: served.engine.admission.running == 0)
            kept = served.model.memory()["prefix_cache"]
            again = served.ok(COMPLETIONS, {"prompt": ids[:200], "max_tokens": 1})
            cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert (kept > 0, cached) == ((True, 192) if keep == "prefix" else (False, 0))
            fresh = served.model.session()
            expected = fresh.generate(ids[:200], 1, temperature=0)
            assert (
                served.ok(COMPLETIONS, {"prompt": ids[:200], "max_tokens": 1, "temperature": 0})["choices"][0]["text"]
                == expected.text
            )
            fresh.close()
            served.idle()


def test_an_answer_that_nobody_makes_room_for_ends_and_says_why(tiny_path: Tiny) -> None:
    body = {"prompt": "Hello", "max_tokens": 4000, "temperature": 0, "ignore_eos": True}
    chatty = chat(max_tokens=None, ignore_eos=True)
    with served_with(tiny_path, 1, Settings(default_max_tokens=16)) as served:
        assert served.post(COMPLETIONS, body).status_code == 400  # asked for, it would have to be promised
        choice = served.ok(CHAT, chatty)["choices"][0]
        told(choice)
        events = served.events(CHAT, chatty)
        told(events[-1]["choices"][0])
        usage = served.ok(CHAT, chatty)["usage"]
        assert usage["total_tokens"] == SLAB_TOKENS + 1  # the last one is drawn, and not fed
        served.idle()


def told(choice: dict[str, Any]) -> None:
    assert choice["finish_reason"] == "length"
    details = choice["finish_details"]
    assert details["type"] == "memory_limit"
    assert details["available_bytes"] < details["needed_bytes"]


def test_no_thread_of_an_answer_lives_on(tiny_path: Tiny) -> None:
    """Each would keep what was freed on it, up to 230 KiB in glibc, where malloc_trim does not reach: 14 MiB of 64."""
    with serve(tiny_path(max_seq_len=512)) as served, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(served.chat, "Hello", n=2) for _ in range(16)]
        assert all(len(one.result()["choices"]) == 2 for one in asked)
        served.idle()
        until(lambda: not [one for one in threading.enumerate() if one.name.startswith("foundry-answer")])
