"""What makes no sense is refused by name, in the dialect's shape; nothing is mended in silence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest
from conftest import Tiny
from foundry.server.settings import Settings
from served import CHAT, COMPLETIONS, Served, chat, serve

GONE = object()
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path(), Settings(max_schema_bytes=1000)) as one:
        yield one


def content(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": GONE}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"content": "hi"}]}, "role"),
    ({"messages": [{"role": "wizard", "content": "hi"}]}, "wizard"),
    ({"messages": [{"role": "user", "content": 5}]}, "content"),
    ({"messages": [{"role": "user", "content": None}]}, "content"),
    ({"messages": [{"role": "user"}]}, "content"),
    ({"messages": content({"type": "text", "text": "a"}, IMAGE)}, "image_url"),
    ({"messages": content({"type": "input_audio"})}, "input_audio"),
    ({"messages": content({"type": "text"})}, "text"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"min_p": -0.1}, "min_p"),
    ({"n": 0}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": 1000}, "n: expected 1 to 16"),
    ({"max_tokens": -5}, "max_completion_tokens"),
    ({"max_tokens": 0}, "max_completion_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"logprobs": True, "top_logprobs": 999}, "top_logprobs"),
    ({"top_logprobs": 2}, "logprobs"),
    ({"presence_penalty": 9}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"logit_bias": {"abc": 1}}, "logit_bias"),
    ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"seed": 1 << 70}, "seed"),
    ({"stream": "banana"}, "stream"),
    ({"stop": 5}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"response_format": {"type": "yaml"}}, "yaml"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "banana"}}}}, "banana"),
    ({"response_format": {"type": "regex", "regex": "("}}, "regex"),
    ({"response_format": {"type": "regex", "regex": "a" * 2000}}, "1000 bytes"),
    ({"tools": [{"type": "function", "function": {}}]}, "name"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "'g'"),
    ({"tools": [FUNCTION], "tool_choice": "maybe"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"add_generation_prompt": False}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"documents": 5}, "documents"),
    ({"append": True}, "append"),
    ({"continue_final_message": True}, "messages"),
    ({"audio": {}}, "audio"),
]


@pytest.mark.parametrize(("fields", "named"), BAD, ids=lambda value: json.dumps(value, default=str)[:60])
def test_a_bad_field_is_refused_by_name(served: Served, fields: dict[str, Any], named: str) -> None:
    body = {key: value for key, value in (chat(max_tokens=2) | fields).items() if value is not GONE}
    refused(served.post(CHAT, body), 400, named)


@pytest.mark.parametrize("body", [b"", b'{"model": ', b"[]", b"5", b'{"messages": [' * 5000, b"\xff\xfe", b"NaN"])
def test_what_is_no_request_is_refused(served: Served, body: bytes) -> None:
    answer = served.client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    refused(answer, 400, "")


COMPLETION_BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [99999]}, "99999"),
    ({"prompt": [-1]}, "-1"),
    ({"prompt": ["a"] * 300}, "256"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "best_of": 3}, "best_of"),
    ({"prompt": "a", "logprobs": 99}, "logprobs"),
    ({"prompt": "a", "logprobs": 1, "echo": True, "stream": True}, "stream"),
]


@pytest.mark.parametrize(("fields", "named"), COMPLETION_BAD, ids=lambda value: json.dumps(value)[:60])
def test_a_bad_completion_is_refused_by_name(served: Served, fields: dict[str, Any], named: str) -> None:
    refused(served.post(COMPLETIONS, fields), 400, named)


def test_there_is_no_other_model_nor_route(served: Served) -> None:
    refused(served.post(CHAT, chat(model="other")), 404, "other")
    refused(served.client.get("/v1/models/other"), 404, "other")
    refused(served.client.get("/v1/no/such/route"), 404, "/v1/no/such/route")
    refused(served.client.get(CHAT), 405, "GET")
    refused(served.post("/v1/embeddings", {"input": "a"}), 400, "embeddings")


def test_a_prompt_over_the_context_is_refused_with_the_limit_wherever_it_comes(served: Served) -> None:
    long = "a" * 600  # a token each, and the context has 512
    for path, body in (
        (CHAT, chat(long)),
        (CHAT, chat(long, stream=True)),
        (COMPLETIONS, {"prompt": long}),
        (COMPLETIONS, {"prompt": [97] * 512}),
        (COMPLETIONS, {"prompt": long, "stream": True}),
        (COMPLETIONS, {"prompt": long, "echo": True, "logprobs": 1, "max_tokens": 0}),
    ):
        answer = served.post(path, body)
        refused(answer, 400, "511")
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert answer.json()["error"]["available_tokens"] == 512
    assert served.ok(COMPLETIONS, {"prompt": [97] * 511, "max_tokens": 5})["usage"]["completion_tokens"] <= 1


def test_fields_that_clients_send_and_nobody_needs_are_ignored(served: Served) -> None:
    more = {"user": "u", "store": False, "metadata": {}, "service_tier": "auto", "stop": None, "logit_bias": {}}
    assert (
        served.post(CHAT, chat(**more, tools=[], response_format={"type": "text"}, no_such="field")).status_code == 200
    )


def test_text_that_no_utf8_spells_is_refused(served: Served) -> None:
    body = json.dumps(chat("X")).replace('"X"', '"a\\ud800b"').encode()
    answer = served.client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    refused(answer, 400, "")
    assert served.post(CHAT, chat("a\0b")).status_code == 200
    assert served.post(CHAT, chat("")).status_code == 200


def refused(answer: httpx.Response, status: int, named: str) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert named in error["message"]
    assert error["type"] in ("invalid_request_error", "not_found_error")


def test_no_prompt_is_cut_in_silence(served: Served) -> None:
    """Of whatever length: its tokens are all counted, or it is refused with the limit. 10,000 of them with -m long."""
    unmended(served, 200)


@pytest.mark.slow
@pytest.mark.long
def test_no_prompt_of_many_is_cut_in_silence(served: Served) -> None:
    unmended(served, 10_000)


def unmended(served: Served, count: int) -> None:
    random = Random(count)
    tokenizer = served.model.tokenizer
    for _ in range(count):
        text = "".join(random.choice("abc é🦙\n") for _ in range(int(random.expovariate(1 / 200))))
        dialect = random.randrange(4)
        messages = [{"role": "user", "content": text}]
        if dialect == 0:
            path, body, tokens = CHAT, chat(text, max_tokens=1), len(tokenizer.encode_chat(messages))
        elif dialect == 1:
            path, body, tokens = COMPLETIONS, {"prompt": text, "max_tokens": 1}, len(tokenizer.encode_prompt(text))
        elif dialect == 2:
            path, body = "/v1/responses", {"input": text, "max_output_tokens": 1}
            tokens = len(tokenizer.encode_chat(messages))
        else:
            path, body = "/v1/messages", {"messages": messages, "max_tokens": 1}
            tokens = len(tokenizer.encode_chat(messages))
        answer = served.post(path, body)
        if tokens >= 512 or tokens == 0:
            assert answer.status_code == 400
            assert tokens == 0 or "511" in answer.json()["error"]["message"]
            continue
        assert answer.status_code == 200, answer.text
        usage = answer.json()["usage"]
        counted = usage.get("prompt_tokens", usage.get("input_tokens", 0)) + usage.get("cache_read_input_tokens", 0)
        assert counted == tokens
