"""The parser: an answer's text as it comes, parted into content, reasoning and calls.

- The same text gives the same events however it is cut, but for how the text of deltas is cut.
- Nothing is lost: content, reasoning and calls joined are the answer, less marks and the white space beside them. What
  begins as a call and is none is content, as it was written.
- What is held back is bounded: less than a mark, ``MOST_HELD`` characters of white space or of one value that must be
  whole, ``MOST_HEADER`` of a call's header. A call's own text is kept until it ends, to be given back if it breaks.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from typing import Any

from foundry.parsing import harmony
from foundry.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallBroken,
    ToolCallEnd,
)
from foundry.parsing.family import Family
from foundry.parsing.forms import BareForm
from foundry.parsing.json_text import MOST_HELD
from foundry.parsing.reader import SPACES, MalformedError, Marks, Reader, Waiting
from foundry.parsing.tools import Tools

_NO_SCHEMA: Mapping[str, Any] = {}


class Parser:
    """Made by ``parser_for``; for one answer. ``push`` and ``finish`` never raise, whatever a model writes."""

    def __init__(self, family: Family, tools: Tools, opened: bool) -> None:
        """``opened``: the prompt has begun the reasoning, so that the answer begins inside it."""
        self.family = family
        self.offers = tools.offered
        self.thinking = opened  # what comes next is reasoning, as far as can be told
        self._tools = tools
        self._opened = opened
        self._reader = Reader()
        self._events: list[Event] = []
        self._index = 0  # of the next call
        self._begun = False  # that call
        self._called = False
        self._after_call = False
        self._fresh = True  # nothing but white space since the beginning, a call or reasoning
        self._reasoned = False
        self._content = _Part()
        self._reasoning = _Part()
        self._forms = {form.opens: form for form in family.forms} if self.offers else {}
        self._closers = family.closers if self.offers else ()
        opens = [family.reasoning[0]] if family.reasoning else []
        self._marks = Marks([mark for mark in (*self._forms, *opens, *self._closers, *family.frames) if mark])
        self._steps = harmony.read(self._reader, self) if family.harmony else self._answer()
        self._running = True

    @property
    def spelled(self) -> tuple[str, ...]:
        """Marks that the text must have, where they are control tokens too: for ``SamplingParams.spelled``."""
        return self.family.marks

    def push(self, text: str) -> list[Event]:
        """What is decided by now."""
        if self._running:
            self._reader.add(text)
            self._step()
        return self._taken()

    def finish(self) -> list[Event]:
        """The rest: the answer is over, for whatever reason."""
        if self._running:
            self._reader.ended = True
            self._step()
            self._running = False
            beside_marks = self._called or (self._reasoned and not self._content.begun)
            self._tell(ContentDelta, self._content.rest(beside_marks))
        return self._taken()

    def _step(self) -> None:
        next(self._steps, None)

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _answer(self) -> Waiting[None]:
        if self._opened:
            yield from self._reason()
        bare = self._forms.get("")
        if isinstance(bare, BareForm):
            yield from self._bare(bare)
        while (mark := (yield from self._reader.until(self._marks, self.content))) is not None:
            if mark in self._forms:
                yield from self.attempt(self._forms[mark].read(self._reader, self), mark)
            elif mark in self._closers:
                if self._after_call:
                    self._content.drop_since_call()
                else:
                    self._content.hold(mark)
            elif mark in self.family.frames:
                continue
            elif self._fresh:
                yield from self._reason()
            else:
                self.content(mark)

    def _bare(self, form: BareForm) -> Waiting[None]:
        """Calls without a mark, at the beginning, one after the other."""
        while (yield from self._reader.more()):
            if self._reader.peek() in SPACES:
                self.content(self._reader.take(1))
                continue
            calls = self._index
            if form.begins(self._reader.peek()):
                yield from self.attempt(form.read(self._reader, self))
            if self._index == calls:
                break

    def _reason(self) -> Waiting[None]:
        """Up to the mark that ends it; a call ends it too where the family's models leave the mark out."""
        assert self.family.reasoning
        closes = self.family.reasoning[1]
        forms = self._forms if self.family.calls_end_reasoning else {}
        ends = (closes, *self.family.frames[:1])
        marks = Marks([*ends, *filter(None, forms)])
        calls = self._index
        self._reasoned = self.thinking = True
        while self._index == calls:
            mark = yield from self._reader.until(marks, self.reasoning)
            if mark is None or mark in ends:
                break
            yield from self.attempt(forms[mark].read(self._reader, self), mark, inside=True)
        self.thinking = False
        self._reasoning = _Part()
        self._fresh = True

    def attempt(self, reading: Waiting[None], mark: str = "", inside: bool = False) -> Waiting[None]:
        """Reads a call. Where it is none, its text is content, or what it stands ``inside``: reasoning."""
        self._reader.record = [mark]
        try:
            yield from reading
        except MalformedError:
            text = "".join(self._reader.record or ())
            if self._begun:
                self._tell(ContentDelta, self._content.rest())
                self._events.append(ToolCallBroken(self._index, text))
                self._index += 1
                self._begun = self._after_call = self._fresh = False
                self._content.begun = True
            elif inside:
                self.reasoning(text)
            else:
                self.content(text)
        finally:
            self._reader.record = None

    # What forms tell.

    def content(self, text: str) -> None:
        if text.strip(SPACES):
            self._after_call = self._fresh = False
        self._tell(ContentDelta, self._content.add(text, trim=self._reasoned))

    def reasoning(self, text: str) -> None:
        self._reasoned = True
        self._tell(ReasoningDelta, self._reasoning.add(text, trim=True))

    def begin(self, name: str, call_id: str | None = None) -> None:
        self._content.drop_marks()
        self._begun = True
        self._events.append(ToolCallBegin(self._index, call_id or new_id(self.family.id_length), name))

    def arguments(self, text: str) -> None:
        self._tell(ToolCallArguments, text, self._index)

    def end(self) -> None:
        self._events.append(ToolCallEnd(self._index))
        self._index += 1
        self._begun = False
        self._called = self._after_call = self._fresh = True
        self._content.call_ended()
        if self._reader.record is not None:
            self._reader.record.clear()

    def knows(self, name: str) -> bool:
        return name in self._tools.schemas

    def schema(self, name: str) -> Mapping[str, Any]:
        return self._tools.schemas.get(name, _NO_SCHEMA)

    def _tell(self, kind: Any, text: str, *index: int) -> None:
        """Joined with what was told last, where that is of the same kind and not given out yet."""
        if not text:
            return
        last: Any = self._events[-1] if self._events else None
        if type(last) is kind and (not index or last.index == index[0]):
            self._events[-1] = kind(*index, last.text + text)
        else:
            self._events.append(kind(*index, text))


