# requires: anthropic
"""The ``anthropic`` package: messages, stream, tools, token counts."""

import sys

import anthropic

URL, MODEL = sys.argv[1:3]
client = anthropic.Anthropic(base_url=URL, api_key="-")
asked = {
    "model": MODEL,
    "max_tokens": 60,
    "messages": [{"role": "user", "content": "Weather in Oslo?"}],
    "extra_body": {"temperature": 0},
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
whole = client.messages.create(**asked)
assert whole.content[0].text
with client.messages.stream(**asked) as stream:
    assert "".join(stream.text_stream) == whole.content[0].text
    assert stream.get_final_message().stop_reason == whole.stop_reason
counted = client.messages.count_tokens(model=MODEL, messages=asked["messages"]).input_tokens
assert counted == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
tools = [{"name": "weather", "input_schema": SCHEMA}]
call = client.messages.create(**asked, tools=tools, tool_choice={"type": "any"})
assert call.stop_reason == "tool_use"
block = call.content[-1]
assert (block.name, block.input["city"] in ("Oslo", "Rome")) == ("weather", True)
result = {"type": "tool_result", "tool_use_id": block.id, "content": "Rain."}
asked["messages"] += [{"role": "assistant", "content": call.content}, {"role": "user", "content": [result]}]
assert client.messages.create(**asked, tools=tools, tool_choice={"type": "none"}).content[0].text
