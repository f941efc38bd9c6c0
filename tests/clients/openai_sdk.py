# requires: openai>=2
"""The ``openai`` package: chat, stream, tools, schema, responses, and embeddings."""

import json
import sys

import openai

URL, MODEL = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="-")
ASKED = [{"role": "user", "content": "What is the weather in Oslo?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


def valid(text):
    found = json.loads(text)
    assert found["city"] in ("Oslo", "Rome"), found
    assert isinstance(found["days"], int), found


plain = {"model": MODEL, "messages": ASKED, "max_tokens": 60, "temperature": 0}
whole = client.chat.completions.create(**plain)
assert whole.choices[0].message.content
chunks = list(client.chat.completions.create(**plain, stream=True, stream_options={"include_usage": True}))
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
assert chunks[-1].usage == whole.usage.model_copy(
    update={"prompt_tokens_details": chunks[-1].usage.prompt_tokens_details}
)
call = client.chat.completions.create(**plain, tools=TOOLS, tool_choice="required").choices[0]
assert call.finish_reason == "tool_calls"
valid(call.message.tool_calls[0].function.arguments)
form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}
valid(client.chat.completions.create(**plain, response_format=form).choices[0].message.content)
asked = {"model": MODEL, "input": "Name a colour.", "max_output_tokens": 20, "temperature": 0}
response = client.responses.create(**asked)
assert response.output_text
with client.responses.stream(**asked) as stream:
    assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == response.output_text
rows = client.embeddings.create(model="embedding", input=["One", "Two"]).data  # it asks for base64
plain_rows = client.embeddings.create(model="embedding", input=["One", "Two"], encoding_format="float")
assert [one.embedding for one in rows] == [one.embedding for one in plain_rows.data]
assert abs(sum(value * value for value in rows[1].embedding) - 1) < 1e-5 and rows[0].embedding != rows[1].embedding
assert plain_rows.usage.prompt_tokens == plain_rows.usage.total_tokens == 8
assert len(client.embeddings.create(model="embedding", input="One", dimensions=8).data[0].embedding) == 8
try:
    client.embeddings.create(model=MODEL, input="One")
except openai.BadRequestError as error:
    assert error.code == "no_embeddings", error
else:
    raise AssertionError("a model that makes text made an embedding")
try:
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "long " * 9000}])
except openai.BadRequestError as error:
    assert error.code == "context_length_exceeded", error
else:
    raise AssertionError("an overlong prompt was answered")
