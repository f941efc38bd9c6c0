"""OpenAI's responses and Anthropic's messages: the same answers as chat completions', in their own shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Tiny
from served import NAME, Served, events_of, serve

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}},
    "required": ["on"],
    "additionalProperties": False,
}
FLAT = [{"type": "function", "name": "set_alarm", "description": "An alarm.", "parameters": SCHEMA}]
CUSTOM = [{"name": "set_alarm", "description": "An alarm.", "input_schema": SCHEMA}]


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path(max_seq_len=4096)) as one:
        yield one


def told(served: Served, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All events of a stream; their names are their types."""
    names = []
    with served.client.stream("POST", path, json={"model": NAME, "stream": True, **body}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = list(answer.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names == [one["type"] for one in found]
    return found


def chatted(served: Served, **fields: Any) -> dict[str, Any]:
    return served.chat("Hello", **{"max_tokens": 12, "temperature": 0, **fields})


def response(**fields: Any) -> dict[str, Any]:
    return {"input": "Hello", "max_output_tokens": 12, "temperature": 0, **fields}


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "temperature": 0, **fields}


def test_a_response_is_the_chats_answer(served: Served) -> None:
    chat = chatted(served)
    for given in ("Hello", [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]):
        found = served.ok(RESPONSES, response(input=given))
        (item,) = found["output"]
        assert (item["type"], item["role"]) == ("message", "assistant")
        assert item["content"][0]["text"] == chat["choices"][0]["message"]["content"]
        usage = found["usage"]
        assert usage["input_tokens"] == chat["usage"]["prompt_tokens"]
        assert usage["total_tokens"] == chat["usage"]["total_tokens"]
        assert (found["status"], found["incomplete_details"]["reason"]) == ("incomplete", "max_output_tokens")
    with_system = served.chat(
        max_tokens=1, messages=[{"role": "system", "content": "Be brief."}, *message()["messages"]]
    )
    instructed = served.ok(RESPONSES, response(instructions="Be brief."))
    assert instructed["usage"]["input_tokens"] == with_system["usage"]["prompt_tokens"]


def test_a_streamed_response_is_numbered_and_makes_the_whole(served: Served) -> None:
    whole = served.ok(RESPONSES, response())
    events = told(served, RESPONSES, response())
    types = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert types[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert types[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete",
    ]  # fmt: skip
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == whole["output"][0]["content"][0]["text"] == events[-4]["text"]
    last = events[-1]["response"]
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert last["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert events[0]["response"]["output"] == []


def test_a_responses_call_and_its_result(served: Served) -> None:
    body = response(tools=FLAT, tool_choice="required", max_output_tokens=400, parallel_tool_calls=False)
    found = served.ok(RESPONSES, body)
    (item,) = found["output"]
    assert (item["type"], item["name"], found["status"]) == ("function_call", "set_alarm", "completed")
    assert isinstance(json.loads(item["arguments"])["on"], bool)
    events = told(served, RESPONSES, body)
    arguments = [e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta"]
    assert "".join(arguments) == item["arguments"]
    result = {"type": "function_call_output", "call_id": item["call_id"], "output": "done, and well done"}
    again = served.ok(RESPONSES, response(input=[{"role": "user", "content": "Hello"}, item, result], tools=FLAT))
    more = len('{"name": "set_alarm", "arguments": {"on": true}}done, and well done')
    assert again["usage"]["input_tokens"] >= found["usage"]["input_tokens"] + more


BAD_RESPONSES: list[tuple[dict[str, Any], str]] = [
    ({"input": 5}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"type": "image"}]}, "image"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input_image"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"background": True}, "background"),
    ({"truncation": "auto"}, "truncation"),
    ({"tools": [{"type": "web_search"}]}, "web_search"),
    ({"text": {"format": {"type": "json_schema"}}}, "schema"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"input": "a" * 5000}, "4095"),
]


@pytest.mark.parametrize(("fields", "named"), BAD_RESPONSES, ids=lambda value: json.dumps(value)[:50])
def test_a_bad_response_is_refused_by_name(served: Served, fields: dict[str, Any], named: str) -> None:
    answer = served.post(RESPONSES, response(**fields))
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


def test_a_message_is_the_chats_answer(served: Served) -> None:
    chat = chatted(served)
    blocks = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    for messages in (message()["messages"], blocks):
        found = served.ok(MESSAGES, message(messages=messages))
        assert (found["type"], found["role"]) == ("message", "assistant")
        assert found["content"] == [{"type": "text", "text": chat["choices"][0]["message"]["content"]}]
        assert (found["stop_reason"], found["stop_sequence"]) == ("max_tokens", None)
        usage = found["usage"]
        assert usage["input_tokens"] + usage["cache_read_input_tokens"] == chat["usage"]["prompt_tokens"]
        assert usage["output_tokens"] == 12
    counted = served.ok(MESSAGES + "/count_tokens", {"messages": blocks, "system": "Be brief."})["input_tokens"]
    usage = served.ok(MESSAGES, message(system=[{"type": "text", "text": "Be brief."}]))["usage"]
    assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_a_streamed_message_makes_the_whole(served: Served) -> None:
    whole = served.ok(MESSAGES, message())
    events = told(served, MESSAGES, message())
    types = [event["type"] for event in events]
    assert types[:2] == ["message_start", "content_block_start"]
    assert types[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert events[-2]["usage"]["output_tokens"] == 12


def test_a_stop_sequence_is_told(served: Served) -> None:
    text = served.ok(MESSAGES, message())["content"][0]["text"]
    found = served.ok(MESSAGES, message(stop_sequences=[text[4:6]]))
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", text[4:6])
    assert found["content"][0]["text"] == text[: text.index(text[4:6])]


def test_a_tool_is_used_and_its_result_goes_back(served: Served) -> None:
    body = message(tools=CUSTOM, tool_choice={"type": "any", "disable_parallel_tool_use": True}, max_tokens=400)
    found = served.ok(MESSAGES, body)
    (block,) = found["content"]
    assert (block["type"], block["name"], found["stop_reason"]) == ("tool_use", "set_alarm", "tool_use")
    assert isinstance(block["input"]["on"], bool)
    events = told(served, MESSAGES, body)
    parts = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
    assert json.loads("".join(parts)) == block["input"]
    back = [
        *message()["messages"],
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": "done"}]},
    ]
    counted = served.ok(MESSAGES + "/count_tokens", {"messages": back, "tools": CUSTOM})["input_tokens"]
    before = served.ok(MESSAGES + "/count_tokens", {"messages": back[:1], "tools": CUSTOM})["input_tokens"]
    assert counted > before + len('{"name": "set_alarm", "arguments": {"on": true}}done')


def test_an_answer_that_has_begun_goes_on(served: Served) -> None:
    letters = {"logit_bias": {str(i): 60 for i in range(97, 123)}}  # their text is the same tokens again
    text = chatted(served, **letters)["choices"][0]["message"]["content"]
    assert text.isalpha()
    messages = [*message()["messages"], {"role": "assistant", "content": text[:5]}]
    found = chatted(served, messages=messages, continue_final_message=True, max_tokens=7, **letters)
    assert text[:5] + found["choices"][0]["message"]["content"] == text
    counted = served.ok(MESSAGES + "/count_tokens", {"messages": messages})["input_tokens"]
    assert counted == found["usage"]["prompt_tokens"]
    usage = served.ok(MESSAGES, message(messages=messages))["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted


BAD_MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, "wizard"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "image"),
    ({"temperature": 1.5}, "temperature"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124"),
    ({"tool_choice": {"type": "tool", "name": "g"}, "tools": CUSTOM}, "'g'"),
    ({"tool_choice": {"type": "some"}, "tools": CUSTOM}, "some"),
    ({"messages": [{"role": "user", "content": "a" * 5000}]}, "4095"),
]


@pytest.mark.parametrize(("fields", "named"), BAD_MESSAGES, ids=lambda value: json.dumps(value)[:50])
def test_a_bad_message_is_refused_in_anthropics_shape(served: Served, fields: dict[str, Any], named: str) -> None:
    answer = served.post(MESSAGES, message(**fields))
    assert answer.status_code == 400
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert named in body["error"]["message"]


def test_nothing_is_left_behind(served: Served) -> None:
    with served.client.stream("POST", MESSAGES, json={"stream": True, **message(max_tokens=4000)}) as answer:
        next(events_of(answer))
    with served.client.stream("POST", RESPONSES, json={"stream": True, **response(max_output_tokens=4000)}) as answer:
        next(events_of(answer))
    served.idle()
