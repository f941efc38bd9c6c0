"""A crowd of clients: no wrong text, no request that hangs, and nothing is left behind.

By default for some seconds. ``FOUNDRY_LOAD_SECONDS=600 python -m pytest -m slow tests/python/test_server_load.py`` is
the long run against a process of its own, whose resident memory is looked at.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import httpx
import pytest
from conftest import Tiny
from crowd import Crowd, Question, questions
from foundry.server.settings import Settings
from foundry.server.shortage import Parking
from served import CHAT, NAME, process, serve, until
from test_server_memory import served_with

SECONDS = float(os.environ.get("FOUNDRY_LOAD_SECONDS", "60"))
MORE_BYTES = 16 << 20


def test_a_crowd_leaves_nothing_behind_and_everybody_gets_the_answer_that_he_would_alone(tiny_path: Tiny) -> None:
    with serve(tiny_path(max_seq_len=1024), Settings(max_running=8)) as served:
        crowd = Crowd(served.url, NAME, 1024)
        crowd.ask_alone(questions(2))
        served.idle()
        before = served.model.memory()
        seen = crowd.run(16, 4)
        assert seen.wrong == []
        assert {"whole", "stream", "leaves_stream", "overlong"} <= seen.counts.keys()
        served.idle()
        assert served.model.memory() == before
        for name in ("running", "waiting", "parked"):
            assert served.metric(f"num_requests_{name}") == 0
        assert served.metric("kv_cache_usage_perc") == 0


def test_a_crowd_that_outgrows_memory_waits_for_one_another(tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers without a bound, of which two or three fit: all go to the context's end, with the bits of each alone."""
    settings = Settings(default_max_tokens=8, max_context=400)
    endless = {"temperature": 1.0, "ignore_eos": True, "presence_penalty": 0.3}
    messages = [[{"role": "user", "content": f"Tell me all, {i}."}] for i in range(2)]
    asked = [
        Question(CHAT, {"messages": one, "seed": i, **endless} | ({"n": 2} if i % 2 else {}))
        for i, one in enumerate(messages)
    ]
    parked, real = [], Parking.wait
    monkeypatch.setattr(Parking, "wait", lambda *args: parked.append(1) or real(*args))
    with served_with(tiny_path, 2, settings) as served:
        crowd = Crowd(served.url, NAME, 400)
        crowd.ask_alone(asked)
        served.idle()
        before = served.model.memory()
        seen = crowd.run(8, 2)
        assert seen.wrong == []
        assert len(parked) > 2
        served.idle(30)
        assert served.model.memory() == before


def test_overlong_prompts_are_refused_with_figures_in_each_dialect(tiny_path: Tiny) -> None:
    with serve(tiny_path(max_seq_len=512)) as served:
        assert refused(Crowd(served.url, NAME, 512), 100) == []
        served.idle()


@pytest.mark.slow
@pytest.mark.long
def test_none_of_ten_thousand_overlong_prompts_is_cut(tiny_path: Tiny) -> None:
    with serve(tiny_path(max_seq_len=512)) as served:
        rows = served.model._core.counts.rows
        assert refused(Crowd(served.url, NAME, 512), 10_000) == []
        assert served.model._core.counts.rows == rows
        served.idle()


def refused(crowd: Crowd, n: int) -> list[str]:
    async def some(client: httpx.AsyncClient, share: int, seed: int) -> list[str]:
        draw = random.Random(seed)
        return [told for _ in range(share) if (told := await crowd.overlong(client, draw))]

    async def everybody() -> list[str]:
        async with httpx.AsyncClient(base_url=crowd.url, timeout=120) as client:
            found = await asyncio.gather(*(some(client, n // 10, i) for i in range(10)))
        return [told for each in found for told in each]

    return asyncio.run(everybody())


@pytest.mark.model
@pytest.mark.slow
def test_64_clients_for_long(smollm2_path: Path) -> None:
    flags = ["--memory-limit", "512M", "--max-context", "1024", "--queue-seconds", "600"]
    with process(str(smollm2_path), "--alias", NAME, *flags) as (server, line):
        crowd = Crowd(str(line["url"]), NAME, 1024)
        asked = questions(3)
        crowd.ask_alone(asked)
        crowd.run(64, min(20.0, SECONDS))  # threads and their stacks are there once as many have run
        with httpx.Client(base_url=str(line["url"]), timeout=60) as client:
            empty(client)
            before = resident(server.pid)
            seen = crowd.run(64, SECONDS, 1)
            print(dict(seen.counts))
            empty(client)
            after = resident(server.pid)
        print(f"resident: {before} bytes, then {after}")
        assert seen.wrong == []
        assert after - before < MORE_BYTES


def empty(client: httpx.Client) -> None:
    """Nothing runs, and once the tree is emptied nothing is held."""

    def memory() -> dict[str, int]:
        model = client.get("/v1/memory").json()["models"][0]
        busy = model["running"] + model["waiting"] + model["parked"] + len(model["answers"])
        return {"busy": busy, **model["memory"]}

    until(lambda: memory()["busy"] == 0, 60)
    client.delete("/v1/cache")
    found = memory()
    assert (found["promised"], found["prefix_cache"]) == (0, 0), found


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(one.split()[1]) for one in status if one.startswith("VmRSS:"))
