"""Answers in each family's published format, in our own words, and what they say. ``foundry.parsing.families`` has the
formats' sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def tool(name: str, *required: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": "A tool.", "parameters": schema}}


TEXT = {"type": "string"}
TOOLS = [
    tool("weather", "city", city=TEXT, days={"type": "integer"}),
    tool("note", "body", body=TEXT, tags={"type": "array", "items": TEXT}, private={"type": "boolean"}),
    tool("now"),
]
OSLO = ("weather", {"city": "Oslo", "days": 2})
NOTE = ("note", {"body": 'say "hi"\n</tool_call> <think> é日', "tags": ["a", "b"], "private": True})
NOW = ("now", {})


@dataclass(frozen=True)
class Answer:
    """``template``: has the family's marks. ``bound``: the text is what the grammar of ``required`` accepts."""

    name: str
    template: str
    text: str
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    content: str = ""
    reasoning: str = ""
    prompt_end: str = ""
    bound: bool = False


HERMES = "<tools> <tool_call> {...} </tool_call> <think>\n</think>"
OSLO_JSON = '{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}'
NOTE_ARGUMENTS = r'{"body": "say \"hi\"\n</tool_call> <think> é日", "tags": ["a", "b"], "private": true}'
NOTE_JSON = f'{{"name": "note", "arguments": {NOTE_ARGUMENTS}}}'
QWEN_XML = "<tool_call>\n<function=f>\n<parameter=p>\n</parameter> </think>"
QWEN_OSLO = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>"
)
QWEN_NOTE = (
    '<tool_call>\n<function=note>\n<parameter=body>\nsay "hi"\n</tool_call> <think> é日\n</parameter>\n'
    '<parameter=tags>\n["a", "b"]\n</parameter>\n<parameter=private>\ntrue\n</parameter>\n</function>\n</tool_call>'
)
QWEN_NOW = "<tool_call>\n<function=now>\n</function>\n</tool_call>"
LLAMA = '{"name": f, "parameters": dictionary of argument name and its value} <|python_tag|>'
COHERE = "<|START_ACTION|> <|START_THINKING|><|END_THINKING|>"
MINIMAX = "<minimax:tool_call> <think></think>"
MINIMAX_M1 = "<beginning_of_sentence> <tool_calls></tool_calls>"
K3 = "<|open|>think<|sep|> <|close|>"
K3_NOTE = (
    '<|open|>call tool="note" index="2"<|sep|><|open|>argument key="body" type="string"<|sep|>say "hi"\n</tool_call> '
    '<think> é日<|close|>argument<|sep|><|open|>argument key="tags" type="array"<|sep|>'
    '["a", "b"]<|close|>argument<|sep|>'
    '<|open|>argument key="private" type="boolean"<|sep|>true<|close|>argument<|sep|><|close|>call<|sep|>'
)
K3_OSLO = (
    '<|open|>call tool="weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>Oslo'
    '<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>2<|close|>argument<|sep|>'
    "<|close|>call<|sep|>"
)
K3_NOW = '<|open|>call tool="now" index="3"<|sep|><|close|>call<|sep|>'
K3_EMPTY = "<|open|>response<|sep|><|close|>response<|sep|>"
PYTHONIC = "[func_name1(params_name1=params_value1)]"
MISTRAL = "[TOOL_CALLS] f [ARGS] [THINK] [/THINK]"
GEMMA = "<|tool_call>call: <|channel>thought"
GEMMA_NOTE = (
    '<|tool_call>call:note{body:<|"|>say "hi"\n</tool_call> <think> é日<|"|>,private:true,'
    'tags:[<|"|>a<|"|>,<|"|>b<|"|>]}<tool_call|>'
)
HARMONY = "<|start|> <|channel|> <|message|>"
V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜> ```json </think>"
V31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜> </think>"
DSML = "<｜DSML｜function_calls> </think>"
GLM = "<tool_call>{name}\\n<arg_key>{key}</arg_key>\\n<arg_value>"

ANSWERS = [
    Answer("hermes: text alone", HERMES, "It is <b>cold</b>, 3 < 4. \n", content="It is <b>cold</b>, 3 < 4. \n"),
    Answer("hermes: a call", HERMES, f"<tool_call>\n{OSLO_JSON}\n</tool_call>", [OSLO], bound=True),
    Answer(
        "hermes: reasoning, text, two calls, text",
        HERMES,
        f"<think>\nFirst Oslo.\n\nThen a note.\n</think>\n\nOne moment.\n<tool_call>\n{OSLO_JSON}\n</tool_call>\n"
        f"<tool_call>\n{NOTE_JSON}\n</tool_call>\nDone.",
        [OSLO, NOTE],
        "One moment.\n\n\nDone.",
        "First Oslo.\n\nThen a note.",
    ),
    Answer(
        "hermes: the prompt has begun the reasoning",
        HERMES,
        f"Oslo, <tool_call> then.\n</think>\n\n<tool_call>\n{OSLO_JSON}\n</tool_call>\n"
        f"<tool_call>\n{NOTE_JSON}\n</tool_call>",
        [OSLO, NOTE],
        "",
        "Oslo, <tool_call> then.",
        "<|im_start|>assistant\n<think>\n",
        True,
    ),
    Answer(
        "hermes: arguments before the name, as text, and without",
        HERMES,
        '<tool_call>{"arguments": {"city": "Oslo", "days": 2}, "name": "weather"}</tool_call>'
        r'<tool_call>{"name": "weather", "arguments": "{\"city\": \"Oslo\", \"days\": 2}"}</tool_call>'
        '<tool_call>{"name": "now"}</tool_call>',
        [OSLO, OSLO, NOW],
    ),
    Answer("hermes: reasoning that never ends", HERMES, "<think>\nWell", reasoning="Well"),
    Answer("qwen-xml: a call", QWEN_XML, QWEN_OSLO, [OSLO], bound=True),
    Answer(
        "qwen-xml: reasoning and three calls",
        QWEN_XML,
        f"Think.\n</think>\n\n{QWEN_OSLO}\n{QWEN_NOTE}\n{QWEN_NOW}",
        [OSLO, NOTE, NOW],
        "",
        "Think.",
        "assistant\n<think>\n",
        True,
    ),
    Answer(
        "qwen-xml: a tag forgotten, all on one line, reasoning without its end",
        QWEN_XML,
        "<think>Hm\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n<parameter=days>\n2\n</parameter>\n"
        "</function>\n</tool_call>\n"
        "<function=weather><parameter=city>Oslo</parameter><parameter=days>2</parameter></function></tool_call>",
        [OSLO, OSLO],
        "",
        "Hm",
    ),
    Answer(
        "llama: a call", LLAMA, '{"name": "weather", "parameters": {"city": "Oslo", "days": 2}}', [OSLO], bound=True
    ),
    Answer(
        "llama: two behind the tag",
        LLAMA,
        f'See: <|python_tag|>{{"type": "function", "name": "now", "parameters": {{}}}}; {NOTE_JSON}',
        [NOW, NOTE],
        "See:",
    ),
    Answer("llama: JSON of its own", LLAMA, '{"name": "Oslo", "days": 2}', content='{"name": "Oslo", "days": 2}'),
    Answer(
        "mistral: names",
        MISTRAL,
        f'[THINK]Oslo?[/THINK][TOOL_CALLS]weather[ARGS]{{"city": "Oslo", "days": 2}}'
        f"[TOOL_CALLS]note[ARGS]{NOTE_ARGUMENTS}",
        [OSLO, NOTE],
        "",
        "Oslo?",
        bound=True,
    ),
    Answer(
        "mistral: names without a mark behind them, and with an id",
        MISTRAL,
        'So[TOOL_CALLS]now{}[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city":"Oslo","days":2}',
        [NOW, OSLO],
        "So",
    ),
    Answer("mistral: a list", "[TOOL_CALLS] [", f"[TOOL_CALLS][{OSLO_JSON}, {NOTE_JSON}]", [OSLO, NOTE], bound=True),
    Answer(
        "gemma: thought and calls",
        GEMMA,
        f'<|channel>thought\nOslo.<channel|><|tool_call>call:weather{{city:<|"|>Oslo<|"|>,days:2}}<tool_call|>{GEMMA_NOTE}'
        "<|tool_call>call:now{}<tool_call|>",
        [OSLO, NOTE, NOW],
        "",
        "Oslo.",
        bound=True,
    ),
    Answer(
        "functiongemma",
        "<start_function_call>",
        "<start_function_call>call:weather{city:<escape>Oslo<escape>,days:2}<end_function_call>",
        [OSLO],
        bound=True,
    ),
    Answer(
        "harmony: analysis and a call",
        HARMONY,
        "<|channel|>analysis<|message|>Oslo, then.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo", "days": 2}',
        [OSLO],
        "",
        "Oslo, then.",
        bound=True,
    ),
    Answer(
        "harmony: a preamble, a call to the role, the end",
        HARMONY,
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now"
        "<|channel|>commentary<|message|>{}"
        "<|call|><|start|>assistant<|channel|>final<|message|> Now.<|return|>",
        [NOW],
        "I look. Now.",
    ),
    Answer(
        "deepseek: V3 and R1",
        V3,
        "<think>\nOslo.\n</think>\n\n"
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"city": "Oslo", "days": 2}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>note\n```json\n"
        f"{NOTE_ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [OSLO, NOTE],
        "",
        "Oslo.",
        bound=True,
    ),
    Answer(
        "deepseek: V3.1",
        V31,
        "Yes.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [NOW],
        "Yes.",
    ),
    Answer(
        "deepseek-dsml",
        DSML,
        '\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n'
        '<｜DSML｜parameter name="city" string="true">Oslo'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        [OSLO, NOW],
        bound=True,
    ),
    Answer("granite", "<|tool_call|>", f"<|tool_call|>[{OSLO_JSON}, {NOTE_JSON}]", [OSLO, NOTE], bound=True),
    Answer("nemotron", "<TOOLCALL>", f"Ja.\n<TOOLCALL>[{OSLO_JSON}]</TOOLCALL>", [OSLO], "Ja."),
    Answer("apriel", "<tool_calls>", f"<tool_calls>[{OSLO_JSON}]</tool_calls>", [OSLO], bound=True),
    Answer(
        "functionary",
        "<function={name}>{args}</function>",
        f'<function=weather>{{"city": "Oslo", "days": 2}}</function><function=note>{NOTE_ARGUMENTS}</function>',
        [OSLO, NOTE],
        bound=True,
    ),
    Answer(
        "glm",
        GLM,
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>2</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
        [OSLO, NOW],
        bound=True,
    ),
    Answer(
        "kimi",
        "<|tool_call_begin|>",
        "Well. <|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Oslo", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
        [OSLO],
        "Well.",
    ),
    Answer(
        "cohere: thoughts, then two calls with ids",
        COHERE,
        '<|START_THINKING|>Oslo, and a note.<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": '
        '"weather", "parameters": {"city": "Oslo", "days": 2}},\n    {"tool_call_id": "1", "tool_name": "note", '
        f'"parameters": {NOTE_ARGUMENTS}}}\n]<|END_ACTION|>',
        [OSLO, NOTE],
        reasoning="Oslo, and a note.",
        bound=True,
    ),
    Answer(
        "command-r: a plan, a call",
        "Action: ```json tool_name parameters",
        'Plan: I look.\nAction: ```json\n[\n    {\n        "tool_name": "weather",\n        "parameters": {\n'
        '            "city": "Oslo",\n            "days": 2\n        }\n    }\n]```',
        [OSLO],
        "Plan: I look.",
    ),
    Answer(
        "command-r: as it is bound",
        "Action: ```json tool_name parameters",
        'Action: ```json\n[\n    {"tool_name": "weather", "parameters": {"city": "Oslo", "days": 2}}\n]```',
        [OSLO],
        bound=True,
    ),
    Answer(
        "minimax: thoughts, then two calls",
        MINIMAX,
        "<think>\nOslo.\n</think>\n\n<minimax:tool_call>\n"
        '<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n<invoke name="note">\n<parameter name="body">say "hi"\n'
        '</tool_call> <think> é日</parameter>\n<parameter name="tags">["a", "b"]</parameter>\n'
        '<parameter name="private">true</parameter>\n</invoke>\n</minimax:tool_call>',
        [OSLO, NOTE],
        reasoning="Oslo.",
    ),
    Answer(
        "minimax: as it is bound",
        MINIMAX,
        '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n'
        '<parameter name="days">2</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n</minimax:tool_call>',
        [OSLO, NOW],
        bound=True,
    ),
    Answer(
        "minimax-m1: thoughts, text, two calls",
        MINIMAX_M1,
        f"<think>\nOslo.\n</think>\nI look.\n<tool_calls>\n{OSLO_JSON}\n{NOTE_JSON}\n</tool_calls>",
        [OSLO, NOTE],
        "I look.",
        "Oslo.",
    ),
    Answer(
        "minimax-m1: as it is bound",
        MINIMAX_M1,
        f"<tool_calls>\n{OSLO_JSON}\n{NOTE_JSON}\n</tool_calls>",
        [OSLO, NOTE],
        bound=True,
    ),
    Answer(
        "kimi-k3: thoughts, text, three calls",
        K3,
        f"Oslo.<|close|>think<|sep|><|open|>response<|sep|>One moment.<|close|>response<|sep|><|open|>tools<|sep|>"
        f"{K3_OSLO}{K3_NOTE}{K3_NOW}<|close|>tools<|sep|><|close|>message<|sep|>",
        [OSLO, NOTE, NOW],
        "One moment.",
        "Oslo.",
        "<|open|>think<|sep|>",
    ),
    Answer(
        "kimi-k3: as it is bound, behind thoughts",
        K3,
        f"Oslo.<|close|>think<|sep|>{K3_EMPTY}<|open|>tools<|sep|>{K3_OSLO}{K3_NOTE}<|close|>tools<|sep|>",
        [OSLO, NOTE],
        reasoning="Oslo.",
        prompt_end="<|open|>think<|sep|>",
        bound=True,
    ),
    Answer(
        "kimi-k3: as it is bound where the prompt has opened the text",
        K3,
        f"<|close|>response<|sep|><|open|>tools<|sep|>{K3_OSLO}<|close|>tools<|sep|>",
        [OSLO],
        prompt_end="<|open|>response<|sep|>",
        bound=True,
    ),
    Answer(
        "kimi-k3: thoughts that nothing closed",
        K3,
        "Well<|open|>response<|sep|>Hi.<|close|>response<|sep|>",
        content="Hi.",
        reasoning="Well",
        prompt_end="<|open|>think<|sep|>",
    ),
    Answer("minimax: tags of the text's own", MINIMAX, "<invoke it> & go", content="<invoke it> & go"),
    Answer(
        "pythonic: two calls",
        PYTHONIC,
        '[weather(city="Oslo", days=2), '
        'note(body="say \\"hi\\"\\n</tool_call> <think> é日", tags=["a", "b"], private=True)]',
        [OSLO, NOTE],
        bound=True,
    ),
    Answer(
        "pythonic: other quotes, white space, escapes, a comma too many",
        PYTHONIC,
        "<|python_start|>[ weather( city = 'Oslo' ,days= 2,),\n "
        "note(body='say \"hi\"\\x0a</tool_call> <think> \\u00e9日', "
        "tags=('a', 'b',), private = True),now( )]<|python_end|>",
        [OSLO, NOTE, NOW],
    ),
    Answer("pythonic: a list of its own", PYTHONIC, "[1, 2] and [Oslo(3)]", content="[1, 2] and [Oslo(3)]"),
    Answer("llama: 4, as Python", LLAMA, "[weather(city='Oslo', days=2)]", [OSLO]),
    Answer(
        "olmo: two calls, each on its line",
        "<functions> <function_calls>",
        'I look.<function_calls>weather(city="Oslo", days=2)\nnow()</function_calls>',
        [OSLO, NOW],
        "I look.",
    ),
    Answer(
        "olmo: as it is bound",
        "<functions> <function_calls>",
        '<function_calls>weather(city="Oslo", days=2)\nnow()</function_calls>',
        [OSLO, NOW],
        bound=True,
    ),
    Answer(
        "lfm2",
        "<|tool_call_start|> <|tool_call_end|>",
        '<|tool_call_start|>[weather(city="Oslo", days=2)]<|tool_call_end|>',
        [OSLO],
        bound=True,
    ),
    Answer("plain: a bound call", "", OSLO_JSON, [OSLO], bound=True),
]
