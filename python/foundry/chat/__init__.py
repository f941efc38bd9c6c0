"""Chat templates: the file's own Jinja source, rendered as ``transformers`` does, in a sandbox and within bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from jinja2 import Template
from jinja2.meta import find_undeclared_variables

from foundry.chat import given as provenance
from foundry.chat.budget import Budget, BudgetError, spending
from foundry.chat.environment import RefusedError, TemplateEnvironment
from foundry.chat.messages import has_parts, joined_parts, plain_messages, plain_value, texts_of_parts
from foundry.errors import ModelFormatError

MOST_SOURCE = 1 << 17  # characters of a template; public ones have up to 30,000
MOST_TOKENS = 10_000  # as Jinja reads it, for compiling takes long with each; public ones have up to 2,500


@dataclass(frozen=True)
class Rendering:
    """A conversation as text.

    Attributes:
        text: what the template makes of it.
        given: spans of characters that are not the template's own but of messages, tools or documents; only of such
            texts as were asked for. None where that can't be told.
        asked: the texts that were asked for.
    """

    text: str
    given: list[tuple[int, int]] | None
    asked: list[str]


def render(template: str, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, **more: Any) -> str:
    """The conversation as text; see ``render_marked``."""
    return render_marked(template, messages, add_generation_prompt, lambda _: False, **more).text


def render_marked(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    is_marked: Callable[[str], bool],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Rendering:
    """The conversation as text, and where in it texts of the caller are.

    A content that is a list of text parts reaches the template as it is. Where the template can't take that (it fails,
    leaves their text out, or prints the list) the parts are joined.

    Args:
        template: Jinja source.
        messages, tools, documents: as OpenAI's clients send them.
        add_generation_prompt: the text ends where an answer begins.
        is_marked: whether a text of theirs is one whose places are asked for.
        variables: others that the template knows: bos_token, eos_token, enable_thinking and so on.

    Raises:
        ValueError: messages, tools or documents that make no sense, or the template refuses them.
        ModelFormatError: the template is broken, or takes more time, memory or text than it may.
    """
    given: dict[str, Any] = {
        name: plain_value(name, value)
        for name, value in {"tools": tools, "documents": documents, **(variables or {})}.items()
    }
    given["messages"] = plain_messages(messages)
    given["add_generation_prompt"] = add_generation_prompt
    text = _run(template, given) if not has_parts(given["messages"]) else _with_parts(template, given)
    theirs = {name: given[name] for name in ("messages", "tools", "documents")}
    asked = [one for one in provenance.texts(theirs) if is_marked(one)]
    if not asked:
        return Rendering(text, [], [])
    budget = Budget(given, marked=True)
    try:
        again = _run(template, given | provenance.marked(theirs, is_marked), budget)
    except (ValueError, ModelFormatError):  # it took the last of the time, and now a little more
        return Rendering(text, None, asked)
    known = again == text and not budget.lost  # or the template prints what the time is
    return Rendering(text, list(provenance.spans_of(again)) if known else None, asked)


def _with_parts(template: str, given: dict[str, Any]) -> str:
    """Parts as they are, or in ``given`` too joined where the template can't take them."""
    error: Exception | None = None
    try:
        text = _run(template, given)
    except (ValueError, ModelFormatError) as found:
        text, error = "", found
    parts = [part.strip() for part in texts_of_parts(given["messages"])]
    printed = any(repr(message["content"]) in text for message in given["messages"] if has_parts([message]))
    if error is None and not printed and all(part in text for part in parts):
        return text
    joined = given | {"messages": joined_parts(given["messages"])}
    try:
        instead = _run(template, joined)
    except (ValueError, ModelFormatError):
        if error is not None:
            raise error from None
        return text
    if error is None and not printed and not any(part in instead and part not in text for part in parts):
        return text  # the template leaves them out of either
    given |= joined
    return instead


def _run(template: str, given: dict[str, Any], budget: Budget | None = None) -> str:
    try:
        template.encode()  # or the file holds no Unicode
        compiled = _compiled(template)
        with spending(budget or Budget(given)) as spent:
            pieces = []
            for piece in compiled.root_render_func(compiled.new_context(given)):
                spent.told(piece)
                pieces.append(piece)
        return provenance.join(pieces)
    except RefusedError as error:
        raise ValueError(f"the chat template refuses the messages: {error}") from None
    except BudgetError as error:
        raise ModelFormatError(f"tokenizer.chat_template: {error}") from None
    except Exception as error:  # whatever a template of anybody's may do wrong
        found = f"{type(error).__name__}: {error}"[:500]
        raise ModelFormatError(f"tokenizer.chat_template: {found}") from error


@lru_cache(maxsize=8)
def names_in(template: str) -> frozenset[str]:
    """The variables that a template asks for; none where it is broken."""
    try:
        return frozenset(find_undeclared_variables(_environment_for(template).parse(template)))
    except Exception:  # rendering it tells what is wrong
        return frozenset()


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    return _environment_for(source).from_string(source)


def _environment_for(source: str) -> TemplateEnvironment:
    """BudgetError for a template that would take long to read."""
    if len(source) > MOST_SOURCE:
        raise BudgetError(f"expected at most {MOST_SOURCE} characters, found {len(source)}")
    environment = TemplateEnvironment()
    if sum(1 for _ in islice(environment.lex(source), MOST_TOKENS + 1)) > MOST_TOKENS:
        raise BudgetError(f"expected at most {MOST_TOKENS} tokens of Jinja, found more")
    return environment
