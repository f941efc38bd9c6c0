"""gpt-oss's messages: an answer is several, each with a channel that says for whom it is.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
    ...<|start|>assistant<|channel|>commentary to=functions.name <|constrain|>json<|message|>{...}<|call|>

The recipient may stand before the channel as well. Of https://cookbook.openai.com/articles/openai-harmony, and
openai/harmony docs/format.md.
"""

from __future__ import annotations

import re
from typing import Protocol

from foundry.parsing import json_text
from foundry.parsing.forms import MOST_HEADER, Calls
from foundry.parsing.reader import MalformedError, Marks, Reader, Waiting

MARKS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>")
ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"
_START = "<|start|>"
_BEGINS = (_START + "assistant", "<|channel|>", " to=")
_ENDS = Marks(("<|end|>", "<|return|>", _START))
_HEADER = re.compile(
    r"(?:<\|start\|>assistant)?\s*(?:to=(?P<role>\S+?))?\s*"
    r"<\|channel\|>\s*(?P<channel>analysis|commentary|final)\s*(?:to=(?P<recipient>[^\s<]+))?"
    r"\s*(?:<\|constrain\|>\s*)?[\w-]*\s*"
)
_FUNCTIONS = "functions."


class Parts(Calls, Protocol):
    """Who is told. ``attempt`` makes what is read content where it is malformed."""

    offers: bool
    thinking: bool

    def content(self, text: str) -> None: ...
    def reasoning(self, text: str) -> None: ...
    def attempt(self, reading: Waiting[None]) -> Waiting[None]: ...


def read(reader: Reader, parts: Parts) -> Waiting[None]:
    """A whole answer."""
    while (yield from reader.more()):
        for begins in _BEGINS:
            if (yield from reader.sees(begins)):
                yield from parts.attempt(_message(reader, parts))
                break
        else:
            # Text without a header: content, up to what may be the next message.
            yield from _text(reader, parts, final=True)


def _message(reader: Reader, parts: Parts) -> Waiting[None]:
    head, _ = yield from reader.held_until(Marks(("<|message|>", "<|end|>")), MOST_HEADER)
    found = _HEADER.fullmatch(head)
    if found is None or not (yield from reader.sees("<|message|>")):
        raise MalformedError(head)
    recipient = found["recipient"] or found["role"] or ""
    if recipient.startswith(_FUNCTIONS) and parts.offers:
        yield from reader.expect("<|message|>")
        parts.begin(recipient.removeprefix(_FUNCTIONS))
        yield from reader.spaces()
        yield from json_text.value(reader, parts.arguments)
        parts.end()
        yield from reader.spaces()
        yield from _close(reader)
    elif recipient:
        raise MalformedError(recipient)
    else:
        yield from reader.expect("<|message|>")
        reader.record = None
        parts.thinking = found["channel"] == "analysis"
        yield from _text(reader, parts, final=not parts.thinking)
        parts.thinking = False


def _text(reader: Reader, parts: Parts, final: bool) -> Waiting[None]:
    """Up to the message's end, which is taken, or the next one's beginning."""
    tell = parts.content if final else parts.reasoning
    while (yield from reader.until(_ENDS, tell)) == _START:
        reader.give_back(_START)
        if (yield from reader.sees(_START + "assistant")):
            break
        tell(reader.take(len(_START)))


def _close(reader: Reader) -> Waiting[None]:
    for mark in ("<|call|>", "<|end|>", "<|return|>"):
        if (yield from reader.accepts(mark)):
            return
