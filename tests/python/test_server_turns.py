"""Who hears that an answer is over may go on at once: with the same session, and with the memory that it had."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import Tiny
from foundry.server.refusals import Refusal
from foundry.server.run import Run
from foundry.server.sessions import Held, Sessions
from foundry.server.settings import Settings
from served import CHAT, COMPLETIONS, NAME, Served, serve

SESSIONS, RESPONSES, MESSAGES = "/v1/sessions", "/v1/responses", "/v1/messages"
TURNS = 100
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Go on"}], "max_tokens": 2},
    COMPLETIONS: {"prompt": "Go on", "max_tokens": 2},
    RESPONSES: {"input": "Go on", "max_output_tokens": 2},
    MESSAGES: {"messages": [{"role": "user", "content": "Go on"}], "max_tokens": 2},
}
LAST = {CHAT: "data: [DONE]", COMPLETIONS: "data: [DONE]", MESSAGES: "event: message_stop"}
LAST_OF_RESPONSES = ("event: response.completed", "event: response.incomplete")


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    """What an answer had takes a moment to be given back, so that who asks too soon is sure to find it busy."""
    real = Run._close

    def slowly(*given: Any) -> None:
        time.sleep(0.005)
        real(*given)

    with pytest.MonkeyPatch.context() as patch, serve(tiny_path(max_seq_len=1024), Settings(max_running=4)) as one:
        patch.setattr(Run, "_close", slowly)
        yield one


def is_last(path: str, line: str) -> bool:
    return line.startswith(LAST_OF_RESPONSES if path == RESPONSES else LAST[path])


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_hundred_turns_of_a_session_without_a_pause(served: Served, path: str, stream: bool) -> None:
    """Each is asked when the last event of the one before has come, and before its connection is at rest."""
    session = served.post(SESSIONS, {}).json()["id"]
    body = {"model": NAME, "temperature": 0, "ignore_eos": True, "stream": stream, "session_id": session, **ASKED[path]}
    before: httpx.Response | None = None
    found: list[tuple[int, int, int]] = []
    for _ in range(TURNS):
        answer = served.client.send(served.client.build_request("POST", path, json=body), stream=True)
        if answer.status_code == 200 and stream:
            assert any(is_last(path, line) for line in answer.iter_lines())
        else:
            answer.read()
        found.append((answer.status_code, served.engine.admission.running, len(served.engine.runs)))
        if before is not None:
            before.close()
        before = answer
    assert found == [(200, 0, 0)] * TURNS
    about = served.client.get(f"{SESSIONS}/{session}").json()
    assert about["busy"] is False
    assert about["messages"] == (None if path == COMPLETIONS else 2)
    served.client.delete(f"{SESSIONS}/{session}")


def test_what_a_request_gives_back_twice_is_not_taken_from_the_next(served: Served) -> None:
    sessions = Sessions(Settings())
    with served.model.session() as session:
        sessions._add(Held("one", served.engine, session))
        first = sessions.take("one")
        first.release()
        second = sessions.take("one")
        first.release()
        with pytest.raises(Refusal, match="busy with another request"):
            sessions.take("one")
        second.release()
        sessions.take("one").release()
