# requires: langchain-openai
"""``langchain-openai``: chat, stream, tools, structured output."""

import sys
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

URL, MODEL = sys.argv[1:3]


class Weather(BaseModel):
    """The weather that is asked for."""

    city: Literal["Oslo", "Rome"]
    days: int


model = ChatOpenAI(base_url=f"{URL}/v1", api_key="-", model=MODEL, temperature=0, max_tokens=60)
whole = model.invoke("What is the weather in Oslo?")
assert whole.content
assert "".join(chunk.content for chunk in model.stream("What is the weather in Oslo?")) == whole.content
call = model.bind_tools([Weather], tool_choice="required").invoke("What is the weather in Oslo?")
assert call.tool_calls[0]["name"] == "Weather"
Weather.model_validate(call.tool_calls[0]["args"])
for method in ("json_schema", "function_calling"):
    assert isinstance(model.with_structured_output(Weather, method=method).invoke("Oslo, 2 days"), Weather)
