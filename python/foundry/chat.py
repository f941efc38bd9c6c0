"""Chat templates: the file's own Jinja source, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from foundry.errors import ModelFormatError

if TYPE_CHECKING:
    from foundry.tokenizer import Tokenizer


def render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool) -> str:
    """The conversation as text.

    Raises:
        ValueError: no messages, a message without role or content, or the template refuses them.
        ModelFormatError: the model has no template, or a broken one.
    """
    if tokenizer.chat_template is None:
        raise ModelFormatError(
            "tokenizer.chat_template: expected a template, found none; use generate() with plain text"
        )
    if not messages:
        raise ValueError("messages: expected at least one, found none")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise ValueError(f"messages[{i}]: expected a mapping with role and content, found {message!r}")

    def refuse(reason: str) -> None:
        raise ValueError(f"the chat template refuses the messages: {reason}")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    bos = "" if tokenizer.bos_id is None else tokenizer.token(tokenizer.bos_id)
    eos = "" if tokenizer.eos_id is None else tokenizer.token(tokenizer.eos_id)
    try:
        template = environment.from_string(tokenizer.chat_template)
        return template.render(
            messages=messages, add_generation_prompt=add_generation_prompt, bos_token=bos, eos_token=eos
        )
    except jinja2.TemplateError as error:
        raise ModelFormatError(f"tokenizer.chat_template: {error}") from error
