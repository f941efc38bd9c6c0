"""Chat templates: the file's own Jinja source, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

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
    plain = [_plain(i, message) for i, message in enumerate(messages)]

    def refuse(reason: str) -> None:
        raise _RefusedError(f"the chat template refuses the messages: {reason}")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        source = environment.from_string(template)
        return source.render(messages=plain, add_generation_prompt=add_generation_prompt, **variables)
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # whatever a template of anybody's may do wrong
        raise ModelFormatError(f"tokenizer.chat_template: {type(error).__name__}: {error}") from error


class _RefusedError(Exception):
    pass


def _plain(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its content as text; parts, as OpenAI's clients send them, are joined."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
        raise ValueError(f"messages[{index}]: expected a mapping with role and content, found {message!r}")
    content = message["content"]
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise ValueError(f"messages[{index}]: expected content that is text, or parts of type text, found {message!r}")
    return {**message, "content": content}
