"""Tools over HTTP: bound where a call is required, parted as it comes, told to templates that know of none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Tiny
from served import CHAT, Served, chat, serve

WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "unit": {"enum": ["c", "f"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
ALARM = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"], "additionalProperties": False}


def tool(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": "A tool.", "parameters": schema}}


TOOLS = [tool("get_weather", WEATHER), tool("set_alarm", ALARM)]
HERMES = (
    "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools> answer in"
    " <tool_call></tool_call><|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{ m.reasoning_content }}"
    "</think>{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["no tools in the template", "hermes"])
def served(tiny_path: Tiny, request: pytest.FixtureRequest) -> Iterator[Served]:
    with serve(tiny_path(max_seq_len=4096)) as one:
        if request.param == "hermes":
            one.model.tokenizer.chat_template = HERMES
        yield one


def checked(call: dict[str, Any]) -> dict[str, Any]:
    assert call["type"] == "function"
    assert call["id"]
    arguments: dict[str, Any] = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "get_weather":
        assert arguments["city"] in ("Rome", "Oslo")
        assert arguments["unit"] in ("c", "f")
    else:
        assert call["function"]["name"] == "set_alarm"
        assert isinstance(arguments["on"], bool)
    return arguments


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_required_call_is_one_whatever_the_model_would_say(served: Served, seed: int) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 400, "temperature": 1.0, "seed": seed}
    choice = served.chat(**fields, parallel_tool_calls=False)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    checked(call)
    assert choice["message"]["content"] is None
    events = served.events(CHAT, chat(**fields, parallel_tool_calls=False))
    deltas = [d for e in events for c in e["choices"] for d in c["delta"].get("tool_calls", [])]
    assert (deltas[0]["index"], deltas[0]["type"], deltas[0]["function"]["name"]) == (
        0, "function", call["function"]["name"],
    )  # fmt: skip
    assert deltas[0]["id"]
    assert all("id" not in delta for delta in deltas[1:])
    assert "".join(delta["function"]["arguments"] for delta in deltas) == call["function"]["arguments"]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(c["delta"].get("content") for e in events for c in e["choices"])


def test_a_named_call_is_that_one(served: Served) -> None:
    choice = {"type": "function", "function": {"name": "set_alarm"}}
    for seed in range(3):
        found = served.chat(tools=TOOLS, tool_choice=choice, max_tokens=400, temperature=1.0, seed=seed)
        names = {call["function"]["name"] for call in found["choices"][0]["message"]["tool_calls"]}
        assert names == {"set_alarm"}


def test_a_call_that_is_cut_off_says_length(served: Served) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 12}
    assert served.chat(**fields)["choices"][0]["finish_reason"] == "length"
    events = served.events(CHAT, chat(**fields))
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_without_a_choice_of_tools_an_answer_is_text(served: Served) -> None:
    found = served.chat(tools=TOOLS, tool_choice="none", max_tokens=8)["choices"][0]["message"]
    assert "tool_calls" not in found
    bare = served.chat(max_tokens=8)
    none = served.chat(tools=TOOLS, tool_choice="none", max_tokens=8)
    assert none["usage"]["prompt_tokens"] == bare["usage"]["prompt_tokens"]
    auto = served.chat(tools=TOOLS, max_tokens=1)
    assert auto["usage"]["prompt_tokens"] > bare["usage"]["prompt_tokens"] + 100


def test_a_schema_beside_tools_leaves_the_choice(served: Served) -> None:
    """An answer is a call or JSON of the schema; nothing else fits."""
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form = {"type": "json_schema", "json_schema": {"schema": schema | {"additionalProperties": False}}}
    for seed in range(4):
        found = served.chat(tools=TOOLS, response_format=form, temperature=1.0, seed=seed, max_tokens=400)["choices"][0]
        message = found["message"]
        if "tool_calls" in message:
            checked(message["tool_calls"][0])
        else:
            assert isinstance(json.loads(message["content"])["yes"], bool)


def test_calls_results_and_reasoning_go_back_into_the_prompt(served: Served) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "heavy rain"}]},
    ]
    found = served.ok(CHAT, {"messages": messages, "tools": TOOLS, "max_tokens": 1, "temperature": 0})
    few = served.ok(CHAT, {"messages": messages[:1], "tools": TOOLS, "max_tokens": 1, "temperature": 0})
    spelled = len('{"name": "get_weather", "arguments": {"city": "Oslo"}}heavy rain')
    assert found["usage"]["prompt_tokens"] >= few["usage"]["prompt_tokens"] + spelled


def test_arguments_that_are_no_object_are_refused(served: Served) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1"}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    answer = served.post(CHAT, {"messages": messages})
    assert answer.status_code == 400
    assert "arguments" in answer.json()["error"]["message"]
