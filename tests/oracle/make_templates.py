"""Makes templates.json with transformers: ``python tests/oracle/make_templates.py``, in an environment that has
``transformers``, ``platformdirs`` and ``pip`` (no torch). Run once; the values are committed.

Own templates, one for each feature, with the text that they render to; and of the public templates that llama.cpp keeps
(tests/python/llama_cpp_files.py) the hashes of theirs. The time is fixed, for some print it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import chat_template_utils as reference

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

from llama_cpp_files import REQUIREMENT, models  # noqa: E402

NOW = (2026, 1, 2, 3, 4, 5)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The weather <now> & "later", l\'été',
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["c", "f"]}},
                "required": ["city"],
            },
        },
    }
]
USER = {"role": "user", "content": "Is 1 < 2 & 'x' > \"y\"? é 日本"}
ARGUMENTS = {"city": "Zürich <b>", "unit": "c", "n": [1, 2.5, None, True]}
CALLS = [{"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}]
ASKS = {"role": "assistant", "content": "", "tool_calls": CALLS}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call12345", "content": '{"t": "1 < 2"}'}
TALK = [
    {"role": "system", "content": "Be <brief> & kind."},
    USER,
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "  Why?\n"},
]
PARTS = [{"type": "text", "text": "One <b>."}, {"type": "text", "text": " Two & 'three'."}]
DOCUMENTS = [{"title": "Zürich", "text": "A city. <1>"}, {"title": "Bern", "text": "Another."}]
THINKING = ("enable_thinking", "thinking")
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "talk": {"messages": TALK},
    "user": {"messages": [USER]},
    "tools": {"messages": TALK[:2], "tools": TOOLS},
    "calls": {"messages": [USER, ASKS, RESULT], "tools": TOOLS},
    "calls without content": {"messages": [USER, {"role": "assistant", "tool_calls": CALLS}, RESULT], "tools": TOOLS},
    "calls with content None": {"messages": [USER, {**ASKS, "content": None}, RESULT], "tools": TOOLS},
    "reasoning": {"messages": [USER, {"role": "assistant", "reasoning_content": "Hm.", "content": "Yes."}, USER]},
    "parts": {
        "messages": [TALK[0], {"role": "user", "content": PARTS}, TALK[2], {"role": "user", "content": PARTS[1:]}]
    },
    "parts and tools": {"messages": [{"role": "user", "content": PARTS}, ASKS, RESULT], "tools": TOOLS},
    "documents": {"messages": [USER], "documents": DOCUMENTS},
    "thinking": {"messages": TALK, "variables": dict.fromkeys(THINKING, True)},
    "no thinking": {"messages": TALK, "variables": dict.fromkeys(THINKING, False)},
    "no thinking, tools": {"messages": [USER], "tools": TOOLS, "variables": dict.fromkeys(THINKING, False)},
    "effort": {"messages": TALK, "variables": {"reasoning_effort": "low"}},
    "no answer begins": {"messages": TALK, "add_generation_prompt": False},
    "tools, no answer begins": {"messages": [USER, ASKS, RESULT], "tools": TOOLS, "add_generation_prompt": False},
}
OWN: dict[str, tuple[str, str]] = {  # name -> conversation, template
    "tojson as it is": ("tools", "{{ tools | tojson }}|{{ messages[1] | tojson }}"),
    "tojson keeps the order of keys": ("user", "{{ {'b': 1, 'a': {'d': none, 'c': true}} | tojson }}"),
    "tojson's options": (
        "tools",
        "{{ tools | tojson(indent=2) }}|{{ messages | tojson(ensure_ascii=True) }}|"
        "{{ tools[0] | tojson(separators=(',', ':'), sort_keys=True) }}|{{ [1, [2]] | tojson(indent='--') }}",
    ),
    "break and continue": (
        "talk",
        "{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{{ m.role }};"
        "{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    ),
    "generation": (
        "talk",
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\n{{ m.content }}{{ eos_token }}\n"
        "{% endgeneration %}{% else %}{{ m.content | trim }}{% endif %}\n{% endfor %}",
    ),
    "whitespace of blocks": (
        "talk",
        "  {% if true %}  \n a\n  {%- for m in messages %}\n  {{ m.role -}}\n {% endfor %}\n b\n{% endif %}\n\n",
    ),
    "time": ("user", "{{ strftime_now('%d %B %Y, %H:%M') }}"),
    "no content": (
        "calls without content",
        "{% for m in messages %}{{ m.content is defined }}{{ m['content'] }};{% endfor %}",
    ),
    "content None": (
        "calls with content None",
        "{% for m in messages %}{{ 'content' in m }}{{ m.content or '-' }};{% endfor %}",
    ),
    "arguments": (
        "calls",
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments |"
        " tojson }}"
        "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v | string }},{% endfor %}{% endfor %}{% endfor %}",
    ),
    "reasoning by its names": ("reasoning", "{{ messages[1].reasoning_content }}{{ messages[1].thinking }}"),
    "tools that are not given": ("user", "{{ tools is none }}{{ documents is none }}{{ tools or 'none' }}"),
    "namespace, macro, caller": (
        "talk",
        "{% macro wrap(role) %}<{{ role }}>{{ caller() }}</{{ role }}>{% endmacro %}"
        "{% set n = namespace(count=0, last='') %}"
        "{% for m in messages %}{% set n.count = n.count + m.content | length %}{% set n.last = n.last ~ m.role[0] %}"
        "{% call wrap(m.role) %}{{ m.content }}{% endcall %}{% endfor %}{{ n.count }}{{ n.last }}",
    ),
    "slices, filters, tests": (
        "talk",
        "{{ messages[1:3] | map(attribute='role') | join(',') }}|{{ messages |"
        " selectattr('role', 'equalto', 'user') | list "
        "| length }}|{{ messages[-1].content.strip().split('h') }}|{{ messages |"
        " length > 3 and messages is iterable }}|"
        "{{ 'a,b'.split(',') | last | upper }}|{{ [3, 1] | sort }}|{{ ('x' * 3) ~ 1.5 ~ none }}|"
        "{{ {'a': 1}.get('b', 'd') }}|"
        "{{ '%s-%03d' % ('a', 7) }}|{{ '{:>4}|{a}'.format(1, a=2) }}|{{ dict(a=1) | items | list }}|{{ 7 // 2 }}"
        "{{ 7 % 4 }}",
    ),
    "recursive loop": (
        "user",
        "{% for x in [{'n': 1, 'c': [{'n': 2, 'c': []}, {'n': 3, 'c': []}]}] recursive %}{{ x.n }}{{ loop.depth }}"
        "{{ loop(x.c) }}{% endfor %}",
    ),
    "loop's variables": (
        "talk",
        "{% for m in messages %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}"
        "{{ loop.previtem.role if loop.previtem is defined }}"
        "{{ loop.nextitem.role if loop.nextitem is defined }};{% else %}none{% endfor %}"
        "{% for a, b in [(1, 2), (3, 4)] if a > 1 %}{{ a }}{{ b }}{{ loop.changed(a) }}"
        "{{ loop.cycle('x', 'y') }}{% endfor %}",
    ),
    "set blocks, filter blocks": (
        "user",
        "{% set t %}{{ messages[0].content }}{% endset %}{% filter upper %}{{ t }}{% endfilter %}{{ t | e }}"
        "{{ t | safe }}",
    ),
    "what is printed": (
        "user",
        "{{ none }}{{ true }}{{ [1, 'a', {'b': none}] }}{{ 1.0 }}{{ (1,) }}{{ missing }}{{ bos_token }}",
    ),
}


class Then(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Then:
        return cls(*NOW)


def render(template: str, messages: list[dict[str, Any]], variables: Any = None, **given: Any) -> str | None:
    """None where the template refuses."""
    chat = reference._normalize_chat_messages(messages)
    given = {"add_generation_prompt": True, **given, **TOKENS, **(variables or {})}
    try:
        return reference.render_jinja_template([chat], chat_template=template, **given)[0][0]
    except Exception:
        return None


def render_parts(template: str, messages: list[dict[str, Any]], **given: Any) -> tuple[str | None, bool]:
    """With parts as they are, or joined where the template can't take them; and whether that was so."""
    text = render(template, messages, **given)
    parts = [part["text"].strip() for m in messages if isinstance(m.get("content"), list) for part in m["content"]]
    if text is not None and "{'type': 'text'" not in text and all(part in text for part in parts):
        return text, True
    joined = [
        {**m, "content": "".join(part["text"] for part in m["content"])} if isinstance(m.get("content"), list) else m
        for m in messages
    ]
    instead = render(template, joined, **given)
    return (text, True) if instead is None else (instead, not parts)


def main() -> None:
    reference.datetime = Then
    own = [
        {"name": name, "template": template, **CONVERSATIONS[of], "text": render(template, **CONVERSATIONS[of])}
        for name, (of, template) in OWN.items()
    ]
    assert not (refused := [case["name"] for case in own if case["text"] is None]), refused
    public = {}
    for path in sorted((models() / "templates").glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        public[path.name] = {}
        for name, given in CONVERSATIONS.items():
            text, as_they_are = render_parts(template, **given)
            told = text if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]
            public[path.name][name] = told if told is None or as_they_are else f"{told} joined"
    values = {
        "made_with": f"transformers {transformers.__version__}",
        "templates_of": REQUIREMENT,
        "now": NOW,
        "variables": TOKENS,
        "own": own,
        "conversations": CONVERSATIONS,
        "public": public,
    }
    (HERE / "templates.json").write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
