"""POST /v1/chat/completions: what the protocol says, and the same answers as the library gives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import Tiny
from served import CHAT, Served, chat, serve

MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path()) as one:
        yield one


def pieces(events: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [c for event in events for c in event["choices"] if c["index"] == index]


def text(events: list[dict[str, Any]], index: int = 0) -> str:
    return "".join(choice["delta"].get("content", "") for choice in pieces(events, index))


def test_an_answer_is_the_librarys_and_says_what_it_took(served: Served) -> None:
    found = served.chat(ignore_eos=True)
    with served.model.session() as session:
        expected = session.chat(MESSAGES, 8, ignore_eos=True)
    assert found["choices"][0]["message"] == {"role": "assistant", "content": expected.text}
    assert found["choices"][0]["finish_reason"] == "length"
    usage = found["usage"]
    assert usage["prompt_tokens"] == expected.usage.prompt_tokens
    assert (usage["completion_tokens"], usage["total_tokens"]) == (8, usage["prompt_tokens"] + 8)
    assert found["object"] == "chat.completion"
    assert found["id"] != served.chat()["id"]


def test_a_stream_has_a_role_first_one_finish_last_and_the_whole_text(served: Served) -> None:
    whole = served.chat(ignore_eos=True)
    events = served.events(CHAT, chat(ignore_eos=True))
    assert text(events) == whole["choices"][0]["message"]["content"]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["finish_reason"] for c in pieces(events) if c["finish_reason"]] == ["length"]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert len({event["id"] for event in events}) == 1
    assert all("usage" not in event for event in events)


def test_usage_comes_in_a_last_chunk_where_it_is_asked_for(served: Served) -> None:
    whole = served.chat()
    events = served.events(CHAT, chat(stream_options={"include_usage": True}))
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert all(event["usage"] is None for event in events[:-1])


def test_choices_are_those_of_generate_n(served: Served) -> None:
    fields = {"n": 3, "temperature": 1.0, "seed": 5, "max_tokens": 6, "ignore_eos": True}
    found = served.chat(**fields)
    ids = served.model.tokenizer.encode_chat(MESSAGES)
    with served.model.session() as session:
        expected = session.generate_n(ids, 3, 6, temperature=1.0, seed=5, ignore_eos=True)
    texts = [choice["message"]["content"] for choice in found["choices"]]
    assert texts == [one.text for one in expected]
    assert len(set(texts)) == 3
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert found["usage"]["completion_tokens"] == 18
    events = served.events(CHAT, chat(**fields))
    assert [text(events, i) for i in range(3)] == texts
    assert [[c["finish_reason"] for c in pieces(events, i)][-1] for i in range(3)] == ["length"] * 3


def test_log_probabilities_are_the_librarys_in_streams_too(served: Served) -> None:
    fields = {"logprobs": True, "top_logprobs": 2, "ignore_eos": True}
    entries = served.chat(**fields)["choices"][0]["logprobs"]["content"]
    with served.model.session() as session:
        expected = session.chat(MESSAGES, 8, logprobs=2, ignore_eos=True)
    assert expected.logprobs is not None
    assert [entry["logprob"] for entry in entries] == [one.logprob for one in expected.logprobs]
    assert [[top["logprob"] for top in entry["top_logprobs"]] for entry in entries] == [
        [p for _, p in one.top] for one in expected.logprobs
    ]
    tokenizer = served.model.tokenizer
    assert [bytes(entry["bytes"]) for entry in entries] == [tokenizer.piece(i) for i in expected.token_ids]
    events = served.events(CHAT, chat(**fields))
    streamed = [entry for c in pieces(events) if c["logprobs"] for entry in c["logprobs"]["content"]]
    assert streamed == entries


def test_a_stop_string_ends_the_text_before_it_and_nothing_of_it_leaks(served: Served) -> None:
    whole = served.chat(max_tokens=40, ignore_eos=True)["choices"][0]["message"]["content"]
    stop = whole[10:13]
    end = whole.index(stop)
    found = served.chat(max_tokens=40, ignore_eos=True, stop=["never", stop])
    assert found["choices"][0]["message"]["content"] == whole[:end]
    assert found["choices"][0]["finish_reason"] == "stop"
    events = served.events(CHAT, chat(max_tokens=40, ignore_eos=True, stop=stop))
    assert text(events) == whole[:end]


def test_text_held_for_a_stop_string_is_given_out_at_the_end(served: Served) -> None:
    whole = served.chat(ignore_eos=True)["choices"][0]["message"]["content"]
    events = served.events(CHAT, chat(ignore_eos=True, stop=whole[-2:] + "never"))
    assert text(events) == whole


def test_what_runs_beside_it_changes_no_answer(served: Served) -> None:
    texts = ["One", "Two, and a longer prompt of other words " * 3, "Three", "Four " * 9]
    alone = [served.chat(one, max_tokens=30, ignore_eos=True)["choices"][0]["message"] for one in texts]
    served.model.drop_prefixes()
    with ThreadPoolExecutor(8) as pool:
        beside = list(pool.map(lambda one: served.chat(one, max_tokens=30, ignore_eos=True), texts * 2))
    assert [one["choices"][0]["message"] for one in beside] == alone * 2


def test_a_prompt_that_was_answered_is_not_computed_again(served: Served) -> None:
    served.model.drop_prefixes()
    prompt = "A prompt of some pages, which are eight tokens each. " * 3
    first, second = served.chat(prompt), served.chat(prompt)
    cached = [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in (first, second)]
    assert cached[0] == 0
    assert cached[1] == second["usage"]["prompt_tokens"] // 8 * 8
    assert first["choices"] == second["choices"]
    dropped = served.client.delete("/v1/cache").json()["dropped_bytes"]
    assert dropped["tiny"] > 0
    assert served.model.memory()["prefix_cache"] == 0


def test_an_answer_of_a_given_form(served: Served) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "one", "schema": schema | {"additionalProperties": False}}}
    found = served.chat(response_format=form, max_tokens=60, temperature=1.0)
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["choices"][0]["message"]["content"].replace(" ", "") in ('{"a":"x"}', '{"a":"y"}')
    regex = served.chat(response_format={"type": "regex", "regex": "[0-9]{3}"}, n=2, temperature=1.0)
    for choice in regex["choices"]:
        assert choice["message"]["content"].isdigit()
        assert len(choice["message"]["content"]) == 3


def test_figures_move_by_the_usage_and_go_back(served: Served) -> None:
    before = served.metric("generation_tokens_total"), served.metric("prompt_tokens_total")
    usage = served.chat(n=2, temperature=1.0)["usage"]
    assert served.metric("generation_tokens_total") - before[0] == usage["completion_tokens"]
    assert served.metric("prompt_tokens_total") - before[1] == usage["prompt_tokens"]
    served.idle()
    assert served.metric("num_requests_running") == served.metric("num_requests_waiting") == 0
