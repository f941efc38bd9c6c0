"""Chat templates: the file's own Jinja source, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from foundry.errors import ModelFormatError


def render(template: str, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool, **variables: str) -> str:
    """The conversation as text; ``variables`` are the template's own, bos_token and eos_token.

    Raises:
        ValueError: no messages, a message without role or content, or the template refuses them.
        ModelFormatError: the template is broken.
    """
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
    try:
        source = environment.from_string(template)
        return source.render(messages=messages, add_generation_prompt=add_generation_prompt, **variables)
    except jinja2.TemplateError as error:
        raise ModelFormatError(f"tokenizer.chat_template: {error}") from error
