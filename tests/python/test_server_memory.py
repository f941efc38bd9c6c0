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
from foundry import CompiledModel
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


def test_an_answer_that_outgrew_its_promise_waits_for_memory_and_has_the_same_bits(
    tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foundry.server import run

    release, real = threading.Event(), run.generation.stream

    def held(session: Any, ids: Any, most: Any, params: Any, *rest: Any) -> Iterator[Any]:
        for piece in real(session, ids, most, params, *rest):
            if params.seed == 7:  # holds what it was promised until it is let go on
                release.wait(60)
            yield piece

    monkeypatch.setattr(run.generation, "stream", held)
    settings = Settings(default_max_tokens=16, max_context=450)
    growing = chat(max_tokens=None, ignore_eos=True, temperature=1.0, seed=1)
    bounded = chat(max_tokens=300, ignore_eos=True, temperature=1.0, seed=7)
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
