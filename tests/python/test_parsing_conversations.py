"""Calls in a conversation: what templates are given, what streams spell, and what a chat's answer says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import synthetic
from foundry import CompiledModel, SamplingParams, parsing
from foundry.chat import render
from foundry.parsing import messages_with_calls
from llama_cpp_files import models
from recorded_answers import TOOLS
from scripted import ScriptedSession, with_vocabulary
from vocabularies import named

MARKS = ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]", "<|other|>"]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{# [TOOL_CALLS] [ARGS] [THINK] #}"
ANSWER = ["[THINK]", "H", "m", "[/THINK]", "S", "o", "<|other|>", "[TOOL_CALLS]", *"now", "[ARGS]", "{", "}"]
CALLS = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ ARGUMENTS }}{% endfor %}{% endfor %}"
OBJECTS = CALLS.replace("ARGUMENTS", "c.function.arguments | tojson")
TEXTS = CALLS.replace("ARGUMENTS", "'f' + c.function.arguments")


@pytest.fixture
def model(tiny: CompiledModel) -> CompiledModel:
    """Bytes below 0xF0, and the marks of Mistral as control tokens."""
    tokens = [*synthetic.byte_tokens()[:240], "</s>", *MARKS]
    types = [1] * 240 + [3] * (1 + len(MARKS))
    vocabulary = named({"model": "gpt2", "tokens": tokens, "token_type": types, "merges": [], "eos_token_id": 240})
    return with_vocabulary(tiny, vocabulary | {"tokenizer.chat_template": TEMPLATE})


def answering(model: CompiledModel, tokens: list[str] = ANSWER) -> ScriptedSession:
    encode = model.tokenizer.encode
    return ScriptedSession(model, [i for token in tokens for i in encode(token, add_special_tokens=False)])


def test_control_tokens_that_are_named_are_spelled(model: CompiledModel) -> None:
    plain = answering(model).generate("x", len(ANSWER))
    assert plain.text == "HmSonow{}"
    spelled = answering(model).generate("x", len(ANSWER), spelled=["[TOOL_CALLS]", "[ARGS]", "no such token"])
    assert spelled.text == "HmSo[TOOL_CALLS]now[ARGS]{}"
    assert spelled.token_ids == plain.token_ids


@pytest.mark.parametrize("stop", ["{", "w[ARGS]", "[ARGS]"])
def test_a_stop_string_is_found_beside_spelled_tokens(model: CompiledModel, stop: str) -> None:
    answer = answering(model).generate("x", len(ANSWER), spelled=MARKS, stop=stop)
    whole = "".join(ANSWER)
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("spelled", ["", [""], [1], 3])
def test_what_can_not_be_spelled_is_refused(spelled: Any) -> None:
    with pytest.raises(ValueError, match="spelled: expected strings that are not empty"):
        SamplingParams(spelled=spelled)


def test_a_chats_answer_has_its_message(model: CompiledModel) -> None:
    messages = [{"role": "user", "content": "x"}]
    answer = answering(model).chat(messages, len(ANSWER), tools=TOOLS)
    assert answer.message is not None
    assert (answer.message.content, answer.message.reasoning) == ("So", "Hm")
    assert [(call.name, call.arguments) for call in answer.message.tool_calls] == [("now", "{}")]
    assert answer.text == "[THINK]Hm[/THINK]So[TOOL_CALLS]now[ARGS]{}"
    without = answering(model).chat(messages, len(ANSWER)).message
    assert without == parsing.Message("So[TOOL_CALLS]now[ARGS]{}", "Hm")
    assert answering(model).generate("x", 1).message is None


def test_a_chat_whose_prompt_begins_the_reasoning(model: CompiledModel) -> None:
    messages = [{"role": "user", "content": "x[THINK]"}]
    answer = answering(model, ["H", "m", "[/THINK]", "Y"]).chat(messages, 4)
    assert answer.message == parsing.Message("Y", "Hm")


def test_a_chat_for_an_event_loop_has_its_message_too(model: CompiledModel) -> None:
    with model.session() as session:
        messages = [{"role": "user", "content": "x"}]
        answer = asyncio.run(session.achat(messages, 3, ignore_eos=True))  # type: ignore[arg-type]
    assert answer.message is not None and answer.message.content == answer.text


def conversation(arguments: Any) -> list[dict[str, Any]]:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "r"},
    ]


@pytest.mark.parametrize("template", [OBJECTS, TEXTS])
@pytest.mark.parametrize("arguments", ['{"city": "Oslo"}', {"city": "Oslo"}])
def test_arguments_are_given_as_the_template_wants_them(template: str, arguments: Any) -> None:
    given = conversation(arguments)
    before = json.dumps(given)
    text = render(template, messages_with_calls(given, template), False)
    assert text.removeprefix("f") == '{"city": "Oslo"}'
    assert json.dumps(given) == before, "the caller's own are left as they are"


@pytest.mark.parametrize("arguments", ["no JSON", "[1]", None, 3])
def test_arguments_that_are_no_object_stay_as_they_are(arguments: Any) -> None:
    assert messages_with_calls(conversation(arguments), OBJECTS) == conversation(arguments)
    assert messages_with_calls([{"role": "assistant", "tool_calls": "x"}], OBJECTS)[0]["tool_calls"] == "x"


FAMILIES = {
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "Qwen-Qwen3-0.6B": ("hermes", "<think>"),
    "Qwen3-Coder": ("qwen-xml", None),
    "Qwen3.5-4B": ("qwen-xml", "<think>"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", "<think>"),
    "ibm-granite-granite-4.0": ("hermes", None),
    "meta-llama-Llama-3.1-8B-Instruct": ("llama", None),
    "meta-llama-Llama-3.2-3B-Instruct": ("llama", None),
    "mistralai-Mistral-Nemo-Instruct-2407": ("mistral", None),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral", "[THINK]"),
    "unsloth-mistral-Devstral-Small-2507": ("mistral", None),
    "google-gemma-4-31B-it": ("gemma", "<|channel>thought"),
    "google-gemma-2-2b-it": ("plain", None),
    "openai-gpt-oss-120b": ("harmony", None),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("deepseek", "<think>"),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek", "<think>"),
    "deepseek-ai-DeepSeek-V3.2": ("deepseek-dsml", "<think>"),
    "GLM-4.6": ("glm", "<think>"),
    "moonshotai-Kimi-K2": ("kimi", None),
    "Kimi-K2-Thinking": ("kimi", "<think>"),
    "Kimi-K3": ("kimi-k3", "<|open|>think<|sep|>"),
    "MiniMax-M1": ("minimax-m1", "<think>"),
    "MiniMax-M2": ("minimax", "<think>"),
    "meetkai-functionary-medium-v3.1": ("functionary", None),
    "NVIDIA-Nemotron-Nano-v2": ("nemotron", "<think>"),
    "Apriel-1.6-15b-Thinker-fixed": ("apriel", None),
    "ByteDance-Seed-OSS": ("qwen-xml", "<seed:think>"),
    "microsoft-Phi-3.5-mini-instruct": ("plain", None),
}


@pytest.mark.slow  # for the templates are fetched
def test_the_family_of_public_templates() -> None:
    found = {}
    for name in FAMILIES:
        family = parsing.family_of((models() / "templates" / f"{name}.jinja").read_text(encoding="utf-8"))
        found[name] = (family.name, family.reasoning and family.reasoning[0])
    assert found == FAMILIES


@pytest.mark.slow
def test_public_templates_write_calls_that_their_familys_parser_reads() -> None:
    """What a template makes of a call in the history is what its model was trained to write."""
    read = 0
    arguments = {"city": "Oslo"}
    for path in sorted((models() / "templates").glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        family = parsing.family_of(template)
        if family.name == "plain":
            continue
        call = {
            "id": "call12345",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps(arguments)},
        }
        asked = [{"role": "user", "content": "Oslo?"}]
        options: dict[str, Any] = {"tools": TOOLS, "variables": {"bos_token": "", "eos_token": ""}}
        try:
            answered = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
            prompt = render(template, asked, True, **options)
            whole = render(template, messages_with_calls(answered, template), False, **options)
        except Exception:
            continue  # of a template that wants messages of its own kind
        at = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        parser = parsing.parser_for(template, TOOLS)
        message = parsing.message_of([*parser.push(whole[at:]), *parser.finish()])
        if [(one.name, json.loads(one.arguments)) for one in message.tool_calls] == [("weather", arguments)]:
            read += 1
        else:
            print(path.name, family.name, repr(whole[at:][:200]), message)
    assert read >= 30