class _Part:
    """Content, or reasoning. What may yet turn out to stand beside a mark is held: white space, and marks that are
    dropped before a call, and are text where none follows."""

    def __init__(self) -> None:
        self.begun = False
        self._held = ""
        self._marks: list[str] = []
        self._at_call = 0  # of what is held, the end of the last call

    def add(self, text: str, trim: bool) -> str:
        """What can be told; with ``trim`` white space at the beginning never is."""
        if self._marks and not text.strip(SPACES):
            self._held += text
            return ""
        text = self.rest() + text
        if trim and not self.begun:
            text = text.lstrip(SPACES)
        end = len(text.rstrip(SPACES))
        if end:
            self.begun = True
        kept = (len(text) - end) % (MOST_HELD + 1)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def hold(self, mark: str) -> None:
        self._held += mark
        self._marks.append(mark)

    def drop_marks(self) -> None:
        for mark in self._marks:
            self._held = self._held.replace(mark, "", 1)
        self._marks = []

    def call_ended(self) -> None:
        self._at_call = len(self._held)

    def drop_since_call(self) -> None:
        """A mark closes the call: the white space before it is within."""
        self._held = self._held[: self._at_call]

    def rest(self, beside_marks: bool = False) -> str:
        """What is held, which then is no more; without white space ``beside_marks``."""
        held = "" if beside_marks and not self._marks else self._held
        self._held, self._marks = "", []
        return held


def new_id(length: int) -> str:
    """For a call: unlike any other. With a ``length``, so many letters and digits, for templates that want no other."""
    if length:
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))
    return "call_" + secrets.token_hex(12)
