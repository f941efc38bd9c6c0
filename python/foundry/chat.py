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
    if not isinstance(messages, Sequence) or not messages:
        raise ValueError(f"messages: expected a list of at least one, found {messages!r}")
    plain = [_plain(i, message) for i, message in enumerate(messages)]

    def refuse(reason: str) -> None:
        raise _RefusedError(f"the chat template refuses the messages: {reason}")

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        template.encode()  # or the file holds no Unicode
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
    if isinstance(content, list) and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"messages[{index}]: expected content that is text, or parts of type text, found {message!r}")
    return {**message, "content": content}


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
