"""Chat templates: the file's own Jinja source, rendered as ``transformers`` does, in a sandbox and within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from jinja2 import Template

from foundry.chat.budget import Budget, BudgetError, spending
from foundry.chat.environment import RefusedError, TemplateEnvironment
from foundry.chat.messages import plain_messages, plain_value
from foundry.errors import ModelFormatError

MOST_SOURCE = 1 << 17  # characters of a template; public ones have up to 30,000
MOST_TOKENS = 10_000  # as Jinja reads it, for compiling takes long with each; public ones have up to 2,500


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as text.

    Args:
        template: Jinja source.
        messages, tools, documents: as OpenAI's clients send them.
        add_generation_prompt: the text ends where an answer begins.
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
    try:
        if len(template) > MOST_SOURCE:
            raise BudgetError(f"expected at most {MOST_SOURCE} characters, found {len(template)}")
        template.encode()  # or the file holds no Unicode
        compiled = _compiled(template)
        with spending(Budget(given)) as budget:
            pieces = []
            for piece in compiled.root_render_func(compiled.new_context(given)):
                budget.told(piece)
                pieces.append(piece)
        return "".join(pieces)
    except RefusedError as error:
        raise ValueError(f"the chat template refuses the messages: {error}") from None
    except BudgetError as error:
        raise ModelFormatError(f"tokenizer.chat_template: {error}") from None
    except Exception as error:  # whatever a template of anybody's may do wrong
        found = f"{type(error).__name__}: {error}"[:500]
        raise ModelFormatError(f"tokenizer.chat_template: {found}") from error


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    environment = TemplateEnvironment()
    if sum(1 for _ in islice(environment.lex(source), MOST_TOKENS + 1)) > MOST_TOKENS:
        raise BudgetError(f"expected at most {MOST_TOKENS} tokens of Jinja, found more")
    return environment.from_string(source)
