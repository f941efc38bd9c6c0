"""Grammars that bind an answer to calls: what they accept is what the family writes, and what its parser reads."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from foundry import CompiledModel, SamplingParams, parsing
from foundry.structured import Matcher, matcher_for
from foundry.tokenizer import Tokenizer
from recorded_answers import ANSWERS, HERMES, OSLO_JSON, TOOLS, Answer, tool
from vocabularies import byte_level

pytest.importorskip("llguidance")
BOUND = [answer for answer in ANSWERS if answer.bound]
ENDS = "</s>"
NAMED = {"type": "function", "function": {"name": "weather"}}


class Vocabulary:
    """The bytes, and ``control`` tokens: a model for a matcher."""

    def __init__(self, *control: str) -> None:
        self.tokenizer = Tokenizer(byte_level(ENDS, *control, eos_token_id=257, bos_token_id=None))
        self.arch = SimpleNamespace(vocab_size=self.tokenizer.vocab_size)

    def accepts(self, grammar: str | None, text: str) -> bool:
        """Each token of it may come where it does, and the answer may end behind the last."""
        matcher = matcher_for(self, SamplingParams(grammar=grammar))  # type: ignore[arg-type]
        assert matcher is not None
        *ids, last = self.tokenizer.encode(text, add_special_tokens=False)
        for token_id in ids:
            if not allows(matcher, token_id) or matcher.ends_with(token_id):
                return False
        return allows(matcher, last) and (matcher.ends_with(last) or allows(matcher, 257))


def allows(matcher: Matcher, token_id: int) -> bool:
    return bool(int(matcher.mask()[token_id // 32]) >> token_id % 32 & 1)


def required(answer: Answer, vocabulary: Vocabulary | None = None, choice: Any = "required", **options: Any) -> str:
    tokenizer: Any = vocabulary.tokenizer if vocabulary else None
    grammar = parsing.grammar_for(
        answer.template,
        options.pop("tools", TOOLS),
        choice,
        prompt_end=answer.prompt_end,
        tokenizer=tokenizer,
        **options,
    )
    assert grammar is not None
    return grammar


@pytest.mark.parametrize("control", [False, True], ids=["as text", "as control tokens"])
@pytest.mark.parametrize("answer", BOUND, ids=lambda answer: answer.name)
def test_what_a_family_writes_is_accepted_and_wrong_arguments_are_not(answer: Answer, control: bool) -> None:
    free = answer.reasoning + str(answer.calls)  # text, which control tokens are no part of
    marks = [mark for mark in parsing.family_of(answer.template).marks if mark not in free]
    vocabulary = Vocabulary(*(marks if control else ()))
    grammar = required(answer, vocabulary)
    assert vocabulary.accepts(grammar, answer.text)
    assert not vocabulary.accepts(grammar, answer.text[:-1])
    assert not vocabulary.accepts(grammar, "Oslo is cold.")
    assert not vocabulary.accepts(grammar, answer.text.replace("weather", "elsewhere").replace("now", "then"))
    for right, wrong in [
        ('"days": 2', '"days": "2"'),
        ("days:2", "days:true"),
        ("days=2", 'days="2"'),
        (">\n2\n<", ">\ntwo\n<"),
        (">2<", ">two<"),
    ]:
        if right in answer.text:
            assert not vocabulary.accepts(grammar, answer.text.replace(right, wrong))
            break
    else:
        pytest.fail("no argument of the answer was made wrong")


@pytest.mark.parametrize("family", ["hermes", "mistral", "deepseek", "kimi", "glm", "qwen-xml", "gemma", "harmony"])
def test_a_named_tool_is_the_only_one(family: str) -> None:
    by_name = parsing.family_named(family)
    answer = next(one for one in BOUND + ANSWERS if parsing.family_of(one.template).name == family and one.calls)
    assert by_name.forms or by_name.harmony
    grammar = parsing.grammar_for(answer.template, TOOLS, NAMED)
    assert grammar is not None and "weather" in grammar and "note" not in grammar


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_without_a_call_that_must_be_text_is_free(choice: Any) -> None:
    assert parsing.grammar_for(HERMES, TOOLS, choice) is None


def test_several_calls_only_where_they_are_wanted() -> None:
    one = f"<tool_call>\n{OSLO_JSON}\n</tool_call>"
    answer = Answer("", "<tool_call>", "")
    vocabulary = Vocabulary()
    assert vocabulary.accepts(required(answer), f"{one}\n{one}")
    assert not vocabulary.accepts(required(answer, parallel=False), f"{one}\n{one}")
    assert vocabulary.accepts(required(answer, parallel=False), one)


def test_reasoning_may_come_first_and_must_end_where_the_prompt_began_it() -> None:
    call = f"<tool_call>\n{OSLO_JSON}\n</tool_call>"
    vocabulary = Vocabulary()
    free = required(Answer("", HERMES, ""))
    assert vocabulary.accepts(free, call) and vocabulary.accepts(free, f"<think>\nHm.\n</think>\n\n{call}")
    opened = required(Answer("", HERMES, "", prompt_end="<think>\n"))
    assert vocabulary.accepts(opened, f"Hm.</think>{call}") and not vocabulary.accepts(opened, call)
    closed = required(Answer("", HERMES, "", prompt_end="<think>\n\n</think>\n\n"))
    assert vocabulary.accepts(closed, call) and not vocabulary.accepts(closed, f"<think>Hm</think>{call}")


def test_schemas_with_references_enumerations_and_unknown_keywords() -> None:
    schema = {
        "type": "object",
        "properties": {"unit": {"$ref": "#/$defs/unit"}, "at": {"type": "string", "format": "no such format"}},
        "required": ["unit"],
        "$defs": {"unit": {"enum": ["c", "f"]}},
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    vocabulary = Vocabulary()
    texts = {
        HERMES: '<tool_call>\n{{"name": "f", "arguments": {{"unit": "{}"}}}}\n</tool_call>',
        "<function=x><parameter=y>": "<tool_call>\n<function=f>\n<parameter=unit>\n{}\n</parameter>\n</function>\n"
        "</tool_call>",
        "<|tool_call>": '<|tool_call>call:f{{unit:<|"|>{}<|"|>}}<tool_call|>',
    }
    for template, text in texts.items():
        grammar = required(Answer("", template, ""), tools=tools)
        assert vocabulary.accepts(grammar, text.format("c"))
        assert not vocabulary.accepts(grammar, text.format("k"))


def test_a_gemma_schema_of_every_kind() -> None:
    properties = {
        "a": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}},
        "b": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "c": {"const": 3},
        "d": {},
        "e": {"type": "object"},
    }
    grammar = required(Answer("", "<|tool_call>", ""), tools=[tool("f", "b", **properties)])
    vocabulary = Vocabulary()
    for arguments, right in {
        "{b:true}": True,
        '{a:[{n:1.5},{n:-2e-05}],b:null,c:3,d:<|"|>x<|"|>,e:{k:1}}': True,
        "{b:null,d:[1,true],e:{}}": True,
        "{a:[],b:false}": True,
        "{}": False,
        "{a:[{}],b:true}": False,
        "{b:1}": False,
        "{b:true,c:4}": False,
        "{,b:true}": False,
    }.items():
        assert vocabulary.accepts(grammar, f"<|tool_call>call:f{arguments}<tool_call|>") == right, arguments


@pytest.mark.model
@pytest.mark.parametrize(
    "template", [HERMES.replace("<think>\n</think>", ""), "<function=x><parameter=y>", "[TOOL_CALLS][ARGS]", ""]
)
def test_a_bound_model_calls(smollm2: CompiledModel, template: str) -> None:
    enum = tool(
        "weather",
        "city",
        "days",
        city={"type": "string", "enum": ["Oslo", "Rome"]},
        days={"type": "integer", "maximum": 9},
    )
    grammar = parsing.grammar_for(template, [enum], "required", parallel=False, tokenizer=smollm2.tokenizer)
    with smollm2.session() as session:
        prompt = "<|im_start|>user\nWeather in Rome for 3 days?<|im_end|>\n<|im_start|>assistant\n"
        answer = session.generate(prompt, 60, grammar=grammar)
    assert answer.finish_reason == "stop"
    parser = parsing.parser_for(template, [enum], "required")
    message = parsing.message_of([*parser.push(answer.text), *parser.finish()])
    [call] = message.tool_calls
    arguments = json.loads(call.arguments)
    assert call.name == "weather" and arguments["city"] in ("Oslo", "Rome") and arguments["days"] <= 9
    assert message.content == ""


TOOL_TEMPLATE = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if loop.first and tools %}Answer with calls: <tool_call>
{"name": "...", "arguments": {...}}
</tool_call>. Tools: {{ tools | tojson }}
{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{{ c.function | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.mark.model
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_chat_under_a_template_with_tools_calls_and_goes_on(
    smollm2: CompiledModel, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    monkeypatch.setattr(smollm2.tokenizer, "chat_template", TOOL_TEMPLATE)
    tools = [tool("weather", "city", city={"type": "string", "enum": ["Oslo", "Rome"]})]
    grammar = parsing.grammar_for(smollm2.tokenizer, tools, "required", parallel=False)
    conversation: list[dict[str, Any]] = [{"role": "user", "content": "Weather in Rome?"}]
    with smollm2.session() as session:
        answer = session.chat(conversation, 60, tools=tools, grammar=grammar, temperature=temperature, seed=3)
        assert answer.message is not None
        [call] = answer.message.tool_calls
        assert call.name == "weather" and json.loads(call.arguments)["city"] in ("Oslo", "Rome")
        conversation += [answer.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "Rain."}]
        messages = parsing.messages_with_calls(conversation, TOOL_TEMPLATE)
        more = session.chat(messages, 4, tools=tools)
        assert more.usage.cached_tokens >= answer.usage.prompt_tokens
