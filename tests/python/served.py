"""A server on a thread of the test's own process, or as a process, spoken to over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from foundry import CompiledModel
from foundry.server.app import create_app
from foundry.server.engine import Engine
from foundry.server.library import Library
from foundry.server.metrics import Metrics
from foundry.server.serving import Server
from foundry.server.settings import Settings

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
NAME = "tiny"


class Served:
    """A server that runs. ``client`` speaks to it; ``engine`` is what it answers with."""

    def __init__(self, url: str, engine: Engine, server: Server) -> None:
        self.url = url
        self.engine = engine
        self.server = server
        key = engine.settings.api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=60)

    @property
    def model(self) -> CompiledModel:
        return self.engine.model

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(path, json={"model": NAME, **body}, **more)

    def ok(self, path: str, body: Any, **more: Any) -> dict[str, Any]:
        answer = self.post(path, body, **more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def chat(self, text: str = "Hello", **fields: Any) -> dict[str, Any]:
        return self.ok(CHAT, chat(text, **fields))

    def events(self, path: str, body: Any) -> list[dict[str, Any]]:
        """All of a stream, which must end with [DONE]."""
        with self.client.stream("POST", path, json={"model": NAME, "stream": True, **body}) as answer:
            assert answer.status_code == 200, answer.read()
            found = list(events_of(answer))
        assert found[-1] == "[DONE]"
        return [json.loads(one) for one in found[:-1]]

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"foundry:{name}{{"))

    def idle(self, seconds: float = 60) -> None:
        """Until nothing runs and, but for the prefix cache, which is dropped, nothing is held or promised any more."""
        until(lambda: self.engine.admission.running == 0 and not self.engine.runs, seconds)
        self.model.drop_prefixes()
        until(lambda: self.model.memory()["promised"] == 0, seconds)


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8, **fields}


def events_of(answer: httpx.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def leave(served: Served, path: str, body: dict[str, Any], after: float = 0.3) -> None:
    """Asks, and hangs up after so many seconds."""
    with contextlib.suppress(httpx.ReadTimeout):
        served.post(path, body, timeout=httpx.Timeout(30, read=after))
        raise AssertionError("it was answered before the client left")


@contextmanager
def serve(path: Path, settings: Settings | None = None, **options: Any) -> Iterator[Served]:
    """``options`` are those of ``CompiledModel.load``."""
    model = CompiledModel.load(path, **{"threads": 1, "page_tokens": 8, "prefix_cache_bytes": 4 << 20, **options})
    metrics = Metrics()
    settings = settings or Settings()
    engine = Engine(NAME, model, settings, metrics)
    ready = threading.Event()
    ports: list[int] = []

    def listening(port: int) -> None:
        ports.append(port)
        ready.set()

    fixed = Settings(**{**vars(settings), "port": 0})
    server = Server(create_app(Library([engine]), settings, metrics), fixed, listening)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield Served(f"http://127.0.0.1:{ports[0]}", engine, server)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """The process, and what it said once it listened."""
    command = [sys.executable, "-m", "foundry", "serve", *arguments, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        assert found.stderr is not None
        try:
            line = found.stdout.readline()
            assert line, found.stderr.read()
            yield found, json.loads(line)
        finally:
            found.kill()
