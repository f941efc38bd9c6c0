"""/v1/sessions, and requests that go on with one: forks, rewinds, saves, and what a prompt's memory was worth."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Tiny
from foundry.server.settings import Settings
from served import CHAT, COMPLETIONS, NAME, Served, chat, events_of, serve, until

SESSIONS = "/v1/sessions"
FIXED = {"temperature": 0, "ignore_eos": True, "max_tokens": 6}


@pytest.fixture
def served(tiny_path: Tiny, tmp_path: Path) -> Iterator[Served]:
    with serve(tiny_path(max_seq_len=4096), Settings(sessions_dir=tmp_path / "saved", max_sessions=4)) as one:
        yield one


def make(served: Served, **fields: Any) -> dict[str, Any]:
    answer = served.post(SESSIONS, fields)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def say(served: Served, session: str, text: str, **fields: Any) -> dict[str, Any]:
    """Behind what the session has."""
    return served.chat(text, session_id=session, append=True, **{**FIXED, **fields})


def text(found: dict[str, Any]) -> str:
    said: str = found["choices"][0]["message"]["content"]
    return said


def test_a_session_goes_on_with_new_messages_alone(served: Served) -> None:
    session = make(served, name="talk")["id"]
    first = say(served, session, "Hello")
    second = say(served, session, "And then?")
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": text(first)},
        {"role": "user", "content": "And then?"},
    ]
    alone = served.ok(CHAT, {"messages": messages, **FIXED})
    assert text(second) == text(alone)
    assert second["session_id"] == session
    about = served.client.get(f"{SESSIONS}/{session}").json()
    assert (about["name"], about["messages"], about["busy"]) == ("talk", 4, False)
    assert about["position"] >= second["usage"]["prompt_tokens"]
    assert about["kv_bytes"] > 0
    whole = served.ok(CHAT, {"messages": messages[:1], "session_id": session, **FIXED})  # gives way to the whole
    assert text(whole) == text(first)


def test_what_a_session_holds_is_not_computed_again(served: Served) -> None:
    session = make(served)["id"]
    served.model.drop_prefixes()
    first = say(served, session, "A first message of some length, so that there is something to keep")
    second = say(served, session, "Go on", max_tokens=1)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["prompt_tokens"]


def test_a_fork_parts_ways_also_while_its_parent_is_busy(served: Served) -> None:
    session = make(served)["id"]
    say(served, session, "Hello")
    begun = threading.Event()
    body = {
        "model": NAME,
        "stream": True,
        **chat("Count", session_id=session, append=True, **FIXED | {"max_tokens": 3000}),
    }

    def read() -> None:
        with served.client.stream("POST", CHAT, json=body) as answer:
            for i, _ in enumerate(events_of(answer)):
                if i == 3:
                    begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    busy = served.post(CHAT, chat("Me too", session_id=session, append=True))
    assert busy.status_code == 409
    fork = served.post(f"{SESSIONS}/{session}/fork", {"name": "other"}).json()
    assert (fork["parent"], fork["name"], fork["busy"], fork["messages"]) == (session, "other", False, 2)
    alone = make(served)["id"]
    say(served, alone, "Hello")
    assert text(say(served, fork["id"], "What now?")) == text(say(served, alone, "What now?"))
    assert served.client.delete(f"{SESSIONS}/{session}").status_code == 200
    reader.join(30)
    assert not reader.is_alive()


def test_a_rewound_session_says_the_same_again(served: Served) -> None:
    session = make(served)["id"]
    first = say(served, session, "Hello")
    assert served.post(f"{SESSIONS}/{session}/rewind", {"position": 0}).json()["position"] == 0
    assert text(say(served, session, "Hello")) == text(first)
    rewound = served.post(f"{SESSIONS}/{session}/rewind", {"position": 5}).json()
    assert (rewound["position"], rewound["messages"]) == (5, None)
    answer = served.post(CHAT, chat("x", session_id=session, append=True))
    assert answer.status_code == 400
    past = served.post(f"{SESSIONS}/{session}/rewind", {"position": 4000})
    assert past.status_code == 400


def test_a_saved_session_goes_on_after_a_restart(tiny_path: Tiny, tmp_path: Path) -> None:
    settings = Settings(sessions_dir=tmp_path / "saved")
    with serve(tiny_path(max_seq_len=4096), settings) as served:
        session = make(served)["id"]
        first = say(served, session, "Hello")
        saved = served.post(f"{SESSIONS}/{session}/save", {"name": "mine"}).json()
        assert saved["position"] > 0
        expected = text(say(served, session, "And then?"))
    with serve(tiny_path(max_seq_len=4096), settings) as served:
        assert [one["name"] for one in served.client.get(SESSIONS).json()["saved"]] == ["mine"]
        restored = make(served, restore="mine")
        found = say(served, restored["id"], "And then?")
        assert text(found) == expected
        assert found["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]
        assert served.client.delete(f"{SESSIONS}/saved/mine").status_code == 200
        assert served.client.get(SESSIONS).json()["saved"] == []
        assert list((tmp_path / "saved").iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", ".", "..", "", "a" * 101, "a\0b", ".hidden"])
def test_a_name_is_never_a_path(served: Served, tmp_path: Path, name: str) -> None:
    session = make(served)["id"]
    for answer in (
        served.post(f"{SESSIONS}/{session}/save", {"name": name}),
        served.post(SESSIONS, {"restore": name}),
        served.post(SESSIONS, {"name": name}),
    ):
        assert answer.status_code == 400
    assert not (tmp_path / "x.kv").exists()


def test_sessions_are_bounded_unguessable_and_given_back(served: Served) -> None:
    ids = [make(served, tokens=16)["id"] for _ in range(4)]
    assert len({one for one in ids if len(one) > 32}) == 4
    assert served.post(SESSIONS, {}).status_code == 429
    assert served.client.get(f"{SESSIONS}/{ids[0]}").json()["promised_tokens"] == 16
    for one in ids:
        assert served.client.delete(f"{SESSIONS}/{one}").status_code == 200
    served.idle()
    for answer in (
        served.client.get(f"{SESSIONS}/{ids[0]}"),
        served.client.delete(f"{SESSIONS}/{ids[0]}"),
        served.post(CHAT, chat(session_id=ids[0])),
    ):
        assert answer.status_code == 404


def test_without_a_folder_nothing_is_saved(tiny_path: Tiny) -> None:
    with serve(tiny_path()) as served:
        session = make(served)["id"]
        answer = served.post(f"{SESSIONS}/{session}/save", {"name": "mine"})
        assert answer.status_code == 400
        assert "--sessions-dir" in answer.json()["error"]["message"]


def test_a_stream_that_is_left_lets_its_session_go(served: Served) -> None:
    session = make(served)["id"]
    body = {"model": NAME, "stream": True, **chat(session_id=session, **FIXED | {"max_tokens": 4000})}
    with served.client.stream("POST", CHAT, json=body) as answer:
        next(events_of(answer))
    until(lambda: not served.client.get(f"{SESSIONS}/{session}").json()["busy"])
    assert served.post(CHAT, chat(session_id=session)).status_code == 200


def turn(served: Served, messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return served.ok(CHAT, {"messages": messages, **FIXED, **fields})


def test_why_less_was_found_than_a_client_would_think(served: Served) -> None:
    first = [{"role": "user", "content": "A message that is long enough to fill some pages of the model"}]
    said = text(turn(served, first, logit_bias={"65": 100}))  # letters: their text comes back as the same tokens
    assert said == "A" * 6
    again = [*first, {"role": "assistant", "content": said}, {"role": "user", "content": "Go on"}]
    assert "cache_miss" not in turn(served, again)
    served.model.drop_prefixes()
    miss = turn(served, again)["cache_miss"]
    assert miss["cause"] == "evicted"
    assert miss["cached_tokens"] == 0
    template = served.model.tokenizer.chat_template
    assert template is not None
    turn(served, first, logit_bias={"65": 100})
    served.model.tokenizer.chat_template = template.replace("\n{{ m['content']", "\n:{{ m['content']")
    miss = turn(served, again)["cache_miss"]
    assert miss["cause"] == "template"
    assert miss["position"] == len("|user\n")  # <|im_start|> is one token, and so is each letter
    assert (miss["held"], miss["sent"]) == ("A", ":")


def test_the_same_text_as_other_tokens_is_told_as_such(served: Served) -> None:
    import numpy as np
    from foundry.server.reuse import Reuse

    tokenizer = served.model.tokenizer
    reuse = Reuse(8)
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    ids = list(range(65, 91))
    reuse.remember(messages, np.array(ids, dtype=np.int32))
    assert reuse.miss(tokenizer, [*messages, {"role": "user", "content": "z"}], [*ids, 1, 2], 24) is None
    assert reuse.miss(tokenizer, messages[:1], ids[:3], 0) is None
    assert json.dumps(reuse.miss(tokenizer, [*messages, messages[0]], [*ids, 1], 8))


def test_forgotten_conversations_make_room() -> None:
    import numpy as np
    from foundry.server import reuse as module

    reuse = module.Reuse(8)
    half = np.zeros(module._MOST_TOKENS // 2, dtype=np.int32)
    for i in range(5):
        reuse.remember([{"role": "user", "content": str(i)}], half)
    assert len(reuse._known) == 2
    assert reuse._tokens == module._MOST_TOKENS


def test_a_trace_of_turns_computes_what_is_new_and_a_page(served: Served) -> None:
    """Rows at the device: of each prompt at most what lies behind its longest common prefix with an earlier one, a page
    more, and those of the answer."""
    letters = {str(i): 60 for i in range(97, 123)}  # their text is the same tokens again
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Answer in letters, and use your tools"}]
    tokenizer, counts = served.model.tokenizer, served.model._core
    kept: list[list[int]] = []
    for i in range(30):
        messages.append({"role": "user", "content": f"Turn {i}: " + "and so on " * (i % 4)})
        ids = tokenizer.encode_chat(messages)
        common = max((_common(ids, one) for one in kept), default=0)
        before = counts.counts.rows
        found = served.ok(CHAT, {"messages": messages, **FIXED, "logit_bias": letters})
        assert "cache_miss" not in found
        rows, new = counts.counts.rows - before, found["usage"]["completion_tokens"]
        assert rows <= len(ids) - common + 8 + new
        assert found["usage"]["prompt_tokens_details"]["cached_tokens"] >= common // 8 * 8 - 8
        messages.append({"role": "assistant", "content": text(found)})
        kept.append([*ids, *tokenizer.encode_bytes(text(found).encode())[:-1]])


def _common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_a_completion_goes_on_with_a_session(served: Served) -> None:
    body = {**FIXED, "temperature": 1.0, "seed": 3}
    session = make(served)["id"]
    first = served.ok(COMPLETIONS, {"prompt": "Once upon", "session_id": session, **body})
    assert first["session_id"] == session
    said = first["choices"][0]["text"]
    again = served.ok(COMPLETIONS, {"prompt": " a time", "session_id": session, "append": True, **body})
    ids = served.model.tokenizer.encode_prompt("Once upon")
    with served.model.session() as alone:
        one = alone.generate(ids, 6, temperature=1.0, seed=3, ignore_eos=True)
        two = alone.generate(" a time", 6, temperature=1.0, seed=3, ignore_eos=True)
    assert (said, again["choices"][0]["text"]) == (one.text, two.text)
    assert again["usage"]["prompt_tokens"] == len(" a time")
    about = served.client.get(f"{SESSIONS}/{session}").json()
    assert (about["busy"], about["messages"]) == (False, None)
    assert about["position"] == len(ids) + 6 + len(" a time") + 5  # the last token is drawn, and not fed
    served.model.drop_prefixes()
    whole = served.ok(COMPLETIONS, {"prompt": "Once upon the hill", "session_id": session, **body})
    assert whole["usage"]["prompt_tokens_details"]["cached_tokens"] == len("Once upon")
    events = served.events(COMPLETIONS, {"prompt": "Once upon", "session_id": session, **body})
    assert "".join(one["choices"][0]["text"] for one in events) == said
    until(lambda: not served.client.get(f"{SESSIONS}/{session}").json()["busy"])


@pytest.mark.parametrize(
    ("fields", "status", "expected"),
    [
        ({"prompt": ["a", "b"]}, 400, "at most 1 prompts, found 2"),
        ({"prompt": "a", "echo": True, "logprobs": 1}, 400, "session_id: expected a prompt that is answered"),
        ({"prompt": "a" * 5000}, 400, "context: expected a prompt of at most 4095 tokens"),
        ({"prompt": "a", "session_id": "nobody"}, 404, "session: expected one that is open"),
        ({"prompt": "a", "session_id": None, "append": True}, 400, "append: expected a session_id"),
    ],
)
def test_a_completion_that_is_refused_leaves_its_session(
    served: Served, fields: dict[str, Any], status: int, expected: str
) -> None:
    session = make(served)["id"]
    say(served, session, "Hello")
    for stream in (False, True):
        answer = served.post(COMPLETIONS, {"session_id": session, "stream": stream and "echo" not in fields, **fields})
        assert answer.status_code == status
        assert expected in answer.json()["error"]["message"]
        about = served.client.get(f"{SESSIONS}/{session}").json()
        assert (about["busy"], about["messages"]) == (False, 2)
