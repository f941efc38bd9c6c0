# requires: instructor
"""``instructor``: a model by a tool's call, and by a schema."""

import sys
from typing import Literal

import instructor
import openai
from pydantic import BaseModel

URL, MODEL = sys.argv[1:3]


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]
    days: int


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai.OpenAI(base_url=f"{URL}/v1", api_key="-"), mode=mode)
    found = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Weather in Oslo for 2 days?"}],
        response_model=Weather,
        max_tokens=80,
        temperature=0,
        max_retries=0,
    )
    assert isinstance(found, Weather)
