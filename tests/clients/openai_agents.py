# requires: openai-agents
"""``openai-agents``: an agent that must call a tool, and one that answers, over chat completions and over responses."""

import sys

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)

URL, MODEL = sys.argv[1:3]
set_tracing_disabled(True)
client = openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="-")
called = []


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    called.append(city)
    return "Rain."


for model in (OpenAIChatCompletionsModel(MODEL, client), OpenAIResponsesModel(MODEL, client)):
    called.clear()
    settings = ModelSettings(temperature=0, max_tokens=80, tool_choice="required")
    agent = Agent(
        name="Meteorologist",
        model=model,
        tools=[weather],
        model_settings=settings,
        tool_use_behavior="stop_on_first_tool",  # a model as small as this one would call it again and again
    )
    assert Runner.run_sync(agent, "What is the weather in Oslo?").final_output == "Rain."
    assert called, type(model)
    plain = Agent(name="Painter", model=model, model_settings=ModelSettings(temperature=0, max_tokens=40))
    assert Runner.run_sync(plain, "Name a colour.").final_output
