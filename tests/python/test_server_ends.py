"""Clients that leave and a server that stops: answers end within a chunk, and what they held is given back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Tiny
from foundry.server.settings import Settings
from served import CHAT, COMPLETIONS, NAME, Served, chat, events_of, leave, serve, until

LONG = {"layers": 4, "hidden": 256, "max_seq_len": 8192}
ENDLESS = {"max_tokens": 8000, "ignore_eos": True, "temperature": 1.0}


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path(**LONG), chunk_tokens=32) as one:
        yield one


def test_a_stream_that_is_left_ends(served: Served) -> None:
    for path, body in ((CHAT, chat(**ENDLESS, n=2)), (COMPLETIONS, {"prompt": ["a", "b"], **ENDLESS})):
        with served.client.stream("POST", path, json={"model": NAME, "stream": True, **body}) as answer:
            for _, _ in zip(range(6), events_of(answer), strict=False):
                pass
            assert served.engine.admission.running == 2
        served.idle()


def test_a_whole_answer_that_nobody_waits_for_ends(served: Served) -> None:
    for path, body in (
        (CHAT, chat(**ENDLESS, n=2)),
        (COMPLETIONS, {"prompt": ["a", "b"], **ENDLESS}),
    ):
        leave(served, path, body)
        served.idle()


def test_a_prompt_that_is_left_ends_within_a_chunk(served: Served) -> None:
    ids = [i * 7919 % 256 for i in range(8000)]
    steps = served.model._core.counts.steps
    for body in ({"prompt": ids, "max_tokens": 1}, {"prompt": ids, "max_tokens": 0, "logprobs": 1, "echo": True}):
        leave(served, COMPLETIONS, body)
        until(lambda: served.engine.admission.running == 0)
        done, steps = served.model._core.counts.steps - steps, served.model._core.counts.steps
        assert done < 8000 / 32 * 0.8
        time.sleep(0.2)
        assert served.model._core.counts.steps == steps
    served.idle()


def test_one_choice_that_fails_ends_all(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault behind the first token: whole answers say so by their status, streams by an event."""
    from foundry.server import run

    real = run.generation.stream

    def failing(*args: Any, **named: Any) -> Iterator[Any]:
        for i, piece in enumerate(real(*args, **named)):
            if i == 3:
                raise RuntimeError("planted")
            yield piece

    monkeypatch.setattr(run.generation, "stream", failing)
    answer = served.post(CHAT, chat(**ENDLESS))
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "planted" not in answer.text
    events = served.events(CHAT, chat(**ENDLESS))
    assert events[-1]["error"]["type"] == "server_error"
    monkeypatch.undo()
    served.idle()
    assert served.post(CHAT, chat()).status_code == 200


def test_random_clients_leave_nothing_behind(served: Served) -> None:
    """Whole answers, streams, those that leave: each text is the one that it gives alone."""
    bodies = [chat(f"Prompt {i} " * (i + 1), temperature=1.0, seed=i, max_tokens=20, ignore_eos=True) for i in range(6)]
    alone = [served.ok(CHAT, body)["choices"][0]["message"] for body in bodies]

    def one(i: int) -> bool:
        body = bodies[i % 6]
        if i % 3 == 0:
            return bool(served.ok(CHAT, body)["choices"][0]["message"] == alone[i % 6])
        if i % 3 == 1:
            deltas = [c["delta"].get("content", "") for e in served.events(CHAT, body) for c in e["choices"]]
            return "".join(deltas) == alone[i % 6]["content"]
        leave(served, CHAT, body | {"max_tokens": 8000}, after=0.05 * (i % 7 + 1))
        return True

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(36)))
    served.idle()
    assert served.metric("num_requests_running") == 0


def test_a_server_that_stops_lets_streams_end_in_order(tiny_path: Tiny) -> None:
    events: list[dict[str, Any] | str] = []
    begun = threading.Event()
    with serve(tiny_path(**LONG), Settings(grace_seconds=0.3)) as served:

        def read() -> None:
            body = {"model": NAME, "stream": True, **chat(**ENDLESS)}
            with served.client.stream("POST", CHAT, json=body) as answer:
                for one in events_of(answer):
                    events.append(one if one == "[DONE]" else json.loads(one))
                    if len(events) > 3:
                        begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(30)
        stopping = time.monotonic()
        served.server.should_exit = True
        reader.join(20)
        assert not reader.is_alive()
        assert time.monotonic() - stopping < 15
    assert events[-1] == "[DONE]"
    last = events[-2]
    assert isinstance(last, dict)
    assert last["choices"][0]["finish_reason"] == "length"


def test_a_server_that_stops_gives_prompts_up(tiny_path: Tiny) -> None:
    ids = [i * 7919 % 256 for i in range(8000)]
    with serve(tiny_path(**LONG), Settings(grace_seconds=0.1), chunk_tokens=8) as served, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(served.post, COMPLETIONS, {"prompt": ids, "max_tokens": 1})
        until(lambda: served.engine.admission.running == 1)
        served.server.should_exit = True
        answer = waiting.result(30)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "stopping"
