"""Reasoning over HTTP: parted from the content, and its tokens counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Tiny
from served import CHAT, Served, chat, serve

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant\n"
    "{% if thinks %}<think>{% endif %}{% endif %}{# </think> #}"
)
THOUGHT = "<think>[a-z]{5}</think>yes"
# A token is a byte. Those of a mark count from where it is one on.
TOKENS = 1 + 5 + len("</think>")


@pytest.fixture(scope="module")
def served(tiny_path: Tiny) -> Iterator[Served]:
    with serve(tiny_path(max_seq_len=2048)) as one:
        one.model.tokenizer.chat_template = TEMPLATE
        yield one


def bound(regex: str, **fields: Any) -> dict[str, Any]:
    return chat(response_format={"type": "regex", "regex": regex}, temperature=1.0, seed=4, max_tokens=60, **fields)


def reasoned(usage: dict[str, Any]) -> int:
    return int(usage["completion_tokens_details"]["reasoning_tokens"])


def test_tokens_of_reasoning_are_counted(served: Served) -> None:
    found = served.ok(CHAT, bound(THOUGHT))
    message = found["choices"][0]["message"]
    assert (message["content"], len(message["reasoning_content"])) == ("yes", 5)
    assert reasoned(found["usage"]) == TOKENS
    assert found["usage"]["completion_tokens"] == len("<think>") - 1 + TOKENS + len("yes")
    assert reasoned(served.ok(CHAT, bound(THOUGHT, n=3))["usage"]) == 3 * TOKENS
    events = served.events(CHAT, bound(THOUGHT, stream_options={"include_usage": True}))
    assert reasoned(events[-1]["usage"]) == TOKENS
    assert reasoned(served.ok(CHAT, bound("[a-z]{5}"))["usage"]) == 0


def test_reasoning_that_the_prompt_has_begun_counts_from_the_first_token(served: Served) -> None:
    found = served.ok(CHAT, bound("[a-z]{5}</think>yes", chat_template_kwargs={"thinks": True}))
    assert reasoned(found["usage"]) == 5 + len("</think>")
    cut = served.ok(CHAT, bound("[a-z]{50}", chat_template_kwargs={"thinks": True}) | {"max_tokens": 9})
    assert reasoned(cut["usage"]) == 9


def test_responses_tell_them_too(served: Served) -> None:
    begun = {"chat_template_kwargs": {"thinks": True}, "temperature": 1.0, "seed": 4, "max_output_tokens": 9}
    found = served.ok("/v1/responses", {"input": "Hello", **begun})
    assert found["usage"]["output_tokens_details"]["reasoning_tokens"] == found["usage"]["output_tokens"] == 9
