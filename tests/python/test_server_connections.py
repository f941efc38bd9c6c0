"""Connections of clients that stay: kept open whatever others do, and longer than clients keep theirs."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Tiny
from foundry.server import serving
from foundry.server.settings import Settings
from served import CHAT, COMPLETIONS, NAME, Served, chat, serve

SECONDS = 3.0
ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat("Hello", ignore_eos=True)),
    (CHAT, chat("Hello", ignore_eos=True, stream=True)),
    (COMPLETIONS, {"prompt": "Once", "max_tokens": 4, "stream": True}),
    (COMPLETIONS, {"prompt": "a" * 2000, "max_tokens": 4}),  # too long
    (CHAT, {"messages": []}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": True}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 4, "stream": True}),
]


@pytest.fixture
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path(max_seq_len=1024), Settings(max_running=8)) as one:
        yield one


class Connection:
    """HTTP over a socket of its own, so that what a server does to a connection is seen, and no client's pool."""

    def __init__(self, served: Served) -> None:
        _, _, port = served.url.rpartition(":")
        self.socket = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
        self.file = self.socket.makefile("rb")

    def ask(self, path: str, body: dict[str, Any]) -> None:
        data = json.dumps({"model": NAME, **body}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        )
        self.socket.sendall(head.encode() + b"\r\n\r\n" + data)

    def answer(self) -> int:
        """The status, once all of the answer has come. ConnectionError where the connection ends before."""
        status = int(self._line().split()[1])
        headers = dict(iter(lambda: self._header(), ("", "")))
        assert headers.get("connection", "") != "close"
        if "content-length" in headers:
            self._read(int(headers["content-length"]))
            return status
        while n := int(self._line(), 16):
            self._read(n + 2)
        self._line()
        return status

    def leave(self, reset: bool) -> None:
        if reset:  # what has not been read is thrown away, and the server is told so at once
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.file.close()
        self.socket.close()

    def _header(self) -> tuple[str, str]:
        name, _, value = self._line().partition(":")
        return name.lower(), value.strip()

    def _line(self) -> str:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection ended within an answer")
        return line.decode().rstrip("\r\n")

    def _read(self, n: int) -> None:
        if len(self.file.read(n)) != n:
            raise ConnectionError("the connection ended within an answer")


def test_a_connection_that_stays_is_kept_while_others_leave(served: Served) -> None:
    """At any time: before an answer, within it, with a reset or in order. Answers are whole on the one that stays."""
    until, wrong, seen = time.monotonic() + SECONDS, [], []

    def stays(seed: int) -> None:
        draw, connection = random.Random(seed), Connection(served)
        try:
            while time.monotonic() < until:
                path, body = draw.choice(ASKED)
                connection.ask(path, body)
                seen.append(connection.answer())
        except Exception as error:
            wrong.append(repr(error))
        connection.leave(False)

    def leaves(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < until:
            connection = Connection(served)
            path, body = draw.choice(ASKED)
            connection.ask(path, body | {"max_tokens": 200, "max_output_tokens": 200})
            connection.socket.settimeout(draw.choice([0.001, 0.05]))
            with contextlib.suppress(OSError):
                connection.file.read(draw.randrange(1, 2000))
            connection.leave(draw.random() < 0.5)

    threads = [threading.Thread(target=stays, args=[i]) for i in range(4)]
    threads += [threading.Thread(target=leaves, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(seen) == {200, 400}
    served.idle()


def test_a_client_that_leaves_a_stream_is_noticed_and_nothing_is_said_of_it(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that is made faster than it is sent is not written to a connection that is gone, event by event."""
    with caplog.at_level(logging.WARNING, logger="asyncio"):
        for _ in range(20):
            connection = Connection(served)
            connection.ask(CHAT, chat("Hello", stream=True, ignore_eos=True, max_tokens=400))
            connection.file.read(500)
            connection.leave(True)
        served.idle()
    assert [record.message for record in caplog.records] == []


def test_an_idle_connection_is_kept_longer_than_clients_keep_theirs(served: Served) -> None:
    """httpx lets go of one after 5 s, aiohttp after 15, Node's agents after 60 at most: a server that is quicker closes
    one on which a request is under way, which then fails."""
    assert served.server.config.timeout_keep_alive == serving._IDLE_S > 60


def test_a_server_that_is_the_first_to_let_go_breaks_requests(tiny_path: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why: such a request is not answered."""
    monkeypatch.setattr(serving, "_IDLE_S", 1)
    with serve(tiny_path(max_seq_len=1024)) as served:
        connection = Connection(served)
        connection.ask(CHAT, chat("Hello"))
        assert connection.answer() == 200
        time.sleep(1.3)
        with pytest.raises(OSError):
            connection.ask(CHAT, chat("Hello"))
            connection.answer()
        connection.leave(False)
