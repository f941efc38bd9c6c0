# requires: pydantic-ai-slim[openai]
"""``pydantic-ai``: an agent's text, stream, and output as a model."""

import asyncio
import sys
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

URL, MODEL = sys.argv[1:3]


class Weather(BaseModel):
    city: Literal["Oslo", "Rome"]
    days: int


model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key="-"))
settings = {"temperature": 0, "max_tokens": 80}


async def main() -> None:
    plain = Agent(model, model_settings=settings)
    whole = (await plain.run("Name a colour.")).output
    assert whole
    async with plain.run_stream("Name a colour.") as stream:
        assert "".join([piece async for piece in stream.stream_text(delta=True)]) == whole
    for output in (Weather, NativeOutput(Weather)):  # as a call of a tool, and as a schema
        found = await Agent(model, output_type=output, model_settings=settings).run("Weather in Oslo for 2 days?")
        assert isinstance(found.output, Weather)


asyncio.run(main())
