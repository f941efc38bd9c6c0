"""Parsers of calls and reasoning: each family's format, however its text is cut, and whatever a model writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from foundry import parsing
from foundry.parsing import Event, Parser
from foundry.parsing.json_text import MOST_DEPTH, MOST_HELD
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_answers import ANSWERS, GEMMA, HARMONY, HERMES, LLAMA, MISTRAL, OSLO_JSON, QWEN_XML, TOOLS, V3, Answer

TEMPLATES = {answer.name.partition(":")[0]: answer.template for answer in ANSWERS}
KINDS_OF_CALLS = (parsing.ToolCallBegin, parsing.ToolCallEnd, parsing.ToolCallBroken)
recorded = pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)


def parser_of(answer: Answer, **options: Any) -> Parser:
    return parsing.parser_for(answer.template, **{"tools": TOOLS, "prompt_end": answer.prompt_end, **options})


def events_of(parser: Parser, pieces: Iterable[str]) -> list[Event]:
    events = [event for piece in pieces for event in parser.push(piece)]
    return events + parser.finish()


def joined(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """Pieces that follow each other joined, and ids, which are random, left out."""
    made: list[tuple[Any, ...]] = []
    for event in events:
        values = {name: value for name, value in vars(event).items() if name != "id"}
        text = values.pop("text", None)
        key = (type(event).__name__, *values.values())
        if text is not None and made and made[-1][:-1] == key:
            made[-1] = (*key, made[-1][-1] + text)
        else:
            made.append((*key, text))
    return made


def said(text: str, template: str, **options: Any) -> parsing.Message:
    parser = parsing.parser_for(template, **{"tools": TOOLS, **options})
    return parsing.message_of(events_of(parser, [text]))


def calls_of(message: parsing.Message) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in message.tool_calls]


@recorded
def test_an_answer_is_parted(answer: Answer) -> None:
    message = parsing.message_of(events_of(parser_of(answer), [answer.text]))
    assert calls_of(message) == answer.calls
    assert (message.content, message.reasoning) == (answer.content, answer.reasoning)


@recorded
def test_the_events_are_the_same_however_the_text_is_cut(answer: Answer) -> None:
    text = answer.text
    whole = joined(events_of(parser_of(answer), [text]))
    assert joined(events_of(parser_of(answer), text)) == whole  # at every character
    for at in range(1, len(text)):
        assert joined(events_of(parser_of(answer), [text[:at], text[at:]])) == whole, text[:at]


@recorded
def test_an_answer_cut_short_has_no_half_call(answer: Answer) -> None:
    for end in range(len(answer.text)):
        events = events_of(parser_of(answer), [answer.text[:end]])
        counts = {kind: sum(isinstance(event, kind) for event in events) for kind in KINDS_OF_CALLS}
        begun, whole, broken = counts.values()
        assert begun == whole + broken and broken <= 1
        message = parsing.message_of(events)
        assert calls_of(message) == answer.calls[:whole]
        assert bool(message.content) >= bool(broken)


@recorded
def test_a_call_is_told_before_its_arguments_have_come(answer: Answer) -> None:
    for begin, piece in _calls(parser_of(answer), answer.text):
        assert begin.name and begin.id
        assert piece, "the name comes first, and arguments in pieces"


def _calls(parser: Parser, text: str) -> list[tuple[Any, list[str]]]:
    calls: list[tuple[Any, list[str]]] = []
    for event in events_of(parser, text):
        if isinstance(event, parsing.ToolCallBegin):
            assert event.index == len(calls)
            calls.append((event, []))
        elif isinstance(event, parsing.ToolCallArguments):
            assert event.index == len(calls) - 1
            calls[-1][1].append(event.text)
    assert len({begin.id for begin, _ in calls}) == len(calls)
    return calls


def test_arguments_come_in_pieces_as_they_are_written() -> None:
    parser = parsing.parser_for(HERMES, TOOLS)
    assert parser.push('<tool_call>\n{"name": "weather", "arg') == []
    begin, piece = parser.push('uments": {"city": "Os')
    assert (begin.index, begin.name) == (0, "weather")
    assert piece == parsing.ToolCallArguments(0, '{"city": "Os')
    assert parser.push('lo"') == [parsing.ToolCallArguments(0, 'lo"')]
    assert parser.push("}}") == [parsing.ToolCallArguments(0, "}"), parsing.ToolCallEnd(0)]
    assert parser.push("\n</tool_call>\n") == parser.finish() == []


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (HERMES, "<tool_call>no JSON</tool_call>"),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": tru}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": 01}}'),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": NaN}}'),
        (HERMES, '<tool_call>{"name": "now", "arguments": {"a": "new\nline"}}'),
        (HERMES, '<tool_call>{"name": "now", "arguments": [1]}'),
        (HERMES, '<tool_call>{"name": "now", "arguments": {}'),
        (HERMES, '<tool_call>{"arguments": {}}'),
        (HERMES, '<tool_call>{"name": "now", "arguments": ' + '{"a": ' * (MOST_DEPTH + 1)),
        (HERMES, "<tool_call>"),
        (HERMES, "<tool_c"),
        (QWEN_XML, "<tool_call>\n<function=now>\nparameters"),
        (
            QWEN_XML,
            "<tool_call>\n<function=note>\n<parameter=body>\na\n</parameter>\n<parameter=body>\na\n</parameter>",
        ),
        (LLAMA, '<|python_tag|>print("a")'),
        (LLAMA, '{"name": "elsewhere", "parameters": {}}'),
        (MISTRAL, "[TOOL_CALLS] is a mark"),
        (MISTRAL, "[TOOL_CALLS]now[ARGS][1]"),
        (MISTRAL, "[TOOL_CALLS]"),
        (V3, "<｜tool▁calls▁begin｜>nothing"),
        (V3, "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{]\n```<｜tool▁call▁end｜>"),
        (GEMMA, "<|tool_call>call:now{a:b}<tool_call|>"),
        (GEMMA, '<|tool_call>call:now{a:<|"|>b'),
        (HARMONY, "<|channel|>commentary to=python <|constrain|>code<|message|>print(1)"),
        (HARMONY, "<|channel|>comment<|message|>Oslo"),
        (HARMONY, "<|channel|>commentary to=functions.now<|message|>{1}"),
    ],
)
def test_what_is_no_call_is_content_as_it_was_written(template: str, text: str) -> None:
    whole = said(text, template)
    assert (whole.content, whole.reasoning, whole.tool_calls) == (text, "", [])
    parser = parsing.parser_for(template, TOOLS)
    assert joined(events_of(parser, text)) == joined(events_of(parsing.parser_for(template, TOOLS), [text]))


def test_a_whole_call_behind_a_broken_one_is_one() -> None:
    broken = '<tool_call>{"name": "now", "arguments": {"a": 1,}}</tool_call>'
    events = events_of(parsing.parser_for(HERMES, TOOLS), [f"So.\n{broken}<tool_call>{OSLO_JSON}</tool_call>"])
    assert [event.index for event in events if isinstance(event, parsing.ToolCallBegin)] == [0, 1]
    assert [event.index for event in events if isinstance(event, parsing.ToolCallEnd)] == [1]
    message = parsing.message_of(events)
    assert [call.name for call in message.tool_calls] == ["weather"]
    assert message.content == 'So.\n<tool_call>{"name": "now", "arguments": {"a": 1,}}'


def test_a_mark_inside_a_json_string_is_text() -> None:
    text = '<tool_call>{"name": "note", "arguments": {"body": "</tool_call><tool_call>{\\"name\\""}}</tool_call>'
    assert calls_of(said(text, HERMES)) == [("note", {"body": '</tool_call><tool_call>{"name"'})]


def test_a_parameter_is_of_its_schemas_type() -> None:
    properties = {
        "n": {"type": "integer"},
        "s": {"type": "string"},
        "x": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "b": {"type": "boolean"},
        "r": {"$ref": "#/$defs/r"},
        "free": {},
        "e": {"enum": ["1", "2"]},
    }
    schema = {"type": "object", "properties": properties, "$defs": {"r": {"type": "array"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    given = {"n": "7", "s": "7", "x": "null", "b": "True", "r": "[1]", "free": "no", "e": "1", "more": "1"}
    text = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in given.items())
    message = said(f"<tool_call>\n<function=f>\n{text}</function>\n</tool_call>", QWEN_XML, tools=tools)
    expected = {"n": 7, "s": "7", "x": None, "b": True, "r": [1], "free": "no", "e": "1", "more": 1}
    assert calls_of(message) == [("f", expected)]


@pytest.mark.parametrize("options", [{"tools": None}, {"tools": []}, {"tool_choice": "none"}])
def test_calls_that_were_not_offered_are_content(options: dict[str, Any]) -> None:
    for template, text in [(HERMES, f"<tool_call>{OSLO_JSON}</tool_call>"), ("", OSLO_JSON), (LLAMA, OSLO_JSON)]:
        message = said(text, template, **options)
        assert (message.content, message.tool_calls) == (text, [])
    assert said("<think>Hm</think>Ja", HERMES, **options) == parsing.Message("Ja", "Hm")


def test_reasoning_stands_at_the_beginning() -> None:
    assert said("Write <think> here.", HERMES) == parsing.Message("Write <think> here.")
    assert said("Hm</think>Ja", HERMES).content == "Hm</think>Ja"
    opened = said("Hm</think>Ja", HERMES, prompt_end="<|im_start|>assistant\n<think>\n")
    assert opened == parsing.Message("Ja", "Hm")
    closed = said("Ja <think>", HERMES, prompt_end="<think>\n\n</think>\n\n")
    assert closed == parsing.Message("Ja <think>")
    assert said("<think>Hm</think>Ja", "no marks").content == "<think>Hm</think>Ja"


def test_ids_are_as_the_family_wants_them() -> None:
    [call] = said("[TOOL_CALLS]now[ARGS]{}", MISTRAL).tool_calls
    assert len(call.id) == 9 and call.id.isalnum()
    [call] = said("[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}", MISTRAL).tool_calls
    assert call.id == "abcdefghi"
    [call] = said(f"<tool_call>{OSLO_JSON}</tool_call>", HERMES).tool_calls
    assert call.id.startswith("call_")


def test_a_message_goes_back_into_a_conversation() -> None:
    message = said(f"<think>Hm</think>So<tool_call>{OSLO_JSON}</tool_call>", HERMES)
    assert message.to_dict() == {
        "role": "assistant",
        "content": "So",
        "reasoning_content": "Hm",
        "tool_calls": [
            {
                "id": message.tool_calls[0].id,
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo", "days": 2}'},
            }
        ],
    }


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"tools": [{"type": "function"}]}, r"tools\[0\]: expected a function with a name"),
        ({"tools": [{"function": {"name": "f", "parameters": 1}}]}, r"tools\[0\]: expected"),
        ({"tool_choice": "must"}, "tool_choice: expected one of auto, none, required"),
        ({"tool_choice": "required", "tools": None}, "expected tools beside 'required', found none"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "g"}}},
            "expected one of weather, note, now, found 'g'",
        ),
    ],
)
def test_tools_and_choices_that_make_no_sense_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        parsing.parser_for(HERMES, **{"tools": TOOLS, **options})


def test_what_is_held_back_is_bounded() -> None:
    long = "x" * (3 * MOST_HELD)
    for template, text in [
        (MISTRAL, "[TOOL_CALLS]" + long),  # a name
        (HERMES, '<tool_call>{"name": "' + long),
        (HERMES, '<tool_call>{"arguments": {"a": "' + long),  # arguments whose name is yet to come
        (QWEN_XML, "<tool_call>\n<function=note>\n<parameter=tags>\n" + long),
        (GEMMA, "<|tool_call>call:now{a:" + long),
        (HARMONY, "<|channel|>" + long),
        (HERMES, "a" + " " * len(long)),
        (V3, "a <|" * MOST_HELD),
    ]:
        parser = parsing.parser_for(template, TOOLS)
        told = [event for at in range(0, len(text), 4096) for event in parser.push(text[at : at + 4096])]
        content = (event for event in told if isinstance(event, parsing.ContentDelta | parsing.ToolCallBroken))
        assert sum(len(event.text) for event in content) > len(text) - 2 * MOST_HELD, text[:40]
        pieces = [text[:-1], text[-1:]]
        assert joined(events_of(parsing.parser_for(template, TOOLS), pieces)) == joined([*told, *parser.finish()])


def test_a_long_call_takes_time_that_grows_with_its_length() -> None:
    """Each piece is read once: a megabyte of arguments, four characters at a time, is a matter of a second or two."""
    body = json.dumps("word " * 50_000)
    text = f'<tool_call>{{"name": "note", "arguments": {{"body": {body}}}}}</tool_call>'
    events = events_of(parsing.parser_for(HERMES, TOOLS), (text[at : at + 4] for at in range(0, len(text), 4)))
    assert calls_of(parsing.message_of(events)) == [("note", {"body": json.loads(body)})]


WORDS = """
<think> </think> <tool_call> </tool_call> {"name":"now","arguments":{}} {"name":" [TOOL_CALLS] [ARGS] [THINK] [/THINK]
now ; <function=now> </function> <parameter=a> </parameter> { } [ ] " \\ : , é 日 Q < 1 - null <|python_tag|>
<tool_call|> <|"|> <arg_key> </arg_key> <arg_value> </arg_value> <｜tool▁call▁begin｜> <｜tool▁sep｜>
<｜tool▁call▁end｜> <｜tool▁calls▁begin｜> </｜DSML｜invoke> </｜DSML｜parameter> <|channel|> <|message|> <|end|>
<|start|>assistant analysis final commentary <|tool_call>call:now{ <|channel>thought <channel|> <｜DSML｜function_calls>
<|call|> to=functions.now <|tool_call_begin|>
"""
SPACED = ['<｜DSML｜invoke name="now">', '<｜DSML｜parameter name="a" string="true">', OSLO_JSON, " ", "\n"]
WORDS_AND_MARKS = [*WORDS.split(), *SPACED]
PAYLOAD = "é日Q"  # in no mark
texts = st.lists(st.sampled_from(WORDS_AND_MARKS) | st.text(max_size=3), max_size=12).map("".join)


@settings(max_examples=300, deadline=None)
@given(template=st.sampled_from(sorted(TEMPLATES.values())), text=texts, cuts=st.lists(st.integers(0, 200), max_size=6),
       opened=st.booleans())  # fmt: skip
def test_whatever_is_written_nothing_is_lost(template: str, text: str, cuts: list[int], opened: bool) -> None:
    family = parsing.family_of(template)
    prompt_end = family.reasoning[0] if opened and family.reasoning else ""
    ends = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]

    def parsed(pieces: Iterable[str]) -> list[Event]:
        return events_of(parsing.parser_for(template, TOOLS, prompt_end=prompt_end), pieces)

    events = parsed([text])
    assert joined(parsed([text[a:b] for a, b in pairwise(ends)])) == joined(events)
    assert joined(parsed(text)) == joined(events)
    message = parsing.message_of(events)
    for call in message.tool_calls:
        assert isinstance(json.loads(call.arguments), dict)
    told = message.content + message.reasoning + "".join(call.name + call.arguments for call in message.tool_calls)
    assert all(told.count(c) <= text.count(c) for c in PAYLOAD)
    if not message.tool_calls:  # else a call's keys that mean nothing, such as a type, are left out
        assert all(told.count(c) == text.count(c) for c in PAYLOAD)


@settings(max_examples=100, deadline=None)
@given(value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12,
), indent=st.sampled_from([None, 2]), ascii_only=st.booleans())  # fmt: skip
def test_any_arguments_come_through(value: Any, indent: int | None, ascii_only: bool) -> None:
    arguments = json.dumps({"a": value}, indent=indent, ensure_ascii=ascii_only)
    text = f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>'
    message = parsing.message_of(events_of(parsing.parser_for(HERMES, TOOLS), text))
    assert [call.arguments for call in message.tool_calls] == [arguments]


@recorded
def test_a_parser_knows_that_it_is_in_reasoning(answer: Answer) -> None:
    parser = parser_of(answer)
    thought = parser.thinking
    for piece in answer.text:
        parser.push(piece)
        thought = thought or parser.thinking
    assert thought == bool(answer.reasoning)
