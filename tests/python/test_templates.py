"""Chat templates against transformers, byte for byte: tests/oracle/templates.json (make_templates.py says how)."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from foundry import CompiledModel, ModelFormatError
from foundry.chat import render
from llama_cpp_files import models

ORACLE = json.loads((Path(__file__).parents[1] / "oracle" / "templates.json").read_text(encoding="utf-8"))
USER = {"role": "user", "content": "Hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


class Then(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Then:
        return cls(*ORACLE["now"])


@pytest.fixture(autouse=True)
def then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry.chat.environment.datetime", Then)


def rendered(template: str, messages: list[dict[str, Any]], variables: Any = None, **given: Any) -> str:
    begins = given.pop("add_generation_prompt", True)
    return render(template, messages, begins, variables=ORACLE["variables"] | (variables or {}), **given)


@pytest.mark.parametrize("case", ORACLE["own"], ids=lambda case: case["name"])
def test_a_template_renders_as_transformers_does(case: dict[str, Any]) -> None:
    assert rendered(case["template"], case["messages"], tools=case.get("tools")) == case["text"]


@pytest.mark.slow  # for the templates are fetched
def test_public_templates_render_as_transformers_does() -> None:
    compared = refused = 0
    for name, expected in ORACLE["public"].items():
        template = (models() / "templates" / name).read_text(encoding="utf-8")
        for conversation, given in ORACLE["conversations"].items():
            if expected[conversation] is None:
                with pytest.raises((ValueError, ModelFormatError)):
                    rendered(template, **given)
                refused += 1
                continue
            text = rendered(template, **given)
            told = hashlib.sha256(text.encode()).hexdigest()[:16]
            assert told == expected[conversation].partition(" ")[0], (name, conversation, text)
            compared += 1
    print(f"{len(ORACLE['public'])} templates, {compared} renderings equal, {refused} refused by both")
    assert compared > 1000 and refused < compared / 5


def test_a_template_takes_milliseconds() -> None:
    case = next(case for case in ORACLE["own"] if case["name"] == "namespace, macro, caller")
    rendered(case["template"], case["messages"])  # compiles it
    began = time.thread_time()
    for _ in range(20):
        rendered(case["template"], case["messages"])
    assert (time.thread_time() - began) / 20 < 0.01


def test_what_a_template_is_given(tiny: CompiledModel) -> None:
    tokenizer = tiny.tokenizer
    before, tools, documents = tokenizer.chat_template, [CALL["function"]], [{"title": "t", "text": "x"}]
    try:
        tokenizer.chat_template = (
            "{{ tools | tojson }}{{ documents | tojson }}{{ enable_thinking }}{{ add_generation_prompt }}"
        )
        text = tokenizer.apply_chat_template(
            [USER], False, False, tools=tools, documents=documents, enable_thinking=True
        )
        assert text == '[{"name": "f", "arguments": {"x": 1}}][{"title": "t", "text": "x"}]TrueFalse'
        ids = tokenizer.encode_chat([USER], tools=tools, documents=documents, enable_thinking=True)
        assert tokenizer.decode(ids) == text.replace("False", "True")
        with tiny.session() as s:
            out = s.chat([USER], 1, tools=tools, documents=documents, template_variables={"enable_thinking": True})
            assert out.usage.prompt_tokens == len(ids)
    finally:
        tokenizer.chat_template = before


def test_an_assistant_may_say_nothing_but_calls() -> None:
    template = "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m.tool_calls | length }}{% endfor %}"
    for message in (
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ):
        assert rendered(template, [message]) == "assistant1"
    with pytest.raises(ValueError, match=r"messages\[0\]: expected a mapping with role and content"):
        rendered(template, [{"role": "user", "tool_calls": []}])


PARTS = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{% for p in m.content %}({{ p.text }}){% endfor %}", "(a )(b)"),
        ("{{ m.content[1]['text'] }}{{ m.content | length }}a", "b2a"),
        ("{{ m.content | tojson }}", '[{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]'),
        ("{{ '<' + m.content + '>' }}", "<a b>"),  # what fails, prints the list or leaves it out takes text alone
        ("<{{ m.content }}>", "<a b>"),
        ("<{{ m.content | trim }}>", "<a b>"),
        ("{% if m.content is string %}<{{ m.content }}>{% endif %}", "<a b>"),
        ("nothing of it", "nothing of it"),
    ],
)
def test_parts_reach_a_template_as_they_are_or_are_joined(content: str, text: str) -> None:
    template = "{% for m in messages %}" + content + "{% endfor %}"
    assert rendered(template, [{"role": "user", "content": PARTS}]) == text


def test_parts_that_no_template_is_given() -> None:
    for content in ([{"type": "image"}], ["a"], [{"type": "text", "text": 1}], 7):
        with pytest.raises(ValueError, match="expected content that is text, or parts of type text"):
            rendered("", [{"role": "user", "content": content}])
    with pytest.raises(ValueError, match="none of these"):  # the template's own reason, with parts or without
        rendered("{{ raise_exception('none of these') }}", [{"role": "user", "content": PARTS}])


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"tools": [object()]}, r"tools\[0\]: expected text, a number, a list or a mapping"),
        ({"tools": {1: 2}}, "tools: expected keys that are text, found 1"),
        ({"documents": [{"title": b"x"}]}, r"documents\[0\].title: expected text"),
        ({"variables": {"x": {1, 2}}}, "x: expected text"),
    ],
)
def test_what_is_no_plain_data_is_the_callers_fault(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        render("", [USER], True, **given)


def test_the_sandbox_keeps_templates_from_python_and_from_the_callers_data() -> None:
    messages = [{"role": "user", "content": "Hi", "list": [1]}]
    for template in (
        "{{ messages[0].list.append(2) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace(__class__=1) }}",
        "{% set n = namespace() %}{% set n._x = 1 %}",
    ):
        with pytest.raises(ModelFormatError, match="chat_template"):
            rendered(template + "{{ 1 / 0 }}", messages)
    assert messages == [{"role": "user", "content": "Hi", "list": [1]}]
